"""One CT series as DICOM (PS3.3 A.3): images with what a scanner writes, names included."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from redraft.errors import StorageError
from redraft.phantom.identities import Identity

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
KERNELS = ("B30f", "B31f", "Br40d")
PRIVATE_GROUP, PRIVATE_CREATOR = 0x0029, "REDRAFT PHANTOM 1.0"


@dataclass(frozen=True)
class Uids:
    """The UIDs of one exam, made from seed and number: the same on every machine."""

    study: str
    series: str
    frame: str
    truth: str
    truth_series: str
    instances: tuple[str, ...]

    @classmethod
    def of(cls, seed: int, number: int, slices: int) -> Uids:
        def uid(*parts: object) -> str:
            text = "/".join(map(str, ("redraft phantom uid", seed, number, *parts)))
            return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"

        return cls(
            study=uid("study"), series=uid("series"), frame=uid("frame"), truth=uid("rtstruct"),
            truth_series=uid("rtstruct series"), instances=tuple(uid("instance", k) for k in range(slices)),
        )  # fmt: skip


def exam_header(identity: Identity, uids: Uids, number: int, visit: int) -> Dataset:
    """What the images and the structure set of one exam share: patient, study, equipment."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID = uids.study
    # A second exam lies months after the first one.
    dataset.StudyDate = f"{2024 + visit}{1 + number % 12:02d}{1 + number % 28:02d}"
    dataset.StudyTime = f"{8 + number % 10:02d}{number * 7 % 60:02d}00"
    dataset.AccessionNumber = identity.accession
    dataset.Manufacturer, dataset.ManufacturerModelName = "Redraft Imaging (synthetic)", "Phantom 64"
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = "phantom 1", identity.device_serial
    dataset.StationName, dataset.InstitutionName = identity.station, identity.institution
    dataset.ReferringPhysicianName, dataset.OperatorsName = identity.physician, identity.operator
    dataset.StudyDescription = f"CT abdomen {identity.plain_name}"
    dataset.PatientName, dataset.PatientID = identity.name, identity.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = identity.birth_date, identity.sex
    dataset.PatientTelephoneNumbers, dataset.PatientAddress = identity.phone, identity.address
    dataset.PatientComments = f"{identity.plain_name}, born {identity.birth_date}, flank pain"
    dataset.PositionReferenceIndicator = ""
    dataset.StudyID = str(number)
    return dataset


def write_series(
    folder: Path, header: Dataset, identity: Identity, uids: Uids, hu: NDArray[np.int16], affine: NDArray[np.float64]
) -> None:
    """Write one file per slice.

    Parameters
    ----------
    hu : int16, shape (I, J, K)
        Hounsfield units between −1024 and 3071 (12 bits are stored).
    affine : float64, shape (4, 4)
        From (i, j, k) to LPS mm; axial, without shear.
    """
    columns, rows, slices = hu.shape
    spacing = np.diag(affine)[:3]
    dataset = Dataset()
    dataset.update(header)
    dataset.SOPClassUID = CT_CLASS
    dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = uids.series, uids.frame
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = header.StudyDate
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = header.StudyTime
    dataset.SeriesDescription = f"ABDOMEN VENOUS {spacing[2]:.1f} {identity.family}"
    dataset.BodyPartExamined, dataset.ProtocolName = "ABDOMEN", "Abdomen venous"
    dataset.SeriesNumber, dataset.AcquisitionNumber = 3, 1
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    # Thinner than the distance of the slices: who takes it for their spacing gets volumes that are too small.
    dataset.SliceThickness = _decimal(spacing[2] * 5 / 6)
    dataset.KVP, dataset.XRayTubeCurrent, dataset.ExposureTime = "120", 180, 500
    dataset.ConvolutionKernel = KERNELS[int(uids.series[-1]) % len(KERNELS)]
    dataset.ReconstructionDiameter = _decimal(columns * spacing[0])
    dataset.GantryDetectorTilt, dataset.PatientPosition = "0", "HFS"
    dataset.ContrastBolusAgent = "IODINATED (INVENTED)"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "-1024", "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    private = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    private.add_new(0x01, "LO", f"{identity.plain_name} {identity.patient_id}")
    for k in range(slices):
        dataset.SOPInstanceUID = uids.instances[k]
        dataset.InstanceNumber = slices - k  # against the spatial order on purpose
        position = affine[:3, 3] + k * affine[:3, 2]
        dataset.ImagePositionPatient = [_decimal(value) for value in position]
        dataset.SliceLocation = _decimal(position[2])
        stored = hu[:, :, k].T.astype(np.int32) + 1024
        dataset.PixelData = np.ascontiguousarray(stored.astype("<u2")).tobytes()
        save(folder / f"IM{slices - k:04d}.dcm", dataset)


def save(path: Path, dataset: Dataset) -> None:
    """Write a DICOM file whose bytes depend on the dataset alone.

    No flush to disk per file as for records: a phantom that was cut short is written again, to the same bytes.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    # Both are given, else pydicom would write its own version, and the bytes would change with it.
    meta.ImplementationClassUID = "2.25.302841967301648277140983251690872345971"
    meta.ImplementationVersionName = "REDRAFT_PHANTOM"
    dataset.file_meta = meta
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise StorageError(
            f"Cannot write {path.parent}: {error.strerror}.", "Free disk space or take a folder that is writable."
        ) from error


def image_reference(uid: str) -> Dataset:
    """Reference to one CT image."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT_CLASS, uid
    return item


def image_references(uids: Sequence[str]) -> list[Dataset]:
    """References to CT images."""
    return [image_reference(uid) for uid in uids]


def _decimal(value: float) -> str:
    """A DS of at most 16 characters, exact to 0.1 µm."""
    return f"{round(float(value), 4) + 0.0:.4f}".rstrip("0").rstrip(".")
