from __future__ import annotations

import base64
import json
import logging
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

from redraft.config.sources import DicomWebSource as Section
from redraft.errors import ConfigError, SecurityError, ServiceError, TransferError
from redraft.phantom import write_phantom
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources import open_source
from redraft.sources.dicomweb import DicomWebSource
from redraft.sources.dicomweb.wado import CHUNK
from redraft.sources.protocol import Offer, SourceContext
from tests.servers.certificates import Authority
from tests.servers.faulty import Fault, FaultyProxy, faulty_proxy
from tests.servers.orthanc import Orthanc, running_orthanc

Make = Callable[..., DicomWebSource]
PSEUDONYMS = Pseudonyms(KeyRing.published_demo())
EXAMS = 5
SERIES = r"GET /studies/[^/]+/series/[^/]+$"
INSTANCE = r"GET /studies/[^/]+/series/[^/]+/instances/"
LISTING = r"GET /studies/[^/]+/series/[^/]+/instances\?"
SEARCH = r"GET /series\?"


class Exam:
    """One series as it lies in the server, and on disk."""

    def __init__(self, paths: list[Path]):
        self.paths = {pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID: path for path in paths}
        self.header = pydicom.dcmread(paths[0], stop_before_pixels=True)
        self.series_id = PSEUDONYMS.series_id(self.header.SeriesInstanceUID)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Exam], list[str]]:
    """Exams, and every identifier in them."""
    folder = tmp_path_factory.mktemp("phantom")
    planted = write_phantom(folder, EXAMS, seed=11).planted
    folders = sorted({path.parent for path in (folder / "images").rglob("*.dcm")})
    exams = [Exam(sorted(one.glob("*.dcm"))) for one in folders]
    return exams, [*planted, *(uid for exam in exams for uid in exam.paths)]


@pytest.fixture(scope="module")
def exams(orthanc: Orthanc, phantom: tuple[list[Exam], list[str]]) -> dict[str, Exam]:
    """What the server holds, by pseudonym of the series."""
    orthanc.clear()
    for exam in phantom[0]:
        orthanc.put(exam.paths.values())
    return {exam.series_id: exam for exam in phantom[0]}


@pytest.fixture
def make(orthanc: Orthanc, context: Callable[..., SourceContext]) -> Make:
    """Makes a source; the waits between its attempts are noted and not waited."""

    def source(url: str | None = None, password: str | None = None, **settings: Any) -> DicomWebSource:
        env = {"DW_USER": orthanc.user, "DW_PASSWORD": password or orthanc.password, "DW_TOKEN": "a-token"}
        login = (
            {} if "bearer" in settings else {"basic": {"user": {"env": "DW_USER"}, "password": {"env": "DW_PASSWORD"}}}
        )
        section = Section.model_validate(
            {"kind": "dicomweb", "name": "pacs", "url": url or orthanc.dicomweb_url, **login, **settings}
        )
        waits: list[float] = []
        made = DicomWebSource(section, context(env), wait=waits.append)
        made.waits = waits  # type: ignore[attr-defined]
        return made

    return source


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """The folder of one offer."""
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


@pytest.fixture
def proxied(orthanc: Orthanc) -> Iterator[Callable[..., FaultyProxy]]:
    """Starts proxies in front of the server."""
    with ExitStack() as stack:
        yield lambda *faults, **options: stack.enter_context(faulty_proxy(orthanc.dicomweb_url, *faults, **options))


def one_offer(source: DicomWebSource, exams: dict[str, Exam]) -> tuple[Offer, Exam]:
    offer = min(source.discover(), key=lambda offer: offer.series_id)
    return offer, exams[offer.series_id]


def assert_whole(paths: Any, exam: Exam) -> None:
    expected = {f"{PSEUDONYMS.uid(uid)}.dcm": path.read_bytes() for uid, path in exam.paths.items()}
    assert {path.name: path.read_bytes() for path in paths} == expected


def assert_private(error: Exception, identifiers: list[str]) -> None:
    text = f"{error!s} {error!r} {vars(error)} {error.__cause__}"
    assert [one for one in identifiers if one in text] == []


