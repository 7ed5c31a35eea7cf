"""Stored pixel values of one file, frame by frame (PS3.5 chapter 8; PS3.3 C.7.6.3)."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from redraft.dicom.elements import AGAIN, BIG, DEFLATED, IMPLICIT, UNDEFINED, File
from redraft.errors import ReadError

EXPLICIT = "1.2.840.10008.1.2.1"
NATIVE = {"", IMPLICIT, EXPLICIT, DEFLATED, BIG}


class PixelSource:
    """Where a file's pixels lie and how they are stored; nothing is decoded before `stored` is called.

    Raises
    ------
    ReadError
        no_size, no_pixels, truncated, colour, bits.
    """

    __slots__ = (
        "bits",
        "columns",
        "data",
        "frames",
        "high",
        "native",
        "order",
        "rows",
        "signed",
        "stored_bits",
        "syntax",
    )

    def __init__(self, file: File):
        elements = file.elements
        rows, columns = elements.integer("Rows"), elements.integer("Columns")
        frames = elements.integer("NumberOfFrames")
        self.frames = 1 if frames is None else frames
        if not rows or not columns or rows < 1 or columns < 1 or self.frames < 1:
            raise ReadError("A slice declares no rows or columns.", AGAIN, rule="no_size")
        self.rows, self.columns = rows, columns
        if (elements.integer("SamplesPerPixel") or 1) != 1:
            raise ReadError("A slice is in colour.", rule="colour")
        self.bits = elements.integer("BitsAllocated") or 16
        self.stored_bits = elements.integer("BitsStored") or self.bits
        high = elements.integer("HighBit")
        self.high = self.stored_bits - 1 if high is None else high
        self.signed = elements.integer("PixelRepresentation") == 1
        self.syntax = file.syntax
        self.native = file.syntax in NATIVE
        self.order = "<" if elements.little else ">"
        if not (self.bits in (8, 16, 32) and 0 < self.stored_bits <= self.high + 1 <= self.bits):
            measured: dict[str, object] = {"allocated": self.bits, "stored": self.stored_bits, "high": self.high}
            raise ReadError("A slice's pixels are of no known size.", AGAIN, rule="bits", measured=measured)
        place = elements.found.get(0x7FE00010)
        if place is None or place[2] == 0:
            raise ReadError("A file of the series has no pixels.", AGAIN, rule="no_pixels")
        _, start, length = place
        stop = len(elements.buffer) if length == UNDEFINED else start + length
        self.data = memoryview(elements.buffer)[start:stop]
        declared = rows * columns * self.frames * self.bits // 8
        if self.native and declared > len(self.data):
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
        kind = f"{self.order}{'i' if self.signed else 'u'}{size}"
        count = self.rows * self.columns
        if size == 1 and self.order == ">":
            raise ReadError("Eight-bit pixels in big endian order are not read.", rule="undecodable")
        values = np.frombuffer(self.data, kind, count, index * count * size).reshape(self.rows, self.columns)
        if self.stored_bits < self.bits:  # overlays of old and padding lie in the other bits (PS3.5 8.1.1)
            values = values.astype(kind.replace(">", "<")) << (self.bits - 1 - self.high)
            values >>= self.bits - self.stored_bits
        return values

    def _decoded(self, index: int) -> NDArray[Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values, _ = _decoder(self.syntax).as_array(
                    bytes(self.data), index=index, raw=True, rows=self.rows, columns=self.columns,
                    number_of_frames=self.frames, samples_per_pixel=1, photometric_interpretation="MONOCHROME2",
                    bits_allocated=self.bits, bits_stored=self.stored_bits,
                    pixel_representation=int(self.signed), pixel_keyword="PixelData",
                )  # fmt: skip
        except Exception as error:  # decoders raise a dozen unrelated types for wrong bytes
            name = UID(self.syntax).name if UID(self.syntax).is_valid else "unknown"
            measured: dict[str, object] = {"transfer_syntax": name, "error": type(error).__name__}
            raise ReadError(
                f"A slice's pixels cannot be decoded ({name}).", AGAIN, rule="undecodable", measured=measured
            ) from None
        if values.shape != (self.rows, self.columns):
            measured = {"pixels": list(values.shape), "declared": [self.rows, self.columns]}
            raise ReadError("A slice's pixels are not of the declared size.", AGAIN, rule="size", measured=measured)
        return values


@lru_cache(maxsize=32)
def _decoder(syntax: str) -> Any:
    return get_decoder(syntax)
