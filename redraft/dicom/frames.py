"""Frames: what one file holds, image by image, whether it holds one or many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from redraft.dicom.decode import PixelSource
from redraft.dicom.elements import AGAIN, Elements
from redraft.dicom.geometry import SliceGeometry
from redraft.dicom.part10 import File
from redraft.errors import ReadError

# What may tell volumes of one series apart in single-frame objects (PS3.3 C.7.6.2, C.8.3, C.8.9, C.8.13.5).
CLASSIC_KEYS = (
    "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "DiffusionBValue", "DiffusionGradientOrientation",
    "InversionTime", "FrameReferenceTime", "NominalCardiacTriggerDelayTime", "TriggerTime", "ImageType",
    "AcquisitionNumber",
)  # fmt: skip
# The same in functional groups: macro to attribute (PS3.3 C.7.6.16, C.8.13.5, C.8.15.3).
GROUP_KEYS = (
    ("FrameContentSequence", "StackID"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRDiffusionSequence", "DiffusionDirectionality"),
    ("MRModifierSequence", "InversionTimes"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
    ("MRImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("CTImageFrameTypeSequence", "FrameType"),
    ("PETFrameTypeSequence", "FrameType"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
)

# What values mean (PS3.3 C.11.1.1.2, C.8.9.1): within one volume it is one thing.
UNITS = ("RescaleType", "Units", "SUVType", "DecayCorrection")


@dataclass
class Frame:
    """One image of a series.

    Attributes
    ----------
    uid : str
        Clear SOP Instance UID.
    number : int or None
        Frame number, counted from one; None in a single-frame object.
    keys : mapping
        What may tell volumes of one series apart, attribute to text.
    source : PixelSource or None
        None once the pixels have been taken.
    index : int
        Frame in the source, counted from zero.
    padding : tuple of (float, float) or None
        Stored values, both included, that stand for no measurement (PS3.3 C.7.5.1.1.2).
    units : tuple of str
        What the values are, one text for each of UNITS; empty where the object does not say.
    """

    uid: str = field(repr=False)
    number: int | None
    geometry: SliceGeometry
    slope: float
    intercept: float
    keys: Mapping[str, str]
    source: PixelSource | None = field(repr=False)
    index: int = 0
    padding: tuple[float, float] | None = None
    units: tuple[str, ...] = ()


def frames_of(file: File, *, enhanced: bool) -> list[Frame]:
    """The frames of one file.

    Raises
    ------
    ReadError
        What `PixelSource` raises, and: not_single_frame, frames_differ, rescale, modality_lut.
    """
    source = PixelSource(file)
    if "ModalityLUTSequence" in file.elements:
        raise ReadError(
            "A slice's values go through a table (Modality LUT).", "Only linear rescaling is read.",
            rule="modality_lut",
        )  # fmt: skip
    if enhanced:
        return _many(file, source)
    if source.frames > 1:
        raise ReadError(
            "A slice has more than one frame.", AGAIN, rule="not_single_frame", measured={"frames": source.frames}
        )
    return [_single(file, source)]


def _single(file: File, source: PixelSource) -> Frame:
    """The one frame of a classic object (PS3.3 A.3, A.4, A.21)."""
    elements = file.elements
    return Frame(
        uid=file.sop_instance,
        number=None,
        geometry=SliceGeometry(
            elements.numbers("ImagePositionPatient"),
            elements.numbers("ImageOrientationPatient"),
            elements.numbers("PixelSpacing"),
            (source.rows, source.columns),
        ),
        slope=_rescale(elements, "RescaleSlope", 1.0),
        intercept=_rescale(elements, "RescaleIntercept", 0.0),
        keys={key: _plain(elements, key) for key in CLASSIC_KEYS if key in elements},
        source=source,
        padding=_padding(elements),
        units=tuple(elements.text(name) for name in UNITS),
    )


def _many(file: File, source: PixelSource) -> list[Frame]:
    """The frames of an enhanced object: each attribute from the frame's own functional groups, else the shared ones."""
    elements = file.elements
    shared = next(iter(elements.items("SharedFunctionalGroupsSequence")), None)
    groups = elements.items("PerFrameFunctionalGroupsSequence")
    if len(groups) != source.frames:
        raise ReadError(
            f"An object declares {source.frames} frames and describes {len(groups)}.", AGAIN,
            rule="frames_differ", measured={"declared": source.frames, "described": len(groups)},
        )  # fmt: skip
    padding = _padding(elements)
    macros: dict[str, Elements | None] = {}

    def numbers(group: Elements, macro: str, keyword: str) -> tuple[float, ...]:
        found = _macro(group, shared, macro, macros)
        return () if found is None else found.numbers(keyword)

    frames = []
    for index, group in enumerate(groups):
        values = _macro(group, shared, "PixelValueTransformationSequence", macros)
        frames.append(
            Frame(
                uid=file.sop_instance,
                number=index + 1,
                geometry=SliceGeometry(
                    numbers(group, "PlanePositionSequence", "ImagePositionPatient"),
                    numbers(group, "PlaneOrientationSequence", "ImageOrientationPatient"),
                    numbers(group, "PixelMeasuresSequence", "PixelSpacing"),
                    (source.rows, source.columns),
                ),
                slope=1.0 if values is None else _rescale(values, "RescaleSlope", 1.0),
                intercept=0.0 if values is None else _rescale(values, "RescaleIntercept", 0.0),
                keys=_group_keys(group, shared, macros),
                source=source,
                index=index,
                padding=padding,
                units=tuple(
                    (values if values is not None and name in values else elements).text(name) for name in UNITS
                ),
            )
        )
    return frames