# -- what a healthy server gives ---------------------------------------------------------------------------------------
def test_every_series_is_offered_once_and_comes_byte_for_byte(
    make: Make, exams: dict[str, Exam], tmp_path: Path, phantom: tuple[list[Exam], list[str]]
) -> None:
    """Discovery gives every series with its count; fetched files equal the stored ones and carry pseudonyms only."""
    source = make()
    offers = list(source.discover())
    assert sorted(offer.series_id for offer in offers) == sorted(exams)
    for offer in offers:
        exam = exams[offer.series_id]
        assert offer.files == len(exam.paths) and offer.refused is None
        folder = tmp_path / offer.series_id
        assert_whole(source.fetch(offer, folder), exam)
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
        source.acknowledge(offer, ["admitted"])
        shown = f"{offer!r} {[str(path) for path in folder.iterdir()]}"
        assert [one for one in phantom[1] if one in shown] == []


def test_versions_stay_until_the_series_changes(
    make: Make, orthanc: Orthanc, exams: dict[str, Exam], tmp_path: Path
) -> None:
    """Unchanged series keep their version, also when their study grows; one that lost an instance gets another."""
    before = {offer.series_id: offer.version for offer in make().discover()}
    assert before == {offer.series_id: offer.version for offer in make().discover()} and len(set(before.values())) == 5
    exam = exams[min(exams)]
    added = pydicom.dcmread(next(iter(exam.paths.values())))
    added.SeriesInstanceUID, added.SOPInstanceUID = "2.25.1", "2.25.2"
    added.file_meta.MediaStorageSOPInstanceUID = "2.25.2"
    added.save_as(tmp_path / "added.dcm")
    (other,) = orthanc.put([tmp_path / "added.dcm"])
    uid, path = next(iter(exam.paths.items()))
    (gone,) = orthanc.find("Instance", SOPInstanceUID=uid)
    try:
        after = {offer.series_id: offer.version for offer in make().discover()}
        assert {key for key in before if after[key] == before[key]} == set(before)
        orthanc.delete(f"instances/{gone}")
        after = {offer.series_id: offer.version for offer in make().discover()}
        assert {key for key in before if after[key] != before[key]} == {exam.series_id}
    finally:
        orthanc.delete(f"instances/{other}")
        orthanc.put([path])


@pytest.mark.parametrize("page", [1, 2, 5, 100])
def test_pages_are_read_to_the_end(page: int, make: Make, exams: dict[str, Exam], spool: Path) -> None:
    """However small the pages of series and instances are, nothing is left out or given twice."""
    source = make(page=page)
    offers = list(source.discover())
    assert sorted(offer.series_id for offer in offers) == sorted(exams)
    chosen = make(page=page, wanted={"modalities": ["CT", "MR"], "dates": ["1990-01-01", None]})
    assert sorted(offer.series_id for offer in chosen.discover()) == sorted(exams)
    assert_whole(source.fetch(offers[0], spool), exams[offers[0].series_id])


def test_real_series_come_byte_for_byte(
    context: Callable[..., SourceContext], shared_data: Path, tmp_path: Path
) -> None:
    """Series of real scanners, whatever their transfer syntax, arrive as they were stored."""
    folders = sorted(path.parent for path in shared_data.glob("*dicom*/**/*0.dcm"))
    found = [sorted(folder.glob("*.dcm"))[:40] for folder in dict.fromkeys(folders)][:6]
    if not found:
        pytest.skip("no DICOM series in ../shared/data")
    with running_orthanc(tmp_path / "server") as server:
        for paths in found:
            server.put(paths)
        login = {"user": {"env": "U"}, "password": {"env": "P"}}
        section = Section.model_validate(
            {"kind": "dicomweb", "name": "pacs", "url": server.dicomweb_url, "basic": login}
        )
        source = open_source(section, context({"U": server.user, "P": server.password}))
        arrived: set[bytes] = set()
        for offer in source.discover():
            arrived |= {path.read_bytes() for path in source.fetch(offer, tmp_path / offer.series_id)}
    assert arrived == {path.read_bytes() for paths in found for path in paths}


# -- which series are wanted -------------------------------------------------------------------------------------------
def by_headers(exams: dict[str, Exam], condition: Callable[[pydicom.Dataset], bool]) -> list[str]:
    return sorted(key for key, exam in exams.items() if condition(exam.header))


