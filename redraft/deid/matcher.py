"""Search for thousands of byte strings at once in a stream, with memory that does not grow with it.

No library of that kind (Aho–Corasick) is among redraft's dependencies; numpy does it in two steps. Each string has an
anchor, eight of its bytes (four where it is shorter). A table of hashes says for every place of a block whether it can
be an anchor; what passes is compared whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.deid.forms import Form, forms

BLOCK = 4 * 1024 * 1024
_LOWER = bytes(range(256)).lower()
_BESIDE = 2  # bytes of the character after a hit, which shows whether a word ends
_BITS = 22
_FACTOR = {8: 0x9E3779B97F4A7C15, 4: 0x9E3779B1}


@dataclass(frozen=True)
class Hit:
    """One place where an identifier stands: its number in the list, where, and in which form."""

    identifier: int
    offset: int
    form: str


@dataclass(frozen=True)
class _Pattern:
    identifier: int
    form: Form
    anchor: int  # offset of the anchor in the form


class Matcher:
    """Finds identifiers in bytes. `identifiers` maps an ordinal to its text."""

    def __init__(self, identifiers: Iterable[tuple[int, str]]):
        self._patterns: dict[int, dict[bytes, list[_Pattern]]] = {8: defaultdict(list), 4: defaultdict(list)}
        self.longest = 1
        for identifier, text in identifiers:
            for form in forms(text):
                width = 8 if len(form.data) >= 8 else 4
                start = _anchor(form.data, width)
                key = form.data[start : start + width]
                self._patterns[width][key].append(_Pattern(identifier, form, start))
                self.longest = max(self.longest, len(form.data))
        self._tables = {width: _table(width, found) for width, found in self._patterns.items() if found}

    def search(self, data: bytes, *, numeric: bool = False) -> Iterator[Hit]:
        """Hits in one byte string, in no order. In `numeric` data only forms of eight bytes and more count.

        Shorter ones stand by chance among millions of measured numbers.
        """
        for hit, _end in self._search(data, numeric):
            yield hit

    def spans(self, data: bytes) -> Iterator[tuple[Hit, int]]:
        """Hits in one byte string with their lengths."""
        for hit, end in self._search(data, False):
            yield hit, end - hit.offset

    def stream(self, blocks: Iterable[bytes], *, numeric: bool = False) -> Iterator[Hit]:
        """Hits in a stream of blocks, each once. Blocks overlap by the longest form and what may stand beside it."""
        keep = self.longest + _BESIDE
        data, before, done = b"", 0, 0  # `done`: hits that end up to here are reported
        for block in blocks:
            data += block
            if len(data) < BLOCK:
                continue
            limit = before + len(data) - _BESIDE
            yield from self._between(data, before, done, limit, numeric)
            done = limit
            before += len(data) - keep
            data = data[-keep:]
        yield from self._between(data, before, done, before + len(data), numeric)

    def _between(self, data: bytes, before: int, done: int, limit: int, numeric: bool) -> Iterator[Hit]:
        for hit, end in self._search(data, numeric):
            if done < before + end <= limit:
                yield Hit(hit.identifier, before + hit.offset, hit.form)

    def _search(self, data: bytes, numeric: bool) -> Iterator[tuple[Hit, int]]:
        lower = data.translate(_LOWER)
        for width, (table, anchors) in self._tables.items():
            if numeric and width == 4:
                continue
            for start in range(width):
                count = (len(lower) - start) // width
                if count <= 0:
                    break
                view = np.frombuffer(lower, dtype=f"<u{width}", offset=start, count=count)
                places = np.flatnonzero(table[_hash(view, width)])
                if not len(places):
                    continue
                found = view[places]
                places = places[anchors[np.minimum(np.searchsorted(anchors, found), len(anchors) - 1)] == found]
                for place in (places * width + start).tolist():
                    yield from self._compare(data, lower, place, width)

    def _compare(self, data: bytes, lower: bytes, place: int, width: int) -> Iterator[tuple[Hit, int]]:
        for pattern in self._patterns[width].get(lower[place : place + width], ()):
            form, start = pattern.form, place - pattern.anchor
            if start < 0 or not lower.startswith(form.data, start):
                continue
            end = start + len(form.data)
            if form.exact is not None and data[start:end] != form.exact:
                continue
            if form.word and (_goes_on(lower, start - form.unit, form.unit) or _goes_on(lower, end, form.unit)):
                continue
            yield Hit(pattern.identifier, start, form.name), end


def _goes_on(data: bytes, place: int, unit: int) -> bool:
    """Whether a letter or digit of ASCII stands at a place."""
    if place < 0 or place + unit > len(data):
        return False
    part = data[place : place + unit].strip(b"\0")
    return len(part) == 1 and part.isalnum()


def _anchor(data: bytes, width: int) -> int:
    """The window with the most different bytes: runs of zeros and digits are everywhere."""
    return max(range(len(data) - width + 1), key=lambda start: len(set(data[start : start + width])))


def _hash(view: NDArray[Any], width: int) -> NDArray[Any]:
    kind = np.dtype(f"<u{width}").type
    product: NDArray[Any] = np.multiply(view, kind(_FACTOR[width]))
    place: NDArray[Any] = np.right_shift(product, kind(width * 8 - _BITS))
    return place


def _table(width: int, patterns: dict[bytes, list[_Pattern]]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    anchors = np.unique(np.array([int.from_bytes(key, "little") for key in patterns], dtype=f"<u{width}"))
    table = np.zeros(1 << _BITS, dtype=np.bool_)
    with np.errstate(over="ignore"):
        table[_hash(anchors, width)] = True
    return table, anchors
