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

from redraft.dicom.outlines import outlines, planar_contours
from redraft.phantom.series import Uids, image_reference, image_references

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
__all__ = ["build_rtstruct", "outlines"]

COLOURS = ([0, 200, 120], [230, 60, 60], [80, 120, 255], [240, 200, 40])


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
    for k, data in planar_contours(mask, affine, joined=False):
        item = Dataset()
        item.ContourImageSequence = Sequence([image_reference(uids.instances[k])])
        item.ContourGeometricType = "CLOSED_PLANAR"
        item.NumberOfContourPoints = len(data) // 3
        item.ContourData = data
        result.append(item)
    return result
