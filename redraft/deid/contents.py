"""Everything that a project's files hold, as streams of bytes: what is packed is unpacked, what is coded is decoded.

A file is told by its first bytes, never by its name. What cannot be opened is reported, never passed over: whoever
says that nothing was found must have looked everywhere.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import IO, Any, cast

from redraft.deid.matcher import BLOCK

_DEPTH = 8  # of packed files inside of packed files
_MOST = 64 * 1024**3  # bytes that one packed file may unfold to
_SPOOL = 64 * 1024 * 1024  # bytes kept in memory where a format has to be read out of order
# Formats whose content is packed in ways that are not undone here: nothing can be proved of them.
_OPAQUE = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"Rar!\x1a\x07": "a rar archive", b"PAR1": "a Parquet table",
    b"%PDF-": "a PDF, whose text is coded by its fonts", b"\x89HDF\r\n": "an HDF5 file",
    b"\x28\xb5\x2f\xfd": "packed with zstandard", b"\x04\x22\x4d\x18": "packed with lz4",
}  # fmt: skip

Emit = Callable[..., None]


class Contents:
    """Walks contents and hands every stream to `emit(place, blocks, numeric=…)`; `failed(place, why)` is told the rest.

    Places are text for people: file, member of an archive, table and column, git object.
    """

    def __init__(self, emit: Emit, failed: Callable[[str, str], None]):
        self.emit = emit
        self.failed = failed
        self.counts = {"files": 0, "bytes": 0, "names": 0, "members": 0, "cells": 0, "git objects": 0}

    # -- files --------------------------------------------------------------------------------------------------------
    def tree(self, root: Path) -> None:
        """A file, or a folder with everything below it, hidden files too. Links are read as text, not followed."""
        if root.is_symlink() or not root.is_dir():
            self._path(root, root.name)
            return
        self._name(root.name, root.name)

        def unreadable(error: OSError) -> None:
            self.failed(str(error.filename), f"the folder cannot be listed ({error.strerror})")

        for folder, folders, files in os.walk(root, onerror=unreadable):
            here = Path(folder)
            if _is_git(here):
                self.git(here, str(here.relative_to(root)))
                if "objects" in folders:
                    folders.remove("objects")  # read object by object, unpacked
            folders.sort()
            for name in [*folders, *sorted(files)]:
                path = here / name
                place = str(path.relative_to(root))
                if path.is_symlink():
                    self._link(path, place, root)
                elif name in folders:
                    self._name(name, place)
                else:
                    self._path(path, place)
            folders[:] = [name for name in folders if not (here / name).is_symlink()]

    def _path(self, path: Path, place: str) -> None:
        self._name(path.name, place)
        if not path.is_file():
            if not path.exists():
                self.failed(place, "it is not there")
            return  # a socket or pipe holds nothing
        try:
            with open(path, "rb") as stream:
                self.counts["files"] += 1
                self.counts["bytes"] += os.fstat(stream.fileno()).st_size
                head = stream.read(512)
                stream.seek(0)
                if head.startswith(b"SQLite format 3\0"):
                    self._sqlite(path, place)
                self.content(place, stream, head, 0)
        except OSError as error:
            self.failed(place, f"it cannot be read ({error.strerror})")

    def _link(self, path: Path, place: str, root: Path) -> None:
        self._name(path.name, place)
        target = os.readlink(path)
        self._name(target, f"{place} (link)")
        if not path.resolve().is_relative_to(root.resolve()):
            self.failed(place, "the link leads out of the folder: check where it leads too")

    def _name(self, name: str, place: str) -> None:
        self.counts["names"] += 1
        self.emit(f"{place} (name)", iter([os.fsencode(name)]))

    # -- one stream ---------------------------------------------------------------------------------------------------
    def content(self, place: str, stream: IO[bytes], head: bytes, depth: int) -> None:
        """One stream, unpacked as often as it was packed."""
        if depth > _DEPTH:
            self.failed(place, f"files are packed into one another more than {_DEPTH} times")
            return
        try:
            self._content(place, stream, head, depth)
        except (
            OSError,
            EOFError,
            zlib.error,
            lzma.LZMAError,
            tarfile.TarError,
            zipfile.BadZipFile,
            RuntimeError,
        ) as error:
            # RuntimeError: an encrypted zip. The message could quote a member's name: only its kind is told.
            self.failed(place, f"it is damaged or locked ({type(error).__name__})")

    def _content(self, place: str, stream: IO[bytes], head: bytes, depth: int) -> None:
        for magic, what in _OPAQUE.items():
            if head.startswith(magic):
                self.failed(place, f"it is {what}")
        if head.startswith(b"\x1f\x8b"):
            self._unpacked(f"{place} (gzip)", cast(IO[bytes], gzip.GzipFile(fileobj=stream)), depth)
            self.emit(f"{place} (gzip header)", iter([head]))
        elif head.startswith(b"BZh"):
            self._unpacked(f"{place} (bzip2)", cast(IO[bytes], bz2.BZ2File(stream)), depth)
        elif head.startswith(b"\xfd7zXZ"):
            self._unpacked(f"{place} (xz)", lzma.open(stream), depth)  # noqa: SIM115 - the caller closes it
        elif head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
            self._zip(place, stream, depth)
        elif head[257:262] == b"ustar":
            self._tar(place, stream, depth)
        elif head[128:132] == b"DICM":
            self._dicom(place, stream)
        elif (skip := _nifti(head)) or (skip := _numpy(head)):
            self.emit(f"{place} (header)", iter([stream.read(skip)]))
            self.emit(f"{place} (numbers)", _blocks(stream), numeric=True)
        else:
            self.emit(place, _blocks(stream))

    def _unpacked(self, place: str, stream: IO[bytes], depth: int) -> None:
        limited = _Limited(stream)
        head = limited.peek(512)
        self.content(place, cast(IO[bytes], limited), head, depth + 1)
        while limited.read(BLOCK):  # to the end: its checksum stands there
            pass

    def _zip(self, place: str, stream: IO[bytes], depth: int) -> None:
        with _seekable(stream) as whole, zipfile.ZipFile(whole) as archive:
            whole.seek(0)
            self.emit(place, _blocks(whole), numeric=True)  # what lies between the members
            self.emit(f"{place} (comment)", iter([archive.comment]))
            for member in archive.infolist():
                inside = f"{place}:{member.filename}"
                self.counts["members"] += 1
                self._name(member.filename, inside)
                self.emit(f"{inside} (comment)", iter([member.comment, member.extra]))
                if member.is_dir():
                    continue
                with archive.open(member) as opened:
                    limited = _Limited(opened)
                    head = limited.peek(512)
                    # Tensors of a saved network (torch: archive/data/0, 1, …) are numbers.
                    if member.filename.rpartition("/")[0].endswith("/data") and member.filename[-1].isdigit():
                        self.emit(inside, _blocks(cast(IO[bytes], limited)), numeric=True)
                    else:
                        self.content(inside, cast(IO[bytes], limited), head, depth + 1)

    def _tar(self, place: str, stream: IO[bytes], depth: int) -> None:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                inside = f"{place}:{member.name}"
                self.counts["members"] += 1
                about = [member.name, member.linkname, member.uname, member.gname, *member.pax_headers.values()]
                for text in about:
                    self._name(str(text), inside)
                if member.isfile() and (opened := archive.extractfile(member)) is not None:
                    limited = _Limited(opened)
                    self.content(inside, cast(IO[bytes], limited), limited.peek(512), depth + 1)

    # -- DICOM --------------------------------------------------------------------------------------------------------
    def _dicom(self, place: str, stream: IO[bytes]) -> None:
        """Its bytes as they stand, and every value decoded with the character set it is written in."""
        import pydicom

        with _seekable(stream) as whole:
            self.emit(place, _blocks(whole), numeric=True)
            whole.seek(0)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ds = pydicom.dcmread(whole)
                    self.emit(f"{place} (attributes)", _attributes(ds))
            except Exception as error:  # what pydicom raises for damaged bytes has no common base
                self.failed(place, f"its attributes cannot be read ({type(error).__name__})")
                whole.seek(0)
                self.emit(place, _blocks(whole))

    # -- databases ----------------------------------------------------------------------------------------------------
    def _sqlite(self, path: Path, place: str) -> None:
        """Every text and blob of every table, beside the file's raw bytes (where deleted rows may still lie)."""
        # A copy: opening a database in use would write beside it, and must see what is in its log already.
        with tempfile.TemporaryDirectory(prefix="redraft-check-") as folder:
            copy = Path(folder) / "copy.db"
            shutil.copyfile(path, copy)
            if (log := path.with_name(path.name + "-wal")).exists():
                shutil.copyfile(log, copy.with_name("copy.db-wal"))
            try:
                with closing(sqlite3.connect(copy)) as base:
                    base.text_factory = bytes
                    tables = base.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                    for (name,) in tables:
                        self._table(base, name.decode("utf-8", "replace"), place)
            except sqlite3.Error as error:
                self.failed(place, f"the database cannot be read ({type(error).__name__})")

    def _table(self, base: sqlite3.Connection, name: str, place: str) -> None:
        quoted = name.replace('"', '""')
        rows = base.execute(f'SELECT * FROM "{quoted}"')
        columns = [column[0] for column in rows.description]
        cells: list[list[bytes]] = [[] for _ in columns]
        held = 0

        def out() -> None:
            for column, parts in zip(columns, cells, strict=True):
                if parts:
                    self.emit(f"{place} ({name}.{column})", iter([b"\0\n".join(parts)]))
                parts.clear()

        for row in rows:
            for number, value in enumerate(row):
                if value is None:
                    continue
                self.counts["cells"] += 1
                data = value if isinstance(value, bytes) else str(value).encode()
                if data[:2] in (b"\x1f\x8b", b"PK", b"BZ") or data[:6] == b"\xfd7zXZ\0":
                    self.content(f"{place} ({name}.{columns[number]})", io.BytesIO(data), data[:512], 1)
                cells[number].append(data)
                held += len(data)
            if held > BLOCK:
                out()
                held = 0
        out()

    # -- git ----------------------------------------------------------------------------------------------------------
    def git(self, folder: Path, place: str) -> None:
        """Every object of a repository, reachable or not: files of all times, messages, names of authors."""
        command = ["git", "-C", str(folder), "cat-file", "--batch-all-objects", "--unordered", "--batch"]
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
        except OSError:
            self.failed(place, "git is not installed")
            return
        assert process.stdout is not None
        with process.stdout as pipe:
            while line := pipe.readline():
                name, kind, size = line.decode("ascii", "replace").split()[:3]
                self.counts["git objects"] += 1
                part = _Part(pipe, int(size))
                head = part.peek(512)
                self.content(f"{place} (git {kind} {name[:12]})", cast(IO[bytes], part), head, 1)
                part.finish()
        if process.wait():
            self.failed(place, "git cannot read every object")


