"""Small files that unpack to very large ones."""

from __future__ import annotations

import zlib

_BLOCK = 1 << 26


def gzip_bomb(size: int) -> bytes:
    """A gzip stream of `size` zero bytes (a multiple of 64 MiB); its checksum is never reached, and not right."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(_BLOCK)) + squeeze.flush(zlib.Z_FULL_FLUSH)  # each one stands by itself
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return head + block * (size // _BLOCK) + squeeze.flush() + bytes(8)
