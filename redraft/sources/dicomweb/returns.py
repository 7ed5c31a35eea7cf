"""What readers' tools stored on a DICOMweb server: SEG series of a study found (QIDO-RS) and one object fetched."""

from __future__ import annotations

from pathlib import Path

from redraft.errors import LabelError
from redraft.sources.dicomweb import qido
from redraft.sources.dicomweb.multipart import BrokenOff, Malformed
from redraft.sources.dicomweb.search import ABSENT, NO_SERIES_SEARCH
from redraft.sources.dicomweb.session import Refusal, answering, check
from redraft.sources.dicomweb.source import DicomWebSource
from redraft.sources.dicomweb.wado import ACCEPT, bodies, uids_of
from redraft.sources.retry import NotNow

_SEG = "SEG"


class Returns(DicomWebSource):
    """A DICOMweb server as the place that finished segmentations are picked up from. Everything here is in clear."""

    def segmentations(self, study: str) -> list[str]:
        """Series Instance UIDs of the study's SEG series; none where the server has no such study.

        Raises ServiceError when it does not answer or does not let us look.
        """
        keys = {"Modality": _SEG}

        def search(limit: int, offset: int) -> object:
            return self._server.persist(
                lambda: self._server.client.search_for_series(
                    study, limit=limit, offset=offset, fields=list(qido.FIELDS), search_filters=dict(keys)
                )
            )

        with self._server.speaking():
            if not qido.is_uid(study):
                return []
            try:
                found = list(qido.pages(search, self._section.page, "SeriesInstanceUID"))
            except Refusal as refusal:
                if refusal.status not in ABSENT:
                    raise
                return []
        # A server may ignore the key and answer with all series.
        return [uid for one in found if _is_seg(one) and qido.is_uid(uid := qido.text(one, "SeriesInstanceUID") or "")]

    def described(self, text: str) -> list[tuple[str, str, str]]:
        """Study, series and description of every SEG series whose description holds a text.

        Nothing where the server does not search all series at once. Raises ServiceError when it does not answer.
        """
        keys = {"Modality": _SEG, "SeriesDescription": f"*{text}*"}

        def search(limit: int, offset: int) -> object:
            return self._server.persist(
                lambda: self._server.client.search_for_series(
                    limit=limit, offset=offset, fields=list(qido.FIELDS), search_filters=dict(keys)
                )
            )

        with self._server.speaking():
            try:
                found = list(qido.pages(search, self._section.page, "SeriesInstanceUID"))
            except Refusal as refusal:
                if refusal.status not in NO_SERIES_SEARCH:
                    raise
                return []
        names = ("StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription")
        rows = [tuple(qido.text(one, name) or "" for name in names) for one in found if _is_seg(one)]
        return [(a, b, c) for a, b, c in rows if qido.is_uid(a) and qido.is_uid(b) and text.lower() in c.lower()]

    def retrieve(self, study: str, series: str, instance: str, path: Path, limit: int) -> None:
        """Write one object to a file, as the server stores it.

        Raises
        ------
        LabelError
            Rules deleted (the server has it no longer), too_large (more than `limit` bytes), truncated (what came is
            not the object that was asked for).
        ServiceError
            The server does not answer or does not let us have it.
        """
        url = f"{self._server.url}/studies/{study}/series/{series}/instances/{instance}"

        def bring() -> None:
            with answering():
                response = self._server.session.get(
                    url, headers={"Accept": ACCEPT}, stream=True, timeout=self._server.timeout
                )
            with response:
                check(response)
                taken = 0
                try:
                    with open(path, "wb") as stream:
                        for body in bodies(response):
                            for piece in body:
                                taken += len(piece)
                                if taken > limit:
                                    what = "A segmentation in the PACS is larger than its image allows."
                                    raise LabelError(what, "Store one segmentation of the exam.", rule="too_large")
                                stream.write(piece)
                except BrokenOff:
                    raise NotNow("the connection broke in the middle of an instance") from None
                except Malformed:
                    raise Refusal.unclear() from None

        with self._server.speaking():
            try:
                self._server.persist(bring)
            except Refusal as refusal:
                if refusal.status not in ABSENT:
                    raise
                what = "A segmentation that the PACS lists is there no longer."
                raise LabelError(what, "Store it again.", rule="deleted") from None
        if uids_of(path) != (series, instance):
            raise LabelError("The PACS gave another object than it lists.", "Store it again.", rule="truncated")


def _is_seg(found: qido.Found) -> bool:
    return (qido.text(found, "Modality") or _SEG) == _SEG
