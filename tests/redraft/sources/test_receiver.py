from __future__ import annotations

import logging
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from redraft.config.sources import ReceiveSource
from redraft.errors import ConfigError, ConflictError
from redraft.sources.receive.inbox import InboxSource
from redraft.sources.receive.receiver import AllowList, InboxKeeper, receiving
from redraft.sources.receive.transfers import release
from redraft.sources.scp import storage_scp
from tests.servers.dimse import (
    NAMES,
    PATIENT,
    answer,
    certificates,
    send,
    send_fragments,
    send_part,
    sender,
    series,
    wait_until,
)

ALLOWED = [{"ae_title": "MODALITY", "host": "127.0.0.1"}, {"ae_title": "ROUTER"}]


def section(**more: Any) -> ReceiveSource:
    values = {"port": 0, "bind": "127.0.0.1", "allow": ALLOWED, "quiet_seconds": 0, **more}
    return ReceiveSource.model_validate({"kind": "receive", "name": "pacs", **values})


@contextmanager
def receiver(tmp: Path, **more: Any) -> Iterator[int]:
    with receiving(section(**more), tmp / "inbox", tmp / "project", NAMES, Path) as running:
        yield running.address[1]


def files(tmp: Path) -> list[Path]:
    """What lies in series' folders."""
    return sorted(path for path in (tmp / "inbox").glob("[0-9a-f]*/*.dcm"))


def states(tmp: Path) -> dict[str, str]:
    """Series and their state."""
    return {w.series_id: w.state for w in InboxSource(section(), tmp / "inbox").waiting()}


def settled(tmp: Path) -> dict[str, str]:
    """States once no association is open any more."""
    wait_until(lambda: "open" not in states(tmp).values(), "the associations' end")
    return states(tmp)


def series_id(datasets: list[pydicom.Dataset]) -> str:
    return NAMES.series_id(str(datasets[0].SeriesInstanceUID))


def test_what_is_stored_lies_in_the_inbox_as_it_was_sent(tmp_path: Path) -> None:
    """Each instance is a DICOM file that equals the original, under pseudonyms, for the owner alone."""
    sent = series(3)
    with receiver(tmp_path) as port, sender(port) as association:
        assert association.send_c_echo().Status == 0x0000
        assert send(association, sent) == [0x0000] * 3
    found = {ds.SOPInstanceUID: (path, ds) for path in files(tmp_path) for ds in [pydicom.dcmread(path)]}
    assert set(found) == {ds.SOPInstanceUID for ds in sent}
    for original in sent:
        path, ds = found[original.SOPInstanceUID]
        assert ds == original and ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert path.parent.name == series_id(sent) and path.stem == NAMES.uid(original.SOPInstanceUID)
        assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "inbox").stat().st_mode & 0o777 == 0o700
    assert not list((tmp_path / "inbox" / ".incoming").iterdir())


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless]
)
def test_every_encoding_that_is_read_is_taken(tmp_path: Path, syntax: str) -> None:
    """Files keep the transfer syntax that they were sent in; identifiers are found in each of them."""
    (original,) = series(1)
    if syntax == ExplicitVRBigEndian:
        original["PixelData"].VR = "OW"
        original.PixelData = original.pixel_array.astype(">u2").tobytes()
        original = _encoded(original, tmp_path, little=False)
    elif syntax == RLELossless:
        original.compress(RLELossless)
    else:
        original.file_meta.TransferSyntaxUID = syntax
    with receiver(tmp_path) as port, sender(port, syntaxes=[syntax]) as association:
        assert send(association, [original]) == [0x0000]
    (path,) = files(tmp_path)
    ds = pydicom.dcmread(path)
    assert ds.file_meta.TransferSyntaxUID == syntax and path.parent.name == series_id([original])
    assert (ds.pixel_array == original.pixel_array).all()


def _encoded(ds: pydicom.Dataset, tmp: Path, *, little: bool) -> pydicom.Dataset:
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    pydicom.dcmwrite(tmp / "encoded.dcm", ds, little_endian=little, implicit_vr=False, enforce_file_format=True)
    return pydicom.dcmread(tmp / "encoded.dcm")


