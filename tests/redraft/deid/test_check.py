"""Every way that an identifier can be hidden is found, where it stands is told, and the identifier itself never is."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.deid.check import Identifiers, Report, check
from redraft.deid.matcher import BLOCK, Matcher
from redraft.errors import UsageError
from tests.redraft.deid.objects import ct, saved

NAME, NUMBER, BORN, POLISH, KANJI = (
    "Abendroth^Leopoldine",
    "KH-0098812-7",
    "19610712",
    "Szczepańska^Małgorzata",
    "山之内^重信朗",
)
LIST = [NAME, NUMBER, BORN, POLISH, KANJI]


def look(path: Path, texts: list[str] = LIST) -> Report:
    return check([path], Identifiers.of(enumerate(texts, 1), "list"))


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zipped(data: bytes, name: str = "inner.txt") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def tarred(data: bytes, name: str = "inner.txt", mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def nifti(description: bytes = b"", extension: bytes = b"") -> bytes:
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    image.header["descrip"] = description
    if extension:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", extension))
    return image.to_bytes()


ENCODINGS: dict[str, tuple[int, bytes]] = {
    "utf-8": (1, NAME.encode()),
    "lower case": (1, NAME.lower().encode()),
    "upper case": (1, NAME.upper().encode()),
    "utf-16-le": (1, NAME.encode("utf-16-le")),
    "utf-16-be at an odd place": (1, b"x" + NAME.encode("utf-16-be")),
    "given name first": (1, b"seen by Leopoldine Abendroth today"),
    "family, given": (1, b"ABENDROTH, LEOPOLDINE"),
    "joined by underscores": (1, b"abendroth_leopoldine.dcm"),
    "run together": (1, b"AbendrothLeopoldine"),
    "percent-encoded": (1, quote(NAME).encode()),
    "percent-encoded in lower case": (1, quote(NAME).lower().encode()),
    "hexadecimal": (1, NAME.encode().hex().encode()),
    "base64, alignment 0": (1, base64.b64encode(b"abc" + NAME.encode() + b"zz")),
    "base64, alignment 1": (1, base64.b64encode(b"abcd" + NAME.encode() + b"z")),
    "base64, alignment 2": (1, base64.b64encode(b"abcde" + NAME.encode() + b"z")),
    "base64 url-safe": (2, base64.urlsafe_b64encode(b"?>" + NUMBER.encode())),
    "number": (2, NUMBER.encode()),
    "number without separators": (2, b"id=kh00988127;"),
    "number with spaces": (2, b"KH 0098812 7"),
    "date": (3, b"born 19610712."),
    "date with dashes": (3, b"1961-07-12"),
    "german date": (3, b"12.07.1961"),
    "short german date": (3, b"12.7.1961"),
    "american date": (3, b"07/12/1961"),
    "date in words": (3, b"12 July 1961"),
    "latin-2": (4, POLISH.encode("iso8859-2")),
    "utf-8 upper case beyond ascii": (4, POLISH.upper().encode()),
    "decomposed letters": (4, "Małgorzata Szczepan\u0301ska".encode()),
    "json escapes": (4, json.dumps({"n": POLISH}).encode()),
    "percent-encoded utf-8": (4, quote("Małgorzata Szczepańska").encode()),
    "utf-16 beyond ascii": (4, POLISH.encode("utf-16")),
    "shift jis": (5, KANJI.encode("shift_jis")),
    "iso 2022": (5, KANJI.encode("iso2022_jp")),
    "html entities": (5, "".join(c if c.isascii() else f"&#{ord(c)};" for c in KANJI).encode()),
}


@pytest.mark.parametrize("case", ENCODINGS)
def test_every_way_of_writing_is_found(tmp_path: Path, case: str) -> None:
    """One encoding at a time, in the middle of other bytes."""
    identifier, data = ENCODINGS[case]
    (tmp_path / "file.bin").write_bytes(b"\x00\x01 head " + data + b" tail \xff")
    report = look(tmp_path)
    assert identifier in {finding.identifier for finding in report.found}
    assert not report.ok


CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzipped,
    "gzip in gzip": lambda data: gzipped(gzipped(data)),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "zip in tar.gz": lambda data: tarred(zipped(data)),
    "tar": lambda data: tarred(data, mode="w"),
    "tar.gz in zip": lambda data: zipped(tarred(data)),
    "name in a zip": lambda data: zipped(b"-", data.decode()),
    "name in a tar": lambda data: tarred(b"-", data.decode()),
    "nifti description": lambda data: nifti(data),
    "nifti extension, gzipped": lambda data: gzipped(nifti(extension=data)),
    "dicom": lambda data: saved(ct(SpecificCharacterSet="ISO_IR 192", PatientComments=data.decode())),
    "dicom, japanese": lambda data: saved(ct(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=f"A^B={KANJI}")),
    "numpy header": lambda data: b"\x93NUMPY\x01\x00v\x00" + data.ljust(118) + bytes(64),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_every_container_is_opened(tmp_path: Path, case: str) -> None:
    """Told by content, not by name."""
    (tmp_path / "cache_entry_without_ending").write_bytes(CONTAINERS[case](b"Leopoldine Abendroth"))
    report = look(tmp_path, [NAME, KANJI])
    assert report.found and not report.not_read


def test_databases_are_read_cell_by_cell_and_raw(tmp_path: Path) -> None:
    """A text, a packed blob, a row that is still in the log, and a deleted row's remains."""
    base = sqlite3.connect(tmp_path / "ledger.db")
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA secure_delete=OFF")
    base.execute("CREATE TABLE run (name TEXT, data BLOB)")
    base.execute("INSERT INTO run VALUES (?, ?)", (NUMBER, gzipped(NAME.encode())))
    base.commit()
    report = look(tmp_path)
    assert {"ledger.db (run.name)", "ledger.db (run.data) (gzip)"} <= {finding.place for finding in report.found}
    assert report.searched["cells"] == 2
    base.execute("DELETE FROM run")
    base.commit()
    assert look(tmp_path).found
    base.close()


