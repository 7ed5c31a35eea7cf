"""One series: its files to its volumes.

Each file is read and walked once. What the headers say decides whether the series is wanted and whether its geometry
holds; pixels are decoded volume by volume, and a slice's stored bytes are let go once it is in its volume.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from redraft.deid.quarantine import ASKED
from redraft.dicom.aside import ENHANCED, set_aside
from redraft.dicom.elements import AGAIN, Bounds
from redraft.dicom.frames import UNITS, Frame, frames_of
from redraft.dicom.geometry import SeriesGeometry, check_slices, series_geometry
from redraft.dicom.part10 import File, declared_voxels, walk_file
from redraft.dicom.pixels import stack, values_digest
from redraft.dicom.resample import resample
from redraft.dicom.split import check_turns, split
from redraft.errors import ExamError, ReadError
from redraft.selection import Selection
from redraft.volumes import Volume

if TYPE_CHECKING:
    from redraft.config.schema import Config


@dataclass(frozen=True)
class ReadRules:
    """What a project takes in, and what one series may ask for. Meanings as in project.yaml (`ingest`)."""

    modalities: tuple[str, ...] = ("CT", "MR", "PT")
    accept_secondary: bool = False
    gantry_tilt: str = "refuse"
    uneven_spacing: str = "refuse"
    max_spacing_mm: float = 20.0
    max_voxels: int = 600_000_000
    selection: Selection = field(default_factory=Selection)
    quarantine_modalities: tuple[str, ...] = ()
    nesting: int = 24
    elements: int = 500_000

    @classmethod
    def of(cls, config: Config, selection: Selection | None = None) -> ReadRules:
        """The rules of a project; `selection` is the source's."""
        ingest = config.ingest
        return cls(
            modalities=tuple(str(modality) for modality in ingest.modalities),
            accept_secondary=ingest.accept_secondary,
            gantry_tilt=ingest.gantry_tilt,
            uneven_spacing=ingest.uneven_spacing,
            max_spacing_mm=ingest.max_spacing_mm,
            max_voxels=ingest.max_voxels,
            selection=selection or Selection(),
            quarantine_modalities=config.deid.quarantine_modalities,
            nesting=ingest.limits.nesting,
            elements=ingest.limits.elements,
        )

    @property
    def bounds(self) -> Bounds:
        """What one file may ask for."""
        return Bounds(self.nesting, self.elements, self.max_voxels)

    @property
    def resampled(self) -> tuple[str, ...]:
        """Rules of geometry whose breach is resampled."""
        chosen = {"gantry_tilt": self.gantry_tilt, "uneven_spacing": self.uneven_spacing}
        return tuple(rule for rule, way in chosen.items() if way == "resample")


@dataclass(frozen=True)
class Instance:
    """Which image a slice is: clear SOP Instance UID, frame number (from one; None in a single-frame object), place."""

    uid: str = field(repr=False)
    frame: int | None
    position_lps: tuple[float, ...]


@dataclass(frozen=True)
class SeriesVolume:
    """One volume of a series.

    Attributes
    ----------
    key : str
        Empty for a series of one volume, else what tells this one apart, as ``TemporalPositionIdentifier=2``.
    volume : Volume
        Axes (column, row, slice), affine to RAS+ mm.
    slices : tuple of Instance
        In slice order; those it was resampled from where `measured` says so.
    orientation_lps : tuple of 6 float
        Directions of a row and of a column, in LPS.
    measured : dict
        For the receipt.
    frame_of_reference : str
        Clear UID.
    header : Dataset
        Of its first image, as `Series.header`.
    """

    key: str
    volume: Volume
    slices: tuple[Instance, ...] = field(repr=False)
    orientation_lps: tuple[float, ...]
    measured: dict[str, Any]
    frame_of_reference: str = field(repr=False)
    header: Dataset = field(repr=False)

    @property
    def resampled(self) -> bool:
        """Whether the volume's grid is not that of its slices: what refers to the slices must not go by its indices."""
        return "resampled" in self.measured


