from __future__ import annotations

import logging
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.misc import warn_and_log
from pydicom.tag import Tag
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from redraft.config.sources import Wanted
from redraft.errors import ServiceError, StorageError, TransferError
from redraft.sources.dimse.queries import query_of, study_queries, text_of
from redraft.sources.protocol import Offer
from tests.servers.dimse import NAMES, PATIENT, by_uid, free_port, pacs, port_of, send, sender, series, wait_until


# -- a faulty one -----------------------------------------------------------------------------------------------------
@dataclass
class Faulty:
    """A PACS that holds one series, and does wrong what it is told to.

    Attributes
    ----------
    announced : int, optional
        NumberOfSeriesRelatedInstances; left out of the answer when None.
    find, move : function, optional
        Replace the answers to C-FIND and C-MOVE.
    send : function, optional
        What it stores at the destination, and the counts that it reports.
    """

    holds: list[Dataset]
    announced: int | None = None
    find: Callable[[Any, Dataset], Iterator[tuple[int, Dataset | None]]] | None = None
    move: Callable[[Any, int], Iterator[Any]] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    destination: int = 0
    calls: list[str] = field(default_factory=list)

    def on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        self.calls.append(str(query.QueryRetrieveLevel))
        if self.find is not None:
            yield from self.find(event, query)
            return
        level = query.QueryRetrieveLevel
        for ds in self.holds if level == "IMAGE" else self.holds[:1]:
            answer = Dataset()
            for element in query:
                if element.keyword == "NumberOfSeriesRelatedInstances":
                    if self.announced is not None:
                        answer.NumberOfSeriesRelatedInstances = self.announced
                elif element.keyword in ds:
                    answer[element.tag] = ds[element.tag]
            answer.QueryRetrieveLevel = level
            yield 0xFF00, answer

    def on_move(self, event: Any) -> Iterator[Any]:
        self.calls.append("MOVE")
        if self.move is not None:
            yield from self.move(event, self.destination)
            return
        yield "127.0.0.1", self.destination
        yield len(self.holds)
        for ds in self.holds:
            yield 0xFF00, ds


@contextmanager
def running(server: Faulty) -> Iterator[int]:
    ae = AE("PACS")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    ae.add_supported_context(Verification)
    ae.add_requested_context(CTImageStorage)
    handlers = [(evt.EVT_C_FIND, server.on_find), (evt.EVT_C_MOVE, server.on_move)]
    listening = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield listening.server_address[1]
    finally:
        ae.shutdown()


def fetched(server: Faulty, folder: Path, **more: Any) -> Sequence[Path]:
    """Find and fetch the one series of a faulty PACS."""
    with running(server) as port:
        source = pacs(port, **more)
        server.destination = port_of(source)
        (offer,) = source.discover()
        return source.fetch(offer, folder)


def store_some(datasets: Sequence[Dataset], port: int, title: str = "PACS") -> list[int | None]:
    with sender(port, title=title) as association:
        assert association.is_established
        return send(association, datasets)


def test_without_a_count_the_instances_are_counted(tmp_path: Path) -> None:
    """A PACS that does not say how many there are is asked at image level, and a faultless transfer passes."""
    server = Faulty(series(3))
    assert len(fetched(server, tmp_path)) == 3
    assert server.calls == ["STUDY", "SERIES", "IMAGE", "MOVE"]


def test_more_announced_than_sent(tmp_path: Path) -> None:
    """What did not arrive whole is never handed on, although the PACS reports success; what is whole stays."""
    with pytest.raises(TransferError) as caught:
        fetched(Faulty(series(3), announced=5), tmp_path)
    assert caught.value.rule == "incomplete_transfer" and caught.value.retry
    assert (caught.value.measured["announced"], caught.value.measured["arrived"]) == (5, 3)
    assert len(list(tmp_path.glob("2.*.dcm"))) == 3


def test_more_sent_than_announced(tmp_path: Path) -> None:
    """Instances that came to the series meanwhile make another version of it: not this offer."""
    with pytest.raises(TransferError) as caught:
        fetched(Faulty(series(3), announced=2), tmp_path)
    assert caught.value.rule == "more_than_announced"


