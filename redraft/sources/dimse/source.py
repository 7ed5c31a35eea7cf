"""A PACS asked by C-FIND and C-MOVE (PS3.4 C, Study Root). What it moves arrives at a storage SCP of our own.

C-MOVE answers are not taken at their word: what counts is how many distinct instances of the series lie here whole.
"""

from __future__ import annotations

import errno
import filecmp
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pynetdicom
from pydicom.dataset import Dataset
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as FIND,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as MOVE,
)
from pynetdicom.sop_class import Verification

from redraft.config.sources import DimseSource as Section
from redraft.config.sources import Wanted
from redraft.errors import ServiceError, StorageError, TransferError
from redraft.files import sweep_partials, sync_directory
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources import scp
from redraft.sources.protocol import Offer, SourceContext
from redraft.sources.retry import NotNow, gave_up, persist
from redraft.sources.selection import Selection

_UID = re.compile(r"[0-9.]{1,64}")
_STUDY_KEYS = ("StudyInstanceUID", "StudyDate", "AccessionNumber", "StudyDescription", "ModalitiesInStudy")
_SERIES_KEYS = (
    "SeriesInstanceUID", "Modality", "SeriesDescription", "BodyPartExamined", "NumberOfSeriesRelatedInstances",
)  # fmt: skip
# Keys that a PACS need not know (PS3.4 C.6.2.1): what it leaves out of its answer is judged by the files' headers.
_OPTIONAL = {
    "StudyDescription": "study_description",
    "SeriesDescription": "series_description",
    "BodyPartExamined": "body_part",
}
# Some PACS answer C-MOVE before the last instance has arrived; that long may nothing come before we stop waiting.
_LATE_SECONDS = 10.0
_PENDING = (0xFF00, 0xFF01)


