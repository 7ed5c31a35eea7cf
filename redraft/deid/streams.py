"""Streams of what lies packed in files: bounded, looked at before they are read, and how far their headers reach."""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from typing import IO, Any, cast

from redraft.deid.matcher import BLOCK

_MOST = 64 * 1024**3  # bytes that one packed file may unfold to
_SPOOL = 64 * 1024 * 1024  # bytes kept in memory where a format has to be read out of order


class Limited(io.RawIOBase):
    """A stream whose start can be looked at, and that ends with an error where it unfolds to too much."""

    def __init__(self, stream: IO[bytes], most: int = _MOST):
        self._stream = stream
        self._ahead = b""
        self._left = most

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay to be read."""
        while len(self._ahead) < size and (more := self._stream.read(size - len(self._ahead))):
            self._ahead += more
        return self._ahead[:size]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            return b"".join(blocks(cast(IO[bytes], self)))
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


class Part(Limited):
    """The next bytes of a pipe, and the line end that follows them."""

    def __init__(self, stream: IO[bytes], size: int):
        super().__init__(cast(IO[bytes], _Exactly(stream, size)))
        self._pipe = stream

    def finish(self) -> None:
        """Read on to behind the line end."""
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


def blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """What is left of a stream."""
    while block := stream.read(BLOCK):
        yield block


def seekable(stream: IO[bytes]) -> Any:
    """The stream with random access: itself where it is a file, else a copy (in memory, or on disk when large)."""
    if isinstance(stream, (io.BufferedReader, io.BytesIO)) and stream.seekable():
        return nullcontext(stream)
    copy = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(stream, copy, BLOCK)
    copy.seek(0)
    return copy


def nifti_header(head: bytes) -> int:
    """Length of a NIfTI header with its extensions; 0 for anything else."""
    if len(head) >= 348 and head[344:348] in (b"n+1\0", b"ni1\0"):
        order = "<" if head[:4] == b"\x5c\x01\0\0" else ">"
        (offset,) = struct.unpack(f"{order}f", head[108:112])
        return int(offset) if 348 <= offset < 2**31 else 348
    if head[4:8] in (b"n+2\0", b"ni2\0") and len(head) >= 176:
        order = "<" if head[:4] == b"\x1c\x02\0\0" else ">"
        (place,) = struct.unpack(f"{order}q", head[168:176])
        return int(place) if 540 <= place < 2**31 else 540
    return 0


def numpy_header(head: bytes) -> int:
    """Length of the header of an array of numbers as numpy saves it; 0 for anything else, arrays of objects too."""
    if head[:6] != b"\x93NUMPY" or b"|O" in head or b"'O'" in head:
        return 0
    size = int.from_bytes(head[8:10], "little") + 10 if head[6] == 1 else int.from_bytes(head[8:12], "little") + 12
    return size if size < 65536 else 0
