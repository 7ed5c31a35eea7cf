"""The table is the pinned one, and combined actions follow the attribute's type in the object's IOD."""

from __future__ import annotations

import pytest
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from redraft.deid import profile
from redraft.deid.allowed import ALLOWED, allowed
from redraft.deid.options import kept_by
from redraft.deid.profile import Action
from redraft.deid.values import is_registered
from redraft.errors import IntegrityError

CT, SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"


def test_the_installed_table_is_the_one_that_the_rules_were_reviewed_with() -> None:
    """A new edition of the table is met by a failing test, never by silence."""
    assert profile.table_digest() == profile.TABLE_SHA256
    assert len(profile.table()) == 652


def test_another_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules are not applied with a table that nobody compared them with."""
    monkeypatch.setattr(profile, "TABLE_SHA256", "0" * 64)
    profile.table.cache_clear()
    with pytest.raises(IntegrityError, match="dicom-anonymizer"):
        profile.table()
    monkeypatch.undo()
    profile.table.cache_clear()


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("PatientName", "Z"), ("PatientID", "Z/D"), ("PatientBirthDate", "Z"), ("StudyDescription", "X"),
        ("InstitutionName", "X/Z/D"), ("SOPInstanceUID", "U"), ("DeviceSerialNumber", "X/Z/D"), ("ROIName", "Z"),
        ("OperatorsName", "X/Z/D"), ("AccessionNumber", "Z"), ("ReferencedImageSequence", "X/Z/U*"),
        ("ContentSequence", "D"), ("TimezoneOffsetFromUTC", "X"), ("ProtocolName", "X/D"), ("StudyDate", "Z"),
    ],
)  # fmt: skip
def test_actions_are_those_printed_in_the_standard(keyword: str, action: str) -> None:
    """Spot check by hand against PS3.15 table E.1-1."""
    assert profile.table()[tag_for_keyword(keyword)] == action  # type: ignore[index]


def test_types_come_from_the_iod() -> None:
    """Study date is type 2 of a CT, content date of a SEG type 1, the protocol's name type 3."""
    assert profile.type_of(CT, ["StudyDate"]) == 2
    assert profile.type_of(SEG, ["ContentDate"]) == 1
    assert profile.type_of(CT, ["ProtocolName"]) == 3
    assert profile.type_of("1.2.3", ["StudyDate"]) == 3


def test_the_list_of_what_stays_holds_nothing_that_the_table_lists() -> None:
    """The standard's actions cannot be undone by the list of unlisted attributes."""
    assert not set(allowed()) & set(profile.table())
    assert all(tag_for_keyword(word) is not None for _, _, words in ALLOWED for word in words.split())
    assert all(why for _, why, _ in ALLOWED)


def test_free_text_attributes_are_not_on_the_list() -> None:
    """Nothing typed by people stays: no comment, and no description but one that has to be there."""
    words = {keyword_for_tag(tag) for tag in allowed()}
    assert not {word for word in words if word.endswith(("Comments", "Comment", "Remarks"))}
    assert {word for word in words if word.endswith("Description")} <= {"ContentDescription"}


def test_options_change_only_what_the_table_lists() -> None:
    """An option never brings back what the profile does not know."""
    for option in ("device", "patient_characteristics", "longitudinal_modified_dates"):
        assert kept_by(option)
        assert kept_by(option) <= set(profile.table())
    dates = {keyword_for_tag(tag) for tag in kept_by("longitudinal_modified_dates")}
    assert "PatientBirthDate" not in dates
    assert profile.table()[0x00080020] is Action.Z


def test_classes_younger_than_the_dictionary_keep_their_uid() -> None:
    """A label map must stay one: its class is the same in every hospital, though pydicom does not list it yet."""
    assert is_registered("1.2.840.10008.5.1.4.1.1.66.7")
    assert not is_registered("1.2.840.10008.5.1.4.1.1.66.77") and not is_registered("2.25.7")
