"""Asking a DICOMweb server what it holds: series, instances of a series, and what an answer leaves out (QIDO-RS)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from redraft.config.sources import Wanted
from redraft.sources.dicomweb import qido
from redraft.sources.dicomweb.connection import Connection
from redraft.sources.dicomweb.session import Refusal, answering
from redraft.sources.retry import NotNow, persist

# A server that does not search all series at once (PS3.18 leaves that open) says so with one of these.
NO_SERIES_SEARCH = {400, 404, 405, 501}
# There is no such thing, or no longer.
ABSENT = {404, 410}


@dataclass(frozen=True)
class Place:
    """Clear UIDs of one series."""

    study: str = field(repr=False)
    series: str = field(repr=False)

    def is_valid(self) -> bool:
        """Whether both can stand in a URL."""
        return qido.is_uid(self.study) and qido.is_uid(self.series)


class Search:
    """Searches of one server."""

    def __init__(self, server: Connection):
        self._server, self._page = server, server.section.page

    def series(self, keys: dict[str, str]) -> Iterator[qido.Found]:
        """Series that match some keys, with the attributes of their study."""
        size, fields = self._page, list(qido.FIELDS)
        answered = False

        def series(limit: int, offset: int) -> object:
            return self._server.persist(
                lambda: self._server.client.search_for_series(
                    limit=limit, offset=offset, fields=fields, search_filters=dict(keys)
                )
            )

        with self._server.speaking():
            try:
                for found in qido.pages(series, size, "SeriesInstanceUID"):
                    answered = True
                    yield found
                return
            except Refusal as refusal:
                if answered or refusal.status not in NO_SERIES_SEARCH:
                    raise
            yield from self._by_study(keys)

    def _by_study(self, keys: dict[str, str]) -> Iterator[qido.Found]:
        size, fields = self._page, list(qido.FIELDS)
        # Modalities are asked of the series: with ModalitiesInStudy, which is no attribute but a count over the series,
        # Orthanc 1.10 loses studies behind the first page.
        modality = {"Modality": keys["Modality"]} if "Modality" in keys else {}
        upper = {key: value for key, value in keys.items() if key != "Modality"}

        def studies(limit: int, offset: int) -> object:
            return self._server.persist(
                lambda: self._server.client.search_for_studies(
                    limit=limit, offset=offset, fields=["StudyDescription"], search_filters=dict(upper)
                )
            )

        for study in qido.pages(studies, size, "StudyInstanceUID"):
            uid = qido.text(study, "StudyInstanceUID") or ""

            def series(limit: int, offset: int, uid: str = uid) -> object:
                return self._server.persist(
                    lambda: self._server.client.search_for_series(
                        uid, limit=limit, offset=offset, fields=fields, search_filters=dict(modality)
                    )
                )

            if not qido.is_uid(uid):
                raise Refusal.unclear()
            for found in qido.pages(series, size, "SeriesInstanceUID"):
                yield {**study, **found}

    def description(self, found: qido.Found, place: Place, wanted: Wanted) -> dict[str, str]:
        """What conditions are checked against: the answer, and the first instance's header where the answer lacks it.

        An attribute that a server does not return must not read as an empty one: nothing would be wanted any more.
        """
        asked = [
            keyword for condition, keyword in qido.CONDITIONS.items() if getattr(wanted, condition) not in (None, ())
        ]
        description = {keyword: qido.text(found, keyword) for keyword in asked}
        if None in description.values():
            header = self._first_header(place)
            for keyword, value in description.items():
                if value is None:
                    description[keyword] = qido.text(header, keyword)
        return {keyword: value or "" for keyword, value in description.items()}

    def _first_header(self, place: Place) -> qido.Found:
        with self._server.speaking():
            server = self._server
            found = next(qido.pages(self._instances(place), 1, "SOPInstanceUID"), {})
            uid = qido.text(found, "SOPInstanceUID") or ""
            if not qido.is_uid(uid):
                return {}
            try:
                return server.persist(lambda: server.client.retrieve_instance_metadata(place.study, place.series, uid))
            except LookupError:  # an empty answer
                return {}

    def instances(self, place: Place, announced: int) -> list[str]:
        """SOP Instance UIDs of a series. Raises NotNow or Refusal."""
        found = qido.pages(self._instances(place), self._page, "SOPInstanceUID", announced)
        uids = [qido.text(one, "SOPInstanceUID") or "" for one in found]
        if not all(map(qido.is_uid, uids)):
            raise Refusal.unclear()
        return uids

    def holds(self, place: Place, uid: str) -> bool:
        """Whether the server lists an instance; one that it does not list yet is asked for again, as `retry` says."""

        keys = {"SOPInstanceUID": uid}

        def look() -> None:
            found: object = []
            try:
                with answering():
                    found = self._server.client.search_for_instances(
                        place.study, place.series, limit=self._page, search_filters=dict(keys)
                    )
            except Refusal as refusal:
                if refusal.status not in ABSENT:
                    raise
            if not any(qido.text(one, "SOPInstanceUID") == uid for one in qido.data_sets(found)):
                raise _NotListed("it does not list an instance")

        with self._server.speaking():
            try:
                persist(look, self._server.section.retry, wait=self._server.wait)
            except _NotListed:
                return False
            return True

    def _instances(self, place: Place) -> Callable[[int, int], object]:
        return lambda limit, offset: self._server.persist(
            lambda: self._server.client.search_for_instances(place.study, place.series, limit=limit, offset=offset)
        )


class _NotListed(NotNow):
    """Some servers list what they have stored a little later than they answer."""
