"""Exams in a bucket, over HTTP: grouped, remembered, brought whole, and never a name in what is kept or said."""

from __future__ import annotations

import dataclasses
import gc
import io
import logging
import multiprocessing
import os
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from redraft.config.sources import S3Source as Section
from redraft.config.sources import Wanted
from redraft.errors import ConfigError, SecurityError, ServiceError, TransferError
from redraft.sources import open_source
from redraft.sources.index import SourceIndex
from redraft.sources.protocol import Offer, SourceContext
from redraft.sources.s3 import S3Source
from redraft.sources.s3 import bucket as bucket_module
from redraft.sources.s3.bucket import Bucket, Entry
from tests.servers.s3 import S3, Fault, Proxy

NAME = "Meier_Anna"  # in every key: must be nowhere else


def dicom(series: str, number: int = 0, *, before: int = 0, pixels: int = 2000, **values: str) -> bytes:
    """One CT slice; `before` bytes of a private element stand in front of the series."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{series}.{number}"
    dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", NAME, "4711"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.9", f"1.2.3.{series}"
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = pixels // 200, 100, 16
    dataset.PixelData = bytes(n * (number + 3) % 251 for n in range(pixels))
    dataset["PixelData"].VR = "OW"
    if before:
        dataset.private_block(0x0009, "LONG", create=True).add_new(1, "OB", b"\0" * before)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@dataclasses.dataclass
class Store:
    """A bucket, a proxy before it, and what a source needs."""

    s3: S3
    bucket: str
    proxy: Proxy
    context: SourceContext
    folder: Path
    env: dict[str, str]

    def put(self, key: str, data: bytes, **options: Any) -> bytes:
        self.s3.client.put_object(Bucket=self.bucket, Key=key, Body=data, **options)
        return data

    def section(self, **changes: Any) -> Section:
        given = {
            "kind": "s3", "name": "archive", "bucket": self.bucket, "endpoint": self.proxy.endpoint,
            "access_key": {"env": "S3_KEY"}, "secret_key": {"env": "S3_SECRET"},
            "retry": {"attempts": 3, "wait_seconds": 0.01, "timeout_seconds": 20},
        }  # fmt: skip
        return Section.model_validate(given | changes)

    def source(self, **changes: Any) -> S3Source:
        return S3Source(self.section(**changes), self.context)

    def offers(self, **changes: Any) -> list[Offer]:
        return list(self.source(**changes).discover())

    def series(self, uid: str) -> str:
        return self.context.pseudonyms.series_id(f"1.2.3.{uid}")

    def entry(self, key: str) -> Entry:
        (entry,) = [one for one in Bucket(self.section(), self.context).entries() if one.key == key]
        return entry

    def get(self, key: str, target: Path, **changes: Any) -> None:
        Bucket(self.section(**changes), self.context).get(self.entry(key), target)


@pytest.fixture
def store(s3: S3, context: Callable[..., SourceContext], tmp_path: Path) -> Iterator[Store]:
    env = {"S3_KEY": s3.key, "S3_SECRET": s3.secret}
    proxy = Proxy(s3.endpoint)
    index = SourceIndex(tmp_path / "index.db")
    with s3.bucket() as name:
        given = dataclasses.replace(context(env=env), index=index)
        yield Store(s3, name, proxy, given, tmp_path / "spool", env)
    proxy.close()
    index.close()


def contents(paths: Any) -> list[bytes]:
    return sorted(Path(path).read_bytes() for path in paths)


# -- what is offered ---------------------------------------------------------------------------------------------------


def test_a_series_is_one_offer_wherever_its_objects_lie(store: Store) -> None:
    """Several prefixes and pages, mixed prefixes, strays, marks of folders: every object once."""
    a = [store.put(f"in/{NAME}/{n}.dcm", dicom("1", n)) for n in range(9)]
    a += [store.put(f"in/later/{NAME} ü+%41&/{n}", dicom("1", n + 9)) for n in range(3)]
    b = [store.put(f"in/later/{n}", dicom("2", n)) for n in range(2)]
    store.put("in/", b""), store.put("in/empty", b""), store.put("in/DICOMDIR", dicom("1"))
    store.put("in/letter.pdf", b"%PDF-1.4" * 100), store.put("in/cut.dcm", dicom("3")[:200])
    (
        store.put("in/labelsTr/x.nii.gz", b"?"),
        store.put("in/imagesTr/x.nii.gz", b"?"),
        store.put("out/no.dcm", dicom("4")),
    )
    offers = store.offers(prefix="in/")
    assert [(offer.series_id, offer.files) for offer in offers[:2]] == sorted(
        [(store.series("1"), 12), (store.series("2"), 2)]
    )
    assert sorted(str(offer.refused) for offer in offers[2:]) == [
        "None", "label_not_an_image", "not_an_image", "not_dicom", "not_dicom", "truncated",
    ]  # fmt: skip
    source = store.source(prefix="in/")
    for offer, expected in zip(sorted(offers[:2], key=lambda o: -o.files), (a, b), strict=True):
        assert contents(source.fetch(offer, store.folder / offer.series_id)) == sorted(expected)
    (image,) = [offer for offer in offers[2:] if offer.refused is None]
    (path,) = source.fetch(image, store.folder / "nifti")
    assert path.read_bytes() == b"?" and path.name.endswith(".nii.gz")
    stem = path.name.removesuffix(".nii.gz")
    assert image.series_id == store.context.pseudonyms.series_id(f"nifti/{stem}")


def test_no_name_is_kept(store: Store) -> None:
    """Keys and patients are in no file name, no index, no repr; files are for their owner alone."""
    store.put(f"{NAME}/{NAME}.dcm", dicom("1")), store.put(f"{NAME}/{NAME}.nii", b"?"), store.put(f"{NAME}/x", b"?")
    offers = store.offers()
    source = store.source()
    for offer in offers:
        if offer.refused is None:
            source.fetch(offer, store.folder / offer.series_id)
    files = [path for path in store.folder.parent.rglob("*") if path.is_file()]
    assert NAME not in " ".join(map(str, files)) + repr(offers)
    for path in files:
        if store.folder in path.parents:
            assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0
        else:
            assert NAME.encode() not in path.read_bytes()
    assert all(NAME in shown for offer in offers for shown in offer.shown)


def test_unchanged_objects_are_not_read_again(store: Store) -> None:
    """The second time nothing but the listing is asked for; a new and a changed object are read, and only those."""
    for n in range(20):
        store.put(f"{'ab'[n % 2]}/{n}", dicom("12"[n % 2], n))
    store.put("stray", b"no image"), store.put("zz", dicom("1", 99))
    first = store.offers()
    assert len(store.proxy.gets()) == 22
    store.proxy.requests.clear()
    again = store.offers()
    assert store.proxy.gets() == []
    assert [(o.series_id, o.version, o.refused) for o in again] == [(o.series_id, o.version, o.refused) for o in first]
    store.put("a/new", dicom("1", 50)), store.put("a/0", dicom("1", 0, pixels=3000))
    third = {offer.series_id: offer.version for offer in store.offers()}
    assert len(store.proxy.gets()) == 2
    before = {offer.series_id: offer.version for offer in first}
    assert {series for series in third if third[series] != before[series]} == {store.series("1")}
    store.s3.client.delete_object(Bucket=store.bucket, Key="a/new")
    store.put("a/0", dicom("1", 0))
    assert {offer.series_id: offer.version for offer in store.offers()} == before


def test_of_an_object_no_more_is_read_than_its_header(store: Store) -> None:
    """64 KiB where that is enough, four times as much until it is; a long object is never read whole for it."""
    store.put("plain", dicom("1", pixels=3_000_000)), store.put("long", dicom("2", before=300_000, pixels=3_000_000))
    assert {offer.series_id for offer in store.offers()} == {store.series("1"), store.series("2")}
    assert sorted(store.proxy.gets()) == ["bytes=0-1048575", "bytes=0-262143", "bytes=0-65535", "bytes=0-65535"]
    assert store.proxy.sent < 1_600_000


@pytest.mark.parametrize("shift", [-70, -40, -12, -8, -4, -1, 0, 1, 8, 40])
def test_a_header_cut_inside_of_its_series_is_not_believed(store: Store, shift: int) -> None:
    """Wherever 64 KiB end in or beside the series' UID, the object comes into its own series."""
    data = dicom("1")
    store.put("x", dicom("123456789.987654321", before=65_536 - data.index(b"\x20\x00\x0e\x00") - 12 + shift))
    assert [offer.series_id for offer in store.offers()] == [store.series("123456789.987654321")]


