"""Alterations of any bytes."""

from __future__ import annotations

import struct
from random import Random

from tests.fuzz.words import LENGTHS


def noise(data: bytes, rng: Random) -> bytes:
    """Alterations that know nothing: flips, cuts, insertions, repetitions."""
    raw, size = bytearray(data), len(data)
    if not size:
        return bytes(rng.randbytes(rng.randrange(200)))
    at, length = rng.randrange(size), rng.choice((1, 2, 4, 16, 64, 512))
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(raw[:at])
    if kind == 1:
        for _ in range(rng.choice((1, 1, 4, 16))):
            raw[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == 2:
        raw[at : at + length] = rng.randbytes(length)
    elif kind == 3:
        raw[at:at] = raw[at : at + length] * rng.choice((1, 2, 100))
    elif kind == 4:
        del raw[at : at + length]
    else:
        raw[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(LENGTHS))
    return bytes(raw)