def test_history_is_read_object_by_object(tmp_path: Path) -> None:
    """A file that was deleted, packed objects, messages and authors."""

    def git(*args: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.invalid", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *args], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "a.txt").write_text(f"of {NUMBER}\n" * 50)
    git("add", "a.txt")
    git("commit", "-q", "-m", "first")
    git("rm", "-q", "a.txt")
    git("commit", "-q", "-m", f"removed {NAME}")
    git("gc", "-q", "--aggressive")
    (tmp_path / ".git" / "logs" / "HEAD").unlink()
    report = look(tmp_path)
    assert {1, 2} == {finding.identifier for finding in report.found}
    assert all("(git " in finding.place or ".git/" in finding.place for finding in report.found)
    assert {1, 2} == {finding.identifier for finding in report.found if "(git " in finding.place}
    assert report.searched["git objects"] >= 4


def test_names_and_links_are_read_and_masked(tmp_path: Path) -> None:
    """A name in a folder's name is found, and the report does not repeat it."""
    folder = tmp_path / "Abendroth_Leopoldine"
    folder.mkdir()
    (folder / "KH-0098812-7.txt").write_text("clean")
    os.symlink("KH-0098812-7.txt", folder / "latest")
    report = look(tmp_path)
    assert {1, 2} == {finding.identifier for finding in report.found}
    text = json.dumps(report.to_dict(), ensure_ascii=False).lower()
    assert "abendroth" not in text and "0098812" not in text
    assert "[identifier 1]" in text


def test_a_clean_project_passes_and_says_what_was_read(tmp_path: Path) -> None:
    """Numbers, text and archives without identifiers: nothing found, everything counted."""
    rng = np.random.default_rng(1)
    np.save(tmp_path / "array.npy", rng.standard_normal((200, 200)).astype(np.float32))
    (tmp_path / "exam.json").write_text(json.dumps({"exam_id": "3f" * 10, "dates": ["20240101"]}))
    (tmp_path / "image.nii.gz").write_bytes(gzipped(nifti(b"redraft")))
    (tmp_path / "pack.zip").write_bytes(zipped(b"nothing"))
    report = look(tmp_path)
    assert report.ok, report.to_dict()
    assert report.searched["files"] == 4 and report.searched["members"] == 1
    assert report.searched["bytes unpacked"] > 160_000


UNREADABLE: dict[str, bytes] = {
    "a cut gzip": gzipped(os.urandom(5000))[:-900],
    "a damaged zip": zipped(b"x" * 5000)[:60],
    "a 7z archive": b"7z\xbc\xaf\x27\x1c" + bytes(100),
    "zstandard": b"\x28\xb5\x2f\xfd" + bytes(100),
    "a pdf": b"%PDF-1.7\n",
    "a broken database": b"SQLite format 3\0" + b"\x99" * 4096,
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_opened_is_no_proof(tmp_path: Path, case: str) -> None:
    """A check that passed something over did not prove anything."""
    (tmp_path / "thing").write_bytes(UNREADABLE[case])
    report = look(tmp_path)
    assert report.not_read and not report.found and not report.ok


def test_a_link_out_of_the_folder_is_no_proof(tmp_path: Path) -> None:
    """Where it leads was not searched."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out.txt").write_text(NAME)
    os.symlink("../out.txt", tmp_path / "in" / "link")
    assert look(tmp_path / "in").not_read


def test_identifiers_that_are_too_short_are_named(tmp_path: Path) -> None:
    """Three letters stand everywhere: the check says so instead of passing."""
    (tmp_path / "a.txt").write_text("nothing")
    report = look(tmp_path, ["Li", NAME, "大槻"])
    assert report.not_checkable == (1,) and not report.ok


def test_short_identifiers_count_as_whole_words_only(tmp_path: Path) -> None:
    """A short name inside of another word, a short number inside of another number are chance."""
    (tmp_path / "a.txt").write_text("Maierhofer 0.5512341 x55123412")
    assert look(tmp_path, ["Maier", "55123"]).ok
    (tmp_path / "a.txt").write_text("Herr Maier, Nr. 55123!")
    assert {1, 2} == {finding.identifier for finding in look(tmp_path, ["Maier", "55123"]).found}


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_list_is_a_mistake(tmp_path: Path, text: str) -> None:
    """Looking for nobody finds nobody."""
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UsageError, match="empty"):
        Identifiers.read(tmp_path / "list.txt")


@settings(max_examples=60, deadline=None)
@given(
    place=st.integers(-40, 40),
    sizes=st.lists(st.integers(1, BLOCK), min_size=1, max_size=4),
    text=st.sampled_from([NAME, NUMBER, "Maier"]),
)
def test_a_stream_finds_what_stands_across_blocks_once(place: int, sizes: list[int], text: str) -> None:
    """However a stream is cut, each hit is reported once, at its place."""
    data = bytearray(b" " * (2 * BLOCK))
    start = BLOCK + place
    data[start : start + len(text)] = text.encode()
    cuts, blocks = 0, []
    for size in sizes:
        blocks.append(bytes(data[cuts : cuts + size]))
        cuts += size
    blocks.append(bytes(data[cuts:]))
    hits = [hit for hit in Matcher([(7, text)]).stream(iter(blocks)) if hit.form.endswith("UTF-8")]
    assert [(hit.identifier, hit.offset) for hit in hits if "order" not in hit.form] == [(7, start)]


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=300),
    texts=st.lists(st.text("abcXYZ019-^ ", min_size=6, max_size=12), min_size=1, max_size=5),
)
def test_the_search_agrees_with_a_plain_one(data: bytes, texts: list[str]) -> None:
    """Oracle: Python's own search over lower-case bytes."""
    texts = [text for text in texts if len(text.strip()) >= 6 and not text.strip().replace("-", "").isdigit()]
    hay = data + b"|" + (texts[0].encode() if texts else b"") + b"|" + data
    found = {hit.identifier for hit in Matcher(enumerate(texts)).search(hay)}
    plain = {n for n, text in enumerate(texts) if text.strip().lower().encode() in hay.lower()}
    assert plain <= found
