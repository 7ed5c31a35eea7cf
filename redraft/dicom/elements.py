"""A dataset's bytes, walked once: where each data element's value lies (PS3.5 chapter 7).

Files are not to be trusted before they are read, so this walk allocates nothing that a file only declares: lengths are
held against the bytes that are there, sequences against a depth, elements against a count. Values stay bytes until they
are asked for; what pydicom is better at (character sets, sequences as objects) is left to it.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.datadict import tag_for_keyword as _tag_for_keyword

from redraft.errors import ReadError

AGAIN = "Send the series again; the file may be damaged or half copied."
UNDEFINED = 0xFFFFFFFF
PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
SHORT = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip
_BINARY = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}


class Short(Exception):
    """The bytes end before the element does; `end` is where the pixels would end, when it is those."""

    def __init__(self, end: int | None = None):
        super().__init__()
        self.end = end


@dataclass(frozen=True)
class Bounds:
    """What one file may ask for: depth of sequences in sequences, elements, and voxels."""

    nesting: int = 24
    elements: int = 500_000
    voxels: int = 600_000_000


class Elements:
    """The elements of one dataset by tag.

    Attributes
    ----------
    found : dict of tag to (VR or empty, start of the value, length of the value in bytes)
        A length of 0xFFFFFFFF stands for encapsulated pixel data; sequences carry the length that they have.
    end : int
        Where the header ends: start of the pixel data's element, or end of the dataset.
    """

    __slots__ = ("buffer", "end", "explicit", "found", "little")

    def __init__(self, buffer: bytes, explicit: bool, little: bool):
        self.buffer = buffer
        self.explicit = explicit
        self.little = little
        self.found: dict[int, tuple[bytes, int, int]] = {}
        self.end = len(buffer)

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self.found

    def raw(self, keyword: str) -> bytes:
        """A value's bytes, empty where absent."""
        place = self.found.get(_tag(keyword))
        return b"" if place is None else self.buffer[place[1] : place[1] + place[2]]

    def text(self, keyword: str) -> str:
        """A value of a text representation, empty where absent; several values stay divided by backslashes."""
        raw = self.raw(keyword)
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii").strip(" \0")
        if keyword == "SpecificCharacterSet":
            return ""
        return _decoded(raw, self.texts("SpecificCharacterSet"))

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values of a multi-valued text."""
        text = self.text(keyword)
        return tuple(part.strip(" \0") for part in text.split("\\")) if text else ()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """A value as numbers of any representation; empty where absent or not numeric."""
        tag = _tag(keyword)
        place = self.found.get(tag)
        if place is None:
            return ()
        vr, start, length = place
        if not vr or vr == b"UN":
            vr = _known_vr(tag)
        code = _BINARY.get(vr)
        try:
            if code is None:
                return tuple(float(part) for part in self.texts(keyword))
            count = length // struct.calcsize(code)
            return struct.unpack_from(f"{'<' if self.little else '>'}{count}{code}", self.buffer, start)
        except (ValueError, struct.error):
            return ()

    def number(self, keyword: str, default: float) -> float:
        """The first number of a value; `default` where there is none."""
        values = self.numbers(keyword)
        return float(values[0]) if values else default

    def integer(self, keyword: str) -> int | None:
        """The first number of a value as an integer; None where absent or none."""
        values = self.numbers(keyword)
        try:
            return int(values[0]) if values else None
        except (OverflowError, ValueError):
            return None

    def items(self, keyword: str) -> list[Elements]:
        """The items of a sequence, empty where absent."""
        place = self.found.get(_tag(keyword))
        if place is None:
            return []
        vr, pos, length = place
        found: list[Elements] = []
        # A sequence of unknown representation is of implicit representation inside (PS3.5 6.2.2).
        explicit = self.explicit and vr != b"UN"
        walk = Walk(self.buffer, explicit, self.little or vr == b"UN", Bounds(), enter=False)
        walk.used = True
        stop = pos + length
        try:
            while pos < stop:
                tag, size = walk.item(pos, stop)
                if tag != ITEM:
                    break
                item = Elements(self.buffer, walk.explicit, walk.little)
                pos = walk.dataset(pos + 8, stop if size == UNDEFINED else pos + 8 + size, 1, item.found)
                found.append(item)
        except Short:  # what it stands in is of a representation that is not entered when the file is walked
            raise ReadError("A sequence ends inside of a data element.", AGAIN, rule="malformed") from None
        return found


class Walk:
    """A walk over datasets, items and sequences in one buffer."""

    def __init__(self, buffer: bytes, explicit: bool, little: bool, bounds: Bounds, *, enter: bool):
        self.buffer = buffer
        self.explicit = explicit
        self.little = little
        self.bounds = bounds
        self.used = False  # whether items' values are used, and not only held against the bounds
        self.enter = enter  # also into sequences whose length is known, to hold them against the bounds
        self.elements = 0
        order = "<" if little else ">"
        self._pair = struct.Struct(order + "HHI").unpack_from
        self._short = struct.Struct(order + "HH2sH").unpack_from
        self._length = struct.Struct(order + "I").unpack_from

    def item(self, pos: int, stop: int) -> tuple[int, int]:
        """Tag and length of what stands at `pos` inside of a sequence."""
        if pos + 8 > stop:
            raise Short
        group, element, length = self._pair(self.buffer, pos)
        if group != 0xFFFE:
            raise ReadError("A sequence holds what is no item.", AGAIN, rule="malformed")
        if length != UNDEFINED and pos + 8 + length > stop:
            raise Short
        return group << 16 | element, length

    def dataset(
        self, pos: int, stop: int, depth: int, found: dict[int, tuple[bytes, int, int]], *, group: int | None = None,
        last: int = UNDEFINED,
    ) -> int:  # fmt: skip
        """Note the elements from `pos` on; returns where they end (before the pixel data, behind an item's end)."""
        buffer, short, pair, explicit, enter = self.buffer, self._short, self._pair, self.explicit, self.enter
        count, most = 0, self.bounds.elements - self.elements
        while pos + 8 <= stop:
            count += 1
            if count > most:
                raise ReadError(
                    "A file holds too many data elements.", "project.yaml bounds them (ingest.limits.elements).",
                    rule="elements", measured={"elements": self.elements + count},
                )  # fmt: skip
            if explicit:
                high, low, vr, length = short(buffer, pos)
                value = pos + 8
                if vr in LONG and high != 0xFFFE:
                    if pos + 12 > stop:
                        raise Short
                    length = self._length(buffer, pos + 8)[0]
                    value = pos + 12
                elif vr not in SHORT and (high == 0xFFFE or not vr.isalpha()):  # writers that change inside of a file
                    vr, length = b"", pair(buffer, pos)[2]
            else:
                high, low, length = pair(buffer, pos)
                vr, value = b"", pos + 8
            tag = high << 16 | low
            if tag == ITEM_END:
                pos = value
                break
            if tag in found and (depth == 0 or self.used):  # PS3.5 7.1: once; readers disagree on which one counts
                raise ReadError("A data element stands twice in one data set.", AGAIN, rule="malformed")
            if tag > last or (group is not None and high != group):
                break
            if tag in PIXELS and depth == 0:
                if length != UNDEFINED and value + length > stop:
                    raise Short(value + length)
                found[tag] = (vr, value, length)
                if length != UNDEFINED and value + length + 8 <= stop:  # only padding and signatures may follow
                    high, low = pair(buffer, value + length)[:2]
                    if 0 < high << 16 | low <= tag:
                        raise ReadError("Behind the pixels stands what belongs before them.", AGAIN, rule="malformed")
                break
            if length == UNDEFINED:
                end, after = self._sequence(value, stop, depth + 1, vr == b"UN")
                found[tag] = (vr or b"SQ", value, end - value)
                pos = after
                continue
            if value + length > stop:
                raise Short
            found[tag] = (vr, value, length)
            if enter and length and (vr == b"SQ" or (not vr and length > 7 and _known_vr(tag) == b"SQ")):
                self._sequence(value, value + length, depth + 1, False)
            pos = value + length
        else:
            if pos < stop and (depth or any(buffer[pos:stop])):  # zeros at the end are padding of writers
                raise Short
        self.elements += count
        return pos

    def _sequence(self, pos: int, stop: int, depth: int, unknown: bool) -> tuple[int, int]:
        """Walk a sequence; returns where its items end and where the next element starts."""
        if depth > self.bounds.nesting:
            raise ReadError(
                "Sequences lie too deep in one another.", "project.yaml bounds them (ingest.limits.nesting).",
                rule="nesting", measured={"nesting": depth},
            )  # fmt: skip
        walk = self
        if unknown and self.explicit:
            walk = Walk(self.buffer, False, True, self.bounds, enter=self.enter)
        while pos < stop:
            tag, length = walk.item(pos, stop)
            if tag == SEQUENCE_END:
                return pos, pos + 8
            if tag != ITEM:
                raise ReadError("A sequence holds what is no item.", AGAIN, rule="malformed")
            inner: dict[int, tuple[bytes, int, int]] = {}
            pos = walk.dataset(pos + 8, stop if length == UNDEFINED else pos + 8 + length, depth, inner)
        if walk is not self:
            self.elements += walk.elements
        return pos, pos


def _decoded(raw: bytes, names: tuple[str, ...]) -> str:
    """Text in the dataset's character sets (PS3.5 6.1); what they do not hold is shown by replacement characters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            encodings = convert_encodings(list(names) or [""])
            return decode_bytes(raw, encodings, {"\\", "^", "="}).strip(" \0")
    except (LookupError, ValueError):
        return raw.decode("ascii", "replace").strip(" \0")


_TAGS: dict[str, int] = {}
_VRS: dict[int, bytes] = {}


def _tag(keyword: str) -> int:
    tag = _TAGS.get(keyword)
    if tag is None:
        found = _tag_for_keyword(keyword)
        assert found is not None, keyword
        tag = _TAGS[keyword] = int(found)
    return tag


def _known_vr(tag: int) -> bytes:
    vr = _VRS.get(tag)
    if vr is None:
        try:
            # "US or SS": what is read here is never negative.
            vr = dictionary_VR(tag)[:2].encode()
        except KeyError:
            vr = b"UN"
        if len(_VRS) < 10_000:  # private tags of hostile files must not fill the memory
            _VRS[tag] = vr
    return vr
