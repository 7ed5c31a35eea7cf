"""Searching a DICOMweb server (QIDO-RS, PS3.18 10.6): which queries to ask, and what the answers say."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from redraft.config.sources import Wanted
from redraft.digest import canonical
from redraft.sources.dicomweb.session import Refusal

# One data set in DICOM JSON (PS3.18 F.2): tag → {"vr": …, "Value": […]}.
Found = Mapping[str, Any]

_TAGS = {
    "AccessionNumber": "00080050",
    "BodyPartExamined": "00180015",
    "Modality": "00080060",
    "NumberOfSeriesRelatedInstances": "00201209",
    "PatientID": "00100020",
    "SOPInstanceUID": "00080018",
    "SeriesDate": "00080021",
    "SeriesDescription": "0008103E",
    "SeriesInstanceUID": "0020000E",
    "SeriesNumber": "00200011",
    "SeriesTime": "00080031",
    "StudyDate": "00080020",
    "StudyDescription": "00081030",
    "StudyInstanceUID": "0020000D",
    "StudyTime": "00080030",
}
# Asked for by name where a server need not give them unasked (PS3.18 10.6.3-4).
FIELDS = ("StudyDescription", "SeriesDescription", "BodyPartExamined", "NumberOfSeriesRelatedInstances")
# Not all that is answered: URLs, availability and the counts of the study change while the series stays as it is.
_VERSION = tuple(keyword for keyword in _TAGS if keyword != "SOPInstanceUID")
# Whose private attributes (7777,xx..) are understood: DICOM's own say nothing of when an archive changed a series.
_DCM4CHEE = "DCM4CHEE Archive 5"

CONDITIONS = {
    "modalities": "Modality",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "body_part": "BodyPartExamined",
    "dates": "StudyDate",
    "accessions": "AccessionNumber",
}

# UIDs become part of URLs. Real ones break the rules of PS3.5 9.1 now and then, but not in ways that change a URL.
_UID = re.compile(r"(?!\.+$)[0-9A-Za-z._-]{1,128}")


def is_uid(text: str) -> bool:
    """Whether a text can stand for a UID in a URL."""
    return _UID.fullmatch(text) is not None


def queries(wanted: Wanted, accessions: Collection[str]) -> Iterator[dict[str, str]]:
    """Matching keys whose answers together hold every wanted series (and others: check each with `Selection.unmet`).

    Descriptions and body parts are left to that check: servers match them by case, a project does not, so that asking
    for them would lose series without a word.
    """
    keys: dict[str, str] = {}
    if wanted.dates is not None:
        first, last = (day.strftime("%Y%m%d") if day else "" for day in wanted.dates)
        if first or last:
            keys["StudyDate"] = f"{first}-{last}"
    if wanted.accessions is not None:
        # One by one: lists of values are for UIDs only (PS3.4 C.2.2.2.2), and a list is short beside an archive.
        alone = {"Modality": wanted.modalities[0]} if len(wanted.modalities) == 1 else {}
        for accession in sorted(accessions):
            yield {**keys, **alone, "AccessionNumber": accession}
    elif wanted.modalities:
        for modality in wanted.modalities:
            yield {**keys, "Modality": modality}
    else:
        yield keys


def pages(search: Callable[[int, int], object], size: int, keyword: str, announced: int = 0) -> Iterator[Found]:
    """Everything that a search finds, each UID once.

    Ends at a page without anything new: a short page may be a server's own limit, and a server that ignores the offset
    gives the same page for ever. A short page that makes up the announced number ends it too.

    Parameters
    ----------
    search : function
        Answers (limit, offset).
    keyword : str
        The UID that tells two findings apart.

    Raises
    ------
    Refusal
        When an answer is not a list of data sets that have this UID.
    """
    seen: set[str] = set()
    offset = 0
    while True:
        answer = data_sets(search(size, offset))
        before = len(seen)
        for one in answer:
            uid = text(one, keyword)
            if not uid:
                raise Refusal.unclear()
            if uid not in seen:
                seen.add(uid)
                yield one
        if len(seen) == before or (len(answer) < size and len(seen) == announced):
            return
        offset += len(answer)


def data_sets(answer: object) -> list[Found]:
    """An answer, which must be a list of data sets. Raises Refusal."""
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise Refusal.unclear()
    return answer


def text(found: Found, keyword: str) -> str | None:
    """A value as text, several joined by a backslash; "" where it is empty; None where the answer does not have it."""
    element = found.get(_TAGS[keyword])
    if not isinstance(element, dict):
        return None
    values = element.get("Value")
    if not isinstance(values, list):
        return ""
    return "\\".join("" if value is None else str(value) for value in values).strip(" \0")


def count(found: Found) -> int:
    """Instances of a series as announced; 0 where the answer does not say."""
    number = text(found, "NumberOfSeriesRelatedInstances") or ""
    return int(number) if number.isdecimal() else 0


def told(found: Found) -> str:
    """What a series' version is made of. In clear: digest it with a key."""
    return canonical([text(found, keyword) for keyword in _VERSION] + _changed(found)).decode()


def _changed(found: Found) -> list[str]:
    """When a series was last changed, of its metadata (7777,xx31) and at all (7777,xx6F), where dcm4chee says so."""
    times = []
    for tag, element in found.items():
        if tag.startswith("777700") and isinstance(element, dict) and element.get("Value") == [_DCM4CHEE]:
            for number in ("31", "6F"):
                update = found.get(f"7777{tag[6:]}{number}")
                if isinstance(update, dict):
                    times += [str(value) for value in update.get("Value") or ()]
    return times
