"""Reading a segmentation, whatever it is stored as, into an exam's label array. What it is its content decides.

Accepted on the exam's own grid and, where the format knows one, its own frame of reference; anything else is refused
with a rule, never resampled or moved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from redraft.config.schema import Structure
from redraft.dicom.contours import Roi, referenced_series, require_frame, roi_mask, rois
from redraft.errors import LabelError, ReadError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.nrrd_file import read_nrrd
from redraft.segmentation.place import place
from redraft.segmentation.seg_in import SEG_CLASSES, seg_masks, seg_referenced_series, seg_segments
from redraft.segmentation.structures import LabelMap, Segment, Unknown, assign, codes_in
from redraft.volumes import Volume, grid_difference, read_volume

Kind = Literal["seg", "rtstruct", "nifti", "nrrd"]
RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
MAX_LAYERS = 64


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read.

    Attributes
    ----------
    labels : uint8, shape (I, J, K)
        The project's values.
    kinds : tuple
        Of each file, in order.
    contested : int
        Voxels that more than one structure claimed; see `LabelMap` for who got them.
    ignored : tuple of int
        Numbers of segments that are none of the project's structures.
    other_series : bool
        Whether a DICOM file says that it was drawn on another series (of the same frame of reference and grid).
    """

    labels: NDArray[np.uint8]
    kinds: tuple[Kind, ...]
    contested: int = 0
    ignored: tuple[int, ...] = ()
    other_series: bool = False


def read_segmentation(
    paths: Path | Sequence[Path],
    reference: ExamGeometry,
    structures: Sequence[Structure],
    *,
    threshold: float = 0.5,
    unknown: Unknown = "refuse",
    uid: Callable[[str], str] | None = None,
) -> NDArray[np.uint8]:
    """Labels of one or several files on an exam's grid, shape (I, J, K); see `interpret`."""
    return interpret(paths, reference, structures, threshold=threshold, unknown=unknown, uid=uid).labels


def interpret(
    paths: Path | Sequence[Path],
    reference: ExamGeometry,
    structures: Sequence[Structure],
    *,
    threshold: float = 0.5,
    unknown: Unknown = "refuse",
    uid: Callable[[str], str] | None = None,
) -> Reading:
    """Read a segmentation and say how it was read.

    Parameters
    ----------
    paths
        DICOM SEG, RTSTRUCT, NIfTI or NRRD. Several files are put together as if they were one.
    threshold : float
        Where a FRACTIONAL segmentation is cut, as a share of its maximum.
    unknown : str
        What to do with segments that are none of the structures: `refuse` (work handed back), `ignore` (clinical
        structure sets, which hold much else).
    uid : function, optional
        Original UID to the reference's, for files that were not de-identified.

    Raises
    ------
    LabelError, ReadError
        With the rule that decided; neither names a segment, for its name may be a patient's.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    if not files:
        raise ReadError("There is no segmentation to read.", rule="no_label")
    task = _Task(reference, structures, threshold, unknown, uid or str)
    kinds = tuple(task.read(path) for path in files)
    labels = task.map.labels
    return Reading(labels, kinds, task.map.contested, tuple(sorted(task.ignored)), task.other_series)


def kind_of(path: Path) -> Kind | Literal["dicom"]:
    """What a file is, by its first bytes. Raises ReadError for what is none of them."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(132)
    except OSError as error:
        raise ReadError(f"A segmentation cannot be opened ({error.strerror}).", rule="unreadable") from None
    if head[128:] == b"DICM":
        return "dicom"
    if head[:4] == b"NRRD":
        return "nrrd"
    if head[:2] == b"\x1f\x8b" or head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        return "nifti"
    if head[:2] in (b"\x08\0", b"\x02\0"):  # DICOM without preamble begins with group 0008 or 0002
        return "dicom"
    raise ReadError("A file is none of DICOM SEG, RTSTRUCT, NIfTI and NRRD.", rule="unknown_format")


