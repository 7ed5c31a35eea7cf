"""Who read a study, by its header: whoever reported an exam once is not asked to segment it for the project.

Only the attributes that name readers count: Name of Physician(s) Reading Study (0008,1060) and Physician(s) Reading
Study Identification Sequence (0008,1062), both PS3.3 C.7.2.1. Not the referring physician, who asked for the images,
nor the performing physician (0008,1050), who administered the series (C.7.3.1.1), nor the physicians of record
(0008,1048), who are responsible for the patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset


def reading_physicians(header: Dataset) -> list[str]:
    """Names and staff codes of reading physicians, in the clear, sorted: for `Pseudonyms.person_id`, nothing else.

    A name is given as it stands, and once more as family and given name alone: middle names and titles are written in
    one header and left out in the next. Writings in other scripts (PS3.5 6.2.1.1) are names of their own.
    """
    found = {name for text in _texts(header, "NameOfPhysiciansReadingStudy") for name in _names(text)}
    for person in _items(header, "PhysiciansReadingStudyIdentificationSequence"):
        # PS3.3 table 10-1: the code tells the person, its meaning is written as a person's name.
        for code in _items(person, "PersonIdentificationCodeSequence"):
            for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue"):
                found.update(_texts(code, keyword))
            found.update(name for text in _texts(code, "CodeMeaning") for name in _names(text))
    return sorted(found)


def _names(text: str) -> Iterator[str]:
    for group in text.split("="):
        parts = group.split("^")
        if any(part.strip() for part in parts[:2]):
            yield group
            yield "^".join(parts[:2])


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    element = _element(dataset, keyword)
    if element is None or element.VR == "SQ" or element.value is None or isinstance(element.value, bytes):
        return []
    values: list[Any] = list(element.value) if element.VM > 1 else [element.value]
    return [text for value in values if (text := str(value).strip(" \0"))]


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    element = _element(dataset, keyword)
    return list(element.value) if element is not None and element.VR == "SQ" and element.value else []


def _element(dataset: Dataset, keyword: str) -> DataElement | None:
    return dataset[keyword] if keyword in dataset else None  # noqa: SIM401 - `get` gives the value, not the element