def test_conditions_choose_what_the_headers_say(make: Make, exams: dict[str, Exam]) -> None:
    """Each condition gives exactly the series whose headers meet it, in either case of its letters."""
    dates = sorted(exam.header.StudyDate for exam in exams.values())
    middle = f"{dates[2][:4]}-{dates[2][4:6]}-{dates[2][6:]}"
    word = exams[min(exams)].header.SeriesDescription.split()[-1]
    for wanted, condition in [
        ({"modalities": ["CT", "MR"]}, lambda one: one.Modality in ("CT", "MR")),
        ({"modalities": ["MR"]}, lambda one: one.Modality == "MR"),
        ({"dates": [middle, None]}, lambda one: one.StudyDate >= dates[2]),
        ({"dates": [None, middle]}, lambda one: one.StudyDate <= dates[2]),
        ({"dates": [middle, middle]}, lambda one: one.StudyDate == dates[2]),
        ({"series_description": f"*{word.upper()}*"}, lambda one: word in one.SeriesDescription),
        ({"study_description": "ct ABDOMEN*"}, lambda one: one.StudyDescription.startswith("CT abdomen")),
        ({"body_part": ["chest", "abdo*"]}, lambda one: one.BodyPartExamined == "ABDOMEN"),
        ({"body_part": ["CHEST"], "modalities": ["CT"]}, lambda one: False),
    ]:
        offered = sorted(offer.series_id for offer in make(wanted=wanted).discover())
        assert offered == by_headers(exams, condition), wanted


def test_an_accession_list_asks_for_its_numbers_only(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], tmp_path: Path
) -> None:
    """Two of five exams by their numbers: the archive is not listed, and no number matches as a pattern."""
    numbers = [exam.header.AccessionNumber for exam in exams.values()]
    (tmp_path / "list.txt").write_text(f"{numbers[0]}\n{numbers[1]}  # a remark\n\nACC*\n")
    proxy = proxied()
    offers = list(make(proxy.url, wanted={"accessions": str(tmp_path / "list.txt")}).discover())
    assert sorted(offer.series_id for offer in offers) == by_headers(
        exams, lambda one: one.AccessionNumber in numbers[:2]
    )
    assert all("AccessionNumber=" in line for line in proxy.requests)


def strip(*tags: str) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        return json.dumps([{k: v for k, v in one.items() if k not in tags} for one in json.loads(body)]).encode()

    return change


def test_what_a_server_does_not_tell_is_read_from_the_header(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy]
) -> None:
    """A server that answers without the body part and the study's description does not empty the selection."""
    proxy = proxied(Fault(SEARCH, -1, change=strip("00180015", "00081030")))
    wanted = {"body_part": ["abdomen"], "study_description": "ct*"}
    assert len(list(make(proxy.url, wanted=wanted).discover())) == EXAMS
    assert list(make(proxy.url, wanted={**wanted, "body_part": ["chest"]}).discover()) == []


def test_a_server_that_searches_by_study_only_is_searched_by_study(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy]
) -> None:
    """The search over all series is optional; the same series are found study by study."""
    proxy = proxied(Fault(SEARCH, -1, status=501))
    direct = {offer.series_id for offer in make(wanted={"modalities": ["CT"]}, page=2).discover()}
    assert {offer.series_id for offer in make(proxy.url, wanted={"modalities": ["CT"]}, page=2).discover()} == direct
    assert direct == set(exams)


# -- servers that do wrong ---------------------------------------------------------------------------------------------
def test_the_same_study_twice_is_one_offer_each(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy]
) -> None:
    """Every series listed twice in an answer is offered once."""
    proxy = proxied(Fault(SEARCH, -1, change=lambda body: json.dumps(json.loads(body) * 2).encode()))
    assert sorted(offer.series_id for offer in make(proxy.url).discover()) == sorted(exams)


def test_a_server_that_knows_no_pages_is_not_asked_for_ever(
    make: Make, orthanc: Orthanc, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy]
) -> None:
    """The whole list whatever is asked: two questions, every series once."""
    everything = orthanc.rest("GET", "dicom-web/series", headers={"Accept": "application/dicom+json"}).content
    proxy = proxied(Fault(SEARCH, -1, change=lambda _: everything))
    assert sorted(offer.series_id for offer in make(proxy.url, page=2).discover()) == sorted(exams)
    assert len(proxy.requests) == 2
    # It heeds no conditions either: what both questions bring is offered once, and what is not wanted not at all.
    both = make(proxy.url, wanted={"modalities": ["CT", "MR"]})
    assert sorted(offer.series_id for offer in both.discover()) == sorted(exams)
    assert list(make(proxy.url, wanted={"modalities": ["MR"]}).discover()) == []


def test_a_server_with_a_limit_of_its_own_is_read_to_the_end(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy]
) -> None:
    """It gives two at a time whatever we ask for: a page that is short is not taken for the last."""
    proxy = proxied(Fault(SEARCH, -1, change=lambda body: json.dumps(json.loads(body)[:2]).encode()))
    assert sorted(offer.series_id for offer in make(proxy.url, page=100).discover()) == sorted(exams)


