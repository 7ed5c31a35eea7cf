"""Label arrays as RT Structure Set (PS3.3 A.19.3) whose contours, filled, give back the same voxels.

Holes are keyholes (PS3.3 C.8.8.6.3): the same mask for viewers that combine a slice's contours by the even-odd rule and
for those that unite them. Implicit VR, because Contour Data of an organ can exceed the 64 kB of an explicit DS.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian

from redraft import __version__
from redraft.config.schema import Structure, StructureKind
from redraft.dicom.outlines import planar_contours
from redraft.errors import LabelError
from redraft.segmentation.colours import colour
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.origin import PATIENT_AND_STUDY, Naming, Origin, filled, project_header, require_codes
from redraft.segmentation.seg_out import IMPLEMENTATION, SERIES_NUMBER

RTSTRUCT_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # retired, but what treatment planning systems look for
INTERPRETED = {StructureKind.ORGAN: "ORGAN", StructureKind.TUMOR: "GTV"}


def build_rtstruct(
    labels: NDArray[np.uint8],
    exam: ExamGeometry,
    structures: Sequence[Structure],
    origin: Origin,
    *,
    header: Dataset | None = None,
    naming: Naming | None = None,
) -> Dataset:
    """A structure set of one exam; one ROI per structure, without contours where nothing is drawn.

    Parameters and errors as `seg_out.build_seg`.
    """
    require_codes(structures)
    if labels.shape != exam.shape:
        raise LabelError("The labels are not on the exam's grid.", rule="grid", measured={"shape": list(labels.shape)})
    header = filled(header) if header is not None else project_header(exam)
    naming = naming or Naming()
    dataset = Dataset()
    for name in PATIENT_AND_STUDY:
        if name in header:
            dataset[name] = header[name]
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTSTRUCT_CLASS, naming.of(exam, origin, "structure set")
    dataset.SeriesInstanceUID = naming.of(exam, origin, "structure set series")
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "RTSTRUCT", SERIES_NUMBER + 1, 1
    dataset.SeriesDescription = f"Structures {origin.label.replace('_', ' ').lower()}"
    dataset.OperatorsName = ""
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.SoftwareVersions = "redraft", "redraft", __version__
    dataset.FrameOfReferenceUID = exam.frame_of_reference
    dataset.PositionReferenceIndicator = header.PositionReferenceIndicator
    dataset.StructureSetLabel, dataset.ApprovalStatus = origin.label, "UNAPPROVED"
    dataset.InstanceCreationDate = dataset.StructureSetDate = dataset.SeriesDate = origin.date
    dataset.InstanceCreationTime = dataset.StructureSetTime = dataset.SeriesTime = origin.time
    dataset.ReferencedFrameOfReferenceSequence = [_frame(exam)]
    dataset.StructureSetROISequence = [_roi(n, s, exam, origin) for n, s in enumerate(structures, 1)]
    dataset.ROIContourSequence = [_contours(n, s, labels == s.value, exam) for n, s in enumerate(structures, 1)]
    dataset.RTROIObservationsSequence = [_observation(n, s) for n, s in enumerate(structures, 1)]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTSTRUCT_CLASS, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION, "REDRAFT"
    dataset.file_meta = meta
    return dataset


def _frame(exam: ExamGeometry) -> Dataset:
    study_uid, series_uid, sop_class = exam.complete()
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid
    series.ContourImageSequence = [_image(sop_class, exam, k) for k in range(len(exam.images))]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, study_uid
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = exam.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(sop_class: str, exam: ExamGeometry, k: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, exam.images[k].uid
    if exam.images[k].frame is not None:
        item.ReferencedFrameNumber = exam.images[k].frame
    return item


def _roi(number: int, structure: Structure, exam: ExamGeometry, origin: Origin) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ReferencedFrameOfReferenceUID = number, exam.frame_of_reference
    item.ROIName, item.ROIGenerationAlgorithm = structure.name, origin.method
    if origin.model_digest is not None:
        item.ROIGenerationDescription = f"model {origin.model_digest[:56]}"
    return item


def _contours(number: int, structure: Structure, mask: NDArray[np.bool_], exam: ExamGeometry) -> Dataset:
    _, _, sop_class = exam.complete()
    item = Dataset()
    item.ROIDisplayColor = list(colour(number - 1))
    contours = []
    for k, data in planar_contours(mask, exam.lps, joined=True):
        contour = Dataset()
        if exam.on_grid:
            contour.ContourImageSequence = [_image(sop_class, exam, k)]
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(data) // 3
        contour.ContourData = data
        contours.append(contour)
    if contours:
        item.ContourSequence = contours
    item.ReferencedROINumber = number
    return item


def _observation(number: int, structure: Structure) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIInterpretedType, item.ROIInterpreter = INTERPRETED.get(structure.kind, ""), ""
    code = structure.code
    assert code is not None  # require_codes
    kind = _code(code.type)
    modifiers = [_code(m) for m in (code.modifier, code.laterality) if m is not None]
    if modifiers and code.region is None:
        kind.SegmentedPropertyTypeModifierCodeSequence = modifiers
    item.RTROIIdentificationCodeSequence = [kind]
    return item


def _code(code: object) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code.value, code.scheme  # type: ignore[attr-defined]
    item.CodeMeaning = code.meaning  # type: ignore[attr-defined]
    return item