# -- streams ----------------------------------------------------------------------------------------------------------
class _Limited(io.RawIOBase):
    """A stream whose start can be looked at, and that ends with an error where it unfolds to too much."""

    def __init__(self, stream: IO[bytes], most: int = _MOST):
        self._stream = stream
        self._ahead = b""
        self._left = most

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (more := self._stream.read(size - len(self._ahead))):
            self._ahead += more
        return self._ahead[:size]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            return b"".join(_blocks(cast(IO[bytes], self)))
        if self._ahead:
            out, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            out = self._stream.read(size)
        self._left -= len(out)
        if self._left < 0:
            raise OSError("unfolds to too much")
        return out

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Part(_Limited):
    """The next bytes of a pipe, and the line end that follows them."""

    def __init__(self, stream: IO[bytes], size: int):
        super().__init__(cast(IO[bytes], _Exactly(stream, size)))
        self._pipe = stream

    def finish(self) -> None:
        while self.read(BLOCK):
            pass
        self._pipe.read(1)


class _Exactly:
    def __init__(self, stream: IO[bytes], size: int):
        self._stream, self._size = stream, size

    def read(self, size: int) -> bytes:
        out = self._stream.read(min(size, self._size)) if self._size else b""
        self._size -= len(out)
        return out


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(BLOCK):
        yield block