def test_a_wrong_password_is_said_at_once(
    make: Make, exams: dict[str, Exam], phantom: tuple[list[Exam], list[str]]
) -> None:
    """No second attempt; the error names the source and not the password."""
    source = make(password="wrong-one")
    with pytest.raises(ServiceError, match=r"pacs does not accept the login \(HTTP 401\)") as caught:
        list(source.discover())
    assert not caught.value.retry and source.waits == [] and "wrong-one" not in str(caught.value)  # type: ignore[attr-defined]


def test_a_bearer_token_is_sent_and_read_anew(
    make: Make, exams: dict[str, Exam], orthanc: Orthanc, proxied: Callable[..., FaultyProxy], tmp_path: Path
) -> None:
    """Every request carries the token that its file holds then: one that is renewed meanwhile is used."""
    (tmp_path / "token").write_text("first\n")
    basic = orthanc.session.auth
    assert isinstance(basic, tuple)
    login = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
    proxy = proxied(headers=[("Authorization", login)])
    source = make(proxy.url, bearer={"file": str(tmp_path / "token")})
    offer, exam = one_offer(source, exams)
    (tmp_path / "token").write_text("second\n")
    assert_whole(source.fetch(offer, tmp_path / "spool"), exam)
    assert list(dict.fromkeys(proxy.authorizations)) == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    ("status", "words"), [(403, "does not permit"), (404, "no DICOMweb service"), (418, "HTTP 418")]
)
def test_refusals_are_not_repeated(status: int, words: str, make: Make, proxied: Callable[..., FaultyProxy]) -> None:
    """What asking again does not change is asked once for each way to search."""
    source = make(proxied(Fault(".", -1, status=status)).url)
    with pytest.raises(ServiceError, match=words) as caught:
        list(source.discover())
    assert source.waits == [] and "the server's own words" not in str(caught.value)  # type: ignore[attr-defined]


def test_an_answer_that_is_no_dicomweb_is_named(make: Make, proxied: Callable[..., FaultyProxy]) -> None:
    """A login page with status 200 is no empty archive."""
    for body in (b"<html>Please log in</html>", b'{"error": 1}', b"[1, 2]", b'[{"00080060": {"Value": ["CT"]}}]'):
        with pytest.raises(ServiceError, match="not as DICOMweb"):
            list(make(proxied(Fault(".", -1, change=lambda _, body=body: body)).url).discover())  # type: ignore[misc]


def test_uids_that_would_change_a_url_are_refused(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy]
) -> None:
    """A server cannot make us ask for another path: such a series is offered as refused and never fetched."""

    def change(body: bytes) -> bytes:
        found = json.loads(body)
        for one, uid in zip(found, ["../../instances", "1.2?x=1", "1.2%2f3", "..", "1.2#3"], strict=False):
            one["0020000E"]["Value"] = [uid]
        return json.dumps(found).encode()

    proxy = proxied(Fault(SEARCH, -1, change=change))
    assert [offer.refused for offer in make(proxy.url).discover()] == ["invalid_uid"] * EXAMS


def test_a_busy_server_is_asked_again_as_it_wishes(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path
) -> None:
    """503 with Retry-After, then 429, then an answer: the longer wait of the two counts, and the series is whole."""
    proxy = proxied(
        Fault(SEARCH, 1, status=503, headers={"Retry-After": "7"}),
        Fault(SEARCH, 1, status=429),
        Fault(SERIES, 1, status=502),
    )
    source = make(proxy.url)
    offer, exam = one_offer(source, exams)
    assert_whole(source.fetch(offer, spool), exam)
    assert source.waits == [7.0, 2.0, 1.0]  # type: ignore[attr-defined]


def test_a_server_that_is_not_there_is_an_error_with_the_sources_name(make: Make) -> None:
    """Every attempt is made, with doubled waits; then the error says what to do."""
    source = make("http://127.0.0.1:9", retry={"attempts": 3, "wait_seconds": 0.5})
    with pytest.raises(ServiceError, match="The source pacs was asked 3 times in a row: the connection") as caught:
        list(source.discover())
    assert caught.value.retry and source.waits == [0.5, 1.0]  # type: ignore[attr-defined]


