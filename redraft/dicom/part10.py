"""One file of PS3.10: its meta information, its transfer syntax and its dataset, inflated where that was deflated.

What a file only announces is held against what is there; deflated data inflate no further than their own pixels reach.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from redraft.dicom.elements import AGAIN, LONG, SHORT, Bounds, Elements, Short, Walk
from redraft.errors import ReadError

IMPLICIT, DEFLATED, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_HEADER_BYTES = 4 << 20  # of deflated data, before its pixels are known
_HEADER_BYTES_MOST = 64 << 20


@dataclass(frozen=True)
class File:
    """One file walked: transfer syntax, dataset, and size in bytes. `header` is what stands before the pixels."""

    syntax: str
    meta: Elements
    elements: Elements
    size: int

    @property
    def sop_class(self) -> str:
        """SOP Class UID; where it is empty that of the meta information, which must be equal (PS3.10 7.1)."""
        return self.elements.text("SOPClassUID") or self.meta.text("MediaStorageSOPClassUID")

    @property
    def sop_instance(self) -> str:
        """SOP Instance UID; where it is empty that of the meta information."""
        return self.elements.text("SOPInstanceUID") or self.meta.text("MediaStorageSOPInstanceUID")

    @property
    def header(self) -> bytes:
        return self.elements.buffer[: self.elements.end]


def walk_file(buffer: bytes, bounds: Bounds, *, last: int = 0x7FE00010, whole: bool = True) -> File:
    """Walk a file of PS3.10.

    Parameters
    ----------
    last : int
        The tag behind which the walk ends.
    whole : bool
        Whether `buffer` is the whole file. Then elements that it does not hold are refused; else Short is raised.

    Raises
    ------
    ReadError
        not_dicom, truncated, malformed, nesting, elements, inflated_size.
    """
    if buffer[128:132] != b"DICM":
        raise ReadError("A file is no DICOM file.", rule="not_dicom")
    try:
        meta = Elements(buffer, True, True)
        start = Walk(buffer, True, True, bounds, enter=False).dataset(132, len(buffer), 0, meta.found, group=2)
        syntax = meta.text("TransferSyntaxUID")
        size = len(buffer)
        if syntax == DEFLATED:
            elements = _inflate(buffer, start, bounds, last, whole)
            return File(syntax, meta, elements, size)
        explicit, little = _encoding(syntax, buffer[start : start + 6])
        elements = Elements(buffer, explicit, little)
        walk = Walk(buffer, explicit, little, bounds, enter=whole)
        elements.end = walk.dataset(start, len(buffer), 0, elements.found, last=last)
        if not whole and elements.end + 8 > len(buffer):
            raise Short  # cut between two elements: there may be more
    except Short:
        if whole:
            raise ReadError("A file ends inside of a data element.", AGAIN, rule="truncated") from None
        raise
    return File(syntax, meta, elements, size)


def _encoding(syntax: str, first: bytes) -> tuple[bool, bool]:
    """Whether values carry their representation, and whether they are little endian (PS3.5 10.1, A)."""
    if syntax == IMPLICIT:
        return False, True
    if syntax == BIG:
        return True, False
    if not syntax:  # written by what ignores PS3.10; the first element tells
        return first[4:6] in SHORT or first[4:6] in LONG, True
    return True, True


def _inflate(buffer: bytes, start: int, bounds: Bounds, last: int, whole: bool) -> Elements:
    """Inflate a dataset no further than its own pixels reach (PS3.5 A.5)."""
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    head = b"\0" * 128 + b"DICM"
    try:
        data = head + machine.decompress(buffer[start:], _HEADER_BYTES)
        while True:
            elements = Elements(data, True, True)
            try:
                walk = Walk(data, True, True, bounds, enter=whole)
                elements.end = walk.dataset(len(head), len(data), 0, elements.found, last=last)
                if elements.end + 8 > len(data) and not machine.eof:
                    raise Short
                return elements
            except Short as short:
                # Pixels say how long they are; what else is missing is header.
                needed = (short.end or 2 * len(data)) - len(data)
                if short.end is None:
                    most = _HEADER_BYTES_MOST - len(data)
                else:
                    most = min(pixel_bytes(elements), bounds.voxels * 4) + _HEADER_BYTES
            if needed > most:
                raise ReadError(
                    "A deflated file inflates to more than its header announces.", AGAIN, rule="inflated_size",
                    measured={"bytes": len(data) + needed, "allowed_bytes": len(data) + max(most, 0)},
                )  # fmt: skip
            more = machine.decompress(machine.unconsumed_tail, needed)
            if not more:
                raise Short
            data += more
    except zlib.error:
        raise ReadError("A deflated file cannot be inflated.", AGAIN, rule="truncated") from None


def pixel_bytes(elements: Elements) -> int:
    """Bytes that the pixels of a dataset take when they are not compressed, as its header declares them."""
    return declared_voxels(elements) * max(elements.integer("BitsAllocated") or 16, 8) // 8


def declared_voxels(elements: Elements) -> int:
    """Values of the pixels of a dataset, as its header declares them."""
    count = 1
    for keyword, absent in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1), ("SamplesPerPixel", 1)):
        value = elements.integer(keyword)
        count *= max(absent if value is None else value, 0)
    return count