def test_sub_operations_that_failed(tmp_path: Path) -> None:
    """A PACS that cannot read one of its own instances says so in the counts."""
    sent = series(3)

    def move(event: Any, port: int) -> Iterator[Any]:
        yield "127.0.0.1", port
        yield 4
        for ds in sent:
            yield 0xFF00, ds
        yield 0xFF00, _unknown_class()

    with pytest.raises(TransferError) as caught:
        fetched(Faulty(sent, announced=3, move=move), tmp_path)
    assert caught.value.rule == "incomplete_transfer" and caught.value.measured["failed"] == 1


def _unknown_class() -> Dataset:
    (ds,) = series(1, name="unsendable")
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    return ds


def test_instances_of_another_series_are_refused(tmp_path: Path) -> None:
    """They are not written, the PACS is told, and the series is not handed on."""
    good, (foreign,) = series(2), series(1, name="foreign")
    statuses: list[int | None] = []

    def move(event: Any, port: int) -> Iterator[Any]:
        statuses.extend(store_some([*good, foreign], port))
        yield "127.0.0.1", port
        yield 0

    with pytest.raises(TransferError) as caught:
        fetched(Faulty(good, announced=2, move=move), tmp_path)
    assert caught.value.rule == "foreign_instances" and statuses == [0x0000, 0x0000, 0xC000]
    assert {ds.SeriesInstanceUID for ds in by_uid(list(tmp_path.glob("*.dcm"))).values()} == {good[0].SeriesInstanceUID}


def test_one_instance_twice(tmp_path: Path) -> None:
    """Identical copies count once; two contents of one instance are refused."""
    good = series(2)

    def twice(event: Any, port: int) -> Iterator[Any]:
        store_some(good * 2, port)
        yield "127.0.0.1", port
        yield 0

    assert len(fetched(Faulty(good, announced=2, move=twice), tmp_path / "same")) == 2

    def changed(event: Any, port: int) -> Iterator[Any]:
        other = series(2)[0]
        other.PixelData = bytes(len(other.PixelData))
        store_some([*good, other], port)
        yield "127.0.0.1", port
        yield 0

    with pytest.raises(TransferError) as caught:
        fetched(Faulty(good, announced=2, move=changed), tmp_path / "changed")
    assert caught.value.rule == "conflicting_instances"


def test_a_move_that_breaks_is_made_again(tmp_path: Path) -> None:
    """The association is dropped after some instances, twice; progress earns new attempts and the third brings all."""
    sent = series(4)
    server = Faulty(sent, announced=4)

    def move(event: Any, port: int) -> Iterator[Any]:
        number = server.calls.count("MOVE")
        store_some(sent[: number + 1], port)
        if number < 3:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        yield "127.0.0.1", port
        yield 0

    server.move = move
    assert set(
        by_uid(fetched(server, tmp_path, retry={"attempts": 2, "wait_seconds": 0.01, "timeout_seconds": 5}))
    ) == {ds.SOPInstanceUID for ds in sent}
    assert server.calls.count("MOVE") == 3


def test_a_move_that_always_breaks_ends_with_an_error(tmp_path: Path) -> None:
    """After the configured attempts the source is named, with nothing of the patient."""

    def move(event: Any, port: int) -> Iterator[Any]:
        event.assoc.abort()
        yield "127.0.0.1", port
        yield 0

    server = Faulty(series(2), announced=2, move=move)
    with pytest.raises(ServiceError, match="pacs was asked 3 times") as caught:
        fetched(server, tmp_path)
    assert server.calls.count("MOVE") == 3 and PATIENT not in str(caught.value)


def test_a_pacs_that_never_answers_c_move(tmp_path: Path) -> None:
    """Silence is waited for as long as configured, and no longer."""

    def move(event: Any, port: int) -> Iterator[Any]:
        wait_until(lambda: not event.assoc.is_established, "our abort")
        yield "127.0.0.1", port
        yield 0

    retry = {"attempts": 1, "wait_seconds": 0.01, "timeout_seconds": 0.5}
    with pytest.raises(ServiceError, match="did not answer during C-MOVE"):
        fetched(Faulty(series(1), announced=1, move=move), tmp_path, retry=retry)


