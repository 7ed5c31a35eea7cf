"""DICOM Segmentation Storage (PS3.3 A.51, C.8.20) and Label Map Segmentation Storage (A.92) into masks.

Frames are addressed by where they lie, never by their order. A slice without a frame is background.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from redraft.dicom.contours import require_frame
from redraft.errors import LabelError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.place import Placement, place
from redraft.segmentation.structures import Segment, codes_in

SEG_CLASSES = {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"}
_EXPORT = "Export it again from the program that made it."
# Thicker slices than the image's: a segmentation of another series, although its slices may lie on ours.
SPACING_SHARE = 0.05


@dataclass(frozen=True)
class SegMask:
    """One segment's mask in one frame, at an index expression of the exam's label array."""

    segment: int
    where: tuple[slice, ...]
    mask: NDArray[np.bool_]


def seg_segments(dataset: Dataset) -> list[Segment]:
    """What the file says of its segments; a label map's background is none.

    Raises LabelError (rule bad_segmentation) where segments are not described, or two by one number.
    """
    found = []
    try:
        for item in dataset.SegmentSequence:
            number = int(item.SegmentNumber)
            if number == 0 and _kind(dataset) == "LABELMAP":
                continue
            types = list(item.get("SegmentedPropertyTypeCodeSequence") or ())
            regions = list(item.get("AnatomicRegionSequence") or ())
            modifiers = [
                code
                for holder, key in [
                    *((t, "SegmentedPropertyTypeModifierCodeSequence") for t in types),
                    *((r, "AnatomicRegionModifierSequence") for r in regions),
                ]
                for code in codes_in(holder.get(key))
            ]
            found.append(
                Segment(
                    number, str(item.get("SegmentLabel", "")), next(codes_in(types), None), tuple(codes_in(regions)),
                    tuple(modifiers),
                )
            )  # fmt: skip
    except (AttributeError, TypeError, ValueError):
        found = []
    if len({segment.number for segment in found}) < len(found) or not found:
        raise _bad("its segments are not described, or two by one number")
    return found


def seg_masks(dataset: Dataset, exam: ExamGeometry, frame_of_reference: str, threshold: float) -> Iterator[SegMask]:
    """Masks of a segmentation object, frame by frame; one frame's pixels are unpacked at a time.

    Parameters
    ----------
    frame_of_reference : str
        What the file's must be.
    threshold : float
        Of a FRACTIONAL segmentation's Maximum Fractional Value; a voxel at it or above is inside.

    Raises
    ------
    LabelError
        Rules frame_of_reference, grid, tiled, truncated, duplicate_frames, undecodable, bad_segmentation.
    """
    require_frame(str(dataset.get("FrameOfReferenceUID") or ""), frame_of_reference)
    kind = _kind(dataset)
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise _bad("its type is none of BINARY, FRACTIONAL and LABELMAP")
    if "TotalPixelMatrixColumns" in dataset or dataset.get("DimensionOrganizationType") in (
        "TILED_FULL",
        "TILED_SPARSE",
    ):
        raise LabelError("The segmentation is tiled.", "Tiled segmentations are of slides.", rule="tiled")
    described = {segment.number for segment in seg_segments(dataset)}
    limit = _limit(dataset, threshold) if kind == "FRACTIONAL" else 1
    seen: set[tuple[int, ...]] = set()
    places = [_frame(dataset, exam, n, kind) for n in range(_frames(dataset))]
    for (segment, placement), pixels in zip(places, _pixels(dataset, len(places)), strict=True):
        key = (segment, *(n for part in placement.where for n in (part.start, part.stop)))
        if key in seen:
            raise LabelError("Two frames show one segment at one place.", _EXPORT, rule="duplicate_frames")
        seen.add(key)
        # Rows run along the foreign j: (rows, columns) is (j, i), and the frame is one slice thick.
        array = placement.apply(pixels.T[:, :, None])
        if kind == "LABELMAP":
            for value in np.unique(array).tolist():
                if value in described:
                    yield SegMask(value, placement.where, array == value)
                elif value and value != dataset.get("PixelPaddingValue", 0):
                    raise _bad("it shows a segment that it does not describe")
        elif segment not in described:
            raise _bad("it shows a segment that it does not describe")
        else:
            yield SegMask(segment, placement.where, array >= limit)


def seg_referenced_series(dataset: Dataset) -> list[str]:
    """Series Instance UIDs that a segmentation refers to (PS3.3 C.12.4)."""
    holders = [dataset, *(dataset.get("StudiesContainingOtherReferencedInstancesSequence") or ())]
    items = itertools.chain.from_iterable(holder.get("ReferencedSeriesSequence") or () for holder in holders)
    return [str(item.SeriesInstanceUID) for item in items if item.get("SeriesInstanceUID")]


def _kind(dataset: Dataset) -> str:
    return str(dataset.get("SegmentationType", "")).upper()


def _bad(why: str) -> LabelError:
    return LabelError(f"The segmentation object is not valid: {why}.", _EXPORT, rule="bad_segmentation")


def _limit(dataset: Dataset, threshold: float) -> float:
    most = dataset.get("MaximumFractionalValue")
    if not isinstance(most, int) or not 0 < most <= 255:
        raise _bad("its Maximum Fractional Value is missing")
    if not 0 < threshold <= 1:
        raise ValueError("threshold is a share between 0 and 1")
    return threshold * most


def _frames(dataset: Dataset) -> int:
    try:
        count = int(dataset.get("NumberOfFrames") or 1)
        items = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    except (TypeError, ValueError):
        count, items = 0, ()
    if count < 1 or len(items) != count:
        raise _bad("its frames are not described")
    return count


def _frame(dataset: Dataset, exam: ExamGeometry, n: int, kind: str) -> tuple[int, Placement]:
    """Segment (0 for a label map) and place of a frame, from its functional groups or the shared ones."""
    own = dataset.PerFrameFunctionalGroupsSequence[n]
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def group(name: str) -> Any:
        for holder in (own, shared):
            if holder.get(name):
                return holder[name].value[0]
        raise _bad(f"a frame has no {name}")

    try:
        position = [float(v) for v in group("PlanePositionSequence").ImagePositionPatient]
        orientation = [float(v) for v in group("PlaneOrientationSequence").ImageOrientationPatient]
        measures = group("PixelMeasuresSequence")
        row_spacing, column_spacing = (float(v) for v in measures.PixelSpacing)
        between = measures.get("SpacingBetweenSlices")
        segment = 0 if kind == "LABELMAP" else int(group("SegmentIdentificationSequence").ReferencedSegmentNumber)
        size = (int(dataset.Columns), int(dataset.Rows), 1)
    except (AttributeError, TypeError, ValueError):
        raise _bad("a frame's position, orientation, spacing or segment is missing") from None
    if len(position) != 3 or len(orientation) != 6 or min(row_spacing, column_spacing) <= 0:
        raise _bad("a frame's position, orientation or spacing is no valid number")
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 1e-3:
        raise _bad("a frame's directions are not at right angles")
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 3] = row * column_spacing, column * row_spacing, position
    # One slice has no distance of its own; it takes the exam's along its normal.
    along = np.linalg.norm(exam.lps[:3, :3], axis=0)
    axis = int(np.abs(normal @ (exam.lps[:3, :3] / along)).argmax())
    # The exam's own axis rather than the normal: intake tolerates a slice stack that leans by a hair.
    lps[:3, 2] = exam.lps[:3, axis]
    cosine = float(abs(normal @ exam.lps[:3, axis])) / along[axis]
    if cosine < 1 - 1e-3:
        what = "The segmentation's slices are oblique to the image's."
        raise LabelError(what, rule="grid", measured={"cosine": round(cosine, 4)})
    if between is not None and abs(abs(float(between)) / along[axis] - 1) > SPACING_SHARE:
        measured: dict[str, object] = {
            "spacing_mm": round(float(between), 4),
            "expected_mm": round(float(along[axis]), 4),
        }
        raise LabelError("The segmentation's slices have another distance.", rule="grid", measured=measured)
    return segment, place(exam, lps, size, part=(2,))


def _pixels(dataset: Dataset, count: int) -> Iterator[NDArray[Any]]:
    """Frames as (rows, columns) arrays. Native frames of one bit need not begin at a byte's border (PS3.5 8.1.1)."""
    from pydicom.uid import UID

    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.get("BitsAllocated", 0))
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    data = dataset.get("PixelData")
    if data is None or bits not in (1, 8, 16):
        raise _bad("it holds no pixels, or of an unknown size")
    if syntax.is_compressed and not syntax.is_deflated:
        yield from _decoded(dataset, count)
        return
    if len(data) * 8 < count * rows * columns * bits:
        raise LabelError("The segmentation ends before its last frame.", _EXPORT, rule="truncated",
                         measured={"bytes": len(data), "expected": -(-count * rows * columns * bits // 8)})  # fmt: skip
    size = rows * columns
    for n in range(count):
        if bits == 1:
            first, last = n * size // 8, -(-(n + 1) * size // 8)
            unpacked = np.unpackbits(np.frombuffer(data[first:last], np.uint8), bitorder="little")
            flat = unpacked[n * size - first * 8 :][:size]
        else:
            dtype = np.dtype(f"{'<' if syntax.is_little_endian else '>'}u{bits // 8}")
            flat = np.frombuffer(data, dtype, size, n * size * dtype.itemsize)
        yield flat.reshape(rows, columns)


def _decoded(dataset: Dataset, count: int) -> Iterator[NDArray[Any]]:
    from pydicom.pixels import pixel_array

    for n in range(count):
        try:
            yield np.asarray(pixel_array(dataset, index=n if count > 1 else None, raw=True))
        except Exception:  # decoders raise unrelated types
            what = "A frame of the segmentation cannot be decoded."
            raise LabelError(what, _EXPORT, rule="undecodable", measured={"frame": n}) from None