def test_silence_is_ended_by_the_timeout(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path
) -> None:
    """A server that says nothing is asked again, both when searching and when fetching."""
    proxy = proxied(Fault(SEARCH, 1, hang=True), Fault(SERIES, 1, hang=True))
    source = make(proxy.url, retry={"timeout_seconds": 0.5})
    offer, exam = one_offer(source, exams)
    assert_whole(source.fetch(offer, spool), exam)
    assert len(source.waits) == 2  # type: ignore[attr-defined]
    proxy.faults.append(Fault(".", -1, hang=True))
    with pytest.raises(ServiceError, match="did not answer in time"):
        list(make(proxy.url, retry={"timeout_seconds": 0.2, "attempts": 2}).discover())


# -- transfers that break ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("after", [10, 100_000, 250_000])
def test_a_transfer_that_breaks_goes_on_where_it_stopped(
    framed: bool, after: int, make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path
) -> None:
    """Dropped once in the middle, with or without an announced length: what was whole is not asked for again."""
    proxy = proxied(Fault(SERIES, 1, drop_after=after, framed=framed))
    source = make(proxy.url)
    offer, exam = one_offer(source, exams)
    assert_whole(source.fetch(offer, spool), exam)
    kept = (after - CHUNK) // max(path.stat().st_size + 300 for path in exam.paths.values())
    assert after == 10 or kept >= 1
    if kept > 0:
        assert len(proxy.asked(SERIES)) == 1
        assert 1 <= len(proxy.asked(INSTANCE)) <= len(exam.paths) - kept
    else:
        assert len(proxy.asked(SERIES)) == 2


def test_an_end_without_a_closing_delimiter_is_no_end(
    make: Make, exams: dict[str, Exam], orthanc: Orthanc, proxied: Callable[..., FaultyProxy], spool: Path
) -> None:
    """Bodies that end with the connection and lack their last bytes: the last instance is fetched again."""

    def cut(body: bytes) -> bytes:
        assert body.rstrip().endswith(b"--")
        return body[: body.rfind(b"\r\n--") - 2_000]

    proxy = proxied(Fault(SERIES, 1, change=cut, framed=False))
    source = make(proxy.url)
    offer, exam = one_offer(source, exams)
    assert_whole(source.fetch(offer, spool), exam)
    assert len(proxy.asked(INSTANCE)) == 1


def test_what_is_never_whole_is_never_handed_on_and_resumes_later(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path,
    phantom: tuple[list[Exam], list[str]],
) -> None:  # fmt: skip
    """The connection breaks for good: an error, whole files only in the folder; the next fetch brings the rest."""
    proxy = proxied(Fault(SERIES, -1, drop_after=150_000), Fault(INSTANCE, 3), Fault(INSTANCE, -1, drop_after=5_000))
    source = make(proxy.url)
    offer, exam = one_offer(source, exams)
    with pytest.raises(ServiceError, match="pacs was asked 4 times in a row: the connection broke") as caught:
        source.fetch(offer, spool)
    assert_private(caught.value, phantom[1])
    contents = {path.read_bytes() for path in exam.paths.values()}
    there = list(spool.iterdir())
    assert 3 < len(there) < len(exam.paths) and all(path.read_bytes() in contents for path in there)
    healthy = proxied()
    assert_whole(make(healthy.url).fetch(offer, spool), exam)
    assert len(healthy.asked(INSTANCE)) == len(exam.paths) - len(there) and not healthy.asked(SERIES)


def test_a_poor_line_that_brings_something_each_time_gets_there(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path
) -> None:
    """More drops than attempts, each behind some progress: attempts are counted anew."""
    faults = [fault for _ in range(10) for fault in (Fault(INSTANCE, 1), Fault(INSTANCE, 1, drop_after=100))]
    proxy = proxied(Fault(SERIES, 1, drop_after=100_000), *faults)
    source = make(proxy.url, retry={"attempts": 2})
    offer, exam = one_offer(source, exams)
    assert_whole(source.fetch(offer, spool), exam)
    assert len(source.waits) == 11  # type: ignore[attr-defined]


def test_leftovers_of_another_state_go(make: Make, exams: dict[str, Exam], spool: Path) -> None:
    """Half written files and files that are not announced any more are removed, and not handed on."""
    (spool / ".partial-x.dcm").write_bytes(b"half")
    (spool / "2.25.7.dcm").write_bytes(b"gone from the server")
    source = make()
    offer, exam = one_offer(source, exams)
    paths = source.fetch(offer, spool)
    assert_whole(paths, exam)
    assert sorted(spool.iterdir()) == sorted(paths)


# -- transfers that lie ------------------------------------------------------------------------------------------------
def announced(number: int) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        found = json.loads(body)
        for one in found:
            one["00201209"]["Value"] = [number]
        return json.dumps(found).encode()

    return change