def test_what_is_not_selected_is_refused_unfetched(store: Store) -> None:
    """Selection by header: modality, description, accession list; another selection reads again and decides anew."""
    accessions = store.folder.parent / "accessions.txt"
    accessions.write_text("A1\n")
    store.put("1", dicom("1", AccessionNumber="A1", SeriesDescription="Thorax ä", SpecificCharacterSet="ISO_IR 192"))
    store.put("2", dicom("2", AccessionNumber="A2", Modality="MR"))

    def refused(**wanted: Any) -> dict[str, str | None]:
        return {o.series_id: o.refused for o in store.offers(wanted=Wanted.model_validate(wanted))}

    one, two = store.series("1"), store.series("2")
    assert refused(series_description="*ä") == {one: None, two: "not_selected"}
    assert refused(modalities=["MR"]) == {one: "not_selected", two: None}
    assert refused(accessions=accessions) == {one: None, two: "not_selected"}
    accessions.write_text("A2\n")
    assert refused(accessions=accessions) == {one: "not_selected", two: None}
    assert refused() == {one: None, two: None}
    with pytest.raises(ConfigError, match="accession numbers"):
        store.offers(wanted=Wanted(accessions=Path("../missing.txt")))


def test_objects_in_an_archive_class_are_refused_until_restored(store: Store) -> None:
    """An object that only its owner can bring back has a rule of its own."""
    if store.s3.real:
        pytest.skip("not every endpoint has archive classes")
    store.put("1", dicom("1"), StorageClass="GLACIER"), store.put("2.zip", b"PK", StorageClass="DEEP_ARCHIVE")
    assert [offer.refused for offer in store.offers()] == ["not_retrievable"] * 2
    assert store.proxy.gets() == []


