"""Truth as RTSTRUCT (PS3.3 A.19) whose contours give back the voxel truth exactly.

Contours run along pixel edges, so that no voxel's centre is ever on one; outer borders and holes are contours of their
own and combine by the even-odd rule.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from redraft.phantom.series import Uids, image_reference, image_references

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
COLOURS = ([0, 200, 120], [230, 60, 60], [80, 120, 255], [240, 200, 40])


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Trace the pixel edges between inside and outside.

    Parameters
    ----------
    mask : bool, shape (I, J)

    Returns
    -------
    list of float64 arrays, shape (N, 2)
        Closed loops (first point not repeated), corners at half-integer pixel coordinates. A pixel is inside where its
        centre lies in an odd number of loops.
    """
    padded = np.pad(np.asarray(mask, dtype=np.int8), 1)
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Each edge is directed so that the inside lies on one hand: as many edges leave a corner as arrive there, hence
    # walking on always closes a loop.
    for axis in (0, 1):
        change = np.diff(padded, axis=axis)
        for i, j in np.argwhere(change).tolist():
            a, b = ((i, j - 1), (i, j)) if axis == 0 else ((i, j), (i - 1, j))
            if change[i, j] < 0:
                a, b = b, a
            following.setdefault(a, []).append(b)
    loops = []
    while following:
        start = here = min(following)
        loop = []
        while True:
            loop.append(here)
            nexts = following[here]
            there = nexts.pop()
            if not nexts:
                del following[here]
            if there == start:
                break
            here = there
        points = np.array(loop, dtype=float)
        before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
        turns = ((points - before) != (after - points)).any(axis=1)
        loops.append(points[turns] - 0.5)
    return loops


def build_rtstruct(
    header: Dataset,
    labels: NDArray[np.uint8],
    structures: Mapping[str, int],
    affine: NDArray[np.float64],
    uids: Uids,
) -> Dataset:
    """A structure set over one series; structures that are absent from the labels get no ROI.

    Parameters
    ----------
    header : Dataset
        Patient, study and equipment to carry over.
    labels : uint8, shape (I, J, K)
    structures : mapping
        Name to label value.
    affine : float64, shape (4, 4)
        From (i, j, k) to LPS mm.
    """
    dataset = Dataset()
    dataset.update(header)
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTSTRUCT_CLASS, uids.truth
    dataset.SeriesInstanceUID, dataset.Modality, dataset.SeriesNumber = uids.truth_series, "RTSTRUCT", 4
    dataset.FrameOfReferenceUID = uids.frame
    dataset.InstanceNumber = 1
    dataset.StructureSetLabel, dataset.ApprovalStatus = "TRUTH", "UNAPPROVED"
    dataset.StructureSetDate, dataset.StructureSetTime = header.StudyDate, header.StudyTime
    dataset.ReferencedFrameOfReferenceSequence = Sequence([_frame(uids)])
    rois, contours, observations = [], [], []
    for number, (name, value) in enumerate(structures.items(), 1):
        mask = labels == value
        if not mask.any():
            continue
        roi = Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, uids.frame
        roi.ROIName, roi.ROIGenerationAlgorithm = name, "AUTOMATIC"
        rois.append(roi)
        item = Dataset()
        item.ReferencedROINumber, item.ROIDisplayColor = number, COLOURS[(number - 1) % len(COLOURS)]
        item.ContourSequence = Sequence(_contours(mask, affine, uids))
        contours.append(item)
        observation = Dataset()
        observation.ObservationNumber = observation.ReferencedROINumber = number
        observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
        observations.append(observation)
    dataset.StructureSetROISequence = Sequence(rois)
    dataset.ROIContourSequence = Sequence(contours)
    dataset.RTROIObservationsSequence = Sequence(observations)
    return dataset


def _frame(uids: Uids) -> Dataset:
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = uids.series
    series.ContourImageSequence = Sequence(image_references(uids.instances))
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, uids.study
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID = uids.frame
    frame.RTReferencedStudySequence = Sequence([study])
    return frame


def _contours(mask: NDArray[np.bool_], affine: NDArray[np.float64], uids: Uids) -> list[Dataset]:
    result = []
    for k in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        for loop in outlines(mask[:, :, k]):
            voxels = np.c_[loop, np.full(len(loop), k), np.ones(len(loop))]
            points = (voxels @ affine.T)[:, :3]
            item = Dataset()
            item.ContourImageSequence = Sequence([image_reference(uids.instances[k])])
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            # 0.1 µm is far below half a pixel, and 16 characters (a DS) hold it for any coordinate of a body.
            item.ContourData = [f"{value + 0.0:.4f}" for value in points.ravel().tolist()]
            result.append(item)
    return result