@pytest.mark.parametrize("number", [31, 33])
def test_another_number_than_announced_is_refused(
    number: int, make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path,
    phantom: tuple[list[Exam], list[str]],
) -> None:  # fmt: skip
    """One too few or too many: refused with both numbers, nothing handed on."""
    source = make(proxied(Fault(SEARCH, -1, change=announced(number))).url)
    offer, _ = one_offer(source, exams)
    with pytest.raises(TransferError) as caught:
        source.fetch(offer, spool)
    assert caught.value.rule == "incomplete_transfer" and caught.value.retry
    assert caught.value.measured == {"announced": number, "arrived": 32}
    assert_private(caught.value, phantom[1])


def without_parts(count: int) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        boundary = body[: body.index(b"\r\n")]
        found = body.split(b"\r\n" + boundary)
        return (b"\r\n" + boundary).join([*found[: -1 - count], found[-1]])

    return change


def test_instances_that_the_server_never_gives_are_counted(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path
) -> None:
    """A series answer two short, and 404 for the two: incomplete; where they can be had singly, whole."""
    proxy = proxied(Fault(SERIES, 1, change=without_parts(2)), Fault(INSTANCE, 1, status=404))
    source = make(proxy.url)
    offer, exam = one_offer(source, exams)
    with pytest.raises(TransferError) as caught:
        source.fetch(offer, spool)
    assert caught.value.measured == {"announced": 32, "arrived": 30, "http_status": 404}
    assert_whole(source.fetch(offer, spool), exam)


def test_instances_of_another_series_are_refused(
    make: Make, orthanc: Orthanc, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path,
    phantom: tuple[list[Exam], list[str]],
) -> None:  # fmt: skip
    """The body of another series, whole and well formed: no file of it stays, and the rule says why."""
    other = exams[max(exams)].header
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    path = f"dicom-web/studies/{other.StudyInstanceUID}/series/{other.SeriesInstanceUID}"
    answer = orthanc.rest("GET", path, headers=headers)
    wrong = Fault(SERIES, -1, change=lambda _: answer.content, headers={"Content-Type": answer.headers["Content-Type"]})
    source = make(proxied(wrong).url)
    offer, _ = one_offer(source, exams)
    with pytest.raises(TransferError) as caught:
        source.fetch(offer, spool)
    assert caught.value.rule == "foreign_instances"
    assert caught.value.measured == {"announced": 32, "arrived": 0, "foreign": 32}
    assert list(spool.iterdir()) == []
    assert_private(caught.value, phantom[1])


def test_two_contents_of_one_instance_are_refused_and_equal_ones_are_one(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], tmp_path: Path
) -> None:
    """An instance sent twice counts once; sent twice with different pixels it is one too many."""

    def doubled(last: bytes) -> Callable[[bytes], bytes]:
        def change(body: bytes) -> bytes:
            boundary = body[: body.index(b"\r\n")]
            found = body.split(b"\r\n" + boundary)
            return (b"\r\n" + boundary).join([*found[:-1], found[-2][:-1] + (last or found[-2][-1:]), found[-1]])

        return change

    source = make(proxied(Fault(SERIES, 1, change=doubled(b""))).url)
    offer, exam = one_offer(source, exams)
    assert_whole(source.fetch(offer, tmp_path / "equal"), exam)
    source = make(proxied(Fault(SERIES, 1, change=doubled(b"\x7b"))).url)
    with pytest.raises(TransferError) as caught:
        source.fetch(offer, tmp_path / "different")
    assert caught.value.rule == "incomplete_transfer"
    assert caught.value.measured == {"announced": 32, "arrived": 33}


@pytest.mark.parametrize(("status", "attempts"), [(403, 1), (404, 1), (406, 1), (500, 4)])
def test_a_series_that_is_refused_does_not_end_the_source(
    status: int, attempts: int, make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy], spool: Path
) -> None:
    """One that is locked, gone or broken on the server is an error of that series; an expired login is not."""
    proxy = proxied(Fault(SERIES, -1, status=status))
    source = make(proxy.url)
    offer, _ = one_offer(source, exams)
    with pytest.raises(TransferError) as caught:
        source.fetch(offer, spool)
    assert caught.value.measured == {"announced": 32, "arrived": 0, "http_status": status}
    assert len(proxy.asked(SERIES)) == attempts
    proxy.faults[:] = [Fault(SERIES, -1, status=401)]
    with pytest.raises(ServiceError, match="login"):
        source.fetch(offer, spool)