@dataclass
class Series:
    """An opened series: headers judged, pixels not yet decoded.

    Attributes
    ----------
    modality : str
        CT, MR or PT.
    instances : list of (str, int)
        Clear SOP Instance UID and bytes of every file.
    header : Dataset
        Of the first instance in order, without pixels. Class and instance UID are those of the meta information
        (PS3.10 7.1) where the dataset's are empty.
    markings : list of Dataset
        What its images say that decides about quarantine, each different answer once.
    """

    modality: str
    instances: list[tuple[str, int]] = field(repr=False)
    header: Dataset = field(repr=False)
    markings: list[Dataset] = field(repr=False)
    _parts: list[_Part] = field(repr=False)
    _frame_of_reference: str = field(repr=False)
    _measured: dict[str, Any]
    _max_voxels: int

    def volumes(self) -> Iterator[SeriesVolume | ExamError]:
        """The volumes one at a time; an error stands for a volume that cannot be read. Can be gone through once."""
        while self._parts:
            part = self._parts.pop(0)
            try:
                yield self._volume(part)
            except ExamError as error:
                yield error

    def _volume(self, part: _Part) -> SeriesVolume:
        frames, geometry = part.frames, part.geometry
        array, measured = stack(frames)
        volume = Volume(array, geometry.affine)
        if geometry.defects:
            volume, how = resample(array, [frame.geometry for frame in frames], geometry, self._max_voxels)
            measured.update(how)
        return SeriesVolume(
            key=part.key,
            volume=volume,
            slices=tuple(Instance(frame.uid, frame.number, frame.geometry.position) for frame in frames),
            orientation_lps=frames[0].geometry.orientation,
            measured={**self._measured, **measured},
            frame_of_reference=self._frame_of_reference,
            header=part.header,
        )


@dataclass
class _Part:
    """Frames of one volume in slice order, and how they lie."""

    key: str
    frames: list[Frame]
    geometry: SeriesGeometry
    header: Dataset


def open_series(paths: Sequence[Path], rules: ReadRules) -> Series:
    """Read the files of one series, judge their headers and geometry.

    Raises
    ------
    ExamError
        The whole series is refused. SetAside is raised where it is not what is wanted; its `verdict` tells a
        quarantined series from a refused one.
    """
    files = [_read(path, rules.bounds) for path in paths]
    if not files:
        raise ReadError("A series has no files.", rule="no_files")
    if len({file.elements.text("SeriesInstanceUID") for file in files}) > 1:
        raise ReadError("Files of several series were offered as one.", rule="mixed_series")
    set_aside(files, rules)
    _of_one_patient(files)
    _check_size(files, rules.max_voxels)
    enhanced = files[0].sop_class in ENHANCED
    frames: list[Frame] = []
    for file in files:
        frames += frames_of(file, enhanced=enhanced)
    check_slices([frame.geometry for frame in frames])
    parts, dropped = split(frames, values_digest)
    ordered = []
    headers: dict[str, Dataset] = {}
    for part in parts:
        _of_one_unit(part.frames)
        geometry = series_geometry([frame.geometry for frame in part.frames], rules.max_spacing_mm, rules.resampled)
        sorted_frames = [part.frames[n] for n in geometry.order]
        if geometry.defects:
            check_turns(sorted_frames)
        uid = sorted_frames[0].uid
        if uid not in headers:
            headers[uid] = _header(next(file for file in files if file.sop_instance == uid))
        ordered.append(_Part(part.key, sorted_frames, geometry, headers[uid]))
    return Series(
        modality=files[0].elements.text("Modality"),
        instances=[(file.sop_instance, file.size) for file in files],
        header=ordered[0].header,
        markings=_markings(files),
        _parts=ordered,
        _frame_of_reference=files[0].elements.text("FrameOfReferenceUID"),
        _measured=_remarks(files, dropped),
        _max_voxels=rules.max_voxels,
    )