def _seekable(stream: IO[bytes]) -> Any:
    """The stream with random access: itself where it is a file, else a copy (in memory, or on disk when large)."""
    if isinstance(stream, (io.BufferedReader, io.BytesIO)) and stream.seekable():
        return nullcontext(stream)
    copy = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(stream, copy, BLOCK)
    copy.seek(0)
    return copy


def _is_git(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def _nifti(head: bytes) -> int:
    """Length of a NIfTI header with its extensions; 0 for anything else."""
    import struct

    if len(head) >= 348 and head[344:348] in (b"n+1\0", b"ni1\0"):
        order = "<" if head[:4] == b"\x5c\x01\0\0" else ">"
        (offset,) = struct.unpack(f"{order}f", head[108:112])
        return int(offset) if 348 <= offset < 2**31 else 348
    if head[4:8] in (b"n+2\0", b"ni2\0") and len(head) >= 176:
        order = "<" if head[:4] == b"\x1c\x02\0\0" else ">"
        (place,) = struct.unpack(f"{order}q", head[168:176])
        return int(place) if 540 <= place < 2**31 else 540
    return 0


def _numpy(head: bytes) -> int:
    """Length of the header of an array of numbers as numpy saves it; 0 for anything else, arrays of objects too."""
    if head[:6] != b"\x93NUMPY" or b"|O" in head or b"'O'" in head:
        return 0
    size = int.from_bytes(head[8:10], "little") + 10 if head[6] == 1 else int.from_bytes(head[8:12], "little") + 12
    return size if size < 65536 else 0


def _attributes(ds: Any, depth: int = 0) -> Iterator[bytes]:
    """Every value of a data set as text (UTF-8) or bytes; pixels were searched with the file."""
    values = [*getattr(ds, "file_meta", ()), *ds] if depth == 0 else ds
    for element in values:
        if element.VR == "SQ":
            if depth < 60:
                for item in element.value:
                    yield from _attributes(item, depth + 1)
        elif element.tag.group == 0x7FE0:
            continue
        elif isinstance(element.value, bytes):
            yield element.value + b"\0\n"
        elif element.value is not None:
            for value in element.value if element.VM > 1 else [element.value]:
                yield str(value).encode("utf-8", "surrogatepass") + b"\0\n"
    if depth == 0:
        yield bytes(getattr(ds, "preamble", b"") or b"")
