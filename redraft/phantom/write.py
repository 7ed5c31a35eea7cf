"""Writing phantom exams as DICOM: the same (exam number, seed) gives the same bytes, whatever else is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from redraft.files import atomic_path, write_text
from redraft.phantom.anatomy import KIDNEY, TUMOR, draw_anatomy
from redraft.phantom.identities import Identity, draw_identity
from redraft.phantom.rtstruct import CT_CLASS, build_rtstruct

SHAPE = (96, 80, 32)
SPACING = (3.6, 3.6, 6.0)
STRUCTURES = {"kidney": KIDNEY, "kidney_tumor": TUMOR}
EXAMS_PER_PAIR = 6  # every sixth exam is a second exam of the patient before


@dataclass(frozen=True)
class PhantomReport:
    """What was written."""

    exams: int
    subjects: int
    with_tumor: int
    planted: tuple[str, ...]


def write_phantom(
    out: Path,
    exams: int,
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
) -> PhantomReport:
    """Write `exams` synthetic CT series below `out/images` and their truth (RTSTRUCT) below `out/truth`.

    `out/planted_identifiers.json` lists every invented identifier in the headers; it lies beside the images so that a
    leak check has something to look for.
    """
    planted: set[str] = set()
    subjects = set()
    tumors = 0
    for number in range(exams):
        subject = number - 1 if number % EXAMS_PER_PAIR == EXAMS_PER_PAIR - 1 else number
        subjects.add(subject)
        identity = draw_identity(_rng(seed, "identity", subject), subject)
        planted.update(identity.planted())
        # Balanced in every prefix: a short demo has tumours too.
        tumor = bool(_rng(seed, "pair", number // 2).integers(2)) == bool(number % 2)
        tumors += tumor
        anatomy = draw_anatomy(_rng(seed, "anatomy", number), shape, spacing, tumor)
        _write_exam(out, seed, number, identity, anatomy.hu, anatomy.labels, spacing)
    write_text(out / "planted_identifiers.json", json.dumps(sorted(planted), ensure_ascii=False, indent=1) + "\n")
    return PhantomReport(exams, len(subjects), tumors, tuple(sorted(planted)))


def _rng(seed: int, kind: str, number: int) -> np.random.Generator:
    digest = hashlib.sha256(f"redraft phantom/{seed}/{kind}/{number}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _uid(seed: int, *parts: object) -> str:
    digest = hashlib.sha256("/".join(map(str, ("redraft phantom uid", seed, *parts))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _write_exam(
    out: Path, seed: int, number: int, identity: Identity, hu: np.ndarray, labels: np.ndarray,
    spacing: tuple[float, float, float],
) -> None:  # fmt: skip
    columns, rows, slices = hu.shape
    origin = [-(n - 1) / 2 * step for n, step in zip(hu.shape, spacing, strict=True)]
    base = _base(seed, number, identity)
    series_uid, frame_uid = _uid(seed, number, "series"), _uid(seed, number, "frame")
    instances = [_uid(seed, number, "instance", k) for k in range(slices)]
    for k in range(slices):
        dataset = Dataset()
        dataset.update(base)
        dataset.SOPClassUID, dataset.SOPInstanceUID = CT_CLASS, instances[k]
        dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = series_uid, frame_uid
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.SeriesDescription = f"ABDOMEN VENOUS 6.0 {identity.name.split('^')[0]}"
        dataset.SeriesNumber, dataset.AcquisitionNumber = 3, 1
        dataset.InstanceNumber = slices - k  # against the spatial order on purpose
        dataset.ImagePositionPatient = [f"{v:.4f}" for v in (origin[0], origin[1], origin[2] + k * spacing[2])]
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        dataset.PixelSpacing = [f"{spacing[1]:g}", f"{spacing[0]:g}"]
        dataset.SliceThickness = "5"
        dataset.KVP, dataset.ConvolutionKernel, dataset.PatientPosition = "120", "B30f", "FFS"
        dataset.Rows, dataset.Columns = rows, columns
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "-1024", "1", "HU"
        dataset.WindowCenter, dataset.WindowWidth = "40", "400"
        dataset.PixelData = np.ascontiguousarray((hu[:, :, k].T.astype(np.int32) + 1024).astype("<u2")).tobytes()
        _save(out / "images" / f"exam_{number:04d}" / f"{k:04d}.dcm", dataset)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    uids = {
        "series": series_uid, "frame": frame_uid, "study": str(base.StudyInstanceUID),
        "own": _uid(seed, number, "rtstruct"), "own_series": _uid(seed, number, "rtstruct series"),
    }  # fmt: skip
    truth = build_rtstruct(base, labels, STRUCTURES, affine, instances, uids)
    _save(out / "truth" / f"exam_{number:04d}.dcm", truth)


def _base(seed: int, number: int, identity: Identity) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID = _uid(seed, number, "study")
    dataset.StudyDate = dataset.SeriesDate = f"2025{1 + number % 12:02d}{1 + number % 28:02d}"
    dataset.StudyTime = "101500"
    dataset.AccessionNumber = identity.accession
    dataset.Manufacturer, dataset.ManufacturerModelName = "Redraft Imaging (synthetic)", "Phantom 64"
    dataset.InstitutionName = identity.institution
    dataset.ReferringPhysicianName = identity.physician
    dataset.StudyDescription = f"CT abdomen {identity.name.replace('^', ' ')}"
    dataset.PatientName, dataset.PatientID = identity.name, identity.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = identity.birth_date, identity.sex
    dataset.PatientTelephoneNumbers = identity.phone
    dataset.StudyID = str(number)
    return dataset


def _save(path: Path, dataset: Dataset) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = "2.25.302841967301648277140983251690872345971"
    with atomic_path(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)
