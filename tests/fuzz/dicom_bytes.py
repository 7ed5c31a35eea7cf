"""Alterations of DICOM files: lengths, representations, values, elements, items, syntaxes, fragments and streams."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from random import Random

from tests.fuzz.noise import noise
from tests.fuzz.words import LENGTHS, LONG, SYNTAXES, TAGS, TEXTS, UNDEFINED, VRS, WORDS


@dataclass
class _Element:
    """Where an element or item lies; `around` are the length fields of what encloses it."""

    start: int
    tag: int
    vr: bytes
    at: int
    width: int
    value: int
    length: int
    end: int
    around: tuple[int, ...]


def dicom(data: bytes, rng: Random) -> bytes:
    syntax = _syntax(data)
    if syntax == b"1.2.840.10008.1.2.1.99" and rng.random() < 0.8:
        start = _meta_end(data)
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        inner = machine.decompress(data[start:], 4_000_000)
        plain = _altered(data[:start] + inner, rng, True, "<")
        coder = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        return plain[:start] + coder.compress(plain[start:]) + coder.flush()
    return _altered(data, rng, syntax != b"1.2.840.10008.1.2", ">" if syntax == b"1.2.840.10008.1.2.2" else "<")


def _syntax(data: bytes) -> bytes:
    found: list[_Element] = []
    _walk(data, 132, _meta_end(data), True, "<", (), found)
    return next((data[e.value : e.end].strip(b" \0") for e in found if e.tag == 0x00020010), b"")


def _meta_end(data: bytes) -> int:
    if data[128:132] != b"DICM" or data[132:136] != b"\x02\0\0\0":
        raise ValueError
    return 144 + struct.unpack_from("<I", data, 140)[0]


def _walk(
    data: bytes, pos: int, stop: int, explicit: bool, order: str, around: tuple[int, ...], found: list[_Element]
) -> int:
    while pos + 8 <= stop and len(found) < 5000:
        start = pos
        high, low = struct.unpack_from(order + "HH", data, pos)
        tag = high << 16 | low
        vr = b""
        if tag >> 16 == 0xFFFE or not explicit:
            at, width, value = pos + 4, 4, pos + 8
        else:
            vr = data[pos + 4 : pos + 6]
            at, width, value = (pos + 8, 4, pos + 12) if vr in LONG else (pos + 6, 2, pos + 8)
        length = struct.unpack_from(order + ("I" if width == 4 else "H"), data, at)[0]
        element = _Element(start, tag, vr, at, width, value, length, stop, around)
        found.append(element)
        if tag in (0xFFFEE00D, 0xFFFEE0DD):
            element.end = value
            if tag == 0xFFFEE0DD or around:
                return value
        inside = tag == 0xFFFEE000 or vr == b"SQ" or (not explicit and tag in (0x52009229, 0x52009230))
        if length == UNDEFINED:
            pos = _walk(data, value, stop, explicit, order, around, found)
        else:
            pos = value + length
            if inside and pos <= stop and tag != 0x7FE00010:
                _walk(data, value, pos, explicit, order, (*around, at), found)
        element.end = min(pos, stop)
    return pos


def _altered(data: bytes, rng: Random, explicit: bool, order: str) -> bytes:
    start = _meta_end(data)
    found: list[_Element] = []
    _walk(data, 132, start, True, "<", (), found)
    meta = len(found)
    _walk(data, start, len(data), explicit, order, (), found)
    index = rng.randrange(len(found)) if rng.random() < 0.15 else rng.randrange(min(meta, len(found) - 1), len(found))
    if rng.random() < 0.4:  # where the readers look
        wanted = [n for n, e in enumerate(found) if e.tag in TAGS]
        index = rng.choice(wanted)
    element = found[index]
    order = "<" if index < meta else order
    edit = _Edit(data, rng, order, explicit or index < meta)
    kind = rng.choices(range(9), (22, 8, 6, 4, 6, 6, 8, 4, 14))[0]
    if kind == 0:
        return edit.value(element)
    if kind == 1:
        length = rng.choice([*LENGTHS, element.length + 1, element.length - 1])
        new = struct.pack(order + "I", length % (1 << 32))
        return edit.put(element.at, new[: element.width] if order == "<" else new[-element.width :])
    if kind == 2 and element.vr:
        return edit.put(element.start + 4, rng.choice(VRS))
    if kind == 3:
        tag = rng.choice(TAGS)
        return edit.put(element.start, struct.pack(order + "HH", tag >> 16, tag & 0xFFFF))
    if kind == 4:
        return edit.replace(element, element.start, element.end, b"")
    if kind == 5:
        copy = data[element.start : element.end] * rng.choice((1, 1, 2, 50))
        return edit.replace(element, element.start, element.start, copy)
    if kind == 6:
        return edit.replace(element, element.start, element.start, edit.made())
    if kind == 7:
        return _switched(data, found[:meta], rng)
    return _pixels(data, found[meta:], rng, order)


@dataclass
class _Edit:
    data: bytes
    rng: Random
    order: str
    explicit: bool

    def put(self, at: int, new: bytes) -> bytes:
        return self.data[:at] + new + self.data[at + len(new) :]

    def replace(self, element: _Element, low: int, high: int, new: bytes) -> bytes:
        """Other bytes in a place, with the lengths around it adjusted, most often."""
        raw = bytearray(self.data)
        if self.rng.random() < 0.85:
            for at in element.around:
                length = struct.unpack_from(self.order + "I", raw, at)[0] + len(new) - (high - low)
                struct.pack_into(self.order + "I", raw, at, length % (1 << 32))
        raw[low:high] = new
        return bytes(raw)

    def value(self, element: _Element) -> bytes:
        """Another value: a number that means something where numbers are binary, a text elsewhere."""
        rng, length = self.rng, element.length
        if element.end - element.value != length or length > 5000:
            return noise(self.data, rng)
        if element.vr in (b"US", b"SS") or (not self.explicit and length == 2):
            return self.put(element.value, struct.pack(self.order + "H", rng.choice(WORDS)))
        if element.vr in (b"FD", b"FL", b"UL", b"SL"):
            code = {b"FD": "d", b"FL": "f", b"UL": "I", b"SL": "i"}[element.vr]
            values = (
                [0, 1, 2, 1000]
                if code in "Ii"
                else [0.0, -1.0, float("nan"), float("inf"), 1e-300 if code == "d" else 1]
            )
            return self.put(element.value, struct.pack(self.order + code, rng.choice(values)))
        new = rng.choice(TEXTS)
        if rng.random() < 0.3:  # a number a little beside the one that was there
            parts = self.data[element.value : element.end].split(b"\\")
            part = rng.randrange(len(parts))
            try:
                parts[part] = b"%.10g" % (float(parts[part]) + rng.choice((1e-6, 1e-3, 0.05, -0.3, 1, 1000)))
                new = b"\\".join(parts)
            except ValueError:
                pass
        new += b" " * (len(new) % 2)
        if element.width == 2:
            new = new[:65534]
        raw = bytearray(self.replace(element, element.value, element.end, new))
        struct.pack_into(self.order + ("I" if element.width == 4 else "H"), raw, element.at, len(new))
        return bytes(raw)

    def made(self) -> bytes:
        """Elements that were not there: group lengths, deep sequences, delimiters, private ones, long ones."""
        rng, order = self.rng, self.order

        def element(tag: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
            head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
            if not self.explicit or tag >> 16 == 0xFFFE:
                return head + struct.pack(order + "I", length) + value
            if vr in LONG:
                return head + vr + b"\0\0" + struct.pack(order + "I", length) + value
            return head + vr + struct.pack(order + "H", length & 0xFFFF) + value

        item, item_end, end = (struct.pack(order + "HHI", 0xFFFE, low, n)
                               for low, n in ((0xE000, UNDEFINED), (0xE00D, 0), (0xE0DD, 0)))  # fmt: skip
        deep = rng.choice((1, 23, 24, 25, 200, 3000))
        kinds = [
            lambda: element(rng.choice(TAGS) & 0xFFFF0000, b"UL", 4, rng.randbytes(4)),
            lambda: (element(0x00081115, b"SQ", UNDEFINED) + item) * deep + (item_end + end) * deep,
            lambda: (element(0x00081115, b"SQ", UNDEFINED) + item) * deep,
            lambda: element(0x00091001, b"UN", UNDEFINED) + item + item_end + end,
            lambda: rng.choice((item, item_end, end)),
            lambda: element(0x00091010, b"OB", 100_000, bytes(100_000)),
            lambda: element(rng.choice(TAGS), rng.choice(VRS), 4, rng.choice((b"1   ", b"\0\0\0\0",
                b"\xff\xff\xff\xff"))),
            lambda: element(0x00091011, b"LO", 2, b"x ") * 3000,
            lambda: element(0x60003000, b"OW", 32, rng.randbytes(32)),
        ]  # fmt: skip
        return rng.choice(kinds)()


def _switched(data: bytes, meta: list[_Element], rng: Random) -> bytes:
    """Another transfer syntax is named than the one that is used."""
    element = next(e for e in meta if e.tag == 0x00020010)
    new = rng.choice(SYNTAXES)
    new += b"\0" * (len(new) % 2)
    raw = bytearray(data)
    struct.pack_into("<I", raw, 140, struct.unpack_from("<I", raw, 140)[0] + len(new) - element.length)
    struct.pack_into("<H", raw, element.at, len(new))
    raw[element.value : element.end] = new
    return bytes(raw)


def _pixels(data: bytes, found: list[_Element], rng: Random, order: str) -> bytes:
    """Pixel data: fragments, offset tables and what the streams inside declare."""
    place = next(n for n, e in enumerate(found) if e.tag == 0x7FE00010)
    pixels, fragments = found[place], [e for e in found[place + 1 :] if e.tag == 0xFFFEE000]
    if not fragments:
        kind = rng.randrange(3)
        if kind == 0:  # native pixels that claim to be fragments
            return data[: pixels.at] + struct.pack(order + "I", UNDEFINED)[: pixels.width] + data[pixels.value :]
        if kind == 1:
            return data[: pixels.value + rng.randrange(len(data) - pixels.value)]
        return data[: pixels.start] + rng.randbytes(rng.choice((0, 8, 100)))
    raw, fragment = bytearray(data), rng.choice(fragments)
    kind = rng.randrange(8)
    if kind == 0:
        struct.pack_into(
            "<I", raw, fragment.at, rng.choice([*LENGTHS, fragment.length + 2, max(0, fragment.length - 2)])
        )
    elif kind == 1:
        raw[fragment.start : fragment.end] = b""
    elif kind == 2:
        raw[fragment.start : fragment.start] = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * rng.choice((1, 1000))
    elif kind == 3:
        table = fragments[0]
        offsets = struct.pack("<4I", *(rng.choice((0, 8, 100, UNDEFINED, len(data))) for _ in range(4)))
        raw[table.value : table.end] = offsets
        struct.pack_into("<I", raw, table.at, len(offsets))
    elif kind == 4:
        del raw[rng.randrange(pixels.value, len(raw)) :]
    elif kind == 5:
        raw[fragment.start : fragment.start] = raw[fragment.start : fragment.end]
    elif fragment.length > 16:
        low = fragment.value if rng.random() < 0.5 else rng.randrange(fragment.value, fragment.end)
        if kind == 6:  # the stream's own header: segments of RLE, markers and sizes of JPEG
            at = low + rng.randrange(min(80, max(1, fragment.end - low)))
            raw[at : at + 2] = struct.pack(">H", rng.choice(WORDS))
        else:
            for _ in range(rng.choice((1, 1, 5, 30))):
                raw[rng.randrange(low, fragment.end)] = rng.randrange(256)
    return bytes(raw)