def test_a_slow_move_without_a_word_in_between_is_waited_for(tmp_path: Path) -> None:
    """Instances that arrive are an answer: a transfer may take longer than the time-out of one answer."""
    sent = series(6)

    def move(event: Any, port: int) -> Iterator[Any]:
        with sender(port, title="PACS") as association:
            for ds in sent:
                time.sleep(0.2)  # six of these are longer than the time-out below
                send(association, [ds])
        yield "127.0.0.1", port
        yield 0

    retry = {"attempts": 1, "timeout_seconds": 0.8}
    assert len(fetched(Faulty(sent, announced=6, move=move), tmp_path, retry=retry)) == 6


def test_an_answer_before_the_last_instance(tmp_path: Path) -> None:
    """A PACS that sends on after it answered is waited for."""
    import threading

    sent = series(3)
    later: list[threading.Thread] = []

    def move(event: Any, port: int) -> Iterator[Any]:
        def rest() -> None:
            time.sleep(0.3)
            store_some(sent, port)

        later.append(threading.Thread(target=rest))
        later[0].start()
        yield "127.0.0.1", port
        yield 0

    assert len(fetched(Faulty(sent, announced=3, move=move), tmp_path, retry={"timeout_seconds": 5})) == 3
    later[0].join()


def test_strangers_cannot_store_into_a_move(tmp_path: Path) -> None:
    """Only who calls us by our AE title, and is the PACS by name or address, gets in."""
    sent = series(1)
    let_in: list[bool] = []

    def move(event: Any, port: int) -> Iterator[Any]:
        for title, called in (("PACS", "REDRAFT"), ("PACS", "OTHER")):
            with sender(port, title=title, called=called) as association:
                let_in.append(association.is_established)
        store_some(sent, port)
        yield "127.0.0.1", port
        yield 0

    assert len(fetched(Faulty(sent, announced=1, move=move), tmp_path)) == 1
    assert let_in == [True, False]


@pytest.mark.parametrize(("status", "code"), [(0xA801, "service.move_destination"), (0xC001, "service.refused")])
def test_a_pacs_that_refuses(tmp_path: Path, status: int, code: str) -> None:
    """What no repetition helps against is said at once."""

    def move(event: Any, port: int) -> Iterator[Any]:
        if status == 0xA801:
            yield None, None
            return
        yield "127.0.0.1", port
        yield 1
        yield status, None

    server = Faulty(series(1), announced=1, move=move)
    with pytest.raises(ServiceError) as caught:
        fetched(server, tmp_path)
    assert caught.value.code == code and server.calls.count("MOVE") == 1


