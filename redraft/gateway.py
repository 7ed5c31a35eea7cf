"""The way out to a PACS: segmentations under the names of the original images, by the key holder, on record.

Inside the project a segmentation refers to pseudonyms. Here the originals are found again (link table of the vault →
the folder or DICOMweb server that holds them), every one of them is compared with the project's record of it, and the
object that names them exists in memory only: it is sent, and never written into the project.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from redraft.errors import ConfigError, ExamError, IntegrityError, RedraftError, ServiceError, SignInError, UsageError
from redraft.originals import resolve
from redraft.segmentation.export import Item, geometry
from redraft.segmentation.origin import Naming, require_codes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from redraft.accounts import Identity
    from redraft.config.sources import DicomWebSource as Section
    from redraft.project import Project
    from redraft.security.pseudonyms import Pseudonyms

SENDING, SENT = "export.sending", "export.sent"
ROLES = ("ops",)
# A server that is silent so often in a row is not asked again: each time costs all its attempts.
SILENT = 2

T = TypeVar("T")


class Server(Protocol):
    """What the gateway needs of a DICOMweb server; see redraft.sources.dicomweb.DicomWebSource."""

    def headers(self, study: str, series: str) -> list[Dataset]: ...

    def store(self, datasets: Sequence[Dataset]) -> Sequence[Any]: ...

    def holds(self, study: str, series: str, instance: str) -> bool: ...


@dataclass(frozen=True)
class Sent:
    """What became of one exam's segmentation. `sop_instance` is the pseudonym of its UID."""

    exam_id: str
    ok: bool
    sop_instance: str | None
    rule: str | None = None
    why: str = ""


def send(
    project: Project,
    items: Sequence[Item],
    to: str,
    *,
    by: Identity,
    reason: str,
    clock: Callable[[], datetime],
    open_server: Callable[[Project, Section], Server] | None = None,
) -> Iterator[Sent]:
    """Store the items' segmentations on the DICOMweb source `to`, one after the other.

    Each is on record in the ledger (who, why, what, where) before anything of it leaves; what became of it is recorded
    after. Storing one again sends the same object under the same UID.

    Raises
    ------
    SignInError
        The account may not send.
    UsageError
        No reason is named, or a structure has no code.
    ConfigError
        project.yaml has no DICOMweb source of that name.
    SecurityError
        The vault or the keys are not at hand.
    """
    if not by.may(*ROLES):
        raise SignInError("An export to a PACS needs the role ops.", "Ask ops.", code="sign_in.role")
    if not reason.strip():
        raise UsageError("An export to a PACS needs a reason.", "Give --reason.")
    require_codes(project.config.structures)
    servers = _Servers(project, to, open_server or _open)
    links = list(project.vault.links("series"))
    return _send_all(project, items, to, (by.account_id, "authenticated"), reason, clock, servers, links, None)


def send_drafts(
    project: Project,
    items: Sequence[Item],
    to: str,
    *,
    reason: str,
    clock: Callable[[], datetime],
    describe: Callable[[Item], str],
    open_server: Callable[[Project, Section], Server] | None = None,
) -> Iterator[Sent]:
    """Store drafts that readers are to correct in the PACS, as `send` does and with the same errors.

    Nobody asks for each of them: project.yaml does (dispatch.backend: dicomweb), and the record says `policy`.

    Parameters
    ----------
    describe : function
        An item's series description, by which readers and redraft find it again.
    """
    require_codes(project.config.structures)
    servers = _Servers(project, to, open_server or _open)
    links = list(project.vault.links("series"))
    return _send_all(project, items, to, ("policy", "policy"), reason, clock, servers, links, describe)


