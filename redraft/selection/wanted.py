"""Whether a series is wanted, by what its header (or a server's answer about it) says."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime

from redraft.config.sources import Wanted

# What a description must hold; DICOM keywords.
KEYWORDS = ("Modality", "StudyDescription", "SeriesDescription", "BodyPartExamined", "StudyDate", "AccessionNumber")


def unwanted(
    wanted: Wanted, description: Mapping[str, str], accessions: Callable[[], Collection[str]] = tuple
) -> str | None:
    """The first condition of `wanted` that a series does not meet (its name in project.yaml); None when it meets all.

    Parameters
    ----------
    description : mapping of DICOM keyword to text
        Absent or empty values meet no condition.
    accessions : function
        The wanted accession numbers; asked only when the project names a list.
    """
    if wanted.modalities and description.get("Modality", "") not in wanted.modalities:
        return "modalities"
    for name, keyword in (("study_description", "StudyDescription"), ("series_description", "SeriesDescription")):
        pattern = getattr(wanted, name)
        if pattern is not None and not _like(description.get(keyword, ""), pattern):
            return name
    if wanted.body_part and not any(_like(description.get("BodyPartExamined", ""), part) for part in wanted.body_part):
        return "body_part"
    if wanted.dates is not None and not _between(description.get("StudyDate", ""), wanted.dates):
        return "dates"
    if wanted.accessions is not None and description.get("AccessionNumber", "").strip() not in accessions():
        return "accessions"
    return None


def read_accessions(text: str) -> frozenset[str]:
    """Accession numbers, one per line; empty lines and lines behind `#` do not count."""
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return frozenset(line for line in lines if line)


def _like(value: str, pattern: str) -> bool:
    # `[` stands for itself in DICOM, fnmatch would read a set of characters.
    return fnmatch.fnmatchcase(value.strip().lower(), pattern.lower().replace("[", "[[]"))


def _between(value: str, dates: tuple[date | None, date | None]) -> bool:
    try:
        day = datetime.strptime(value.strip(), "%Y%m%d").date()
    except ValueError:
        return False
    first, last = dates
    return (first is None or first <= day) and (last is None or day <= last)
