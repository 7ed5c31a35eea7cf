"""Parts of a multipart/related body as they arrive (RFC 2046 5.1, RFC 2387), one after the other, in bounded memory.

Servers end such bodies by closing the connection, without a length (Orthanc does): only the closing delimiter tells a
whole body from one that broke off in its last part. dicomweb-client's own decoder hands such a part on as if it were
whole and holds each part in memory, hence this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message

HEADER_BYTES = 16_384


class BrokenOff(Exception):
    """The body ended before its closing delimiter, or a part is shorter than it says."""


class Malformed(Exception):
    """This is no multipart body."""


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names. Raises Malformed when it is not multipart or names none."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_maintype() != "multipart" or not boundary:
        raise Malformed
    return boundary.encode("latin-1", "replace")


def parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[Iterator[bytes]]:
    """The parts' bodies in order, each as an iterator over its bytes; what is left of one is skipped for the next.

    A part's iterator ends once the delimiter behind the part was seen: then, and only then, the part is whole.

    Parameters
    ----------
    chunks : iterable of bytes
        The body in pieces of any size.

    Raises
    ------
    BrokenOff
        From whichever iterator is asked when the body ends too early.
    Malformed
        When a delimiter or a part's header is not as it must be.
    """
    reader = _Reader(chunks, b"\r\n--" + boundary)
    for _ in reader.until_delimiter():  # preamble
        pass
    while not reader.closed():
        length = reader.part_header()
        body = _counted(reader.until_delimiter(), length)
        yield body
        for _ in body:
            pass


def _counted(body: Iterator[bytes], length: int | None) -> Iterator[bytes]:
    arrived = 0
    for piece in body:
        arrived += len(piece)
        yield piece
    if length is not None and arrived != length:
        raise BrokenOff


class _Reader:
    def __init__(self, chunks: Iterable[bytes], delimiter: bytes):
        self._chunks = iter(chunks)
        self._delimiter = delimiter
        # The first delimiter has no line end before it when there is no preamble.
        self._data = bytearray(b"\r\n")

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise BrokenOff
        self._data += chunk

    def until_delimiter(self) -> Iterator[bytes]:
        """Bytes up to the next delimiter, which is consumed."""
        keep = len(self._delimiter) - 1
        while (found := self._data.find(self._delimiter)) < 0:
            if len(self._data) > keep:
                piece = bytes(self._data[:-keep])
                del self._data[:-keep]
                yield piece
            self._more()
        piece = bytes(self._data[:found])
        del self._data[: found + len(self._delimiter)]
        if piece:
            yield piece

    def closed(self) -> bool:
        """Whether the delimiter just read was the closing one."""
        while len(self._data) < 2:
            self._more()
        return self._data.startswith(b"--")

    def part_header(self) -> int | None:
        """Read a part's header; returns its Content-Length where it says one."""
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if len(self._data) > HEADER_BYTES:
                raise Malformed
            self._more()
        # Behind the delimiter may stand blanks, then the line's end.
        first, *lines = bytes(self._data[:end]).split(b"\r\n")
        if first.strip(b" \t"):
            raise Malformed
        del self._data[: end + 4]
        for line in lines:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                return int(value)
        return None
