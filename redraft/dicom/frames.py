"""Frames: what one file holds, image by image, whether it holds one or many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redraft.dicom.decode import PixelSource
from redraft.dicom.elements import Elements, File
from redraft.dicom.geometry import SliceGeometry
from redraft.errors import ReadError

# What tells volumes of one series apart, the plainest first (PS3.3 C.7.6.2, C.8.3, C.8.4, C.8.9).
SPLIT_KEYS = (
    "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "FrameReferenceTime", "AcquisitionNumber",
)  # fmt: skip


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
    """

    uid: str
    number: int | None
    geometry: SliceGeometry
    slope: float
    intercept: float
    keys: Mapping[str, str]
    source: PixelSource | None
    index: int = 0


def single_frame(file: File, source: PixelSource) -> Frame:
    """The one frame of a classic object (PS3.3 A.3, A.4, A.21)."""
    elements = file.elements
    return Frame(
        uid=elements.text("SOPInstanceUID"),
        number=None,
        geometry=SliceGeometry(
            elements.numbers("ImagePositionPatient"),
            elements.numbers("ImageOrientationPatient"),
            elements.numbers("PixelSpacing"),
            (source.rows, source.columns),
        ),
        slope=rescale(elements, "RescaleSlope", 1.0),
        intercept=rescale(elements, "RescaleIntercept", 0.0),
        keys={key: elements.text(key) for key in SPLIT_KEYS if key in elements},
        source=source,
    )


def rescale(elements: Elements, keyword: str, default: float) -> float:
    """Rescale slope or intercept; the default where it is absent or empty, refused where it is no number."""
    if not elements.text(keyword):
        return default
    value = elements.number(keyword, float("nan"))
    if not abs(value) < float("inf"):
        raise ReadError("Rescale slope or intercept is not a number.", rule="rescale")
    return value
