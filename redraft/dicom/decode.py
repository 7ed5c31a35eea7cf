"""Stored pixel values of one file, frame by frame (PS3.5 chapter 8; PS3.3 C.7.6.3)."""

from __future__ import annotations

import struct
import warnings
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGLSLossless, JPEGLSNearLossless, RLELossless

from redraft.dicom import codecs
from redraft.dicom.elements import AGAIN, UNDEFINED
from redraft.dicom.part10 import BIG, DEFLATED, IMPLICIT, File, pixel_bytes
from redraft.errors import ReadError

EXPLICIT = "1.2.840.10008.1.2.1"
STORED_AS_BITS = {str(RLELossless), str(JPEGLSLossless), str(JPEGLSNearLossless)}
NATIVE = {"", IMPLICIT, EXPLICIT, DEFLATED, BIG}
PIXEL_DATA = 0x7FE00010
# What one byte of a compressed image can stand for: RLE packs 128 values into two bytes; the others code a blank image
# in next to nothing, so that theirs only stops sizes that no image has.
MOST_PER_BYTE = {str(RLELossless): 64}
MOST_PER_BYTE_ELSE = 20_000


class PixelSource:
    """Where a file's pixels lie and how they are stored; nothing is decoded before `stored` is called.

    Raises
    ------
    ReadError
        no_size, no_pixels, truncated, undecodable.
    """

    def __init__(self, file: File):
        elements = file.elements
        rows, columns = elements.integer("Rows"), elements.integer("Columns")
        frames = elements.integer("NumberOfFrames")
        self.frames = 1 if frames is None else frames
        if not rows or not columns or rows < 1 or columns < 1 or self.frames < 1:
            raise ReadError("A slice declares no rows or columns.", AGAIN, rule="no_size")
        self.rows, self.columns = rows, columns
        self.bits = elements.integer("BitsAllocated") or 0
        self.stored_bits = elements.integer("BitsStored") or self.bits
        high = elements.integer("HighBit")
        self.high = self.stored_bits - 1 if high is None else high
        sign = elements.integer("PixelRepresentation")
        self.signed = sign == 1
        self.syntax = file.syntax
        self.native = file.syntax in NATIVE
        self.little = elements.little
        place = elements.found.get(PIXEL_DATA)
        if place is None or place[2] == 0:
            raise ReadError("A file of the series has no pixels.", AGAIN, rule="no_pixels")
        self.wide = place[0] != b"OB"
        # The high bit is the last stored one in CT, MR and PET (PS3.3 C.8.2.1.1, C.8.3.1.1); where it is not, some
        # readers shift the values and others do not.
        widths = self.bits in (8, 16, 32) and 0 < self.stored_bits == self.high + 1 <= self.bits
        if not widths or sign not in (0, 1):
            measured: dict[str, object] = {"allocated": self.bits, "stored": self.stored_bits, "high": self.high}
            raise ReadError("A slice's pixels are of no known kind.", AGAIN, rule="undecodable", measured=measured)
        _, start, length = place
        stop = len(elements.buffer) if length == UNDEFINED else start + length
        self.data = memoryview(elements.buffer)[start:stop]
        self._offsets = (elements.raw("ExtendedOffsetTable"), elements.raw("ExtendedOffsetTableLengths"))
        declared = pixel_bytes(elements)
        ratio = 1 if self.native else MOST_PER_BYTE.get(self.syntax, MOST_PER_BYTE_ELSE)
        if declared > len(self.data) * ratio:
            raise ReadError(
                f"A slice declares {declared} bytes of pixels in a file of {file.size} bytes.", AGAIN,
                rule="truncated", measured={"declared_bytes": declared, "file_bytes": file.size},
            )  # fmt: skip

    @property
    def voxels(self) -> int:
        return self.rows * self.columns * self.frames

    def stored(self, index: int) -> NDArray[Any]:
        """Stored values of one frame, integers, shape (rows, columns); read-only where they need no decoding."""
        if not self.native:
            return self._decoded(index)
        size = self.bits // 8
        kind = "i" if self.signed else "u"
        count = self.rows * self.columns
        if size == 1 and not self.little and self.wide:  # words of two bytes, swapped (PS3.5 8.1.1, annex D)
            words = np.frombuffer(self.data[: len(self.data) // 2 * 2], ">u2").astype("<u2").view(f"{kind}1")
            values = words[index * count : (index + 1) * count]
            if len(values) < count:  # half a word at the end
                raise ReadError("A slice has fewer pixels than it declares.", AGAIN, rule="truncated")
        else:
            values = np.frombuffer(self.data, f"{'<' if self.little else '>'}{kind}{size}", count, index * count * size)
        return self._cleaned(values.reshape(self.rows, self.columns))

    def _cleaned(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values without what lies in the bits that are not stored: overlays of old, or padding (PS3.5 8.1.1)."""
        if self.stored_bits == self.bits:
            return values
        values = values.astype(values.dtype.newbyteorder("=")) << (self.bits - 1 - self.high)
        values >>= self.bits - self.stored_bits
        return values

    @cached_property
    def _encoded(self) -> list[bytes]:
        """The frames' encoded bytes."""
        offsets = self._offsets if all(self._offsets) else None
        data = bytes(self.data)
        self.data = memoryview(b"")
        found = list(generate_frames(data, number_of_frames=self.frames, extended_offsets=offsets))
        if len(found) != self.frames or _repeated(data):
            raise ValueError
        return found

    def _decoded(self, index: int) -> NDArray[Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                encoded = self._encoded[index]
                size = encoded_size(encoded) or (self.rows, self.columns)
                if size == (self.rows, self.columns):
                    decoder, plugin = _decoder(self.syntax)
                    values, _ = decoder.as_array(
                        encapsulate([encoded], has_bot=False), index=0, raw=True, decoding_plugin=plugin,
                        rows=self.rows, columns=self.columns, number_of_frames=1, samples_per_pixel=1,
                        photometric_interpretation="MONOCHROME2", bits_allocated=self.bits,
                        bits_stored=self.stored_bits, pixel_representation=int(self.signed), pixel_keyword="PixelData",
                    )  # fmt: skip
                    size = values.shape
        except Exception as error:  # decoders raise a dozen unrelated types for wrong bytes
            measured: dict[str, object] = {"transfer_syntax": syntax_name(self.syntax), "error": type(error).__name__}
            raise ReadError(
                f"A slice's pixels cannot be decoded ({syntax_name(self.syntax)}).", AGAIN,
                rule="undecodable", measured=measured,
            ) from None  # fmt: skip
        if size != (self.rows, self.columns):
            measured = {"pixels": list(size), "declared": [self.rows, self.columns]}
            raise ReadError("A slice's pixels are not of the declared size.", AGAIN, rule="size", measured=measured)
        # JPEG-LS knows no signed values (ISO 14495-1): decoders leave a negative one what its stored bits are unsigned.
        return self._cleaned(values) if self.syntax in STORED_AS_BITS else values


def _repeated(data: bytes) -> bool:
    """Whether behind the fragments stands what belongs before them: the pixels once more, say (PS3.5 7.1, A.4)."""
    pos, ended = 0, False
    while pos + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, pos)
        if ended:
            return 0 < group << 16 | element <= PIXEL_DATA
        ended = (group, element) == (0xFFFE, 0xE0DD)
        pos += 8 if ended else 8 + length
    return False


def syntax_name(uid: str) -> str:
    """A transfer syntax in words; ``unknown`` for what is none, for it may be anything."""
    name = UID(uid).name if UID(uid).is_valid else ""
    return name if name and name != uid else "unknown"


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream declares itself; None where it is none of these.

    A decoder allocates what the stream says, whatever the DICOM header says, so it is asked first (ISO 10918-1 B.2.2,
    ISO 14495-1 C.2.2, ISO 15444-1 A.5.1).
    """
    if data[:4] == b"\xff\x4f\xff\x51":
        x, y, left, top = (int.from_bytes(data[n : n + 4], "big") for n in (8, 12, 16, 20))
        return y - top, x - left
    if data[:2] != b"\xff\xd8":
        return None
    pos = 2
    while pos + 9 <= len(data) and data[pos] == 0xFF:
        marker = data[pos + 1]
        if marker == 0xFF:  # fill
            pos += 1
        elif marker in _SIZES:
            return int.from_bytes(data[pos + 5 : pos + 7], "big"), int.from_bytes(data[pos + 7 : pos + 9], "big")
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            pos += 2
        else:
            pos += 2 + int.from_bytes(data[pos + 2 : pos + 4], "big")
    return None


_SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


@lru_cache(maxsize=32)
def _decoder(syntax: str) -> tuple[Any, str]:
    """pydicom's decoder of a transfer syntax, and the plugin to use ("" for any)."""
    codecs.register()
    return get_decoder(UID(syntax)), codecs.preferred(syntax)
