"""Values by representation (PS3.5 6.2): what passes is rebuilt from what was understood, never copied as it stood."""

from __future__ import annotations

import math
import re
from datetime import date, timedelta
from functools import lru_cache

from pydicom.uid import UID_dictionary
from pydicom.valuerep import format_number_as_ds

from redraft.deid.terms import FORMS, MAKERS, OTHER_NAMES, PHRASES, TERMS

_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d{1,10}")
_DATE = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d|60)?)?(\.\d{1,6})?")
_AGE = re.compile(r"(\d{3})([DWMY])")
# Model, software, kernel and sequence names: no five digits in a row (serial and record numbers, dates, telephones),
# none of the characters that separate names or stand in addresses of mail.
_TECHNICAL = re.compile(r"(?!.*\d{5})[A-Za-z0-9 ._+*/()#,%-]{1,64}")
_NUMBERS = {
    "US": (0, 2**16 - 1), "UL": (0, 2**32 - 1), "UV": (0, 2**64 - 1),
    "SS": (-(2**15), 2**15 - 1), "SL": (-(2**31), 2**31 - 1), "SV": (-(2**63), 2**63 - 1),
}  # fmt: skip
_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}
OLDEST_YEARS = 90


class Unreadable(Exception):
    """A value that does not follow its representation, or that may be somebody's text. Holds no value."""


def decimal(value: object) -> str:
    """A decimal string of at most 16 characters. Raises Unreadable."""
    text = str(getattr(value, "original_string", None) or value).strip(" \0")
    if not _DECIMAL.fullmatch(text):
        raise Unreadable
    if len(text) <= 16:
        return text
    number = float(text)
    if not math.isfinite(number):
        raise Unreadable
    return str(format_number_as_ds(number))


def integer(value: object) -> str:
    """An integer string in 32 bits. Raises Unreadable."""
    text = str(getattr(value, "original_string", None) or value).strip(" \0")
    if not _INTEGER.fullmatch(text) or not -(2**31) <= int(text) < 2**31:
        raise Unreadable
    return text


def number(vr: str, value: object) -> int | float:
    """A binary number in its representation's range; never NaN or infinite. Raises Unreadable."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unreadable
    if vr in _NUMBERS:
        low, high = _NUMBERS[vr]
        if not isinstance(value, int) or not low <= value <= high:
            raise Unreadable
    elif not math.isfinite(value):
        raise Unreadable
    return value


def shifted_date(value: object, days: int) -> str:
    """A date (DA), moved back by days. Raises Unreadable."""
    found = _DATE.fullmatch(str(getattr(value, "original_string", None) or value).strip(" \0"))
    if not found:
        raise Unreadable
    try:
        moved = date(*(int(part) for part in found.groups())) - timedelta(days=days)
    except (ValueError, OverflowError):
        raise Unreadable from None
    return f"{moved.year:04d}{moved.month:02d}{moved.day:02d}"


def shifted_moment(value: object, days: int) -> str:
    """A moment (DT), moved back by days; without its offset from UTC, which tells a place. Raises Unreadable.

    One that is known to the year or month only cannot be moved by days and counts as unreadable.
    """
    text = str(getattr(value, "original_string", None) or value).strip(" \0")
    text = re.sub(r"[+-]\d{4}$", "", text)
    day, rest = text[:8], text[8:]
    if rest and not _TIME.fullmatch(rest):
        raise Unreadable
    return shifted_date(day, days) + rest


def time(value: object) -> str:
    """A time of day (TM). Raises Unreadable."""
    text = str(getattr(value, "original_string", None) or value).strip(" \0").replace(":", "")
    if not _TIME.fullmatch(text):
        raise Unreadable
    return text


def age(value: object) -> str:
    """An age (AS); whoever is 90 or older is "090Y": so few are that old that their age would tell who they are."""
    found = _AGE.fullmatch(str(value).strip(" \0"))
    if not found:
        raise Unreadable
    if int(found[1]) * _DAYS[found[2]] >= OLDEST_YEARS * _DAYS["Y"]:
        return f"{OLDEST_YEARS:03d}Y"
    return found[0]


def term(value: object) -> str:
    """A coded string that is a known term. Raises Unreadable."""
    text = str(value).strip(" \0")
    if text not in TERMS and text not in PHRASES:
        raise Unreadable
    return text


def technical(value: object) -> str:
    """A technical word of a scanner. Raises Unreadable; the caller compares it with the object's own identifiers."""
    text = str(value).strip(" \0")
    if not _TECHNICAL.fullmatch(text):
        raise Unreadable
    return text


def maker(value: object) -> str:
    """The known maker that a text names. Raises Unreadable."""
    words = " ".join(re.findall(r"[A-Z0-9-]+", str(value).upper()))
    for other, name in OTHER_NAMES.items():
        if re.search(rf"\b{re.escape(other)}\b", words):
            return name
    for name in MAKERS:
        if re.search(rf"\b{re.escape(name)}\b", words):
            return name
    raise Unreadable


# Of the registry, and younger than pydicom's copy of it: Label Map Segmentation Storage.
_REGISTERED_SINCE = frozenset({"1.2.840.10008.5.1.4.1.1.66.7"})


def is_registered(uid: str) -> bool:
    """Whether a UID is one of the DICOM registry (PS3.6 annex A), the same in every hospital."""
    return uid in UID_dictionary or uid in _REGISTERED_SINCE


@lru_cache(maxsize=1)
def _codes() -> dict[tuple[str, str], str]:
    from pydicom.sr._concepts_dict import concepts

    return {
        (scheme, value): meanings[value][0]
        for scheme, keywords in concepts.items()
        for meanings in keywords.values()
        for value in meanings
    }


def code_meaning(scheme: str, value: str) -> str:
    """What a published code means, in the dictionary's words or else as the code itself. Raises Unreadable."""
    meaning = _codes().get((scheme, value))
    if meaning is not None:
        return meaning[:64]
    form = FORMS.get(scheme)
    if form and form.fullmatch(value):
        return value
    if scheme == "SCT" and re.fullmatch(r"[1-9]\d{5,17}", value) and _verhoeff(value):
        return value
    raise Unreadable


def _product(a: int, b: int) -> int:
    """Product in the dihedral group of order ten: 0–4 rotations, 5–9 reflections."""
    if a < 5:
        return (a + b) % 5 if b < 5 else (a + b) % 5 + 5
    return (a - b) % 5 + 5 if b < 5 else (a - b) % 5


def _verhoeff(digits: str) -> bool:
    """Whether SNOMED CT's check digit fits (Verhoeff: the dihedral group of order ten)."""
    permutation = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for place, digit in enumerate(reversed(digits)):
        item = int(digit)
        for _ in range(place % 8):
            item = permutation[item]
        check = _product(check, item)
    return check == 0