def _of_one_patient(files: Sequence[File]) -> None:
    """Refuse a series whose files name several patients or studies: its exam could only be one's (PS3.3 A.1.2)."""
    for rule, keyword, what in (
        ("mixed_patients", "PatientID", "patients"),
        ("mixed_patients", "IssuerOfPatientID", "patients"),
        ("mixed_studies", "StudyInstanceUID", "studies"),
    ):
        found = {file.elements.text(keyword) for file in files}
        if keyword == "IssuerOfPatientID":
            found -= {""}  # added on the way by some archives
        if len(found) > 1:
            raise ReadError(
                f"The files of one series name several {what}.", "Have their identities mended, then send it again.",
                rule=rule, measured={what: len(found)},
            )  # fmt: skip


def _of_one_unit(frames: Sequence[Frame]) -> None:
    """Refuse a volume whose slices measure different things, or the same in different units."""
    for keyword, found in zip(UNITS, zip(*(frame.units for frame in frames), strict=True), strict=False):
        if len(set(found) - {""}) > 1:
            raise ReadError(
                "The slices of one volume are in several units.", "Send them as series of their own.",
                rule="mixed_units", measured={"by": keyword},
            )  # fmt: skip


def _check_size(files: Sequence[File], max_voxels: int) -> None:
    """Refuse what declares more than the project allows, before anything is made of it."""
    voxels = sum(declared_voxels(file.elements) for file in files)
    if voxels > max_voxels:
        raise ReadError(
            f"The series declares {voxels} voxels.", f"project.yaml allows {max_voxels} (ingest.max_voxels).",
            rule="too_large", measured={"voxels": voxels},
        )  # fmt: skip


def _markings(files: Sequence[File]) -> list[Dataset]:
    """Distinct answers of the files to what quarantine asks; empty ones are left out."""
    found = dict.fromkeys(tuple((name, file.elements.text(name)) for name in ASKED) for file in files)
    markings = []
    for answers in found:
        marking = Dataset()
        for name, text in answers:
            if text:
                marking[name] = DataElement(tag_for_keyword(name), "LO", text.split("\\"))
        markings.append(marking)
    return markings


def _remarks(files: Sequence[File], dropped: int) -> dict[str, Any]:
    """What the receipt says of a series beside its verdict."""
    remarks: dict[str, Any] = {}
    if dropped:
        remarks["identical_duplicates_dropped"] = dropped
    # How values are shown is the viewer's affair; the values are those of the modality (PS3.3 C.7.6.3.1.2).
    if any(file.elements.text("PhotometricInterpretation") == "MONOCHROME1" for file in files):
        remarks["photometric_interpretation"] = "MONOCHROME1"
    if any(file.elements.text("LossyImageCompression") == "01" for file in files):
        remarks["lossy_compression"] = True
    return remarks


def _read(path: Path, bounds: Bounds) -> File:
    try:
        return walk_file(path.read_bytes(), bounds)
    except OSError as error:
        raise ReadError("A file of the series cannot be read from its disk.", AGAIN, rule="read_failed",
                        measured={"error": type(error).__name__}) from None  # fmt: skip


def _header(file: File) -> Dataset:
    """A file's header as pydicom reads it; refused where that is another than the one that was judged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            dataset = pydicom.dcmread(BytesIO(file.header))
            for _ in dataset.iterall():  # values are converted when they are asked for: now, where it can be refused
                pass
            for keyword, value in (("SOPClassUID", file.sop_class), ("SOPInstanceUID", file.sop_instance)):
                if not dataset.get(keyword):
                    setattr(dataset, keyword, value)
            judged = (file.elements.text("SeriesInstanceUID"), file.sop_class, file.elements.integer("Rows"))
            same = judged == (str(dataset.get("SeriesInstanceUID") or ""), dataset.SOPClassUID, dataset.get("Rows"))
    except Exception as error:  # what pydicom raises for damaged bytes has no common base, and may quote them
        raise ReadError("A header cannot be read.", AGAIN, rule="unreadable",
                        measured={"error": type(error).__name__}) from None  # fmt: skip
    if not same:
        raise ReadError("A header reads differently by its lengths and by its elements.", AGAIN, rule="malformed")
    return dataset
