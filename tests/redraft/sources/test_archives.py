"""Archives that want to do harm do none: every member is written under our names or refused by a rule."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.config.schema import Limits
from redraft.errors import StorageError
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources.archives import LOST, ArchiveLimits, Member, is_archive, unpack

PSEUDONYMS = Pseudonyms(KeyRing.published_demo())
LIMITS = ArchiveLimits(50_000_000)
IMAGE = b"\0" * 128 + b"DICM" + os.urandom(3000)


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(*members: tuple[str, bytes, dict[str, object]], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Box:
    """A folder in which archives are unpacked, with files beside it that must stay as they are."""

    def __init__(self, top: Path):
        self.top = top
        self.folder = top / "in" / "unpacked"
        self.archive = top / "archive"
        (top / "in").mkdir(parents=True)
        (top / "in" / "precious").write_text("untouched")

    def unpack(self, data: bytes, limits: ArchiveLimits = LIMITS) -> list[Member]:
        if not self.archive.exists() or self.archive.read_bytes() != data:
            shutil.rmtree(self.folder, ignore_errors=True)  # a folder is for one archive
        self.archive.write_bytes(data)
        found = list(unpack(self.archive, self.folder, limits, PSEUDONYMS))
        assert sorted(path.name for path in self.top.iterdir()) == ["archive", "in"]
        assert {path.name for path in (self.top / "in").iterdir()} <= {"precious", "unpacked"}
        assert (self.top / "in" / "precious").read_text() == "untouched"
        inside = sorted(self.folder.rglob("*")) if self.folder.is_dir() else []
        assert inside == sorted(member.path for member in found if member.path)
        for path in inside:
            assert re.fullmatch(r"\d{6}-[0-9a-f]{20}", path.name)
            assert stat.S_ISREG(path.lstat().st_mode) and path.stat().st_mode & 0o077 == 0
        assert all((member.path is None) == (member.rule is not None) for member in found)
        return found


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "box")


def rules(found: list[Member]) -> list[str | None]:
    return [member.rule for member in found]


# -- what is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stored", "deflated", "pax", "gnu", "ustar", "gz"])
def test_members_come_out_byte_for_byte(box: Box, kind: str) -> None:
    """Folders, long and foreign names, empty and large files, in every form; unpacked again it is the same."""
    files = {"a/b/IM1": IMAGE, "a/名前-ü": os.urandom(2_500_000), "empty": b"", f"{'d' * 80}/IM2": b"x" * 512}
    if kind in ("stored", "deflated"):
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        data = zipped(("a/", b""), *files.items(), method=method)
    else:
        form = {"gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}.get(kind, tarfile.PAX_FORMAT)
        data = tarred(("a", b"", {"type": tarfile.DIRTYPE}), *((n, d, {}) for n, d in files.items()), form=form)
        data = gzip.compress(data) if kind == "gz" else data
    for _ in range(2):
        found = box.unpack(data)
        assert [member.path.read_bytes() for member in found if member.path] == list(files.values())
    assert found == list(unpack(box.archive, box.folder, LIMITS, PSEUDONYMS))


def test_what_is_taken_for_an_archive() -> None:
    """By the end of the name, in any case; other packings are not unpacked."""
    assert all(map(is_archive, ("a.zip", "A.ZIP", "b.tar", "b.tar.gz", "c.TGZ")))
    assert not any(map(is_archive, ("a.dcm", "zip", "a.gz", "b.nii.gz", "c.tar.bz2", "d.7z")))


def test_limits_are_those_of_the_project() -> None:
    """`ingest.limits.archive_mb` bounds what one archive unpacks to."""
    assert ArchiveLimits.of(Limits(archive_mb=3)).unpacked_bytes == 3_000_000


# -- what is refused ---------------------------------------------------------------------------------------------------

OUTSIDE = [
    "../precious", "a/../../precious", "/tmp/x", "..", "a/..", "..\\precious", "a\\..\\..\\x", "\\\\server\\x", "C:x",
    "c:\\x", ".", "./", "a/../b",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_elsewhere_are_refused_and_the_rest_goes_on(box: Box, name: str) -> None:
    """Up, absolute, drives, in both kinds of slashes: a rule for the member, its neighbours come in."""
    if not name.endswith("/"):
        found = box.unpack(zipped(("1", IMAGE), (name, b"evil"), ("2", IMAGE)))
        assert rules(found) == [None, "archive_path", None]
    found = box.unpack(tarred(("1", IMAGE, {}), (name, b"evil", {}), ("2", IMAGE, {})))
    assert rules(found) == [None, "archive_path", None]


def test_a_zero_byte_in_a_name_is_refused(box: Box) -> None:
    """What stands behind a zero byte would be cut off by the system, and checked by nobody."""
    data = zipped(("1", IMAGE), ("a_b", IMAGE)).replace(b"a_b", b"a\0b")
    assert rules(box.unpack(data)) == [None, "archive_path"]


@pytest.mark.parametrize(
    ("type_", "rule"),
    [
        (tarfile.SYMTYPE, "archive_link"), (tarfile.LNKTYPE, "archive_link"), (tarfile.CHRTYPE, "archive_device"),
        (tarfile.BLKTYPE, "archive_device"), (tarfile.FIFOTYPE, "archive_device"),
    ],
)  # fmt: skip
def test_links_and_devices_are_refused(box: Box, type_: bytes, rule: str) -> None:
    """A link is not followed and not made, also where a later member would go through it."""
    link = ("x", b"", {"type": type_, "linkname": "../../precious"})
    found = box.unpack(tarred(("1", IMAGE, {}), link, ("x/precious", b"evil", {})))
    assert rules(found) == [None, rule, None]
    if type_ != tarfile.LNKTYPE:
        modes = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}
        info = zipfile.ZipInfo("x")
        info.external_attr = (modes.get(type_, stat.S_IFIFO) | 0o644) << 16
        assert rules(box.unpack(zipped(("1", IMAGE), (info, b"../../precious")))) == [None, rule]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_met_twice_is_taken_once(box: Box) -> None:
    """Also where the two are written differently: programs disagree on which one counts."""
    assert rules(box.unpack(zipped(("a", IMAGE), ("a", b"?"), ("./a", b"?"), ("a\\b", b"1"), ("a/b", b"2")))) == [
        None, "archive_duplicate", "archive_duplicate", None, "archive_duplicate",
    ]  # fmt: skip


def test_what_is_no_dicom_by_its_name_or_kind_is_refused(box: Box) -> None:
    """Archives in archives (by name or by content), NIfTI (its folder says what it is), lists and hidden files."""
    inner, tape = zipped(("1", IMAGE)), tarred(("1", IMAGE, {}))
    polyglot = b"PK\x03\x04" + IMAGE[4:]
    members = [
        ("a.zip", inner), ("a.tgz", b"?"), ("b", inner), ("c", gzip.compress(IMAGE)), ("d", tape), ("e.nii.gz", b"?"),
        ("f/DICOMDIR", IMAGE), ("__MACOSX/._x", b"?"), ("g", polyglot),
    ]  # fmt: skip
    expected = ["archive_nested"] * 5 + ["archive_nifti", "not_an_image", "not_an_image", None]
    assert rules(box.unpack(zipped(*members))) == expected
    assert rules(box.unpack(tarred(*((name, data, {}) for name, data in members)))) == expected


def test_encrypted_members_and_rare_methods_are_refused(box: Box) -> None:
    """There is no key to open them with, and no bound for their decoders."""
    data = bytearray(zipped(("1", IMAGE), ("2", IMAGE)))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.rindex(mark) + at
        data[place] |= 1
    assert rules(box.unpack(bytes(data))) == [None, "archive_encrypted"]
    assert rules(box.unpack(zipped(("1", IMAGE), method=zipfile.ZIP_LZMA))) == ["archive_method"]
    assert rules(box.unpack(zipped(("1", IMAGE), method=zipfile.ZIP_BZIP2))) == ["archive_method"]


# -- damage ------------------------------------------------------------------------------------------------------------


def test_a_damaged_member_is_refused_and_the_rest_goes_on(box: Box) -> None:
    """One altered byte is found by the member's own checksum; what came of it is removed."""
    data = bytearray(zipped(("1", IMAGE), ("2", IMAGE), ("3", IMAGE), method=zipfile.ZIP_STORED))
    data[data.index(b"DICM", data.index(b"DICM") + 10) + 50] ^= 1
    assert rules(box.unpack(bytes(data))) == [None, "archive_damaged", None]


