"""Which series are wanted: every condition that is set must be met, and nothing that is absent meets one."""

from __future__ import annotations

import fnmatch
import re
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.config.sources import Wanted
from redraft.selection.wanted import KEYWORDS, read_accessions, unwanted

HEADER = {
    "Modality": "CT", "StudyDescription": "Thorax native", "SeriesDescription": "Axial 1.0 [B30f]",
    "BodyPartExamined": "CHEST", "StudyDate": "20260301", "AccessionNumber": "A17",
}  # fmt: skip
MET: dict[str, Any] = {
    "modalities": ("MR", "CT"), "study_description": "thorax*", "series_description": "*[b30f]",
    "body_part": ("ABDOMEN", "che?t"), "dates": (date(2026, 3, 1), date(2026, 3, 1)), "accessions": "list.txt",
}  # fmt: skip
UNMET: dict[str, Any] = {
    "modalities": ("MR",), "study_description": "thorax", "series_description": "b30f", "body_part": ("HEAD",),
    "dates": (None, date(2026, 2, 28)), "accessions": "list.txt",
}  # fmt: skip
KEYWORD = dict(zip(("modalities", "study_description", "series_description", "body_part", "dates", "accessions"),
                   ("Modality", "StudyDescription", "SeriesDescription", "BodyPartExamined", "StudyDate",
                    "AccessionNumber"), strict=True))  # fmt: skip
# Characters whose cases Unicode pairs one to one.
TEXT = st.text(st.sampled_from("abzAZäÖ 019[]-_.^"), max_size=12)


def of(**conditions: Any) -> Wanted:
    return Wanted.model_validate(conditions)


@given(st.sets(st.sampled_from(sorted(MET))), st.sets(st.sampled_from(sorted(UNMET))))
def test_every_condition_must_be_met_and_the_first_unmet_is_named(met: set[str], unmet: set[str]) -> None:
    """Conditions hold together, in the order of project.yaml; none is met by chance of another."""
    conditions = {name: (UNMET if name in unmet else MET)[name] for name in met | unmet}
    accessions = {"other"} if "accessions" in unmet else {"A17"}
    expected = next((name for name in Wanted.model_fields if name in unmet), None)
    assert unwanted(of(**conditions), HEADER, lambda: accessions) == expected


@given(st.dictionaries(st.sampled_from(KEYWORDS), TEXT))
def test_without_conditions_everything_is_wanted(description: dict[str, str]) -> None:
    """A source that selects nothing gives everything, and never asks for the list."""

    def ask() -> list[str]:
        raise AssertionError("the list was asked for")

    assert unwanted(Wanted(), description, ask) is None


@pytest.mark.parametrize("name", sorted(MET))
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_absent_or_empty_meets_no_condition(name: str, value: str | None) -> None:
    """A series that does not say what it is does not slip through."""
    description = {k: v for k, v in HEADER.items() if k != KEYWORD[name]}
    if value is not None:
        description[KEYWORD[name]] = value
    assert unwanted(of(**{name: MET[name]}), description, lambda: {"A17"}) == name


@given(TEXT, TEXT, st.sampled_from(["study_description", "series_description", "body_part"]))
def test_texts_match_themselves_in_any_case(text: str, other: str, name: str) -> None:
    """A text without wildcards is met by itself, whatever its case and the blanks around it, and by nothing else."""
    if not text.strip():
        return
    wanted = of(**{name: (text.strip(),) if name == "body_part" else text.strip()})
    assert unwanted(wanted, {KEYWORD[name]: f" {text.upper()} "}) is None
    met = unwanted(wanted, {KEYWORD[name]: other}) is None
    assert met == (other.strip().lower() == text.strip().lower())


@given(st.text(st.sampled_from("ab[]!*?"), min_size=1, max_size=8), st.text(st.sampled_from("ab[]!"), max_size=8))
def test_only_star_and_question_mark_stand_for_anything(pattern: str, text: str) -> None:
    """The wildcards of DICOM queries (PS3.4 C.2.2.2.4), against a regular expression; brackets are brackets."""
    expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    expected = re.fullmatch(expression, text, re.DOTALL) is not None
    assert (unwanted(of(series_description=pattern), {"SeriesDescription": text}) is None) == expected
    if "[" not in pattern:
        assert expected == fnmatch.fnmatchcase(text, pattern)


@given(st.dates(date(1990, 1, 1), date(2040, 1, 1)), st.integers(0, 400), st.integers(-500, 500))
def test_dates_include_both_ends(first: date, days: int, offset: int) -> None:
    """From the first day to the last; an open end bounds nothing on its side."""
    last, day = first + timedelta(days), first + timedelta(offset)
    description = {"StudyDate": day.strftime("%Y%m%d")}
    assert (unwanted(of(dates=(first, last)), description) is None) == (0 <= offset <= days)
    assert (unwanted(of(dates=(first, None)), description) is None) == (offset >= 0)
    assert (unwanted(of(dates=(None, last)), description) is None) == (offset <= days)


@pytest.mark.parametrize("value", ["2026-03-01", "2026.03.01", "202603", "20261301", "20260301-20260302", "heute", "0"])
def test_a_date_that_is_none_meets_no_range(value: str) -> None:
    """What is written wrongly is not guessed, also where the range is open at both ends."""
    for dates in ((None, None), (date(1900, 1, 1), date(2100, 1, 1))):
        assert unwanted(of(dates=dates), {"StudyDate": value}) == "dates"


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="#"), min_size=1), max_size=8))
def test_an_accession_list_is_read_line_by_line(numbers: list[str]) -> None:
    """Comments, empty lines, blanks and the line ends of any system do not count; numbers are taken as they stand."""
    lines = ["# list of the study", ""] + [f"  {number}\t# patient {n}" for n, number in enumerate(numbers)]
    for end in ("\n", "\r\n"):
        assert read_accessions(end.join(lines)) == frozenset(numbers)
    assert read_accessions("") == read_accessions("\n# A1\n") == frozenset()


def test_accession_numbers_match_whole_and_exactly() -> None:
    """No wildcard, no prefix, no other case: a list of patients is not a pattern."""
    wanted = of(accessions="list.txt")
    for number, met in (("A17", True), (" A17 ", True), ("a17", False), ("A1", False), ("A170", False), ("*", False)):
        found = unwanted(wanted, {"AccessionNumber": number}, lambda: {"A17", "A2"})
        assert (found is None) == met
    assert unwanted(wanted, {"AccessionNumber": "A17"}, lambda: {"A*"}) == "accessions"