@pytest.mark.parametrize(
    ("title", "called", "allow", "reason"),
    [
        ("STRANGER", "REDRAFT", ALLOWED, "calling_ae_title"),
        ("MODALITY", "OTHER", ALLOWED, "called_ae_title"),
        ("MODALITY", "REDRAFT", [{"ae_title": "MODALITY", "host": "192.0.2.7"}, {"ae_title": "X"}], "host"),
        ("MODALITY", "REDRAFT", [{"ae_title": "MODALITY", "host": "192.0.2.7"}], "address"),
    ],
)
def test_strangers_are_refused_and_nothing_of_them_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, title: str, called: str, allow: list[Any], reason: str
) -> None:
    """AE titles of both sides and the host decide; the log says which rule refused and quotes nothing."""
    caplog.set_level(logging.DEBUG)
    with receiver(tmp_path, allow=allow) as port, sender(port, title=title, called=called) as association:
        assert not association.is_established
    assert reason in caplog.text and "STRANGER" not in caplog.text and "OTHER" not in caplog.text
    with receiver(tmp_path, allow=ALLOWED) as port, sender(port) as association:
        assert association.is_established, "the same receiver takes those that are allowed"


def test_an_instance_sent_again_is_kept_once_and_other_content_beside_it(tmp_path: Path) -> None:
    """Identical copies are one file; a second content under one UID is kept apart, so that readers refuse it."""
    sent = series(2)
    with receiver(tmp_path) as port:
        for _ in range(2):
            with sender(port) as association:
                assert send(association, sent) == [0x0000] * 2
        before = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
        assert len(before) == 2
        sent[1].PixelData = bytes(len(sent[1].PixelData))
        with sender(port) as association:
            assert send(association, sent * 2) == [0x0000] * 4
    found = files(tmp_path)
    assert len(found) == 3 and before.items() <= {path: path.stat().st_mtime_ns for path in found}.items()
    pixels = [pydicom.dcmread(p).PixelData for p in found if p.name.startswith(NAMES.uid(sent[1].SOPInstanceUID))]
    assert len(set(pixels)) == 2


def test_what_cannot_be_understood_is_refused_and_holds_its_series(tmp_path: Path) -> None:
    """No series UID: 0xC000. Another instance than announced: 0xA900. Neither is kept, and the series is not whole."""
    good, nameless, other = series(3)
    del nameless.SeriesInstanceUID
    with receiver(tmp_path) as port, sender(port) as association:
        assert send(association, [good]) == [0x0000]
        assert send(association, [nameless]) == [0xC000]
        send_part(association, other, 1.0, uid=generate_uid())
        assert answer(association) == 0xA900
    assert len(files(tmp_path)) == 1
    assert settled(tmp_path) == {series_id([good]): "unfinished"}


def test_an_instance_that_was_refused_holds_its_own_series_only(tmp_path: Path) -> None:
    """Where the data set names its series, others of the same association are whole when it was released."""
    good, bad = series(1), series(2, name="bad")
    with receiver(tmp_path) as port, sender(port) as association:
        assert send(association, [*good, bad[0]]) == [0x0000] * 2
        send_part(association, bad[1], 1.0, uid=generate_uid())
        assert answer(association) == 0xA900
    assert settled(tmp_path) == {series_id(good): "ready", series_id(bad): "unfinished"}


def test_a_transfer_that_broke_holds_its_series_until_it_is_sent_again(tmp_path: Path) -> None:
    """After an abort nothing is offered, nor until the instance that was cut has come too."""
    sent = series(4, side=512)
    with receiver(tmp_path) as port:
        with sender(port) as association:
            assert send(association, sent[:2]) == [0x0000] * 2
            assert states(tmp_path) == {series_id(sent): "open"}
            send_part(association, sent[2], 0.6)
            wait_until(lambda: list((tmp_path / "inbox" / ".incoming").iterdir()), "the third instance's first bytes")
            association.abort()
        assert settled(tmp_path) == {series_id(sent): "unfinished"}
        assert not list((tmp_path / "inbox" / ".incoming").iterdir())
        with sender(port) as association:
            assert send(association, [sent[0], sent[3]]) == [0x0000] * 2
        assert settled(tmp_path) == {series_id(sent): "unfinished"}, "the instance that was cut has not come"
        with sender(port) as association:
            assert send(association, sent) == [0x0000] * 4
        assert settled(tmp_path) == {series_id(sent): "ready"}
    assert len(files(tmp_path)) == 4


