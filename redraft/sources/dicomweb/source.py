"""DICOMweb servers (PS3.18): QIDO-RS finds series, WADO-RS brings them, STOW-RS stores segmentations."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from redraft.config.sources import DicomWebSource as Section
from redraft.errors import TransferError
from redraft.files import sweep_partials
from redraft.sources.announced import not_as_announced
from redraft.sources.dicomweb import qido, stow
from redraft.sources.dicomweb.multipart import BrokenOff, Malformed
from redraft.sources.dicomweb.session import Busy, Refusal, answering, check, open_session
from redraft.sources.dicomweb.wado import ACCEPT, Arrival, bodies, without_bulk
from redraft.sources.protocol import Offer, SourceContext
from redraft.sources.retry import NotNow, gave_up, persist
from redraft.sources.selection import Selection

if TYPE_CHECKING:
    import requests
    from dicomweb_client.web import DICOMwebClient
    from pydicom.dataset import Dataset

T = TypeVar("T")

# A server that does not search all series at once (PS3.18 leaves that open) says so with one of these.
NO_SERIES_SEARCH = {400, 404, 405, 501}
# About the login or the connection; any other refusal of one series leaves the others be.
OF_THE_SOURCE = {0, 401, 407}


@dataclass(frozen=True)
class _Series:
    study: str = field(repr=False)
    series: str = field(repr=False)


class DicomWebSource:
    """A DICOMweb server; see redraft.sources.protocol.Source. Nothing is asked of it before the first call.

    Parameters
    ----------
    wait : function
        Waits for that many seconds between attempts.
    """

    def __init__(self, section: Section, context: SourceContext, wait: Callable[[float], None] = time.sleep):
        self.name = section.name
        self._section, self._context, self._wait = section, context, wait

    # -- discover -----------------------------------------------------------------------------------------------------
    def discover(self) -> Iterator[Offer]:
        """Every wanted series once, in the server's order; see Source."""
        selection = Selection.of(self._section.wanted, self._context.resolve)
        seen: set[str] = set()
        for keys in qido.queries(selection.wanted, selection.accessions):
            for found in self._search(keys):
                uid = qido.text(found, "SeriesInstanceUID") or ""
                series_id = self._context.pseudonyms.series_id(uid)
                if series_id in seen:
                    continue
                seen.add(series_id)
                handle = _Series(qido.text(found, "StudyInstanceUID") or "", uid)
                version = self._context.pseudonyms.source_tag(qido.told(found))
                if not (qido.is_uid(handle.study) and qido.is_uid(handle.series)):
                    yield Offer(series_id, version, qido.count(found), handle, refused="invalid_uid")
                elif selection.unmet(self._description(found, handle)) is None:
                    yield Offer(series_id, version, qido.count(found), handle)

    def _search(self, keys: dict[str, str]) -> Iterator[qido.Found]:
        """Series that match some keys, with the attributes of their study."""
        size, fields = self._section.page, list(qido.FIELDS)
        answered = False

        def series(limit: int, offset: int) -> object:
            return self._persist(
                lambda: self._client.search_for_series(
                    limit=limit, offset=offset, fields=fields, search_filters=dict(keys)
                )
            )

        try:
            for found in qido.pages(series, size, "SeriesInstanceUID"):
                answered = True
                yield found
            return
        except Refusal as refusal:
            if answered or refusal.status not in NO_SERIES_SEARCH:
                raise refusal.as_error(self.name) from None
        except NotNow as failure:
            raise gave_up(self.name, failure, self._section.retry) from None
        with self._speaking():
            yield from self._search_by_study(keys)

    def _search_by_study(self, keys: dict[str, str]) -> Iterator[qido.Found]:
        size, fields = self._section.page, list(qido.FIELDS)
        # Modalities are asked of the series: with ModalitiesInStudy, which is no attribute but a count over the series,
        # Orthanc 1.10 loses studies behind the first page.
        modality = {"Modality": keys["Modality"]} if "Modality" in keys else {}
        upper = {key: value for key, value in keys.items() if key != "Modality"}

        def studies(limit: int, offset: int) -> object:
            return self._persist(
                lambda: self._client.search_for_studies(
                    limit=limit, offset=offset, fields=["StudyDescription"], search_filters=dict(upper)
                )
            )

        for study in qido.pages(studies, size, "StudyInstanceUID"):
            uid = qido.text(study, "StudyInstanceUID") or ""

            def series(limit: int, offset: int, uid: str = uid) -> object:
                return self._persist(
                    lambda: self._client.search_for_series(
                        uid, limit=limit, offset=offset, fields=fields, search_filters=dict(modality)
                    )
                )

            if not qido.is_uid(uid):
                raise Refusal.unclear()
            for found in qido.pages(series, size, "SeriesInstanceUID"):
                yield {**study, **found}

    def _description(self, found: qido.Found, handle: _Series) -> dict[str, str]:
        """What conditions are checked against: the answer, and the first instance's header where the answer lacks it.

        An attribute that a server does not return must not read as an empty one: nothing would be wanted any more.
        """
        asked = [
            keyword
            for condition, keyword in qido.CONDITIONS.items()
            if getattr(self._section.wanted, condition) not in (None, ())
        ]
        description = {keyword: qido.text(found, keyword) for keyword in asked}
        if None in description.values():
            header = self._first_header(handle)
            for keyword, value in description.items():
                if value is None:
                    description[keyword] = qido.text(header, keyword)
        return {keyword: value or "" for keyword, value in description.items()}

    def _first_header(self, handle: _Series) -> qido.Found:
        with self._speaking():
            found = next(qido.pages(self._instances(handle), 1, "SOPInstanceUID"), {})
            uid = qido.text(found, "SOPInstanceUID") or ""
            if not qido.is_uid(uid):
                return {}
            try:
                return self._persist(lambda: self._client.retrieve_instance_metadata(handle.study, handle.series, uid))
            except LookupError:  # an empty answer
                return {}

    # -- fetch --------------------------------------------------------------------------------------------------------
    def fetch(self, offer: Offer, folder: Path) -> Sequence[Path]:
        """Bring one series; see Source. In memory is a piece of one instance.

        TransferError has rule ``incomplete_transfer`` or ``foreign_instances`` and measures `announced` and `arrived`
        instances (and `http_status` where the server refused one).
        """
        handle: _Series = offer.handle
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep_partials(folder)
        arrival = Arrival(folder, handle.series)
        try:
            listed = self._list(handle, offer.files)
            if offer.files and len(listed) != offer.files:
                raise self._incomplete(offer, offer.files, len(listed))
            arrival.expect({uid: folder / f"{self._context.pseudonyms.uid(uid)}.dcm" for uid in listed})
            persist(
                lambda: self._bring(handle, arrival),
                self._section.retry, progress=lambda: len(arrival.whole), wait=self._wait,
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

    def _list(self, handle: _Series, announced: int) -> list[str]:
        """SOP Instance UIDs of a series."""
        found = qido.pages(self._instances(handle), self._section.page, "SOPInstanceUID", announced)
        uids = [qido.text(one, "SOPInstanceUID") or "" for one in found]
        if not all(map(qido.is_uid, uids)):
            raise Refusal.unclear()
        return uids

    def _instances(self, handle: _Series) -> Callable[[int, int], object]:
        return lambda limit, offset: self._persist(
            lambda: self._client.search_for_instances(handle.study, handle.series, limit=limit, offset=offset)
        )

    def _bring(self, handle: _Series, arrival: Arrival) -> None:
        """One attempt at what is not there yet: the series at once where nothing is, else instance by instance."""
        place = f"{self._section.url.rstrip('/')}/studies/{handle.study}/series/{handle.series}"
        if not arrival.whole:
            self._retrieve(place, arrival)
        for uid in arrival.missing():
            if arrival.foreign or arrival.more:
                return  # refused already
            self._retrieve(f"{place}/instances/{uid}", arrival)

    def _retrieve(self, url: str, arrival: Arrival) -> None:
        with answering():
            response = self._session.get(
                url, headers={"Accept": ACCEPT}, stream=True, timeout=self._section.retry.timeout_seconds
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
        why = "not what was announced came" + (f" (HTTP {status})" if status else "")
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

        with self._speaking():
            if not (qido.is_uid(study) and qido.is_uid(series)):
                return []
            try:
                answer = self._persist(lambda: self._client.retrieve_series_metadata(study, series))
            except Refusal as refusal:
                if refusal.status not in (404, 410):
                    raise
                return []
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they quote values
                try:
                    return [Dataset.from_json(without_bulk(one)) for one in answer]
                except Exception:  # what pydicom raises for values that a representation does not allow has no base
                    raise Refusal.unclear() from None

    def store(self, datasets: Iterable[Dataset]) -> list[stow.Stored]:
        """Store instances one by one; what became of each, in order (see redraft.sources.dicomweb.stow.Stored).

        One that the server refuses does not keep the others back. Raises ServiceError when it does not answer or does
        not let us store; what was stored before stays stored, and storing it again does no harm.
        """
        done = []
        for dataset in datasets:
            body, content_type = stow.encode(dataset)
            uid = str(dataset.SOPInstanceUID)

            def post(body: bytes = body, content_type: str = content_type, uid: str = uid) -> stow.Stored:
                response = self._session.post(
                    f"{self._section.url.rstrip('/')}/studies", data=body, headers={"Content-Type": content_type},
                    timeout=self._section.retry.timeout_seconds,
                )  # fmt: skip
                return stow.outcome(response, uid)

            with self._speaking():
                done.append(self._persist(post))
        return done

    # -- how it is spoken to ------------------------------------------------------------------------------------------
    @cached_property
    def _session(self) -> requests.Session:
        return open_session(self._section, self._context)

    @cached_property
    def _client(self) -> DICOMwebClient:
        from dicomweb_client.web import DICOMwebClient

        client = DICOMwebClient(
            self._section.url.rstrip("/"), self._session,
            permissive_uid=True, timeout=self._section.retry.timeout_seconds,
        )  # fmt: skip
        client.set_http_retry_params(retry=False)  # its waits cannot be bounded, and broken connections are not retried
        return client

    def _persist(self, call: Callable[[], T]) -> T:
        def once() -> T:
            with answering():
                return call()

        return persist(once, self._section.retry, wait=self._wait)

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what the source does not do into a ServiceError that names it."""
        try:
            yield
        except Refusal as refusal:
            raise refusal.as_error(self.name) from None
        except NotNow as failure:
            raise gave_up(self.name, failure, self._section.retry) from None
