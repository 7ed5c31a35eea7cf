"""C-FIND at a PACS (PS3.4 C.4.1): which keys to ask for, and what the answers say about a series."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date

from pydicom.dataset import Dataset

from redraft.config.sources import Wanted
from redraft.selection import Selection

STUDY_KEYS = ("StudyInstanceUID", "StudyDate", "AccessionNumber", "StudyDescription", "ModalitiesInStudy")
SERIES_KEYS = (
    "SeriesInstanceUID", "Modality", "SeriesDescription", "BodyPartExamined", "NumberOfSeriesRelatedInstances",
)  # fmt: skip
# Keys that a PACS need not know (PS3.4 C.6.2.1): what it leaves out of its answer is judged by the files' headers.
_OPTIONAL = {
    "StudyDescription": "study_description",
    "SeriesDescription": "series_description",
    "BodyPartExamined": "body_part",
}


def study_queries(wanted: Wanted, accessions: Iterable[str]) -> Iterator[Dataset]:
    """C-FIND keys at study level that match all that `wanted` does, and perhaps more (PS3.4 C.2.2.2)."""
    keys: dict[str, str] = {}
    if wanted.dates is not None:
        first, last = ("" if day is None else _da(day) for day in wanted.dates)
        keys["StudyDate"] = f"{first}-{last}" if first or last else ""
    if wanted.study_description is not None:
        keys["StudyDescription"] = _any_case(wanted.study_description)
    if len(wanted.modalities) == 1:
        keys["ModalitiesInStudy"] = wanted.modalities[0]
    for accession in [""] if wanted.accessions is None else sorted(set(accessions)):
        yield query_of("STUDY", STUDY_KEYS, **keys, AccessionNumber=accession)


def _any_case(pattern: str) -> str:
    # Most PACS compare these texts with case, project.yaml does not: every letter becomes "any one character".
    if not pattern.strip("*"):
        return ""  # `*` alone does not match empty values everywhere
    if not pattern.isascii():
        return re.sub(r"[^\x00-\x7f]+", "*", re.sub(r"[A-Za-z]", "?", pattern))
    return re.sub(r"[A-Za-z]", "?", pattern)


def _da(day: date) -> str:
    return day.strftime("%Y%m%d")


def query_of(level: str, keys: Iterable[str], **values: str) -> Dataset:
    """An identifier of C-FIND or C-MOVE: `keys` are asked for, `values` must match."""
    asked = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values
        asked.QueryRetrieveLevel = level
        for key in keys:
            setattr(asked, key, None if key.startswith("NumberOf") else "")
        for key, value in values.items():
            setattr(asked, key, value)
    return asked


def unmet(selection: Selection, study: Dataset, series: Dataset) -> str | None:
    """The condition of the selection that the answers do not meet; keys that the PACS does not know are left out."""
    description = {key: text_of(study, key) for key in ("StudyDate", "AccessionNumber", "StudyDescription")}
    description |= {key: text_of(series, key) for key in ("Modality", "SeriesDescription", "BodyPartExamined")}
    unknown = {
        name: () if name == "body_part" else None
        for key, name in _OPTIONAL.items()
        if key not in (study if key == "StudyDescription" else series)
    }
    known = replace(selection, wanted=selection.wanted.model_copy(update=unknown))
    return known.unmet(description)


def text_of(dataset: Dataset, keyword: str) -> str:
    """A value of an answer; empty where it has none or none that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            value = dataset.get(keyword)
        return "" if value is None else str(value).strip(" \x00")
    except Exception:  # what pydicom raises for wrong bytes has no common base
        return ""


def number_of(dataset: Dataset, keyword: str) -> int:
    """A count in an answer; 0 where there is none."""
    try:
        return max(0, int(text_of(dataset, keyword) or 0))
    except ValueError:
        return 0
