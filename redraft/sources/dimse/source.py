"""A PACS asked by C-FIND and C-MOVE (PS3.4 C, Study Root). What it moves arrives at a storage SCP of our own.

C-MOVE answers are not taken at their word: what counts is how many distinct instances of the series lie here whole.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from redraft.errors import ServiceError, TransferError
from redraft.files import sweep_partials
from redraft.selection import Selection
from redraft.sources import scp
from redraft.sources.announced import not_as_announced
from redraft.sources.dimse.arrivals import FromPacs, SeriesKeeper, whole_in
from redraft.sources.dimse.queries import SERIES_KEYS, number_of, query_of, study_queries, text_of, unmet
from redraft.sources.protocol import Offer, SourceContext
from redraft.sources.retry import NotNow, gave_up, persist

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
        whole = whole_in(folder)
        if found.instances and len(whole) == found.instances:
            return sorted(whole)
        keeper = SeriesKeeper(folder, found.series, self._pseudonyms)
        gate = FromPacs(self._section)
        section = self._section
        with scp.storage_scp(
            "0.0.0.0", section.port, section.ae_title, keeper, gate, self._server_tls, section.retry.timeout_seconds
        ) as running:
            self._persist(lambda: self._move(offer, keeper, running), progress=lambda: len(whole_in(folder)))
        paths = [folder / f"{name}.dcm" for name in sorted(keeper.arrived)]
        for path in whole_in(folder) - set(paths):
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
        asked = query_of("SERIES", SERIES_KEYS, StudyInstanceUID=uid)
        if len(wanted.modalities) == 1:
            asked.Modality = wanted.modalities[0]
        found = {}
        for series in self._find(association, asked):
            series_uid = self._uid(series, "SeriesInstanceUID")
            if series_uid in found or unmet(selection, study, series):
                continue
            count = number_of(series, "NumberOfSeriesRelatedInstances")
            if not count:
                images = query_of("IMAGE", ("SOPInstanceUID",), StudyInstanceUID=uid, SeriesInstanceUID=series_uid)
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
    def _move(self, offer: Offer, keeper: SeriesKeeper, running: scp.StorageScp) -> None:
        found: _Found = offer.handle
        keeper.restart()
        asked = query_of("SERIES", (), StudyInstanceUID=found.study, SeriesInstanceUID=found.series)
        last = Dataset()
        with self._association(MOVE) as association:
            association.dimse.get_msg = _patient(association, running, self._section.retry.timeout_seconds)
            for status, _ in association.send_c_move(asked, self._section.ae_title, MOVE):
                keeper.raise_failure(self.name)
                self._check(status, "C-MOVE")
                last = status
        counts = {
            name: number_of(last, f"NumberOf{name.capitalize()}Suboperations")
            for name in ("completed", "failed", "warning", "remaining")
        }
        said = counts["completed"] + counts["warning"]
        self._late(keeper, running, max(found.instances, said))
        keeper.raise_failure(self.name)
        arrived = len(keeper.arrived)
        if keeper.foreign:
            raise self._wrong(offer, arrived, "foreign_instances", "instances of other series came", counts)
        if keeper.conflicting:
            raise self._wrong(offer, arrived, "conflicting_instances", "one instance came with two contents", counts)
        if counts["failed"] or counts["remaining"] or arrived < max(found.instances, said) or not arrived:
            raise self._wrong(offer, arrived, "incomplete_transfer", "not every instance came", counts)
        if found.instances and arrived > found.instances:
            raise self._wrong(offer, arrived, "more_than_announced", "more instances came than announced", counts)

    def _late(self, keeper: SeriesKeeper, running: scp.StorageScp, expected: int) -> None:
        patience = min(_LATE_SECONDS, self._section.retry.timeout_seconds)
        answered = time.monotonic()
        while len(keeper.arrived) < expected and time.monotonic() - max(answered, running.last_byte()) < patience:
            time.sleep(0.02)

    def _wrong(self, offer: Offer, arrived: int, rule: str, why: str, counts: dict[str, int]) -> TransferError:
        return not_as_announced(
            self.name, offer, offer.files, arrived, rule=rule, why=why, measured=counts,
            do=f"The next intake asks again. If nothing comes at all, the PACS may not know {self._section.ae_title} "
            f"at this machine's address, port {self._section.port}.",
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
        value = text_of(answer, keyword)
        if not scp.UID.fullmatch(value):
            raise self._error(f"answers C-FIND without a valid {keyword}", "C-FIND")
        return value

    def _error(self, what: str, code: str) -> ServiceError:
        do = "Ask those who run it; the section of project.yaml must name its AE title, host and port."
        return ServiceError(
            f"The PACS of source {self.name} {what}.", do, code=f"service.{code.lower().replace('-', '_')}"
        )


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