# -- what is fetched ---------------------------------------------------------------------------------------------------


def test_what_is_whole_is_not_fetched_again(store: Store) -> None:
    """A fetch that failed halfway goes on with what is missing, in the same folder; leftovers of before are removed."""
    data = [store.put(f"{NAME}/{n}", dicom("1", n)) for n in range(6)]
    source = store.source(retry={"attempts": 1})
    (offer,) = source.discover()
    store.proxy.requests.clear()
    folder = store.folder / "x"
    folder.mkdir(parents=True)
    (folder / "older").write_bytes(b"?")
    store.proxy.faults.append(Fault("cut", 700, f"{NAME}/3"))
    with pytest.raises(ServiceError) as caught:
        source.fetch(offer, folder)
    assert caught.value.retry and NAME not in str(caught.value)
    kept = [path for path in folder.iterdir() if not path.name.startswith(".")]
    assert all(path.read_bytes() in data for path in kept)
    store.proxy.requests.clear()
    assert contents(source.fetch(offer, folder)) == sorted(data)
    assert len(store.proxy.gets()) == 6 - len(kept) >= 1
    assert len(list(folder.iterdir())) == 6


@pytest.mark.parametrize("kind", ["cut", "reset", "hang"])
def test_a_transfer_that_breaks_goes_on_where_it_broke(store: Store, tmp_path: Path, kind: Any) -> None:
    """Closed, reset or silent in the middle of a body: the rest is asked for, not the whole, and nothing is doubled."""
    data = store.put(f"{NAME}.bin", os.urandom(900_000))
    store.proxy.faults += [Fault(kind, 300_000), Fault(kind, 200_000)]
    store.get(f"{NAME}.bin", tmp_path / "x", retry={"attempts": 2, "wait_seconds": 0.01, "timeout_seconds": 0.5})
    assert (tmp_path / "x").read_bytes() == data
    first, second, third = store.proxy.gets()
    assert first == "all"
    assert 0 < int(second[6:].split("-")[0]) < int(third[6:].split("-")[0]) < 900_000


