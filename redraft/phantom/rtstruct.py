"""Truth as RTSTRUCT whose contours give back the voxel truth exactly.

Contours run along pixel edges, so that a voxel's centre is never on one; outer borders and holes are contours of their
own and combine by the even-odd rule.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed pixel-edge outlines of a 2D mask, each an array (N, 2) in pixel coordinates (corners at half-integers)."""
    padded = np.pad(mask, 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Each edge between inside and outside, directed so that the inside lies on one hand.
    for axis, flip in ((0, False), (1, True)):
        change = np.diff(padded.astype(np.int8), axis=axis)
        for i, j in np.argwhere(change != 0):
            up = change[i, j] > 0
            if axis == 0:
                a, b = (int(i), int(j) - 1), (int(i), int(j))
            else:
                a, b = (int(i) - 1, int(j)), (int(i), int(j))
            if up != flip:
                a, b = b, a
            following.setdefault(a, []).append(b)
    loops = []
    while following:
        start = min(following)
        loop, here = [start], start
        while True:
            nexts = following[here]
            there = nexts.pop()
            if not nexts:
                del following[here]
            if there == start:
                break
            loop.append(there)
            here = there
        points = np.array(loop, dtype=float)
        before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
        turns = ((points - before) != (after - points)).any(axis=1)
        loops.append(points[turns] - 0.5)
    return loops


def build_rtstruct(
    base: Dataset,
    labels: NDArray[np.uint8],
    structures: Mapping[str, int],
    affine_lps: NDArray[np.float64],
    instances: list[str],
    uids: Mapping[str, str],
) -> Dataset:
    """A structure set over one series.

    Parameters
    ----------
    base : Dataset
        Patient and study attributes to carry over.
    affine_lps : ndarray, shape (4, 4)
        From (i, j, k) to LPS mm.
    instances : list of str
        SOP Instance UIDs of the slices, by k.
    uids : mapping
        `series`, `frame`, `study` of the images and `own`, `own_series` of the structure set.
    """
    dataset = Dataset()
    dataset.update(base)
    dataset.SOPClassUID = RTSTRUCT_CLASS
    dataset.SOPInstanceUID = uids["own"]
    dataset.SeriesInstanceUID = uids["own_series"]
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetLabel = "TRUTH"
    dataset.StructureSetDate = base.StudyDate
    dataset.StructureSetTime = "120000"
    frame = Dataset()
    frame.FrameOfReferenceUID = uids["frame"]
    study, series = Dataset(), Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = uids["study"]
    series.SeriesInstanceUID = uids["series"]
    series.ContourImageSequence = Sequence([_image(uid) for uid in instances])
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.RTReferencedStudySequence = Sequence([study])
    dataset.ReferencedFrameOfReferenceSequence = Sequence([frame])
    rois, contours, observations = [], [], []
    for number, (name, value) in enumerate(structures.items(), 1):
        mask = labels == value
        if not mask.any():
            continue
        roi = Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, uids["frame"]
        roi.ROIName, roi.ROIGenerationAlgorithm = name, "AUTOMATIC"
        rois.append(roi)
        item = Dataset()
        item.ReferencedROINumber = number
        item.ContourSequence = Sequence(_contours(mask, affine_lps, instances))
        contours.append(item)
        observation = Dataset()
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
        observations.append(observation)
    dataset.StructureSetROISequence = Sequence(rois)
    dataset.ROIContourSequence = Sequence(contours)
    dataset.RTROIObservationsSequence = Sequence(observations)
    return dataset


def _contours(mask: NDArray[np.bool_], affine: NDArray[np.float64], instances: list[str]) -> list[Dataset]:
    result = []
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        for loop in outlines(mask[:, :, k]):
            voxels = np.c_[loop, np.full(len(loop), k), np.ones(len(loop))]
            points = (voxels @ affine.T)[:, :3]
            item = Dataset()
            item.ContourImageSequence = Sequence([_image(instances[int(k)])])
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            item.ContourData = [f"{value:.4f}" for value in points.ravel()]
            result.append(item)
    return result


def _image(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT_CLASS, uid
    return item
