"""The images that an exam was made from: found again, and compared with the project's record of them one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydicom.dataset import Dataset

from redraft.dicom.geometry import DUPLICATE_MM, ORIENTATION_TOLERANCE
from redraft.errors import IntegrityError, ServiceError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.origin import FRAME, PATIENT_AND_STUDY

if TYPE_CHECKING:
    from redraft.security.pseudonyms import Pseudonyms


class Headers(Protocol):
    """A server that may hold them; see redraft.sources.dicomweb.DicomWebSource."""

    def headers(self, study: str, series: str) -> list[Dataset]: ...


# Servers to ask, in their order, by the name of the source that a series came from; the last is where it goes.
Servers = Callable[[str], Iterable[Headers]]


@dataclass(frozen=True)
class Originals:
    """The images that an exam was made from, found and compared: the exam under their names, and their header."""

    exam: ExamGeometry
    header: Dataset


def resolve(
    exam: ExamGeometry, links: Sequence[Mapping[str, Any]], pseudonyms: Pseudonyms, servers: Servers
) -> Originals:
    """The originals of an exam: from the server that it goes to, else from the folder that its link in the vault names,
    else from other servers.

    Where it goes decides: a patient may have been corrected there, and an older copy elsewhere would file the
    segmentation under the wrong one.

    Raises
    ------
    IntegrityError
        Code integrity.originals: they are not found, or are not the ones that the exam was made from.
    ServiceError
        The server that it goes to did not say whether it has them, or another one did not and no other place has.
    ReadError
        Rule exam_record: the exam's record does not name its study and series.
    """
    exam.complete()
    named = [link["identity"] for link in links if is_of(link["identity"], exam, pseudonyms)]
    if not named:
        raise _missing(exam, "the vault has no link for its series")
    for identity in named:
        *_, target = servers(str(identity.get("source") or ""))
        if headers := target.headers(*_study_and_series(identity)):
            return compare(exam, headers, pseudonyms)
    different: IntegrityError | None = None
    silent: ServiceError | None = None
    for place in (place for identity in named for place in _places(identity, servers)):
        try:
            if headers := place():
                return compare(exam, headers, pseudonyms)
        except IntegrityError as error:  # another place may still have them as they were
            different = different or error
        except ServiceError as error:  # another place may have them
            silent = silent or error
    raise silent or different or _missing(exam, "neither a folder nor a server has them")


def compare(exam: ExamGeometry, headers: Sequence[Dataset], pseudonyms: Pseudonyms) -> Originals:
    """Check that headers are those of the exam's images: identities, places and frame of reference, one by one.

    Raises IntegrityError (code integrity.originals) for the first difference; no clear value is in it.
    """
    by_uid = {pseudonyms.uid(str(header.get("SOPInstanceUID", ""))): header for header in headers}
    _, _, sop_class = exam.complete()
    originals = []
    for plane in exam.images:
        header = by_uid.get(plane.uid)
        if header is None:
            raise _different(exam, "an image is missing")
        position, orientation = _place(header, plane.frame)
        if len(position) != 3 or np.abs(np.subtract(position, plane.position_lps)).max() > DUPLICATE_MM:
            raise _different(exam, "an image lies elsewhere")
        if exam.on_grid and (
            len(orientation) != 6
            or np.abs(np.subtract(orientation, exam.orientation_lps)).max() > ORIENTATION_TOLERANCE
        ):
            raise _different(exam, "an image is oriented otherwise")
        if str(header.get("SOPClassUID", "")) != sop_class:
            raise _different(exam, "an image is of another SOP class")
        if pseudonyms.uid(str(header.get("FrameOfReferenceUID", ""))) != exam.frame_of_reference:
            raise _different(exam, "an image has another frame of reference")
        originals.append(header)
    first = originals[0]
    for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"):
        if len({str(original.get(name) or "") for original in originals}) > 1:
            raise _different(exam, "they are of several patients, studies or series")
    study, series = str(first.get("StudyInstanceUID", "")), str(first.get("SeriesInstanceUID", ""))
    patient = str(first.get("PatientID") or "") or study
    if (pseudonyms.uid(study), pseudonyms.uid(series)) != (exam.study, exam.series):
        raise _different(exam, "study or series differ")
    if pseudonyms.subject_id(patient) != exam.subject_id:
        raise _different(exam, "the patient differs")
    header = Dataset()
    for name in (*PATIENT_AND_STUDY, *FRAME):
        if name in first:
            header[name] = first[name]
    named = exam.named(
        study=study, series=series, sop_class=sop_class, frame_of_reference=str(first.FrameOfReferenceUID),
        originals=[str(original.SOPInstanceUID) for original in originals],
    )  # fmt: skip
    return Originals(named, header)


def is_of(identity: Mapping[str, Any], exam: ExamGeometry, pseudonyms: Pseudonyms) -> bool:
    """Whether a link of the vault is of the exam's series.

    By the series' own pseudonymous UID: several exams (4D, echoes) may come from one series.
    """
    uid = str(identity.get("SeriesInstanceUID") or "")
    return bool(uid) and pseudonyms.uid(uid) == exam.series


def _places(identity: Mapping[str, Any], servers: Servers) -> Iterator[Callable[[], list[Dataset]]]:
    """What to call for the headers of a series: each other place that may have them, the nearest first."""
    study, series = _study_and_series(identity)
    if identity.get("folder"):
        yield lambda: _from_folder(Path(str(identity["folder"])), series)
    *others, _ = servers(str(identity.get("source") or ""))
    for server in others:
        yield lambda server=server: server.headers(study, series)  # type: ignore[misc]


def _study_and_series(identity: Mapping[str, Any]) -> tuple[str, str]:
    return str(identity.get("StudyInstanceUID") or ""), str(identity["SeriesInstanceUID"])


def _from_folder(folder: Path, series: str) -> list[Dataset]:
    import pydicom

    from redraft.dicom.scan import files_below

    found = []
    if not folder.is_dir():
        return []
    for path in files_below([folder]):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they quote values
                header = pydicom.dcmread(path, stop_before_pixels=True)
                if str(header.get("SeriesInstanceUID", "")) == series:
                    found.append(header)
        except Exception:  # no DICOM, or damaged: what lacks is told when originals are compared
            continue
    return found


def _place(header: Dataset, frame: int | None) -> tuple[list[float], list[float]]:
    """Position and orientation of an image, or of one frame (from one) of a multi-frame object."""
    try:
        if frame is None:
            position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
        else:
            own = header.PerFrameFunctionalGroupsSequence[frame - 1]
            shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
            position, orientation = (
                (own if sequence in own else shared)[sequence].value[0].get(name)
                for sequence, name in (
                    ("PlanePositionSequence", "ImagePositionPatient"),
                    ("PlaneOrientationSequence", "ImageOrientationPatient"),
                )
            )
        return [float(v) for v in position or ()], [float(v) for v in orientation or ()]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return [], []


def _missing(exam: ExamGeometry, why: str) -> IntegrityError:
    return IntegrityError(
        f"The original images of exam {exam.exam_id} are not found: {why}.",
        "Make their folder or server reachable; exams from NIfTI have none.", code="integrity.originals",
    )  # fmt: skip


def _different(exam: ExamGeometry, why: str) -> IntegrityError:
    what = f"The images found for exam {exam.exam_id} are not the ones that it was made from: {why}."
    return IntegrityError(what, "Nothing was sent of it.", code="integrity.originals")