def _send_all(
    project: Project, items: Sequence[Item], to: str, by: tuple[str, str], reason: str, clock: Callable[[], datetime],
    servers: _Servers, links: Sequence[Mapping[str, Any]], describe: Callable[[Item], str] | None,
) -> Iterator[Sent]:  # fmt: skip
    from redraft.segmentation.seg_out import build_seg

    pseudonyms = project.pseudonyms
    account, identity = by
    for item in items:
        if servers.target.silent:
            yield Sent(item.exam_id, False, None, "service.unreachable", "Not tried: the server does not answer.")
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they quote values of the originals
                exam = geometry(project, item.exam_id)
                found = resolve(exam, links, pseudonyms, servers.of)
                naming = naming_of(pseudonyms)
                labels = item.labels()
                dataset = build_seg(
                    labels, found.exam, project.config.structures, item.origin, header=found.header, naming=naming
                )
                if describe is not None:
                    dataset.SeriesDescription = describe(item)
        except (ExamError, IntegrityError, ServiceError) as error:
            yield Sent(item.exam_id, False, None, error.code, error.what)
            continue
        instance = pseudonyms.uid(str(dataset.SOPInstanceUID))
        record = {
            "exam_id": item.exam_id, "source_id": item.origin.identity, "source_sha256": item.origin.sha256,
            "to": to, "by": account, "identity": identity, "reason": reason, "sop_instance": instance,
        }  # fmt: skip
        with project.ledger.tx(f"export:{account}", clock()) as tx:
            tx.event(SENDING, record)
        rule, why = _store(servers.target, dataset)
        with project.ledger.tx(f"export:{account}", clock()) as tx:
            tx.event(SENT, {**record, "ok": rule is None, "rule": rule})
        yield Sent(item.exam_id, rule is None, instance, rule, why)


def naming_of(pseudonyms: Pseudonyms) -> Naming:
    """How objects that leave are named: UIDs that need the project's key, the same for the same label array."""
    return Naming(lambda *parts: pseudonyms.uid("\x00".join(map(str, ("export", *parts)))))


def source_section(project: Project, name: str) -> Section:
    """The DICOMweb source of this name. Raises ConfigError where project.yaml has none."""
    sections = _sections(project)
    if name not in sections:
        known = ", ".join(sections) or "none"
        what = f"project.yaml has no DICOMweb source `{name}`."
        raise ConfigError(what, f"DICOMweb sources of ingest.sources: {known}.")
    return sections[name]


def _store(server: _Bounded, dataset: Dataset) -> tuple[str | None, str]:
    """Store an object and look it up; the rule by which it is not there (None when it is), and why."""
    stored = False
    try:
        (answer,) = server.store([dataset])
        if not answer.ok:
            return "refused", str(answer.why)
        stored = True
        if server.holds(dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID):
            return None, str(answer.why)
    except RedraftError as error:
        return error.code, f"It took the object, but does not say whether it has it: {error}" if stored else error.what
    return "not_kept", (
        "It answers that it stored the object, but has none in the exam's study: a filter or rule of its own has "
        "dropped or moved it. Ask its administrator; sending again does no harm."
    )


class _Servers:
    """The server that segmentations go to, and those that exams came from; each opened once."""

    def __init__(self, project: Project, to: str, open_server: Callable[[Project, Section], Server]):
        self._project, self._open = project, open_server
        self._sections = _sections(project)
        source_section(project, to)
        self._opened: dict[str, _Bounded] = {}
        self.target = self._named(to)

    def of(self, source: str) -> Iterable[Server]:
        """Where to look for the originals of a series that came from `source`: there, then where they go."""
        own = self._named(source) if source in self._sections else self.target
        return dict.fromkeys([own, self.target])

    def _named(self, name: str) -> _Bounded:
        if name not in self._opened:
            self._opened[name] = _Bounded(name, self._open(self._project, self._sections[name]))
        return self._opened[name]


class _Bounded:
    """A server that is asked no more once it was silent `SILENT` times in a row."""

    def __init__(self, name: str, server: Server):
        self._name, self._server, self._times = name, server, 0

    @property
    def silent(self) -> bool:
        return self._times >= SILENT

    def headers(self, study: str, series: str) -> list[Dataset]:
        return self._ask(lambda: self._server.headers(study, series))

    def store(self, datasets: Sequence[Dataset]) -> Sequence[Any]:
        return self._ask(lambda: self._server.store(datasets))

    def holds(self, study: str, series: str, instance: str) -> bool:
        return self._ask(lambda: self._server.holds(study, series, instance))

    def _ask(self, call: Callable[[], T]) -> T:
        if self.silent:
            what = f"The source {self._name} does not answer."
            raise ServiceError(what, "Export again when it does.", code="service.unreachable")
        try:
            answer = call()
        except ServiceError as error:
            self._times = self._times + 1 if error.code == "service.unreachable" else 0
            raise
        self._times = 0
        return answer


def _sections(project: Project) -> dict[str, Section]:
    from redraft.config.sources import DicomWebSource

    return {s.name: s for s in project.config.ingest.sources if isinstance(s, DicomWebSource)}


def _open(project: Project, section: Section) -> Server:
    from redraft.sources.dicomweb import DicomWebSource
    from redraft.sources.protocol import SourceContext

    return DicomWebSource(section, SourceContext.of(project))