def test_large_objects_come_in_parts_that_outlive_interruptions(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight parts one fails for good: the next call asks for what is missing only, and the file is right."""
    monkeypatch.setattr(bucket_module, "PART", 100_000)
    data = store.put("large", os.urandom(750_001))
    store.proxy.faults += [Fault("cut", 60_000, "bytes=300000-")] + [Fault("cut", 0, "-399999")] * 2
    with pytest.raises(ServiceError):
        store.get("large", tmp_path / "x", retry={"attempts": 2, "wait_seconds": 0.01})
    assert not (tmp_path / "x").exists()
    came = set(store.proxy.gets())
    store.proxy.requests.clear()
    store.get("large", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data and not list(tmp_path.glob(".coming*"))
    now = store.proxy.gets()
    assert "bytes=300000-399999" in now and len(now) < 8 and "all" not in now
    assert len(came | set(now)) >= 8
    store.put("large", data[::-1])
    store.get("large", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data[::-1]


def test_parts_of_another_version_are_not_taken_over(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that was replaced between two calls, by one of the same size, comes whole from the new one."""
    monkeypatch.setattr(bucket_module, "PART", 100_000)
    store.put("large", os.urandom(400_000))
    store.proxy.faults += [Fault("cut", 0, "bytes=300000-")] * 3
    with pytest.raises(ServiceError):
        store.get("large", tmp_path / "x")
    data = store.put("large", os.urandom(400_000))
    store.get("large", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("large", [False, True])
def test_an_object_replaced_while_it_is_fetched_is_not_mixed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """What was listed is fetched, or nothing; the same for one that is gone."""
    if large:
        monkeypatch.setattr(bucket_module, "PART", 10_000)
    store.put(f"{NAME}", os.urandom(50_000))
    entry = store.entry(NAME)
    store.put(f"{NAME}", os.urandom(50_000))
    for _ in range(2):
        with pytest.raises(TransferError) as caught:
            Bucket(store.section(), store.context).get(entry, tmp_path / "x")
        assert caught.value.rule == "changed_meanwhile" and NAME not in str(caught.value)
        assert not (tmp_path / "x").exists()
        store.s3.client.delete_object(Bucket=store.bucket, Key=NAME)


def test_wrong_bytes_are_fetched_again_once(store: Store, tmp_path: Path) -> None:
    """One bit on its way is found by the checksum and mended; when it happens again the object is refused."""
    data = store.put(f"{NAME}", os.urandom(50_000))
    store.proxy.faults += [Fault("alter", 20_000)]
    store.get(NAME, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data and len(store.proxy.gets()) == 2
    store.proxy.faults += [Fault("alter", 20_000), Fault("alter", 30_000)]
    with pytest.raises(TransferError) as caught:
        store.get(NAME, tmp_path / "y")
    assert caught.value.rule == "checksum" and NAME not in str(caught.value)
    assert caught.value.measured == {"bytes": 50_000, "differs": "md5"}
    assert [path.name for path in tmp_path.glob("*y*")] == []


def test_multipart_objects_are_compared_by_their_parts(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ETag over parts is no MD5 of the object, but tells one altered bit all the same."""
    data = os.urandom(12_000_000)
    client, size = store.s3.client, 5 * 1024 * 1024
    upload = client.create_multipart_upload(Bucket=store.bucket, Key="x")["UploadId"]
    parts = []
    for number in range(1, 4):
        answer = client.upload_part(
            Bucket=store.bucket, Key="x", UploadId=upload, PartNumber=number,
            Body=data[(number - 1) * size : number * size],
        )  # fmt: skip
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket=store.bucket, Key="x", UploadId=upload, MultipartUpload={"Parts": parts})
    entry = store.entry("x")
    assert entry.etag and entry.etag.endswith("-3")
    for part, match in ((bucket_module.PART, "GET "), (4_000_000, "bytes=4000000-")):
        monkeypatch.setattr(bucket_module, "PART", part)
        store.get("x", tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == data
        store.proxy.faults += [Fault("alter", 1_000_000, match), Fault("alter", 2_000_000, match)]
        with pytest.raises(TransferError) as caught:
            Bucket(store.section(), store.context).get(entry, tmp_path / "y")
        assert caught.value.measured["differs"] == "md5 of parts"
        store.proxy.faults.clear()


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32"])
def test_further_checksums_of_the_endpoint_are_compared(store: Store, tmp_path: Path, algorithm: str) -> None:
    """A checksum that was stored with the object is taken into account where the ETag is no MD5."""
    from redraft.sources.s3.checksums import Expected, mismatch

    data = store.put("x", os.urandom(1000), ChecksumAlgorithm=algorithm)
    answer = store.s3.client.head_object(Bucket=store.bucket, Key="x", ChecksumMode="ENABLED")
    if f"Checksum{algorithm}" not in answer:
        pytest.skip(f"this endpoint keeps no {algorithm}")
    answer["ServerSideEncryption"] = "aws:kms"
    expected = Expected.of(answer, 1000, store.entry("x").etag, store.bucket)
    assert list(expected.digests) == [algorithm.lower()]
    (tmp_path / "x").write_bytes(data)
    assert mismatch(tmp_path / "x", expected) is None
    (tmp_path / "x").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert mismatch(tmp_path / "x", expected) == algorithm.lower()
    (tmp_path / "x").write_bytes(data + b"?")
    assert mismatch(tmp_path / "x", expected) == "size"


def _fetch_in_a_process(section: Section, entry: Entry, target: Path, keys: dict[str, str], inbox: Path) -> None:
    from redraft.security.keys import KeyRing
    from redraft.security.pseudonyms import Pseudonyms

    bucket_module.PART = 100_000
    context = SourceContext(
        Pseudonyms(KeyRing.published_demo()), lambda reference: keys[str(reference.env)], Path("/project"), inbox
    )
    Bucket(section, context).get(entry, target)


def test_a_kill_in_the_middle_leaves_nothing_half(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After kill -9 there is no file under its name; the next call brings only what was missing."""
    monkeypatch.setattr(bucket_module, "PART", 100_000)
    data = store.put("large", os.urandom(800_000))
    entry = store.entry("large")
    store.proxy.requests.clear()
    store.proxy.faults += [Fault("hang", 50_000, "bytes=600000-")]
    process = multiprocessing.get_context("spawn").Process(
        target=_fetch_in_a_process, args=(store.section(), entry, tmp_path / "x", store.env, tmp_path)
    )
    process.start()
    assert store.proxy.hanging.wait(60)
    journal = lambda: [p for p in tmp_path.glob(".coming-x*.parts") if p.read_text().count("\n") >= 5]  # noqa: E731
    while not journal():  # the parts before are whole
        assert process.is_alive()
        threading.Event().wait(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / "x").exists()
    store.proxy.requests.clear()
    store.get("large", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data and not list(tmp_path.glob(".coming*"))
    assert 1 <= len(store.proxy.gets()) <= 3


# -- archives ----------------------------------------------------------------------------------------------------------


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_series_in_archives_are_offered_with_the_objects_beside_them(store: Store) -> None:
    """A series that lies in an archive and beside it is one offer; other members have their rule; nothing stays."""
    one = [dicom("1", n) for n in range(4)]
    two = [dicom("2", n) for n in range(2)]
    store.put(f"{NAME}/beside", one[0])
    store.put(f"{NAME}.zip", zipped({f"{NAME}/{n}": data for n, data in enumerate([*one[1:], *two])} | {"../x": b"?"}))
    store.put("more.zip", zipped({"a": two[0][:-1], "notes.txt": b"text"}))
    source = store.source()
    offers = []
    for offer in source.discover():
        offers.append(offer)
        if offer.refused is None:
            paths = source.fetch(offer, store.folder / offer.series_id)
            expected = one if offer.series_id == store.series("1") else [*two, two[0][:-1]]
            assert contents(paths) == sorted(expected) and NAME not in " ".join(map(str, paths))
    assert [offer.files for offer in offers if offer.refused is None] == [4, 3] or [
        offer.files for offer in offers if offer.refused is None
    ] == [3, 4]
    assert sorted(offer.refused for offer in offers if offer.refused) == ["archive_path", "not_dicom"]
    assert len(store.proxy.gets(".zip")) == 2  # each archive came once
    assert list(store.context.inbox.with_name("unpacked").rglob("*")) == [
        store.context.inbox.with_name("unpacked") / "archive"
    ]
    store.proxy.requests.clear()
    again = store.offers()
    assert store.proxy.gets() == []
    assert [(o.series_id, o.version, o.refused) for o in again] == [(o.series_id, o.version, o.refused) for o in offers]
    for offer in again:  # from memory, when nothing is unpacked any more
        if offer.refused is None:
            assert contents(source.fetch(offer, store.folder / "again" / offer.series_id)) == contents(
                (store.folder / offer.series_id).iterdir()
            )
    assert not any(path.is_file() for path in store.context.inbox.with_name("unpacked").rglob("*"))


def test_no_series_of_an_archive_with_something_missing_is_taken(store: Store) -> None:
    """A member that cannot be read could be a slice of any series in it: none is known to be whole."""
    whole = zipped({f"{n}": dicom("1", n) for n in range(3)})
    place = whole.index(b"PK\x03\x04", 10) + 60
    store.put("x.zip", whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    store.put("beside", dicom("1", 7)), store.put("other", dicom("2"))
    found = {offer.series_id: offer.refused for offer in store.offers()}
    assert found[store.series("1")] == "archive_not_whole" and found[store.series("2")] is None
    assert sorted(str(rule) for rule in found.values()) == ["None", "archive_damaged", "archive_not_whole"]
    store.put("x.zip", whole)
    assert {offer.refused for offer in store.offers()} == {None}


def test_an_archive_that_does_not_arrive_leaves_the_rest(store: Store) -> None:
    """One archive altered on its way twice is refused; the next intake asks for it again and finds it well."""
    store.put("x.zip", zipped({"1": dicom("1")})), store.put("2", dicom("2"))
    store.proxy.faults += [Fault("alter", 900, "x.zip"), Fault("alter", 900, "x.zip")]
    assert sorted(str(offer.refused) for offer in store.offers()) == ["None", "checksum"]
    assert {offer.refused for offer in store.offers()} == {None}


# -- when it does not work ---------------------------------------------------------------------------------------------


def test_a_missing_bucket_and_a_dead_endpoint_are_named(store: Store) -> None:
    """The error says which source, what is wrong and what to do; only what may pass is asked for again."""
    with pytest.raises(ServiceError, match="no such bucket") as caught:
        store.offers(bucket="redraft-not-there")
    assert "`archive`" in str(caught.value) and not caught.value.retry
    assert len(store.proxy.requests) == 1
    endpoint = store.proxy.endpoint
    store.proxy.close()
    with pytest.raises(ServiceError, match="asked 3 times") as caught:
        store.offers(endpoint=endpoint)
    assert caught.value.retry
    with pytest.raises(ServiceError, match="no valid request"):
        store.offers(bucket="no valid bucket")
    with pytest.raises(ConfigError, match="certificates"):
        store.offers(ca="../missing.pem")
    with pytest.raises(SecurityError, match="S3_OTHER is not set"):
        store.offers(secret_key={"env": "S3_OTHER"})


class _Refuses(BaseHTTPRequestHandler):
    """Answers every request with one error of S3, which quotes the key as S3 does."""

    def do_GET(self) -> None:
        status, code = self.server.answer  # type: ignore[attr-defined]
        self.server.asked += 1  # type: ignore[attr-defined]
        body = f"<Error><Code>{code}</Code><Message>{NAME}</Message><Key>{NAME}</Key></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "code", "words", "asked"),
    [
        (403, "AccessDenied", "s3:GetObject", 1),
        (403, "InvalidAccessKeyId", "access keys are not accepted", 1),
        (403, "SignatureDoesNotMatch", "access keys are not accepted", 1),
        (403, "RequestTimeTooSkewed", "clock of this machine", 1),
        (400, "AuthorizationHeaderMalformed", "`region`", 1),
        (503, "SlowDown", "busy", 3),
        (500, "InternalError", "busy", 3),
        (502, NAME + "/x", "busy", 3),
        (400, NAME + "/x", "no code that is known", 1),
    ],
)
def test_what_an_endpoint_refuses_is_put_in_our_words(
    store: Store, status: int, code: str, words: str, asked: int
) -> None:
    """Whatever S3 answers: no key, no secret, what to do; asked again only where that can help."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refuses)
    server.answer, server.asked = (status, code), 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        with pytest.raises(ServiceError) as caught:
            store.offers(endpoint=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    error = caught.value
    assert words in str(error) and server.asked == asked  # type: ignore[attr-defined]
    for said in (str(error), repr(error), repr(error.__cause__), repr(error.to_dict())):
        assert NAME not in said and store.s3.secret not in said
    assert error.__suppress_context__


def test_wrong_keys_are_refused_by_a_real_endpoint(store: Store) -> None:
    """An endpoint that looks at keys does not let wrong ones in."""
    if not store.s3.real:
        pytest.skip("moto believes every key; set REDRAFT_TEST_S3_ENDPOINT")
    store.env["S3_SECRET"] = "another"
    with pytest.raises(ServiceError, match=r"access keys are not accepted|Access is denied"):
        store.offers()


def test_a_listing_that_breaks_off_is_never_taken_for_the_whole(store: Store) -> None:
    """An error on a later page ends the discovery with an error, not with the pages that came."""
    if store.s3.real:
        pytest.skip("pages of real endpoints are long")
    for n in range(10):
        store.put(f"{n}", dicom("1", n))
    store.proxy.faults += [Fault("cut", 0, "continuation-token")] * 3
    with pytest.raises(ServiceError):
        store.offers()
    store.proxy.faults += [Fault("cut", 0, "continuation-token")] * 2
    assert [offer.files for offer in store.offers()] == [10]


def test_no_key_is_logged_at_any_level(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Also a log of everything names no object and no secret."""
    for n in range(3):
        store.put(f"{NAME}/{n}", dicom("1", n))
    with caplog.at_level(logging.DEBUG):
        caplog.clear()
        source = store.source()
        (offer,) = source.discover()
        store.proxy.faults += [Fault("cut", 800, NAME)]
        source.fetch(offer, store.folder / "x")
    assert NAME not in caplog.text and store.s3.secret not in caplog.text


def test_a_source_of_the_configuration_opens_as_s3(store: Store) -> None:
    """The way that an intake takes: from the section of project.yaml to offers; opening asks for nothing."""
    store.put("1", dicom("1"))
    source = open_source(store.section(), store.context)
    assert store.proxy.requests == [] and source.name == "archive"
    offers = source.discover()
    offer = next(offers)
    assert offer.series_id == store.series("1")
    source.acknowledge(offer, ["admitted"])
    del offers
    gc.collect()
    assert store.s3.client.head_object(Bucket=store.bucket, Key="1")["ContentLength"] == len(dicom("1"))
