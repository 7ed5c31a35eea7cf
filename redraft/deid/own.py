"""Identifiers that an object itself names, and whether what would stay of it holds one of them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from redraft.deid.reading import DEPTH, dictionary_vr, items_of
from redraft.deid.values import Unreadable

# Representations and attributes whose text tells who somebody is: none of it may stand in text that stays.
_WORDS = """
    PatientID OtherPatientIDs OtherPatientNames IssuerOfPatientID AccessionNumber AdmissionID PatientAddress
    PatientTelephoneNumbers InstitutionName InstitutionAddress InstitutionalDepartmentName ReferringPhysicianAddress
    ReferringPhysicianTelephoneNumbers DeviceSerialNumber StationName PatientBirthDate RequestedProcedureID StudyID
    PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest MilitaryRank PatientMotherBirthName
"""
_IDENTIFYING = frozenset(_WORDS.split())


def own_identifiers(ds: Dataset, depth: int = 0) -> Iterator[str]:
    """Identifiers of the object, whole and in words, in lower case."""
    for tag in ds.keys():  # noqa: SIM118 - iterating the data set itself converts every value
        vr = getattr(ds.get_item(tag), "VR", None) or dictionary_vr(tag)
        if vr not in ("SQ", "PN", "UN") and keyword_for_tag(tag) not in _IDENTIFYING:
            continue
        try:
            element = ds[tag]
        except Exception:  # unreadable: it is removed
            continue
        if element.VR == "SQ":
            if depth < DEPTH:
                for item in element.value:
                    yield from own_identifiers(item, depth + 1)
        elif element.VR == "PN" or keyword_for_tag(tag) in _IDENTIFYING:
            for item in _items_or_none(element):
                text = str(item).strip().lower()
                yield from (part for part in (text, *re.split(r"[\^=\s,;/\\]+", text)) if len(part) >= 3)


def _items_or_none(element: DataElement) -> list[Any]:
    try:
        return items_of(element)
    except Unreadable:
        return []


PACKED = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}


def spells(vr: str, numbers: list[Any], own: frozenset[str]) -> bool:
    """Whether numbers, as they will be stored, spell an identifier: text in an attribute of numbers does."""
    code = PACKED[vr]
    if len(numbers) * struct.calcsize(code) < 5:
        return False
    try:
        return any(in_bytes(struct.pack(f"{order}{len(numbers)}{code}", *numbers), own) for order in "<>")
    except (struct.error, OverflowError):
        raise Unreadable from None


def in_bytes(data: bytes, own: frozenset[str], shortest: int = 5) -> bool:
    """Whether bytes hold an identifier of some length; shorter ones stand among many numbers by chance."""
    lower = data.lower()
    charsets = ("utf-8", "utf-16-le", "utf-16-be", "latin-1")
    return any(part.encode(charset, "ignore") in lower for part in own if len(part) >= shortest for charset in charsets)


def same_number(text: str, own: frozenset[str]) -> bool:
    """Whether a number is an identifier; of fewer than five digits it is one by chance."""
    return len(text) >= 5 and (text in own or text.lstrip("+-0") in own)


def holds(text: str, own: frozenset[str]) -> bool:
    """Whether text holds an identifier: a long one anywhere, a short one as a word of its own."""
    lower = text.lower()
    words = set(re.split(r"[^\w]+|_", lower))
    return any((len(part) >= 5 and part in lower) or part in words or part == lower for part in own)