def _macro(
    group: Elements, shared: Elements | None, name: str, kept: dict[str, Elements | None]
) -> Elements | None:  # fmt: skip
    """One functional group macro of a frame; the shared one, looked up once, where the frame has none of its own."""
    if name in group:
        return next(iter(group.items(name)), None)
    if name not in kept:
        kept[name] = next(iter(shared.items(name)), None) if shared is not None else None
    return kept[name]


def _group_keys(group: Elements, shared: Elements | None, kept: dict[str, Elements | None]) -> dict[str, str]:
    keys = {}
    for name, keyword in GROUP_KEYS:
        macro = _macro(group, shared, name, kept)
        if macro is not None and keyword in macro:
            keys[keyword] = _plain(macro, keyword)
        if macro is not None and keyword == "DiffusionBValue":
            for direction in macro.items("DiffusionGradientDirectionSequence"):
                keys["DiffusionGradientOrientation"] = _plain(direction, "DiffusionGradientOrientation")
    return keys


def _plain(elements: Elements, keyword: str) -> str:
    """A value as text; numbers in their shortest form, so that ``02`` and ``2.0`` are one."""
    values = elements.numbers(keyword)
    return "\\".join(f"{value:.10g}" for value in values) if values else elements.text(keyword)


def _rescale(elements: Elements, keyword: str, default: float) -> float:
    """Rescale slope or intercept; the default where it is absent or empty, refused where it is no number."""
    if not elements.text(keyword):
        return default
    value = elements.number(keyword, float("nan"))
    if not abs(value) < float("inf"):
        raise ReadError("Rescale slope or intercept is not a number.", AGAIN, rule="rescale")
    return value


def _padding(elements: Elements) -> tuple[float, float] | None:
    first, last = elements.integer("PixelPaddingValue"), elements.integer("PixelPaddingRangeLimit")
    if first is None:
        return None
    ends = (first, first if last is None else last)
    if elements.integer("PixelRepresentation") == 1:  # written as US where it is SS by its meaning
        ends = (_signed(ends[0]), _signed(ends[1]))
    return (min(ends), max(ends))


def _signed(value: int) -> int:
    return value - (1 << 16) if value >= 1 << 15 else value