@pytest.mark.parametrize("form", ["zip", "tar", "gz"])
def test_a_cut_archive_is_never_taken_for_the_whole(box: Box, form: str) -> None:
    """Wherever it is cut, a rule says that something is missing; members before the cut are as they were."""
    files = [(f"{n}", IMAGE[: 140 + 500 * n]) for n in range(5)]
    data = zipped(*files) if form == "zip" else tarred(*((name, part, {}) for name, part in files))
    data = gzip.compress(data, mtime=0) if form == "gz" else data
    whole = len(data) if form != "tar" else len(data.rstrip(b"\0")) // 512 * 512 + 512
    for cut in [*range(0, whole, 131), 511, 512, 513, 1024, whole - 1]:
        found = box.unpack(data[:cut])
        assert set(rules(found)) & LOST, cut
        for member, (_, part) in zip([m for m in found if m.path], files, strict=False):
            assert member.path is not None and member.path.read_bytes() == part
        for path in box.folder.iterdir():
            path.unlink()


@pytest.mark.parametrize("gz", [False, True])
def test_damage_in_a_tape_archive_is_found(box: Box, gz: bool) -> None:
    """An altered header does not end the archive silently; altered packed bytes are found by gzip's checksum."""
    files = [(f"{n}", os.urandom(1000), {}) for n in range(5)]
    data = bytearray(gzip.compress(tarred(*files), mtime=0) if gz else tarred(*files, form=tarfile.USTAR_FORMAT))
    data[len(data) // 2 if gz else 512 * 3 * 2 + 100] ^= 0x10
    found = box.unpack(bytes(data))
    assert found[-1].number == -1 and found[-1].rule == "archive_damaged"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["zip", "tar", "gz"]),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
)
def test_whatever_is_wrong_with_its_bytes_an_archive_raises_nothing(
    tmp_path: Path, form: str, edits: list[tuple[int, int]], cut: int
) -> None:
    """Bytes altered anywhere and an end cut off give members and rules, and no file outside of the folder."""
    box = Box(tmp_path / os.urandom(8).hex())
    files = [(f"d/{n}" * 20, IMAGE[:600]) for n in range(3)]
    data = bytearray(zipped(*files) if form == "zip" else tarred(*((n, d, {}) for n, d in files)))
    if form == "gz":
        data = bytearray(gzip.compress(bytes(data), mtime=0))
    for place, value in edits:
        data[place % len(data)] = value
    box.unpack(bytes(data[: len(data) - cut]))