@dataclass(frozen=True)
class _Found:
    """Clear UIDs of one series, and how many instances the PACS says it has (0: it does not say)."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    instances: int


class DimseSource:
    """Series of a PACS; see redraft.sources.protocol.Source.

    Parameters
    ----------
    wait : function
        Waits that many seconds between attempts.
    """

    def __init__(self, section: Section, context: SourceContext, wait: Callable[[float], None] = time.sleep):
        self.name = section.name
        self._section, self._context, self._wait = section, context, wait
        self._pseudonyms = context.pseudonyms
        self._client_tls = scp.client_tls(section.tls, context.resolve)
        self._server_tls = scp.server_tls(section.tls, context.resolve)
        scp.quiet_pynetdicom()

    def echo(self) -> None:
        """C-ECHO: the PACS runs, knows our AE title and TLS works. Raises ServiceError."""

        def ask() -> None:
            with self._association(Verification) as association:
                self._check(association.send_c_echo(), "C-ECHO")

        self._persist(ask)

    def discover(self) -> Iterator[Offer]:
        """Series that are wanted, in the order of their pseudonyms; asked at study, series and image level.

        Conditions become keys where PACS agree on their meaning; each answer is checked again here.
        """
        offers: dict[str, Offer] = {}
        for found in self._find_series():
            series_id = self._pseudonyms.series_id(found.series)
            # Keyed like every other pseudonym: a plain digest of a UID and a count could be guessed.
            version = self._pseudonyms.source_tag(f"dimse/{self.name}/{found.series}/{found.instances}")
            offers[series_id] = Offer(series_id, version, found.instances, found)
        for series_id in sorted(offers):
            yield offers[series_id]

    def fetch(self, offer: Offer, folder: Path) -> Sequence[Path]:
        """Move one series into `folder`; see Source.

        Raises
        ------
        TransferError
            ``incomplete_transfer``, ``more_than_announced``, ``foreign_instances`` or ``conflicting_instances``.
        ServiceError
            The PACS refuses, or does not answer any more.
        """
        found: _Found = offer.handle
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep_partials(folder)
        whole = sorted(folder.glob("2.*.dcm"))
        if found.instances and len(whole) == found.instances:
            return whole
        keeper = _SeriesKeeper(folder, found.series, self._pseudonyms)
        gate = _FromPacs(self._section)
        section = self._section
        with scp.storage_scp(
            "0.0.0.0", section.port, section.ae_title, keeper, gate, self._server_tls, section.retry.timeout_seconds
        ) as running:
            self._persist(
                lambda: self._move(offer, keeper, running), progress=lambda: len(list(folder.glob("2.*.dcm")))
            )
        paths = [folder / f"{name}.dcm" for name in sorted(keeper.arrived)]
        for path in set(folder.glob("2.*.dcm")) - set(paths):
            path.unlink()  # moved by an interrupted attempt, and no longer in the PACS
        return paths

    def acknowledge(self, offer: Offer, verdicts: Sequence[str]) -> None:
        """The PACS keeps what it has."""

    # -- C-FIND -------------------------------------------------------------------------------------------------------
    def _find_series(self) -> list[_Found]:
        selection = Selection.of(self._section.wanted, self._context.resolve)
        done: dict[str, list[_Found]] = {}  # by study: an attempt goes on behind the one before

        def ask() -> None:
            with self._association(FIND) as association:
                studies: dict[str, Dataset] = {}
                for query in study_queries(selection.wanted, selection.accessions):
                    for study in self._find(association, query):
                        studies.setdefault(self._uid(study, "StudyInstanceUID"), study)
                for uid, study in studies.items():
                    if uid not in done:
                        done[uid] = self._series_of(association, uid, study, selection)

        self._persist(ask, progress=lambda: len(done))
        # A series belongs to one study; a PACS that lists it twice means one.
        return list({found.series: found for series in done.values() for found in series}.values())

    def _series_of(self, association: Any, uid: str, study: Dataset, selection: Selection) -> list[_Found]:
        wanted = selection.wanted
        query = _query("SERIES", _SERIES_KEYS, StudyInstanceUID=uid)
        if len(wanted.modalities) == 1:
            query.Modality = wanted.modalities[0]
        found = {}
        for series in self._find(association, query):
            series_uid = self._uid(series, "SeriesInstanceUID")
            if series_uid in found or _refused(selection, study, series):
                continue
            count = _number(series, "NumberOfSeriesRelatedInstances")
            if not count:
                images = _query("IMAGE", ("SOPInstanceUID",), StudyInstanceUID=uid, SeriesInstanceUID=series_uid)
                count = len({self._uid(image, "SOPInstanceUID") for image in self._find(association, images)})
            found[series_uid] = _Found(uid, series_uid, count)
        return list(found.values())

    def _find(self, association: Any, query: Dataset) -> list[Dataset]:
        answers = []
        for status, identifier in association.send_c_find(query, FIND):
            if self._check(status, "C-FIND") in _PENDING:
                if identifier is None:
                    raise self._error("answers C-FIND with what cannot be read", "C-FIND")
                answers.append(identifier)
        return answers

    # -- C-MOVE -------------------------------------------------------------------------------------------------------
    def _move(self, offer: Offer, keeper: _SeriesKeeper, running: scp.StorageScp) -> None:
        found: _Found = offer.handle
        keeper.restart()
        query = _query("SERIES", (), StudyInstanceUID=found.study, SeriesInstanceUID=found.series)
        last = Dataset()
        with self._association(MOVE) as association:
            association.dimse.get_msg = _patient(association, running, self._section.retry.timeout_seconds)
            for status, _ in association.send_c_move(query, self._section.ae_title, MOVE):
                keeper.raise_failure(self.name)
                self._check(status, "C-MOVE")
                last = status
        counts = {
            name: _number(last, f"NumberOf{name.capitalize()}Suboperations")
            for name in ("completed", "failed", "warning", "remaining")
        }
        said = counts["completed"] + counts["warning"]
        self._late(keeper, running, max(found.instances, said))
        keeper.raise_failure(self.name)
        arrived = len(keeper.arrived)
        measured: dict[str, object] = {"announced": found.instances, "arrived": arrived, **counts}
        if keeper.foreign:
            self._incomplete(offer, "foreign_instances", "instances of other series came", measured)
        if keeper.conflicting:
            self._incomplete(offer, "conflicting_instances", "one instance came with two contents", measured)
        if counts["failed"] or counts["remaining"] or arrived < max(found.instances, said) or not arrived:
            self._incomplete(offer, "incomplete_transfer", "not every instance came", measured)
        if found.instances and arrived > found.instances:
            self._incomplete(offer, "more_than_announced", "more instances came than were announced", measured)

    def _late(self, keeper: _SeriesKeeper, running: scp.StorageScp, expected: int) -> None:
        patience = min(_LATE_SECONDS, self._section.retry.timeout_seconds)
        answered = time.monotonic()
        while len(keeper.arrived) < expected and time.monotonic() - max(answered, running.last_byte()) < patience:
            time.sleep(0.02)

    def _incomplete(self, offer: Offer, rule: str, what: str, measured: dict[str, object]) -> None:
        raise TransferError(
            f"Series {offer.series_id} from {self.name}: {what} "
            f"({measured['arrived']} of {measured['announced'] or 'an unknown number'}).",
            f"The next intake asks again. If nothing comes at all, the PACS may not know {self._section.ae_title} at "
            f"this machine's address, port {self._section.port}.",
            rule=rule, measured=measured,
        )  # fmt: skip

    # -- both ---------------------------------------------------------------------------------------------------------
    @contextmanager
    def _association(self, model: str) -> Iterator[Any]:
        section, timeout = self._section, self._section.retry.timeout_seconds
        ae = pynetdicom.AE(section.ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout
        ae.maximum_pdu_size = scp.MAX_PDU
        ae.add_requested_context(model)
        more: dict[str, Any] = {"tls_args": (self._client_tls, section.host)} if self._client_tls else {}
        try:
            association = ae.associate(section.host, section.pacs_port, ae_title=section.pacs_title, **more)
        except OSError:
            raise NotNow("its host name does not resolve") from None
        if not association.is_established:
            answer = association.acceptor.primitive
            if association.is_rejected and answer is not None and answer.result == 0x01:
                raise self._error(f"refuses associations with {section.ae_title}", "association_rejected")
            if association.rejected_contexts:
                raise self._error("does not offer what is asked of it (C-ECHO, C-FIND and C-MOVE)", "not_supported")
            raise NotNow("it accepts no association" + (" (over TLS)" if self._client_tls else ""))
        try:
            yield association
        except BaseException:
            association.abort()
            raise
        association.release()

    def _check(self, status: Dataset, operation: str) -> int:
        """A status that lets us go on. Raises NotNow or ServiceError for others (PS3.4 C.4.1.1.4, C.4.2.1.5)."""
        code = getattr(status, "Status", None)
        if code is None:
            raise NotNow(f"it broke off or did not answer during {operation}")
        if code in (0x0000, *_PENDING) or (operation == "C-MOVE" and code in (0xB000, 0xA702)):
            return int(code)  # sub-operations that failed are counted by the caller
        if code == 0xA801:
            title, port = self._section.ae_title, self._section.port
            raise ServiceError(
                f"The PACS of source {self.name} does not know {title} as a destination of C-MOVE.",
                f"Have it enter {title} with this machine's address and port {port}.", code="service.move_destination",
            )  # fmt: skip
        if code in (0xA700, 0xA701, 0xFE00):
            raise NotNow(f"it is out of resources or cancelled {operation}")
        what = f"refused {operation} with status 0x{code:04X}"
        if operation == "C-MOVE":  # many answer so, and not with 0xA801, where they do not know the destination
            what += f"; it may not know {self._section.ae_title} at this machine's address, port {self._section.port}"
        raise self._error(what, "refused")

    def _persist(self, ask: Callable[[], None], progress: Callable[[], int] | None = None) -> None:
        try:
            persist(ask, self._section.retry, progress=progress, wait=self._wait)
        except NotNow as failure:
            raise gave_up(self.name, failure, self._section.retry) from None

    def _uid(self, answer: Dataset, keyword: str) -> str:
        value = _text(answer, keyword)
        if not _UID.fullmatch(value):
            raise self._error(f"answers C-FIND without a valid {keyword}", "C-FIND")
        return value

    def _error(self, what: str, code: str) -> ServiceError:
        do = "Ask those who run it; the section of project.yaml must name its AE title, host and port."
        return ServiceError(
            f"The PACS of source {self.name} {what}.", do, code=f"service.{code.lower().replace('-', '_')}"
        )


def study_queries(wanted: Wanted, accessions: Iterable[str]) -> Iterator[Dataset]:
    """C-FIND keys at study level that match all that `wanted` does, and perhaps more (PS3.4 C.2.2.2)."""
    keys: dict[str, str] = {}
    if wanted.dates is not None:
        first, last = ("" if day is None else _da(day) for day in wanted.dates)
        keys["StudyDate"] = f"{first}-{last}" if first or last else ""
    if wanted.study_description is not None:
        keys["StudyDescription"] = _any_case(wanted.study_description)
    if len(wanted.modalities) == 1:
        keys["ModalitiesInStudy"] = wanted.modalities[0]
    for number in [""] if wanted.accessions is None else sorted(set(accessions)):
        yield _query("STUDY", _STUDY_KEYS, **keys, AccessionNumber=number)


def _any_case(pattern: str) -> str:
    # Most PACS compare these texts with case, project.yaml does not: every letter becomes "any one character".
    if not pattern.strip("*"):
        return ""  # `*` alone does not match empty values everywhere
    if not pattern.isascii():
        return re.sub(r"[^\x00-\x7f]+", "*", re.sub(r"[A-Za-z]", "?", pattern))
    return re.sub(r"[A-Za-z]", "?", pattern)


def _da(day: date) -> str:
    return day.strftime("%Y%m%d")


def _query(level: str, keys: Iterable[str], **values: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for key in keys:
        setattr(query, key, None if key.startswith("NumberOf") else "")
    for key, value in values.items():
        setattr(query, key, value)
    return query


def _refused(selection: Selection, study: Dataset, series: Dataset) -> str | None:
    """The condition of the selection that the answers do not meet; keys that the PACS does not know are left out."""
    description = {key: _text(study, key) for key in ("StudyDate", "AccessionNumber", "StudyDescription")}
    description |= {key: _text(series, key) for key in ("Modality", "SeriesDescription", "BodyPartExamined")}
    unknown = {
        name: () if name == "body_part" else None
        for key, name in _OPTIONAL.items()
        if key not in (study if key == "StudyDescription" else series)
    }
    known = replace(selection, wanted=selection.wanted.model_copy(update=unknown))
    return known.unmet(description)


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
        return "" if value is None else str(value).strip(" \x00")
    except Exception:  # what pydicom raises for wrong bytes has no common base
        return ""


def _number(dataset: Dataset, keyword: str) -> int:
    try:
        return max(0, int(_text(dataset, keyword) or 0))
    except ValueError:
        return 0


def _patient(association: Any, running: scp.StorageScp, timeout: float) -> Callable[..., Any]:
    """Waits for an answer to C-MOVE while instances arrive: a PACS need not report in between."""
    last = time.monotonic()

    def get_msg(block: bool = False) -> Any:
        nonlocal last
        last = time.monotonic()
        while True:
            try:
                return association.dimse.msg_queue.get(block, 0.25)
            except queue.Empty:
                if not block or time.monotonic() - max(last, running.last_byte()) > timeout:
                    return None, None

    return get_msg


class _FromPacs:
    """Lets the PACS in: by its AE title, or from its address where it sends under another one."""

    def __init__(self, section: Section):
        self._section = section

    def address(self, address: str) -> bool:
        return True  # archives often send from other machines than they answer on

    def association(self, calling: str, called: str, address: str) -> str | None:
        if called != self._section.ae_title.strip():
            return "called_ae_title"
        if calling == self._section.pacs_title.strip() or address in scp.addresses_of(self._section.host):
            return None
        return "calling_ae_title"


class _SeriesKeeper:
    """Keeps instances of one series; see redraft.sources.scp.Keeper."""

    def __init__(self, folder: Path, series: str, pseudonyms: Pseudonyms):
        self._folder, self._series, self._pseudonyms = folder, series, pseudonyms
        self._lock = threading.Lock()
        self._count = 0
        self.restart()

    def restart(self) -> None:
        """A C-MOVE begins: it brings every instance, so what earlier ones brought is confirmed or replaced."""
        with self._lock:
            self.arrived: set[str] = set()
            self.foreign = 0
            self.conflicting = 0
            self._failure: OSError | None = None

    def raise_failure(self, source: str) -> None:
        """Raise StorageError when an instance could not be written here."""
        failure = self._failure
        if failure is not None:
            full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
            raise StorageError(
                f"What {source} sent could not be written ({failure.strerror}).",
                "Free disk space and run the command again; it resumes where it stopped.",
                code="storage.full" if full else None,
            )

    def begin(self, token: str, uid: str) -> Path:
        with self._lock:
            self._count += 1
            return self._folder / f".partial-{token}-{self._count}"

    def keep(self, token: str, incoming: scp.Incoming) -> int:
        identity = incoming.identity()
        with self._lock:
            if incoming.failure is not None:
                self._failure = incoming.failure
                return scp.OUT_OF_RESOURCES
            if identity is None:
                return scp.NOT_UNDERSTOOD
            if identity[:2] != (incoming.sop_class, incoming.uid):
                return scp.DOES_NOT_MATCH
            if identity[2] != self._series:
                self.foreign += 1
                return scp.NOT_UNDERSTOOD
            name = self._pseudonyms.uid(incoming.uid)
            target = self._folder / f"{name}.dcm"
            try:
                if name in self.arrived:
                    if not filecmp.cmp(incoming.path, target, shallow=False):
                        self.conflicting += 1
                    return scp.SUCCESS
                os.replace(incoming.path, target)
                sync_directory(self._folder)
            except OSError as error:
                self._failure = error
                return scp.OUT_OF_RESOURCES
            self.arrived.add(name)
            return scp.SUCCESS

    def ended(self, token: str, released: bool, cut: scp.Incoming | None) -> None:
        """What an association leaves behind is judged by the answer to C-MOVE."""
