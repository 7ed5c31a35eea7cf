"""How a segmentation came about, and under whose header it is written as DICOM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Literal

from pydicom.dataset import Dataset

from redraft.config.schema import Structure
from redraft.errors import StorageError, UsageError
from redraft.segmentation.exam import ExamGeometry, derived_uid

Method = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]
# PS3.3 C.7.1.1, C.7.2.1, C.7.2.2: what a derived object says of its patient and study, the same as its images.
PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "OtherPatientIDsSequence", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified", "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber", "IssuerOfAccessionNumberSequence", "StudyDescription", "PatientAge", "PatientSize",
    "PatientWeight", "TimezoneOffsetFromUTC", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID",
    "ClinicalTrialSubjectID",
)  # fmt: skip
FRAME = ("FrameOfReferenceUID", "PositionReferenceIndicator")


@dataclass(frozen=True)
class Origin:
    """Where a label array came from.

    Attributes
    ----------
    identity : str
        Annotation or draft id: with `sha256`, what its UIDs are made from.
    sha256 : str
        Of the stored label file.
    method : str
        AUTOMATIC (a draft, or one that a reader accepted as it was), SEMIAUTOMATIC (corrected), MANUAL.
    at : datetime
        When it was made; the content's date.
    model_name, model_digest
        Of the model that drafted it; None for what was drawn from scratch.
    """

    identity: str
    sha256: str
    method: Method
    at: datetime
    model_name: str | None = None
    model_digest: str | None = None

    def __post_init__(self) -> None:
        if (self.method == "MANUAL") != (self.model_digest is None):
            raise ValueError("a model is named where it took part, and only there")

    @property
    def label(self) -> str:
        """Content label: what to expect, in one word."""
        return {"AUTOMATIC": "AI_DRAFT", "SEMIAUTOMATIC": "AI_CORRECTED", "MANUAL": "MANUAL"}[self.method]

    @property
    def date(self) -> str:
        return self.at.astimezone(UTC).strftime("%Y%m%d")

    @property
    def time(self) -> str:
        return self.at.astimezone(UTC).strftime("%H%M%S")


@dataclass(frozen=True)
class Naming:
    """UIDs of the written objects, and what keeps two addressings of one annotation apart.

    Parameters
    ----------
    uid : function
        JSON-like parts to a UID. Inside the project `derived_uid`; for a PACS one that needs the project's key, so
        that nobody without it can match an object there to a pseudonym here.
    """

    uid: Callable[..., str] = derived_uid

    def of(self, exam: ExamGeometry, origin: Origin, *role: Any) -> str:
        """The UID of something of this segmentation; the same for the same label array."""
        return self.uid(exam.exam_id, origin.identity, origin.sha256, *role)


def project_header(exam: ExamGeometry) -> Dataset:
    """Patient and study of an object that stays in the project: pseudonyms, and what de-identification kept."""
    study, _, _ = exam.complete()
    kept = Dataset.from_json(dict(exam.header)) if exam.header else Dataset()
    header = Dataset()
    for name in PATIENT_AND_STUDY:
        if name in kept:
            header[name] = kept[name]
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientID = header.PatientName = exam.subject_id
    header.PatientIdentityRemoved = "YES"
    if "DeidentificationMethod" not in header:
        header.DeidentificationMethod = "redraft: pseudonyms by keyed hash"
    header.StudyInstanceUID = study
    header.FrameOfReferenceUID = exam.frame_of_reference
    return filled(header)


def filled(header: Dataset) -> Dataset:
    """The header with the attributes that must be there, if only empty (type 2 of PS3.3 C.7.1.1 and C.7.2.1)."""
    for name in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
        "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
    ):  # fmt: skip
        if name not in header:
            setattr(header, name, "")
    return header


def require_codes(structures: Sequence[Structure]) -> None:
    """Raise UsageError where a structure has no code: a DICOM segmentation cannot be written without."""
    lacking = [s.name for s in structures if s.code is None]
    if lacking:
        raise UsageError(
            f"Structures without a code cannot be written as DICOM: {', '.join(lacking)}.",
            "Add `code: {category: {value, meaning}, type: {value, meaning}}` to each in project.yaml "
            "(SNOMED CT; docs/segmentations.md lists examples).",
            code="usage.no_code",
        )


def dicom_bytes(dataset: Dataset) -> bytes:
    """A finished object as the bytes of its file; the same object gives the same bytes."""
    buffer = BytesIO()
    try:
        dataset.save_as(buffer, enforce_file_format=True)
    except Exception as error:  # pydicom's messages quote values
        raise StorageError(f"A segmentation cannot be encoded ({type(error).__name__}).", "Report this.") from None
    return buffer.getvalue()