# -- bombs -------------------------------------------------------------------------------------------------------------


def test_an_archive_unpacks_to_no_more_than_it_may(box: Box) -> None:
    """Members that do not fit are refused before a byte of them is written; smaller ones still come in."""
    limits = ArchiveLimits(3 * len(IMAGE))
    found = box.unpack(zipped(("1", IMAGE), ("2", bytes(10_000_000)), ("3", IMAGE), ("4", IMAGE), ("5", b"x")), limits)
    assert rules(found) == [None, "archive_too_large", None, None, "archive_too_large"]
    parts = [("1", IMAGE, {}), ("2", bytes(10_000_000), {}), ("3", IMAGE, {})]
    assert rules(box.unpack(tarred(*parts), limits))[:2] == [None, "archive_too_large"]


def test_what_packs_too_well_is_a_bomb(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a size, an archive may not unpack to 200 times its own, whatever the project allows."""
    from redraft.sources import archives

    monkeypatch.setattr(archives, "_RATIO_FROM", 1_000_000)
    bomb = zipped(("1", IMAGE), ("2", bytes(3_000_000)))
    assert rules(box.unpack(bomb)) == [None, "archive_too_large"]
    stream = gzip.compress(tarred(("1", IMAGE, {}), ("2", bytes(8_000_000), {}), ("3", IMAGE, {})))
    assert rules(box.unpack(stream))[:2] == [None, "archive_too_large"]


def test_members_that_share_their_bytes_are_refused(box: Box) -> None:
    """Many members over one kernel of packed bytes (a zip without nesting that unpacks to terabytes)."""
    data = zipped(*((f"{n}", IMAGE) for n in range(4)), method=zipfile.ZIP_STORED)
    start = data.index(b"PK\x01\x02")
    entries = data[start : data.index(b"PK\x05\x06")]
    size = len(entries) // 4
    first = entries[:size]
    forged = first + b"".join(first[:-1] + bytes([48 + n]) for n in range(1, 4))
    assert rules(box.unpack(data[:start] + forged + data[start + len(entries) :])) == ["archive_overlap"] * 4


def test_a_member_longer_or_shorter_than_it_says_is_damaged(box: Box) -> None:
    """The size in the directory is what was checked against the limits, so it must be true."""
    for size in (10, len(IMAGE) + 10):
        data = bytearray(zipped(("1", IMAGE)))
        place = data.index(b"PK\x01\x02") + 24
        data[place : place + 4] = struct.pack("<I", size)
        assert rules(box.unpack(bytes(data))) == ["archive_damaged"]


def test_too_many_members_end_an_archive(box: Box) -> None:
    """A directory of more members than may be is not gone through; a tape archive ends where there are too many."""
    limits = ArchiveLimits(50_000_000, members=5)
    assert rules(box.unpack(zipped(*((f"{n}", b"x") for n in range(6))), limits)) == ["archive_too_large"]
    found = box.unpack(tarred(*((f"{n}", b"x", {}) for n in range(6))), limits)
    assert rules(found) == [None] * 5 + ["archive_too_large"]


@pytest.mark.parametrize("kind", ["longname", "pax", "sparse", "directory"])
def test_headers_take_no_memory_that_they_only_declare(box: Box, kind: str) -> None:
    """A name, an attribute, a map or a directory of gigabytes, packed into kilobytes, is not read."""
    huge = 64 * 1024 * 1024
    if kind == "directory":
        data = bytearray(zipped(("1", IMAGE)))
        place = data.rindex(b"PK\x05\x06")
        data[place:place] = bytes(huge)
        place += huge
        data[place + 12 : place + 16] = struct.pack("<I", huge)
        content = bytes(data)
    else:
        header = tarfile.TarInfo("x")
        header.size = huge
        header.type = tarfile.GNUTYPE_LONGNAME if kind == "longname" else tarfile.XHDTYPE
        head = header.tobuf(tarfile.USTAR_FORMAT)
        if kind == "sparse":
            member = tarfile.TarInfo("x")
            member.size = huge
            member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
            content = gzip.compress(member.tobuf(tarfile.PAX_FORMAT) + b"30000000\n" + b"1\n" * (huge // 2), 6)
        else:
            content = gzip.compress(head + b"1" * huge, 6)
    box.archive.write_bytes(content)
    tracemalloc.start()
    found = list(unpack(box.archive, box.folder, ArchiveLimits(2**40), PSEUDONYMS))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[-1].rule in LOST and all(member.path is None for member in found)
    assert peak < 48 * 1024 * 1024


def test_a_header_that_leads_back_ends_the_archive(box: Box) -> None:
    """A negative size would be gone round and round."""
    member = tarfile.TarInfo("x")
    member.size = -1024
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    data = bytes(512) and tarred(("1", IMAGE, {})).rstrip(b"\0")
    data += bytes(-len(data) % 512) + bytes(header) + bytes(1024)
    found = box.unpack(data)
    assert len(found) <= 3 and found[-1].rule in LOST


def test_the_disk_is_named_when_it_does_not_work(box: Box) -> None:
    """An archive that is not there is an error of the machine, and names no path."""
    with pytest.raises(StorageError) as caught:
        list(unpack(box.top / "Meier_Anna.zip", box.folder, LIMITS, PSEUDONYMS))
    assert "Meier" not in str(caught.value)


# -- names -------------------------------------------------------------------------------------------------------------

ODD = ["..", ".", "", "/", "\\", "C:", "a", "DICOMDIR", ".x", "IM1", "~", "%2e%2e", "\x1b[2J", "\u202e", "con"]
WORDS = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.lists(WORDS, min_size=1, max_size=5).map("/".join).filter(bool), min_size=1, max_size=6),
    tape=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_name_leads_out_is_kept_or_reaches_the_terminal(tmp_path: Path, names: list[str], tape: bool) -> None:
    """Whatever members are called, files have our names, lie in the folder, and hold what the member held."""
    box = Box(tmp_path / os.urandom(8).hex())
    members = [(name, IMAGE[: 200 + n]) for n, name in enumerate(names)]
    data = tarred(*((name, part, {}) for name, part in members)) if tape else zipped(*members)
    found = box.unpack(data)
    contents = Counter(part for _, part in members)
    for member in found:
        assert member.shown.isprintable() or member.shown == ""
        assert name_of(member) not in repr(member)
        if member.path is not None:
            contents[member.path.read_bytes()] -= 1
            assert ".." not in member.shown.replace("\\", "/").split("/")
    assert min(contents.values()) >= 0
    plain = [name for name in names if re.fullmatch(r"[a-zA-Z0-9]+", name)]
    assert sum(member.path is not None for member in found) >= len(set(plain) - {"DICOMDIR"})


def name_of(member: Member) -> str:
    return member.shown if len(member.shown) > 8 else "never shown"
