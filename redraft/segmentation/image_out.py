"""An exam's image as a DICOM series again, under the project's pseudonyms: for tools that open nothing else.

It is the series that segmentations of the exam refer to: the slices of exam.json under the UIDs that stand there, with
the voxels of image.nii.gz. Not the originals: of their headers there is what de-identification kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DS

from redraft.errors import LabelError, ReadError
from redraft.segmentation.exam import IMAGE_CLASSES, ExamGeometry
from redraft.segmentation.origin import project_header
from redraft.segmentation.seg_out import IMPLEMENTATION
from redraft.volumes import Volume, grid_difference

_DO = "Use the NIfTI files of the package."
_PIXELS = 0x0028
# Of group 0028 only what tells how to show the values; the rest describes pixels that are written anew.
_SHOWN = ("WindowCenter", "WindowWidth", "RescaleType")
# Type 2 of the image modules (PS3.3 C.7.3.1, C.7.5.1, C.7.6.1, C.8.2.1, C.8.3.1, C.8.9.1): there, if only empty.
_EMPTY = {
    "CT": ("KVP", "AcquisitionNumber"),
    "MR": ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
    "PT": ("CollimatorType", "RadiopharmaceuticalInformationSequence"),
}
_ALL = ("SeriesNumber", "Manufacturer", "PositionReferenceIndicator", "PatientPosition")
# Type 1 of the MR image module, where the header does not say.
_MR = {"ScanningSequence": "RM", "SequenceVariant": "NONE"}


def why_not(exam: ExamGeometry) -> ReadError | None:
    """Why an exam cannot be written as the series that it came from; None where its geometry allows it."""
    if not exam.on_grid:
        what = f"The slices of exam {exam.exam_id} were resampled and are no image's."
        return ReadError(what, _DO, rule="resampled")
    single = exam.sop_class in IMAGE_CLASSES.values()
    if not single or any(plane.frame is not None for plane in exam.images):
        what = f"Exam {exam.exam_id} comes from a multi-frame object."
        return ReadError(what, _DO, rule="multi_frame")
    return None


def build_series(image: Volume, exam: ExamGeometry) -> Iterator[Dataset]:
    """One image object per slice, in slice order; the same image gives the same bytes.

    Parameters
    ----------
    image : Volume
        Values (I, J, K) as in image.nii.gz. Pixels are 16 bit; where the values are no integers each slice gets a
        rescale slope of its own (PS3.3 C.11.1), if one gives the values back to the last digit of float32.

    Raises
    ------
    ReadError
        Rules resampled, multi_frame (see `why_not`), not_exact (values that 16 bits with a slope do not hold),
        exam_record, frame_of_reference.
    LabelError
        Rule grid: an image on another grid than the exam's record.
    """
    study, series, sop_class = exam.complete()
    if problem := why_not(exam):
        raise problem
    if difference := grid_difference(exam.grid, image):
        raise LabelError(f"The image of exam {exam.exam_id} is not on its record's grid.", rule="grid",
                         measured=difference)  # fmt: skip
    common = _common(exam, study, series, sop_class)
    integral = _integers(image.array)
    for k, plane in enumerate(exam.images):
        dataset = Dataset()
        dataset.update(common)
        dataset.SOPInstanceUID, dataset.InstanceNumber = plane.uid, k + 1
        dataset.ImagePositionPatient = [_decimal(value) for value in exam.position(k)]
        pixels, slope = (integral[:, :, k], None) if integral is not None else _scaled(image.array[:, :, k], exam)
        if slope is not None or exam.modality in ("CT", "PT"):
            dataset.RescaleIntercept, dataset.RescaleSlope = DS("0"), slope or DS("1")
        dataset.PixelRepresentation = int(pixels.dtype == np.int16)
        dataset.PixelData = np.ascontiguousarray(pixels.T).astype(pixels.dtype.newbyteorder("<")).tobytes()
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, plane.uid
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION, "REDRAFT"
        dataset.file_meta = meta
        yield dataset


def _common(exam: ExamGeometry, study: str, series: str, sop_class: str) -> Dataset:
    """What all slices share: the kept header, the project's names, and the geometry of the record."""
    common = Dataset.from_json(dict(exam.header)) if exam.header else Dataset()
    shown = {name: common[name] for name in _SHOWN if name in common}
    for element in list(common):
        if element.tag.group == _PIXELS:
            del common[element.tag]
    for element in shown.values():
        common.add(element)
    common.update(project_header(exam))
    for name in (*_ALL, *_EMPTY[exam.modality]):
        if name not in common:
            setattr(common, name, None if name != "RadiopharmaceuticalInformationSequence" else [])
    if exam.modality == "MR":
        for name, value in _MR.items():
            if not common.get(name):
                setattr(common, name, value)
    if "BodyPartExamined" not in common and "Laterality" not in common:
        common.Laterality = None  # type 2C: of which side a paired part is, where nobody says which part it is
    if not common.get("ImageType"):
        common.ImageType = ["DERIVED", "SECONDARY", *(["AXIAL"] if exam.modality == "CT" else ["OTHER"])]
    common.StudyInstanceUID, common.SeriesInstanceUID, common.SOPClassUID = study, series, sop_class
    common.Modality, common.FrameOfReferenceUID = exam.modality, exam.frame_of_reference
    columns, rows, _ = exam.shape
    along_i, along_j, between = (_decimal(value) for value in exam.spacing)
    common.Rows, common.Columns = rows, columns
    common.PixelSpacing = [along_j, along_i]  # between rows, then between columns (PS3.3 10.7.1.3)
    common.ImageOrientationPatient = [_decimal(value) for value in exam.orientation_lps]
    if "SliceThickness" not in common:
        common.SliceThickness = between
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    return common


