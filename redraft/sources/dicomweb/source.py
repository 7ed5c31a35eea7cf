"""A DICOMweb server as a source of exams, and as the place where segmentations go."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from redraft.config.sources import DicomWebSource as Section
from redraft.errors import TransferError
from redraft.files import sweep_partials
from redraft.selection import Selection
from redraft.sources.announced import not_as_announced
from redraft.sources.dicomweb import qido, stow
from redraft.sources.dicomweb.connection import Connection
from redraft.sources.dicomweb.multipart import BrokenOff, Malformed
from redraft.sources.dicomweb.search import ABSENT, Place, Search
from redraft.sources.dicomweb.session import Busy, Refusal, answering, check
from redraft.sources.dicomweb.wado import ACCEPT, Arrival, bodies, without_bulk
from redraft.sources.protocol import Offer, SourceContext
from redraft.sources.retry import NotNow, gave_up, persist

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# About the login or the connection; any other refusal of one series leaves the others be.
OF_THE_SOURCE = {0, 401, 407}


class DicomWebSource:
    """A DICOMweb server; see redraft.sources.protocol.Source. Nothing is asked of it before the first call.

    Parameters
    ----------
    wait : function
        Waits for that many seconds between attempts.
    """

    def __init__(self, section: Section, context: SourceContext, wait: Callable[[float], None] = time.sleep):
        self.name = section.name
        self._section, self._context = section, context
        self._server = Connection(section, context, wait)
        self._search = Search(self._server)

    # -- discover -----------------------------------------------------------------------------------------------------
    def discover(self) -> Iterator[Offer]:
        """Every wanted series once, in the server's order; see Source."""
        selection = Selection.of(self._section.wanted, self._context.resolve)
        seen: set[str] = set()
        for keys in qido.queries(selection.wanted, selection.accessions):
            for found in self._search.series(keys):
                place = Place(qido.text(found, "StudyInstanceUID") or "", qido.text(found, "SeriesInstanceUID") or "")
                series_id = self._context.pseudonyms.series_id(place.series)
                if series_id in seen:
                    continue
                seen.add(series_id)
                version = self._context.pseudonyms.source_tag(qido.told(found))
                if not place.is_valid():
                    yield Offer(series_id, version, qido.count(found), place, refused="invalid_uid")
                elif selection.unmet(self._search.description(found, place, selection.wanted)) is None:
                    yield Offer(series_id, version, qido.count(found), place)

    # -- fetch --------------------------------------------------------------------------------------------------------
    def fetch(self, offer: Offer, folder: Path) -> Sequence[Path]:
        """Bring one series; see Source. In memory is a piece of one instance.

        TransferError has rule ``incomplete_transfer`` or ``foreign_instances`` and measures `announced` and `arrived`
        instances (and `http_status` where the server refused one).
        """
        place: Place = offer.handle
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep_partials(folder)
        arrival = Arrival(folder, place.series)
        try:
            listed = self._search.instances(place, offer.files)
            if offer.files and len(listed) != offer.files:
                raise self._incomplete(offer, offer.files, len(listed))
            arrival.expect({uid: folder / f"{self._context.pseudonyms.uid(uid)}.dcm" for uid in listed})
            persist(
                lambda: self._bring(place, arrival),
                self._section.retry, progress=lambda: len(arrival.whole), wait=self._server.wait,
            )  # fmt: skip
        except Refusal as refusal:
            if refusal.status in OF_THE_SOURCE:
                raise refusal.as_error(self.name) from None
            raise self._incomplete(offer, arrival.expected or offer.files, arrival.received, refusal.status) from None
        except Busy as failure:
            if failure.status != 500 or not arrival.expected:
                raise gave_up(self.name, failure, self._section.retry) from None
            # The server answers, but cannot give this series: the others need not wait for its repair.
            raise self._incomplete(offer, arrival.expected or offer.files, arrival.received, 500) from None
        except NotNow as failure:
            raise gave_up(self.name, failure, self._section.retry) from None
        if arrival.foreign:
            raise not_as_announced(
                self.name, offer, arrival.expected, arrival.received, rule="foreign_instances",
                why="instances of another series came", measured={"foreign": arrival.foreign},
                do="Report it to the server's administrator; the next intake asks for the series again.",
            )  # fmt: skip
        if arrival.received != arrival.expected or not arrival.expected:
            raise self._incomplete(offer, arrival.expected or offer.files, arrival.received)
        return list(arrival.files.values())

    def acknowledge(self, offer: Offer, verdicts: Sequence[str]) -> None:
        """A server is left as it is."""

    def _bring(self, place: Place, arrival: Arrival) -> None:
        """One attempt at what is not there yet: the series at once where nothing is, else instance by instance."""
        url = f"{self._server.url}/studies/{place.study}/series/{place.series}"
        if not arrival.whole:
            self._retrieve(url, arrival)
        for uid in arrival.missing():
            if arrival.foreign or arrival.more:
                return  # refused already
            self._retrieve(f"{url}/instances/{uid}", arrival)

    def _retrieve(self, url: str, arrival: Arrival) -> None:
        with answering():
            response = self._server.session.get(
                url, headers={"Accept": ACCEPT}, stream=True, timeout=self._server.timeout
            )
        with response:
            check(response)
            try:
                for body in bodies(response):
                    arrival.take(body)
                    if arrival.flood:
                        return
            except BrokenOff:
                raise NotNow("the connection broke in the middle of an instance") from None
            except Malformed:
                raise Refusal.unclear() from None

    def _incomplete(self, offer: Offer, announced: int, arrived: int, status: int | None = None) -> TransferError:
        said = {} if status is None else {"http_status": status}
        why = "other instances came than announced" + (f" (HTTP {status})" if status else "")
        return not_as_announced(
            self.name, offer, announced, arrived, why=why, measured=said,
            do="Look at the series on the server; the next intake asks for it again.",
        )  # fmt: skip

    # -- for segmentations --------------------------------------------------------------------------------------------
    def headers(self, study: str, series: str) -> list[Dataset]:
        """Headers of all instances of a series, by its clear UIDs, without bulk data (PS3.18 10.4, /metadata).

        None where the server has no such series. Raises ServiceError when it does not answer or does not let us look.
        """
        from pydicom.dataset import Dataset

        with self._server.speaking():
            if not Place(study, series).is_valid():
                return []
            try:
                answer = self._server.persist(lambda: self._server.client.retrieve_series_metadata(study, series))
            except Refusal as refusal:
                if refusal.status not in ABSENT:
                    raise
                return []
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they quote values
                try:
                    return [Dataset.from_json(without_bulk(one)) for one in answer]
                except Exception:  # what pydicom raises for values that a representation does not allow has no base
                    raise Refusal.unclear() from None

    def store(self, datasets: Iterable[Dataset]) -> list[stow.Stored]:
        """Store instances one by one; what became of each, in order (see stow.Stored).

        One that the server refuses does not keep the others back. Raises ServiceError when it does not answer or does
        not let us store; what was stored before stays stored, and storing it again does no harm.
        """
        done = []
        for dataset in datasets:
            body, content_type = stow.encode(dataset)
            uid = str(dataset.SOPInstanceUID)

            def post(body: bytes = body, content_type: str = content_type, uid: str = uid) -> stow.Stored:
                response = self._server.session.post(
                    f"{self._server.url}/studies", data=body, headers={"Content-Type": content_type},
                    timeout=self._server.timeout,
                )  # fmt: skip
                return stow.outcome(response, uid)

            with self._server.speaking():
                done.append(self._server.persist(post))
        return done

    def holds(self, study: str, series: str, instance: str) -> bool:
        """Whether the server lists an instance, by its clear UIDs: a success of STOW-RS alone does not say so.

        Raises ServiceError when it does not answer or does not let us look.
        """
        return self._search.holds(Place(study, series), instance)
