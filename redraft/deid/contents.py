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
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

from redraft.deid.matcher import BLOCK
from redraft.deid.streams import Limited, Part, blocks, nifti_header, numpy_header, seekable

_DEPTH = 8  # of packed files inside of packed files
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
        elif (skip := nifti_header(head)) or (skip := numpy_header(head)):
            self.emit(f"{place} (header)", iter([stream.read(skip)]))
            self.emit(f"{place} (numbers)", blocks(stream), numeric=True)
        else:
            self.emit(place, blocks(stream))

    def _unpacked(self, place: str, stream: IO[bytes], depth: int) -> None:
        limited = Limited(stream)
        head = limited.peek(512)
        self.content(place, cast(IO[bytes], limited), head, depth + 1)
        while limited.read(BLOCK):  # to the end: its checksum stands there
            pass

    def _zip(self, place: str, stream: IO[bytes], depth: int) -> None:
        with seekable(stream) as whole, zipfile.ZipFile(whole) as archive:
            whole.seek(0)
            self.emit(place, blocks(whole), numeric=True)  # what lies between the members
            self.emit(f"{place} (comment)", iter([archive.comment]))
            for member in archive.infolist():
                inside = f"{place}:{member.filename}"
                self.counts["members"] += 1
                self._name(member.filename, inside)
                self.emit(f"{inside} (comment)", iter([member.comment, member.extra]))
                if member.is_dir():
                    continue
                with archive.open(member) as opened:
                    limited = Limited(opened)
                    head = limited.peek(512)
                    # Tensors of a saved network (torch: archive/data/0, 1, …) are numbers.
                    if member.filename.rpartition("/")[0].endswith("/data") and member.filename[-1].isdigit():
                        self.emit(inside, blocks(cast(IO[bytes], limited)), numeric=True)
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
                    limited = Limited(opened)
                    self.content(inside, cast(IO[bytes], limited), limited.peek(512), depth + 1)

    # -- DICOM --------------------------------------------------------------------------------------------------------
    def _dicom(self, place: str, stream: IO[bytes]) -> None:
        """Its bytes as they stand, and every value decoded with the character set it is written in."""
        import pydicom

        with seekable(stream) as whole:
            self.emit(place, blocks(whole), numeric=True)
            whole.seek(0)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ds = pydicom.dcmread(whole)
                    self.emit(f"{place} (attributes)", _attributes(ds))
            except Exception as error:  # what pydicom raises for damaged bytes has no common base
                self.failed(place, f"its attributes cannot be read ({type(error).__name__})")
                whole.seek(0)
                self.emit(place, blocks(whole))

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
                part = Part(pipe, int(size))
                head = part.peek(512)
                self.content(f"{place} (git {kind} {name[:12]})", cast(IO[bytes], part), head, 1)
                part.finish()
        if process.wait():
            self.failed(place, "git cannot read every object")


def _is_git(folder: Path) -> bool:
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


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
