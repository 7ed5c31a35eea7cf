"""Masks on the wire: gzip of raw uint8 label values in the image's own voxel order, the first axis fastest.

Never resampled, never lossy: what a browser drew is what is stored, voxel for voxel. What comes in is not to be trusted
before it is read: its size is known, and nothing is unpacked beyond it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from math import prod

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from redraft.errors import UsageError

Shape = tuple[int, int, int]
_GZIP = 31  # window bits of a gzip stream


@dataclass(frozen=True)
class Mask:
    """A mask as it was sent.

    Attributes
    ----------
    packed : bytes
        The gzip stream.
    raw : bytes
        One byte per voxel, i fastest.
    sha256 : str
        Of `raw`: the same drawing has one, however it was packed.
    voxels : int
        Voxels that are not background.
    """

    packed: bytes
    raw: bytes
    sha256: str
    voxels: int

    def array(self, shape: Shape) -> NDArray[np.uint8]:
        """Label values, shape (I, J, K)."""
        return np.frombuffer(self.raw, np.uint8).reshape(shape, order="F")


def unpack(packed: bytes, shape: Shape, values: Collection[int]) -> Mask:
    """Read a mask of `shape` that holds 0 and `values` only.

    Raises
    ------
    UsageError
        With code `work.not_gzip`, `work.grid` (more or fewer voxels than the image) or `work.values`.
    """
    size = prod(shape)
    stream = isal_zlib.decompressobj(wbits=_GZIP)
    try:
        raw = stream.decompress(packed, size + 1)  # one more tells a longer one; a bomb gets no further
        if len(raw) == size and not stream.eof:  # the trailer, with the checksum, may be unread yet
            raw += stream.decompress(stream.unconsumed_tail, 1)
    except Exception as error:  # the library's own type has no place in the tree of errors that mypy knows
        raise _not_gzip() from error
    if len(raw) > size:
        raise _grid(size, f"more than {size}")
    if not stream.eof or stream.unused_data:
        raise _not_gzip()
    if len(raw) < size:
        raise _grid(size, str(len(raw)))
    known = bytes({0, *values})
    if strange := raw.translate(None, known):  # what is left when all known values are taken out
        raise UsageError(
            f"The mask holds values that are none of the structures': {sorted(set(strange[:4096]))[:5]}.",
            "Reload the page: the project's structures may have changed.",
            code="work.values",
        )
    return Mask(packed, raw, hashlib.sha256(raw).hexdigest(), int(np.count_nonzero(np.frombuffer(raw, np.uint8))))


def pack(labels: NDArray[np.uint8]) -> Mask:
    """A label array of shape (I, J, K) as it goes over the wire; the same array gives the same bytes."""
    raw = np.asarray(labels, np.uint8).tobytes(order="F")
    packed = igzip.compress(raw, 1, mtime=0)
    return Mask(packed, raw, hashlib.sha256(raw).hexdigest(), int(np.count_nonzero(labels)))


def _not_gzip() -> UsageError:
    return UsageError(
        "The mask did not arrive as one whole gzip stream.",
        "Save again; if it happens again, the connection or a proxy alters what is sent.",
        code="work.not_gzip",
        retry=True,
    )


def _grid(size: int, found: str) -> UsageError:
    return UsageError(
        f"The mask holds {found} voxels, and the image {size}.",
        "It was drawn on another image. Reload the page; what was drawn stays in the browser until then.",
        code="work.grid",
    )