def open_dicom(path: Path) -> Dataset:
    """Read a DICOM file. Raises ReadError (rule unreadable) for a damaged one."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning would quote the value that it complains about
            dataset = pydicom.dcmread(path, force=True)
            for _ in dataset.iterall():  # values are converted when they are asked for: now, where it can be refused
                pass
            return dataset
    except Exception:  # what pydicom raises for damaged bytes has no common base
        raise ReadError(
            "A DICOM file cannot be read.", "Export it again; it may be cut short.", rule="unreadable"
        ) from None


@dataclass
class _Task:
    reference: ExamGeometry
    structures: Sequence[Structure]
    threshold: float
    unknown: Unknown
    uid: Callable[[str], str]
    ignored: set[int] = field(default_factory=set)
    other_series: bool = False
    map: LabelMap = field(init=False)

    def __post_init__(self) -> None:
        self.map = LabelMap(self.reference.shape, self.structures)

    def read(self, path: Path) -> Kind:
        kind = kind_of(path)
        if kind == "nifti":
            values = {s.value for s in self.structures}
            self._values(read_labels(path, self.reference.grid, values, "the exam"), (slice(None),) * 3)
            return kind
        if kind == "nrrd":
            self._nrrd(path)
            return kind
        dataset = open_dicom(path)
        sop_class = str(dataset.get("SOPClassUID") or "")
        try:
            if sop_class in SEG_CLASSES:
                self._seg(dataset)
                return "seg"
            if sop_class == RTSTRUCT_CLASS or dataset.get("Modality") == "RTSTRUCT":
                self._rtstruct(dataset)
                return "rtstruct"
        except (LabelError, ReadError):
            raise
        except Exception as error:  # pydicom converts values when they are asked for, and its messages quote them
            measured: dict[str, object] = {"error": type(error).__name__}
            what = "A DICOM segmentation is damaged."
            raise ReadError(what, "Export it again.", rule="unreadable", measured=measured) from None
        raise ReadError("A DICOM file is neither a segmentation nor a structure set.", rule="unknown_format")

    def _assign(self, segments: Sequence[Segment]) -> dict[int, Structure | None]:
        found = assign(segments, self.structures, self.unknown)
        self.ignored |= {number for number, structure in found.items() if structure is None}
        return found

    def _series(self, found: Sequence[str]) -> None:
        series = self.reference.series
        self.other_series |= bool(series and found and series not in {self.uid(item) for item in found})

    def _seg(self, dataset: Dataset) -> None:
        self._series(seg_referenced_series(dataset))
        frame = str(dataset.get("FrameOfReferenceUID") or "")
        require_frame(self.uid(frame) if frame else "", self.reference.frame_of_reference)
        found = self._assign(seg_segments(dataset))
        for item in seg_masks(dataset, self.reference, frame, self.threshold):
            structure = found[item.segment]
            if structure is not None:
                self.map.add(structure.value, item.where, item.mask)

    def _rtstruct(self, dataset: Dataset) -> None:
        self._series(referenced_series(dataset))
        listed = rois(dataset)
        segments = {roi.number: _segment(roi) for roi in listed}
        found = self._assign(list(segments.values()))
        for roi in listed:
            structure = found[roi.number]
            if structure is not None and roi.contours is not None:
                frame = roi.frame_of_reference
                require_frame(self.uid(frame) if frame else "", self.reference.frame_of_reference)
                self.map.add(structure.value, ..., roi_mask(roi, self.reference))

    def _nrrd(self, path: Path) -> None:
        # A segmentation may be cropped to what is drawn, and stacked in layers; it is never larger than its image.
        data = read_nrrd(path, MAX_LAYERS * int(np.prod(self.reference.shape)))
        part = (0, 1, 2) if data.segments else ()
        placement = place(self.reference, data.lps, data.layers.shape[1:], part=part)
        found = self._assign(list(data.segments.values())) if data.segments else {}
        for n, layer in enumerate(data.layers):
            array = placement.apply(layer)
            if not data.segments:
                self._values(checked(array, {s.value for s in self.structures}, "the exam"), placement.where)
                continue
            for value in np.unique(array).tolist():
                segment = data.segments.get((n, value))
                if segment is None and value:
                    raise LabelError("The label holds values that none of its segments describes.",
                                     rule="unknown_values", measured={"values": [value]})  # fmt: skip
                structure = found[segment.number] if segment is not None else None
                if structure is not None:
                    self.map.add(structure.value, placement.where, array == value)

    def _values(self, labels: NDArray[np.uint8], where: tuple[Any, ...]) -> None:
        for structure in self.structures:
            self.map.add(structure.value, where, labels == structure.value)


def _segment(roi: Roi) -> Segment:
    """A structure set has no place for anatomic regions: structures that need one are found by name."""
    modifiers = [c for item in roi.codes for c in codes_in(item.get("SegmentedPropertyTypeModifierCodeSequence"))]
    return Segment(roi.number, roi.name, next(codes_in(roi.codes), None), (), tuple(modifiers))


def read_labels(path: Path, reference: Volume, values: set[int], name: str) -> NDArray[np.uint8]:
    """Read a NIfTI label file for one exam. Raises LabelError naming `name` for another grid or unknown values."""
    volume = read_volume(path)
    difference = grid_difference(reference, volume)
    if difference is not None:
        raise LabelError(f"The label of {name} is on another grid.", "Export it on the image's own grid.",
                         rule="grid", measured=difference)  # fmt: skip
    return checked(volume.array, values, name)


def checked(array: NDArray[Any], values: set[int], name: str) -> NDArray[np.uint8]:
    """The array as labels. Raises LabelError for fractions (not_integer) and values not listed (unknown_values)."""
    if not np.isfinite(array).all() or (array != np.rint(array)).any():
        raise LabelError(f"The label of {name} holds values that are no integers.", rule="not_integer")
    unknown = sorted(set(np.unique(array).astype(int).tolist()) - values - {0})
    if unknown:
        raise LabelError(
            f"The label of {name} holds unknown values {unknown[:5]}.", f"Allowed: 0 and {sorted(values)}.",
            rule="unknown_values", measured={"values": unknown[:10]},
        )  # fmt: skip
    return array.astype(np.uint8)
