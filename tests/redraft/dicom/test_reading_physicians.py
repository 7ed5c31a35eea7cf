"""Who read a study: only those, however they are written, and never a crash."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from redraft.dicom.reading_physicians import reading_physicians


def person(value: str, meaning: str) -> Dataset:
    """An item of the identification sequence (PS3.3 table 10-1)."""
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "99HOSP", meaning
    item.PersonIdentificationCodeSequence = [code]
    return item


def through_a_file(dataset: Dataset) -> Dataset:
    """As it is read back from a file."""
    stream = BytesIO()
    dcmwrite(stream, dataset, implicit_vr=False, little_endian=True)
    stream.seek(0)
    return pydicom.dcmread(stream, force=True)


def test_readers_count_and_nobody_else() -> None:
    """Names and codes of reading physicians; not who referred, performed, operated, or is responsible."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.NameOfPhysiciansReadingStudy = ["Lindqvist^Åsa^Maria^Dr.", "Okafor^Chidi"]
    dataset.PhysiciansReadingStudyIdentificationSequence = [person("R-4711", "Moreau^Luc")]
    dataset.ReferringPhysicianName, dataset.PerformingPhysicianName = "Refer^R", "Perform^P"
    dataset.OperatorsName, dataset.PhysiciansOfRecord = "Operate^O", "Record^R"
    assert reading_physicians(through_a_file(dataset)) == [
        "Lindqvist^Åsa", "Lindqvist^Åsa^Maria^Dr.", "Moreau^Luc", "Okafor^Chidi", "R-4711",
    ]  # fmt: skip


def test_other_scripts_are_names_too() -> None:
    """Each component group of a name stands for the person."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.NameOfPhysiciansReadingStudy = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert set(reading_physicians(through_a_file(dataset))) == {"Yamada^Tarou", "山田^太郎", "やまだ^たろう"}


@pytest.mark.parametrize("value", ["", "^^", " ^ ^^Dr", None])
def test_nobody_named_is_nobody(value: str | None) -> None:
    """Absent, empty, or nothing but a title: no reader of record, and no pseudonym that all such exams share."""
    dataset = Dataset()
    if value is not None:
        dataset.NameOfPhysiciansReadingStudy = value
    dataset.PhysiciansReadingStudyIdentificationSequence = [Dataset()]
    assert reading_physicians(through_a_file(dataset)) == []