def test_the_same_study_and_series_twice_are_offered_once() -> None:
    """Answers that repeat themselves are one."""
    (ds,) = series(1)

    def find(event: Any, query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        for _ in range(2):
            answer = Dataset()
            answer.StudyInstanceUID, answer.SeriesInstanceUID = ds.StudyInstanceUID, ds.SeriesInstanceUID
            answer.NumberOfSeriesRelatedInstances, answer.Modality = 7, "CT"
            yield 0xFF00, answer

    server = Faulty([ds], find=find)
    with running(server) as port:
        (offer,) = pacs(port).discover()
    assert offer.files == 7 and server.calls == ["STUDY", "SERIES"]
    assert ds.SeriesInstanceUID not in repr(offer)


def test_a_pacs_that_drops_queries_is_asked_again() -> None:
    """Studies that were looked through already are not asked for again."""
    held = [series(1, name=name)[0] for name in ("a", "b", "c")]
    dropped: list[str] = []

    def find(event: Any, query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        for ds in held:
            answer = Dataset()
            answer.StudyInstanceUID = ds.StudyInstanceUID
            if query.QueryRetrieveLevel == "SERIES":
                if query.StudyInstanceUID != ds.StudyInstanceUID:
                    continue
                if ds is held[1] and not dropped:
                    dropped.append("once")
                    event.assoc.abort()
                    return
                answer.SeriesInstanceUID, answer.NumberOfSeriesRelatedInstances = ds.SeriesInstanceUID, 1
            yield 0xFF00, answer

    server = Faulty(held, find=find)
    with running(server) as port:
        offers = list(pacs(port).discover())
    assert {offer.series_id for offer in offers} == {NAMES.series_id(ds.SeriesInstanceUID) for ds in held}
    assert server.calls == ["STUDY", "SERIES", "SERIES", "STUDY", "SERIES", "SERIES"]


def test_no_pacs_at_all() -> None:
    """Refused connections, silence and an unknown host end in an error that names the source."""
    with pytest.raises(ServiceError, match="source pacs was asked 3 times"):
        list(pacs(free_port()).discover())
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        retry = {"attempts": 1, "timeout_seconds": 0.3}
        with pytest.raises(ServiceError, match="source pacs"):
            pacs(silent.getsockname()[1], retry=retry).echo()
    with pytest.raises(ServiceError, match="does not resolve"):
        pacs(104, host="no-such-host.invalid").echo()


def test_a_full_disk_is_ours_to_say(tmp_path: Path) -> None:
    """A folder that cannot be written is a StorageError, not an incomplete transfer."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    server = Faulty(series(1, side=512), announced=1)
    with running(server) as port:
        source = pacs(port)
        server.destination = port_of(source)
        (offer,) = source.discover()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(StorageError, match="could not be written"):
                source.fetch(offer, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


# -- keys -------------------------------------------------------------------------------------------------------------
def test_conditions_become_keys() -> None:
    """Dates become a range, one modality a key, letters any character, each accession number a query of its own."""
    wanted = Wanted(
        modalities=("CT",), study_description="*Abd? 2*", dates=(date(2024, 1, 2), None), accessions=Path("list")
    )
    first, second = study_queries(wanted, ["B2", "A1"])
    assert (first.AccessionNumber, second.AccessionNumber) == ("A1", "B2")
    assert first.QueryRetrieveLevel == "STUDY" and first.StudyInstanceUID == ""
    assert (first.StudyDate, first.ModalitiesInStudy, first.StudyDescription) == ("20240102-", "CT", "*???? 2*")
    (plain,) = study_queries(Wanted(modalities=("CT", "MR"), study_description="*"), [])
    assert (plain.StudyDate, plain.ModalitiesInStudy, plain.StudyDescription) == ("", "", "")
    (umlaut,) = study_queries(Wanted(study_description="schädel"), [])
    assert umlaut.StudyDescription == "???*???"


def test_a_key_that_the_pacs_does_not_know_is_left_to_the_headers() -> None:
    """Left out of the answer: unknown, so the series is offered. Answered empty: it has no value, and is not wanted."""
    (ds,) = series(1)

    def finder(answered: dict[str, str]) -> Any:
        def find(event: Any, query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
            answer = Dataset()
            answer.StudyInstanceUID, answer.SeriesInstanceUID = ds.StudyInstanceUID, ds.SeriesInstanceUID
            answer.NumberOfSeriesRelatedInstances, answer.Modality = 1, "CT"
            for key, value in answered.items():
                setattr(answer, key, value)
            yield 0xFF00, answer

        return find

    for answered, count in (({}, 1), ({"BodyPartExamined": ""}, 0), ({"BodyPartExamined": "KIDNEY"}, 1)):
        with running(Faulty([ds], find=finder(answered))) as port:
            offers: list[Offer] = list(pacs(port, wanted={"body_part": ["KIDNEY"]}).discover())
        assert len(offers) == count, answered


def test_odd_values_are_read_and_repeated_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """What pydicom would complain about in a query or an answer, quoting it, is in no warning and no log."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        answer = query_of("STUDY", (), StudyInstanceUID="1.2.LEAKY", AccessionNumber="LEAKY" * 5)
        for tag, vr, value in ((0x0020000E, "UI", b"1.2.LEAKY"), (0x00080050, "SH", b"LEAKY" * 5)):
            answer[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
        assert text_of(answer, "SeriesInstanceUID") == "1.2.LEAKY" and text_of(answer, "AccessionNumber") == "LEAKY" * 5
    assert told == []
    with pytest.warns(UserWarning, match="LEAKY"):
        warn_and_log("LEAKY")  # as pydicom complains: twice
    assert "LEAKY" not in caplog.text