def _integers(array: NDArray) -> NDArray | None:
    """The values as 16-bit integers, signed or not; None where they are no such integers."""
    if array.dtype.kind == "f" and (not np.isfinite(array).all() or (array != np.rint(array)).any()):
        return None
    low, high = float(array.min()), float(array.max())
    for dtype in (np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return None


def _scaled(values: NDArray, exam: ExamGeometry) -> tuple[NDArray, DS]:
    """One slice as 16-bit integers and the slope that gives its values back.

    Values that were rescaled once are multiples of their slope; the smallest step between two of them is a small
    multiple of it. A guess is taken only when it gives every value back.
    """
    exact = values.astype(np.float32)
    found = np.unique(exact[exact != 0]).astype(np.float64) if np.isfinite(exact).all() else np.empty(0)
    if not len(found) and np.isfinite(exact).all():
        return np.zeros(values.shape, np.int16), DS("1")
    steps = np.diff(np.unique(np.append(np.abs(found), 0.0)))
    for parts in range(1, 17) if len(found) else ():
        counts = np.rint(found / (float(steps.min()) / parts))
        if np.abs(counts).max() > 65_535:
            break
        slope = _slope(found, counts)
        if slope is None:
            continue
        stored = np.rint(exact.astype(np.float64) / float(slope))
        integers = _integers(stored)
        if integers is not None and np.array_equal((stored * float(slope)).astype(np.float32), exact):
            return integers, slope
    what = f"The values of exam {exam.exam_id} do not fit 16-bit pixels without loss."
    raise ReadError(what, _DO, rule="not_exact")


def _slope(values: NDArray[np.float64], counts: NDArray[np.float64]) -> DS | None:
    """The shortest decimal that, times each count, rounds to each float32 value; None where there is none."""
    single = values.astype(np.float32)
    edges = [(values + np.nextafter(single, np.float32(way)).astype(np.float64)) / 2 for way in (-np.inf, np.inf)]
    bounds = np.sort(np.stack(edges) / counts, axis=0)
    low, high = float(bounds[0].max()), float(bounds[1].min())
    if not 0 < low <= high:
        return None
    for digits in range(1, 16):
        text = f"{(low + high) / 2:.{digits}g}"
        if low < float(text) < high and len(text) <= 16:  # PS3.5 6.2
            return DS(text)
    return None


def _decimal(value: float) -> DS:
    """A DS of at most 16 characters (PS3.5 6.2), never a negative zero."""
    return DS(float(value) + 0.0, auto_format=True)
