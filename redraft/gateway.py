"""The way out to a PACS: segmentations under the names of the original images, by the key holder, on record.

Inside the project a segmentation refers to pseudonyms. Here the originals are found again (link table of the vault →
the folder or DICOMweb server that holds them), every one of them is compared with the project's record of it, and the
object that names them exists in memory only: it is sent, and never written into the project.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydicom.dataset import Dataset

from redraft.dicom.geometry import DUPLICATE_MM, ORIENTATION_TOLERANCE
from redraft.errors import ConfigError, ExamError, IntegrityError, RedraftError, ServiceError, UsageError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.export import Item, geometry
from redraft.segmentation.origin import FRAME, PATIENT_AND_STUDY, Naming, require_codes

if TYPE_CHECKING:
    from redraft.config.sources import DicomWebSource as Section
    from redraft.project import Project
    from redraft.security.pseudonyms import Pseudonyms

SENDING, SENT = "export.sending", "export.sent"
# A server that is silent to as many exams one after the other is not asked for the rest: each costs all its attempts.
SILENT = 2


class Server(Protocol):
    """What the gateway needs of a DICOMweb server; see redraft.sources.dicomweb.DicomWebSource."""

    def headers(self, study: str, series: str) -> list[Dataset]: ...

    def store(self, datasets: Sequence[Dataset]) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Sent:
    """What became of one exam's segmentation. `sop_instance` is the pseudonym of its UID."""

    exam_id: str
    ok: bool
    sop_instance: str | None
    rule: str | None = None
    why: str = ""


@dataclass(frozen=True)
class Originals:
    """The images that an exam was made from, found and compared: the exam under their names, and their header."""

    exam: ExamGeometry
    header: Dataset


def send(
    project: Project,
    items: Sequence[Item],
    to: str,
    *,
    by: str,
    reason: str,
    clock: Callable[[], datetime],
    open_server: Callable[[Project, Section], Server] | None = None,
) -> Iterator[Sent]:
    """Store the items' segmentations on the DICOMweb source `to`, one after the other.

    Each is on record in the ledger (who, why, what, where) before anything of it leaves; what became of it is recorded
    after. Storing one again sends the same object under the same UID.

    Raises
    ------
    UsageError
        Nobody or no reason is named, or a structure has no code.
    ConfigError
        project.yaml has no DICOMweb source of that name.
    SecurityError
        The vault or the keys are not at hand.
    """
    if not by.strip() or not reason.strip():
        raise UsageError("An export to a PACS needs who sends it and why.", "Give --by and --reason.")
    require_codes(project.config.structures)
    server = (open_server or _open)(project, _section(project, to))
    links = list(project.vault.links("series"))
    return _send_all(project, items, to, by, reason, clock, server, links)


def _send_all(
    project: Project, items: Sequence[Item], to: str, by: str, reason: str, clock: Callable[[], datetime],
    server: Server, links: Sequence[Mapping[str, Any]],
) -> Iterator[Sent]:  # fmt: skip
    from redraft.segmentation.seg_out import build_seg

    pseudonyms = project.pseudonyms
    silent = 0
    for item in items:
        if silent >= SILENT:
            yield Sent(item.exam_id, False, None, "service.unreachable", "Not tried: the server does not answer.")
            continue
        try:
            exam = geometry(project, item.exam_id)
            found = resolve(exam, links, pseudonyms, server)
            naming = Naming(lambda *parts: pseudonyms.uid("\x00".join(map(str, ("export", *parts)))))
            labels = item.labels()
            dataset = build_seg(
                labels, found.exam, project.config.structures, item.origin, header=found.header, naming=naming
            )
        except (ExamError, IntegrityError, ServiceError) as error:
            silent = silent + 1 if error.code == "service.unreachable" else 0
            yield Sent(item.exam_id, False, None, error.code, error.what)
            continue
        instance = pseudonyms.uid(str(dataset.SOPInstanceUID))
        record = {
            "exam_id": item.exam_id, "source_id": item.origin.identity, "source_sha256": item.origin.sha256,
            "to": to, "by": by, "reason": reason, "sop_instance": instance,
        }  # fmt: skip
        with project.ledger.tx(f"export:{by}", clock()) as tx:
            tx.event(SENDING, record)
        try:
            (answer,) = server.store([dataset])
            sent = Sent(item.exam_id, bool(answer.ok), instance, None if answer.ok else "refused", str(answer.why))
            silent = 0
        except RedraftError as error:
            sent = Sent(item.exam_id, False, instance, error.code, error.what)
            silent = silent + 1 if error.code == "service.unreachable" else 0
        with project.ledger.tx(f"export:{by}", clock()) as tx:
            tx.event(SENT, {**record, "ok": sent.ok, "rule": sent.rule})
        yield sent


def resolve(
    exam: ExamGeometry, links: Sequence[Mapping[str, Any]], pseudonyms: Pseudonyms, server: Server
) -> Originals:
    """The originals of an exam: from the folder that its link names, else from the server.

    Raises
    ------
    IntegrityError
        Code integrity.originals: they are not found, or are not the ones that the exam was made from.
    ServiceError
        The server did not say whether it has them, and no folder does.
    ReadError
        Rule exam_record: the exam's record does not name its study and series.
    """
    exam.complete()
    named = [link["identity"] for link in links if _is_of(link["identity"], exam, pseudonyms)]
    if not named:
        raise _missing(exam, "the vault has no link for its series")
    different: IntegrityError | None = None
    silent: ServiceError | None = None
    for identity in named:
        try:
            for headers in _places(identity, server):
                try:
                    return compare(exam, headers, pseudonyms)
                except IntegrityError as error:  # another place may still have them as they were
                    different = different or error
        except ServiceError as error:  # the folder of another link may have them
            silent = silent or error
    raise silent or different or _missing(exam, "neither its folder nor the server has them")


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


def _is_of(identity: Mapping[str, Any], exam: ExamGeometry, pseudonyms: Pseudonyms) -> bool:
    """By the series' own pseudonymous UID: several exams (4D, echoes) may come from one series."""
    uid = str(identity.get("SeriesInstanceUID") or "")
    return bool(uid) and pseudonyms.uid(uid) == exam.series


def _places(identity: Mapping[str, Any], server: Server) -> Iterator[list[Dataset]]:
    """Headers of a series, from each place that may have them."""
    series, study = str(identity["SeriesInstanceUID"]), str(identity.get("StudyInstanceUID") or "")
    if identity.get("folder"):
        headers = _from_folder(Path(str(identity["folder"])), series)
        if headers:
            yield headers
    if headers := server.headers(study, series):
        yield headers


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


def _section(project: Project, name: str) -> Section:
    from redraft.config.sources import DicomWebSource

    found = [s for s in project.config.ingest.sources if isinstance(s, DicomWebSource)]
    for section in found:
        if section.name == name:
            return section
    known = ", ".join(section.name for section in found) or "none"
    raise ConfigError(f"project.yaml has no DICOMweb source `{name}`.", f"DICOMweb sources of ingest.sources: {known}.")


def _open(project: Project, section: Section) -> Server:
    from redraft.security.secrets import read_secret
    from redraft.sources.dicomweb import DicomWebSource
    from redraft.sources.protocol import SourceContext

    context = SourceContext(
        pseudonyms=project.pseudonyms,
        secret=lambda reference: read_secret(reference, project.env, project.root),
        resolve=project.resolve,
        inbox=project.vault_dir / "inbox",
    )
    return DicomWebSource(section, context)