# -- TLS ---------------------------------------------------------------------------------------------------------------
def test_both_sides_show_a_certificate(
    make: Make,
    exams: dict[str, Exam],
    proxied: Callable[..., FaultyProxy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With our certificate and their authority it works; without either it is refused, in words."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "elsewhere.pem"))  # must not replace tls.ca
    authority, stranger = Authority(tmp_path / "hospital"), Authority(tmp_path / "stranger", "another authority")
    server, ours, foreign = authority.issue("server"), authority.issue("redraft"), stranger.issue("unknown")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(server.certificate, server.key)
    tls.load_verify_locations(authority.ca)
    tls.verify_mode = ssl.CERT_REQUIRED
    proxy = proxied(tls=tls)
    good = {"ca": str(authority.ca), "certificate": str(ours.certificate), "key": str(ours.key)}
    source = make(proxy.url, tls=good)
    offer, exam = one_offer(source, exams)
    assert_whole(source.fetch(offer, tmp_path / "spool"), exam)
    for wrong in ({**good, "ca": str(stranger.ca)}, {**good, "key": str(foreign.key)}):
        source = make(proxy.url, tls=wrong)
        with pytest.raises(ServiceError, match=r"pacs and this machine do not trust each other \(TLS\)"):
            list(source.discover())
        assert source.waits == []  # type: ignore[attr-defined]
    # What the server refuses may look like a broken connection at first: it closes while we are still speaking.
    for refused in ({"ca": good["ca"]}, {**good, "certificate": str(foreign.certificate), "key": str(foreign.key)}):
        with pytest.raises(ServiceError, match=r"TLS.*`tls\.certificate`"):
            list(make(proxy.url, tls=refused).discover())


def test_keys_that_cannot_be_used_are_named(make: Make, tmp_path: Path) -> None:
    """Absent, with a passphrase, or inside the project: said before anything is asked."""
    pair = Authority(tmp_path / "hospital").issue("redraft")
    inside = tmp_path / "project" / "redraft.key"
    inside.parent.mkdir()
    inside.write_bytes(pair.key.read_bytes())
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    for key, words in ((tmp_path / "no", "cannot be read"), (inside, "inside the project"), (locked, "a passphrase")):
        with pytest.raises((ConfigError, SecurityError), match=words):
            list(make("https://localhost:9", tls={"certificate": str(pair.certificate), "key": str(key)}).discover())


# -- storing, and headers ----------------------------------------------------------------------------------------------
def derived(exam: Exam, uid: str) -> pydicom.Dataset:
    dataset = pydicom.dcmread(next(iter(exam.paths.values())))
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "2.25.77", uid
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    return dataset


def test_stored_instances_are_in_the_server(make: Make, orthanc: Orthanc, exams: dict[str, Exam]) -> None:
    """Two instances of a new series, stored over a server that is busy at first, read back as they were sent."""
    exam = exams[min(exams)]
    sent = [derived(exam, "2.25.771"), derived(exam, "2.25.772")]
    try:
        assert [one.ok for one in make().store(sent)] == [True, True]
        assert [one.ok for one in make().store(sent)] == [True, True]  # again does no harm
        for dataset in sent:
            (found,) = orthanc.find("Instance", SOPInstanceUID=dataset.SOPInstanceUID)
            back = pydicom.dcmread(BytesIO(orthanc.rest("GET", f"instances/{found}/file").content))
            assert back == dataset
    finally:
        for found in orthanc.find("Series", SeriesInstanceUID="2.25.77"):
            orthanc.delete(f"series/{found}")


def test_instances_that_a_server_refuses_are_told_one_by_one(
    make: Make, orthanc: Orthanc, exams: dict[str, Exam]
) -> None:
    """An object without a study between two good ones: each has its own outcome, and the good ones are there."""
    sent = [derived(exams[min(exams)], f"2.25.77{number}") for number in range(3)]
    del sent[1].StudyInstanceUID
    try:
        done = make().store(sent)
        assert [(one.uid, one.ok) for one in done] == [("2.25.770", True), ("2.25.771", False), ("2.25.772", True)]
        assert done[1].reason == 0xC000 and done[1].why == "it does not understand the object"
        assert len(orthanc.find("Instance", SeriesInstanceUID="2.25.77")) == 2
    finally:
        for found in orthanc.find("Series", SeriesInstanceUID="2.25.77"):
            orthanc.delete(f"series/{found}")


def test_reasons_of_refusal_are_in_words(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy]
) -> None:
    """Failure reasons of PS3.4 GG become words; a status alone counts too; 503 is asked again, 401 an error."""
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}
    changed = {"00081199": {"vr": "SQ", "Value": [{"00081196": {"vr": "US", "Value": [0xB000]}}]}}
    dataset = derived(exams[min(exams)], "2.25.771")
    for answer, ok, words in ((failed, False, "out of space"), (changed, True, "changed"), ({}, True, "")):
        fault = Fault("POST", 1, status=None, change=lambda _, answer=answer: json.dumps(answer).encode())  # type: ignore[misc]
        # What the real server makes of it does not matter here: its answer is replaced.
        (one,) = make(proxied(fault).url).store([dataset])
        assert (one.ok, words in one.why) == (ok, True)
    (one,) = make(proxied(Fault("POST", 1, status=409)).url).store([dataset])
    assert not one.ok
    source = make(proxied(Fault("POST", 1, status=503)).url)
    assert source.store([dataset])[0].ok and source.waits == [1.0]  # type: ignore[attr-defined]
    with pytest.raises(ServiceError, match="login"):
        make(password="wrong").store([dataset])


