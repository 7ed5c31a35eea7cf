"""Attributes as they are, not as they claim to be: representation, multiplicity and values of what a file holds."""

from __future__ import annotations

from typing import Any

from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import get_expected_length
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import UID

from redraft.deid.profile import repeating
from redraft.deid.values import Unreadable

DEPTH = 40  # of sequences; real objects have six


def judged(tag: int) -> bool:
    """Whether a tag can stay at all: no private group, curve, overlay, command, file-set or group length."""
    group = tag >> 16
    return not (group % 2 or group < 8 or repeating(tag) or not tag & 0xFFFF)


def dictionary_vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def true_vr(element: DataElement, signed: bool) -> str:
    """The representation of a known attribute. Raises Unreadable when the file claims another one."""
    known = dictionary_vr(element.tag)
    choices = known.split(" or ")
    claimed = str(element.VR)
    if claimed in choices:
        return claimed
    if claimed == known == "US or SS":
        return "SS" if signed else "US"
    if claimed == known and "OW" in choices:
        return "OW"
    raise Unreadable


def items_of(element: DataElement) -> list[Any]:
    value = element.value
    if value is None or (isinstance(value, (str, bytes)) and not value):
        return []
    if isinstance(value, bytes):
        if element.VR != "US or SS" or len(value) % 2:
            raise Unreadable
        return [int.from_bytes(value[n : n + 2], "little") for n in range(0, len(value), 2)]
    if not isinstance(value, (list, MultiValue, Sequence)):
        return [value]  # a person's name is iterable too: by its letters
    return list(value)


def kept_bytes(tag: BaseTag, vr: str, element: DataElement, size: int | None) -> DataElement:
    """Bytes as they are, but no more than the pixels declare: what is behind them is nobody's pixel."""
    if not isinstance(element.value, bytes):
        raise Unreadable
    data = element.value if size is None else element.value[:size] + b"\0" * (size % 2)
    out = DataElement(tag, vr, data)
    out.is_undefined_length = element.is_undefined_length
    return out


def text_of(ds: Dataset, tag: int) -> str:
    """A value as text, empty where it is absent or unreadable."""
    try:
        value = ds[tag].value
    except Exception:  # see `_walk`
        return ""
    return "" if value is None else str(value)


def declared_bytes(ds: Dataset) -> int | None:
    """Bytes of native pixel data that the header declares (PS3.5 8.1.1)."""
    syntax = UID(text_of(getattr(ds, "file_meta", Dataset()), 0x00020010) or "1.2.840.10008.1.2")
    if not syntax.is_transfer_syntax or syntax.is_encapsulated:
        return None
    try:
        return int(get_expected_length(ds, unit="bytes"))
    except Exception:  # see `_walk`; an object without pixels has no such attributes
        return None


def multiplicity_fits(tag: BaseTag, count: int) -> bool:
    """Whether an attribute may have that many values (PS3.6)."""
    allowed_count = dictionary_VM(tag)
    low, _, high = allowed_count.partition("-")
    if not high:
        return count == int(low)
    if high.endswith("n"):
        step = int(high[:-1] or 1)
        return count >= int(low) and count % step == 0
    return int(low) <= count <= int(high)