def test_a_lost_connection_breaks_and_a_person_can_vouch(tmp_path: Path) -> None:
    """A sender that vanishes between two instances leaves its series unfinished; `release` lets it go."""
    sent, others = series(2), series(1, name="b")
    with receiver(tmp_path) as port:
        with sender(port) as association:
            assert send(association, sent) == [0x0000] * 2
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            assert settled(tmp_path) == {series_id(sent): "unfinished"}
        with sender(port) as association:
            assert send(association, others) == [0x0000]
        assert settled(tmp_path) == {series_id(sent): "unfinished", series_id(others): "ready"}
        assert release(tmp_path / "inbox", series_id(sent)) and not release(tmp_path / "inbox", series_id(sent))
        assert settled(tmp_path) == {series_id(sent): "ready", series_id(others): "ready"}


def test_series_sent_one_after_the_other_are_whole_once_the_last_was_taken_up(tmp_path: Path) -> None:
    """A retry that sends what was left completes the job; where series were mixed, each must be sent to again."""
    first, second = series(3, name="a"), series(3, name="ab")
    with receiver(tmp_path) as port:
        with sender(port) as association:
            assert send(association, [*first, second[0]]) == [0x0000] * 4
            association.abort()
        assert settled(tmp_path) == {series_id(first): "unfinished", series_id(second): "unfinished"}
        with sender(port) as association:
            assert send(association, second[1:]) == [0x0000] * 2
        assert settled(tmp_path) == {series_id(first): "ready", series_id(second): "ready"}
        shutil.rmtree(tmp_path / "inbox" / series_id(first))
        shutil.rmtree(tmp_path / "inbox" / series_id(second))
        with sender(port) as association:
            assert send(association, [first[0], second[0], first[1]]) == [0x0000] * 3
            association.abort()
        settled(tmp_path)
        with sender(port) as association:
            assert send(association, second) == [0x0000] * 3
        assert settled(tmp_path) == {series_id(first): "unfinished", series_id(second): "ready"}


SERVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from redraft.sources.receive.receiver import AllowList, InboxKeeper, receiving
from redraft.sources.scp import storage_scp
from tests.redraft.sources.test_receiver import NAMES, section
with receiving(section(), Path(sys.argv[1]), Path(sys.argv[2]), NAMES, Path) as running:
    print(running.address[1], flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(tmp: Path, inbox: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A receiver in a process of its own, and its port."""
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", SERVE, str(inbox or tmp / "inbox"), str(tmp / "project"), str(root)]
    running = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        yield running, int(running.stdout.readline())
    finally:
        running.kill()
        running.wait()


def test_kill_9_loses_nothing_that_was_answered_and_completes_nothing(tmp_path: Path) -> None:
    """Answered instances are there after the kill; the series is held until the restarted receiver has all of it."""
    sent = series(3, side=512)
    with process(tmp_path) as (running, port), sender(port) as association:
        assert send(association, sent[:2]) == [0x0000] * 2
        send_part(association, sent[2], 0.6)
        wait_until(lambda: list((tmp_path / "inbox" / ".incoming").iterdir()), "the third instance's first bytes")
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert [pydicom.dcmread(p) for p in files(tmp_path)] == sorted(
        sent[:2], key=lambda ds: NAMES.uid(ds.SOPInstanceUID)
    )
    assert states(tmp_path) == {series_id(sent): "open"}, "before anybody cleaned up"
    with receiver(tmp_path) as port:
        assert states(tmp_path) == {series_id(sent): "unfinished"}
        assert not list((tmp_path / "inbox" / ".incoming").iterdir())
        with sender(port) as association:
            assert send(association, sent[:2]) == [0x0000] * 2
        assert settled(tmp_path) == {series_id(sent): "unfinished"}
        with sender(port) as association:
            assert send(association, sent[2:]) == [0x0000]
        assert settled(tmp_path) == {series_id(sent): "ready"}


def test_an_instance_that_a_kill_cut_is_missed_although_it_was_the_first(tmp_path: Path) -> None:
    """Its series is read from the half file: the others of the series alone do not make it whole."""
    sent = series(3, side=512)
    with process(tmp_path) as (running, port), sender(port) as association:
        send_part(association, sent[0], 0.6)
        wait_until(lambda: list((tmp_path / "inbox" / ".incoming").iterdir()), "its first bytes")
        wait_until(lambda: next((tmp_path / "inbox" / ".incoming").iterdir()).stat().st_size > 200_000, "more of it")
        running.send_signal(signal.SIGKILL)
        running.wait()
    with receiver(tmp_path) as port:
        with sender(port) as association:
            assert send(association, sent[1:]) == [0x0000] * 2
        assert settled(tmp_path) == {series_id(sent): "unfinished"}
        with sender(port) as association:
            assert send(association, sent) == [0x0000] * 3
        assert settled(tmp_path) == {series_id(sent): "ready"}


def test_memory_does_not_grow_with_an_instance(tmp_path: Path) -> None:
    """An instance of 98 MB goes to disk piece by piece."""
    (small,), (large,) = series(1, side=64), series(1, side=7_000, name="large")
    with process(tmp_path) as (running, port), sender(port) as association:
        assert send(association, [small]) == [0x0000]
        before = psutil.Process(running.pid).memory_info().rss
        assert send(association, [large]) == [0x0000]
        status = Path(f"/proc/{running.pid}/status")
        if not status.exists():
            pytest.skip("no /proc here to read the peak from")
        peak = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        assert peak - before < 40e6
    assert sum(path.stat().st_size for path in files(tmp_path)) > 98e6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_the_sender_keeps_its_copy(tmp_path: Path, small_disk: Path) -> None:
    """0xA700 for what does not fit; the association goes on, and the series is held until the rest has come."""
    sent = series(6, side=512)  # half a MiB each
    with receiving(section(), small_disk / "inbox", tmp_path / "project", NAMES, Path) as running:
        port = running.address[1]
        with sender(port) as association:
            statuses = send(association, sent)
            assert association.send_c_echo().Status == 0x0000
        kept = statuses.count(0x0000)
        assert 1 <= kept < 6 and statuses == [0x0000] * kept + [0xA700] * (6 - kept)
        assert len(files(small_disk)) == kept
        assert settled(small_disk) == {series_id(sent): "unfinished"}
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        with sender(port) as association:
            assert send(association, sent[kept:]) == [0x0000] * (6 - kept)
        assert settled(small_disk) == {series_id(sent): "ready"}
        assert len(files(small_disk)) == 6


def test_four_senders_at_once(tmp_path: Path) -> None:
    """Each on its own series and all on a shared one: every instance is there once."""
    shared = series(4, name="shared")
    answers: dict[int, list[int | None]] = {}

    def work(number: int) -> None:
        with sender(port, title="ROUTER") as association:
            answers[number] = send(association, [*series(5, name=f"own {number}"), *shared])

    with receiver(tmp_path) as port:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {number: [0x0000] * 9 for number in range(4)}
        assert set(settled(tmp_path).values()) == {"ready"}
    assert len(files(tmp_path)) == 4 * 5 + 4


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates(tmp_path_factory.mktemp("pki"))


def test_tls_both_ways(tmp_path: Path, pki: Path) -> None:
    """With a CA only senders with its certificate come in; a silent or plain peer blocks nobody."""
    tls = {"ca": pki / "ca.pem", "certificate": pki / "server.pem", "key": pki / "server.key"}
    stranger = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    known = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    known.load_cert_chain(pki / "client.pem", pki / "client.key")
    with receiver(tmp_path, tls=tls) as port, socket.create_connection(("127.0.0.1", port)):
        with sender(port) as association:
            assert not association.is_established
        with sender(port, tls=stranger) as association:
            assert not association.is_established
        with sender(port, tls=known) as association:
            assert send(association, series(2)) == [0x0000] * 2
    assert len(files(tmp_path)) == 2


def test_tls_without_a_certificate_of_our_own_is_no_setting(tmp_path: Path, pki: Path) -> None:
    """The side that listens needs one; the error names no path."""
    with pytest.raises(ConfigError, match="certificate"), receiver(tmp_path, tls={"ca": pki / "ca.pem"}):
        pass
    absent = {"certificate": tmp_path / "absent", "key": tmp_path / "absent"}
    with pytest.raises(ConfigError, match="cannot be used") as caught, receiver(tmp_path, tls=absent):
        pass
    assert str(tmp_path) not in str(caught.value)


def test_nonsense_on_the_wire_ends_its_connection_only(tmp_path: Path) -> None:
    """Random bytes, a PDU of 4 GB and a half request: others are served meanwhile, and afterwards."""
    with receiver(tmp_path) as port, sender(port) as honest:
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff" + b"x" * 64, b"\x01\x00\x00\x00"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
                peer.sendall(words)
                if len(words) > 6:
                    assert peer.recv(1 << 16)[:1] in (b"", b"\x07")  # closed, or A-ABORT
                assert send(honest, series(1)) == [0x0000]
        assert send(honest, series(2)) == [0x0000] * 2
    assert set(settled(tmp_path).values()) == {"ready"}


def test_one_receiver_per_inbox_and_none_inside_the_project(tmp_path: Path) -> None:
    """A second receiver of one inbox or port, and an inbox that would be published, are refused."""
    project = tmp_path / "project"
    with receiver(tmp_path), pytest.raises(ConflictError, match="inbox"), receiver(tmp_path):
        pass
    with (
        pytest.raises(ConfigError, match="inside the project"),
        receiving(section(), project / "inbox", project, NAMES, Path),
    ):
        pass
    with (
        receiver(tmp_path) as port,
        pytest.raises(ConflictError, match="Port"),
        receiving(section(port=port), tmp_path / "second", project, NAMES, Path),
    ):
        pass


def test_closing_lets_the_instance_that_arrives_end(tmp_path: Path) -> None:
    """A request under way is still taken and answered; nobody new comes in, and the association is aborted."""
    (sent,) = series(1, side=512)
    with receiving(section(), tmp_path / "inbox", tmp_path / "project", NAMES, Path) as running:
        port = running.address[1]
        with sender(port) as association:
            rest = send_part(association, sent, 0.5)
            wait_until(lambda: list((tmp_path / "inbox" / ".incoming").iterdir()), "its first bytes")
            closing = threading.Thread(target=running.close)
            closing.start()
            wait_until(lambda: _refuses(port), "the port's end")
            send_fragments(association, rest)
            assert answer(association) == 0x0000
            closing.join()
            assert not wait_until(lambda: not association.is_established, "the abort") or association.is_aborted
    assert len(files(tmp_path)) == 1
    assert states(tmp_path) == {series_id([sent]): "unfinished"}, "an abort is no end, whoever sent it"


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


def test_an_association_that_stays_open_is_released_by_us(tmp_path: Path) -> None:
    """A sender that is alive agrees and has ended well; one that stopped within an instance has not."""
    whole, cut = series(2), series(1, side=512, name="cut")
    keeper = InboxKeeper(_made(tmp_path / "inbox"), NAMES)
    gate = AllowList("REDRAFT", section().allow)
    with storage_scp("127.0.0.1", 0, "REDRAFT", keeper, gate, None, idle=0.5) as running:
        with sender(running.address[1]) as association:
            assert send(association, whole) == [0x0000] * 2
            wait_until(lambda: association.is_released, "the release that we ask for")
        with sender(running.address[1]) as association:
            send_part(association, cut[0], 0.5)
            association._reactor_checkpoint.set()
            wait_until(lambda: not association.is_established, "its end")
        assert settled(tmp_path) == {series_id(whole): "ready"}
        with sender(running.address[1]) as association:
            send(association, cut)
        wait_until(lambda: series_id(cut) in settled(tmp_path), "the instance that was cut")
        assert settled(tmp_path) == {series_id(whole): "ready", series_id(cut): "ready"}
    assert not list((tmp_path / "inbox" / ".incoming").iterdir())


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_nothing_in_the_inbox_is_named_by_a_patient_or_a_clear_uid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """File names, records of transfers and the log hold pseudonyms only."""
    caplog.set_level(logging.DEBUG)
    sent = series(2, side=512)
    with receiver(tmp_path) as port, sender(port) as association:
        send(association, sent[:1])
        send_part(association, sent[1], 0.6)
        wait_until(lambda: list((tmp_path / "inbox" / ".incoming").iterdir()), "its first bytes")
        association.abort()
    settled(tmp_path)
    inbox = tmp_path / "inbox"
    names = " ".join(str(path.relative_to(inbox)) for path in inbox.rglob("*"))
    records = " ".join(path.read_text() for path in (inbox / ".transfers").glob("*.json"))
    assert records
    clear = [PATIENT, "MRN-4711", *(str(v) for ds in sent for v in (ds.SOPInstanceUID, ds.SeriesInstanceUID))]
    assert not [word for word in clear if word in names + records + caplog.text]


def test_all_storage_classes_are_taken() -> None:
    """A sender may store whatever DICOM stores, in every syntax that pydicom decodes here, and nothing is queried."""
    from pynetdicom import AllStoragePresentationContexts

    from redraft.sources.scp import decodable_syntaxes

    assert CTImageStorage in {context.abstract_syntax for context in AllStoragePresentationContexts}
    syntaxes = decodable_syntaxes()
    assert syntaxes[:2] == (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    assert {"1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", RLELossless} <= set(syntaxes)
    assert "1.2.840.10008.1.2.4.102" not in syntaxes, "nothing here decodes MPEG-4"