def test_what_the_server_holds_is_told_from_what_it_does_not(
    make: Make, exams: dict[str, Exam], proxied: Callable[..., FaultyProxy]
) -> None:
    """An instance that is there, one that shows later, others that never do, and a server that does not say."""
    exam = next(iter(exams.values()))
    study, series, uid = exam.header.StudyInstanceUID, exam.header.SeriesInstanceUID, next(iter(exam.paths))
    assert make().holds(study, series, uid)
    late = make(proxied(Fault(f"/series/{series}/instances", 2, status=204)).url)
    # The server behind the proxy may itself be late once.
    assert late.holds(study, series, uid) and late.waits[:2] == [1.0, 2.0]  # type: ignore[attr-defined]
    for asked in ((study, series, "2.25.1"), (study, "2.25.1", uid), ("2.25.1", series, uid)):
        source = make(retry={"attempts": 2})
        assert not source.holds(*asked) and source.waits == [1.0]  # type: ignore[attr-defined]
    down = make("http://127.0.0.1:9", retry={"attempts": 3})
    with pytest.raises(ServiceError) as caught:
        down.holds(study, series, uid)
    assert caught.value.code == "service.unreachable" and down.waits == [1.0, 2.0]  # type: ignore[attr-defined]
    with pytest.raises(ServiceError, match="does not accept the login"):
        make(password="wrong").holds(study, series, uid)


def test_headers_are_those_of_the_files_without_pixels(make: Make, exams: dict[str, Exam]) -> None:
    """Every attribute of every instance as in the files, but bulk data; of an unknown series none."""
    exam = exams[min(exams)]
    headers = make().headers(exam.header.StudyInstanceUID, exam.header.SeriesInstanceUID)
    assert len(headers) == len(exam.paths)
    for header in headers:
        original = pydicom.dcmread(exam.paths[header.SOPInstanceUID], stop_before_pixels=True)
        assert "PixelData" not in header and header.PatientName == original.PatientName
        for keyword in (
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "PixelSpacing",
            "Rows",
            "FrameOfReferenceUID",
        ):
            assert header[keyword].value == original[keyword].value
        assert {e.tag for e in original} - {e.tag for e in header} == set()
    for study, series in (("1.2.3", "../.."), (exam.header.StudyInstanceUID, "1.2.3"), ("1.2.3", "1.2.4")):
        assert make().headers(study, series) == []


def test_logs_hold_no_identifier(
    make: Make, exams: dict[str, Exam], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    phantom: tuple[list[Exam], list[str]], orthanc: Orthanc,
) -> None:  # fmt: skip
    """At the most talkative level, finding, fetching, reading headers and storing leave no UID or number behind."""
    numbers = tmp_path / "list.txt"
    exam = exams[min(exams)]
    numbers.write_text(exam.header.AccessionNumber)
    with caplog.at_level(logging.DEBUG):
        source = make(wanted={"accessions": str(numbers)})
        for offer in source.discover():
            source.fetch(offer, tmp_path / "spool")
        source.headers(exam.header.StudyInstanceUID, exam.header.SeriesInstanceUID)
        source.store([pydicom.dcmread(next(iter(exam.paths.values())))])
    assert [one for one in phantom[1] if one in caplog.text] == []
    assert not re.search(r"\d\.\d+\.\d+\.\d+\.\d{6}", caplog.text)
