"""Headers of a folder: every file once and in a stable order; foreign and damaged ones are told apart, none raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.dicom.scan import FOREIGN, Foreign, Header, files_below, read_header


def test_headers_hold_what_grouping_needs_and_no_pixels(series: Callable) -> None:
    """Text, numbers and sizes as they stand in the file; pixels are never kept."""
    path = series().paths[2]
    header, dataset = read_header(path), pydicom.dcmread(path)
    assert isinstance(header, Header)
    assert header.text("SeriesInstanceUID") == dataset.SeriesInstanceUID
    assert header.numbers("PixelSpacing") == (1.5, 2.0)
    assert header.numbers("ImagePositionPatient") == (0, 0, 6)
    assert (header.integer("Rows"), header.integer("Columns")) == (5, 7)
    assert header.transfer_syntax == dataset.file_meta.TransferSyntaxUID and header.size == path.stat().st_size
    assert "PixelData" not in header.elements


def test_identities_do_not_show_when_a_header_is_printed(series: Callable) -> None:
    """A header in a log or a traceback names no patient."""
    header = read_header(series().paths[0])
    assert isinstance(header, Header)
    assert header.text("PatientID") and header.text("PatientID") not in repr(header)
    assert header.text("PatientName").split("^")[0] not in repr(header)


def test_absent_and_wrong_values_are_empty(series: Callable) -> None:
    """A number that is none, a comma for a point and an absent attribute never raise."""
    files = series()

    def spoil(dataset: pydicom.Dataset, k: int) -> None:
        del dataset.ImageType
        for name, vr, value in (
            ("PixelSpacing", "DS", b"0,7\\0,7 "),
            ("AcquisitionNumber", "IS", b"one "),
            ("Rows", "US", b"\x01"),
        ):
            tag = pydicom.tag.Tag(name)
            dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)

    files.edit(spoil, 0)
    header = read_header(files.paths[0])
    assert isinstance(header, Header)
    assert header.numbers("PixelSpacing") == () and header.integer("AcquisitionNumber") is None
    assert header.integer("Rows") is None and header.text("ImageType") == "" and header.numbers("EchoTime") == ()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", {"not_dicom", "truncated"}),
        (b"just some text\n" * 40, {"not_dicom"}),
        (b"\x00" * 128 + b"DICM", {"unreadable"}),
        (b"\x00" * 128 + b"DICMx", {"unreadable", "truncated"}),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 400, {"not_dicom"}),
    ],
    ids=["empty", "text", "preamble", "cut", "png"],
)
def test_foreign_files_have_a_rule(tmp_path: Path, content: bytes, rule: set[str]) -> None:
    """What is no DICOM file says so."""
    (tmp_path / "a").write_bytes(content)
    found = read_header(tmp_path / "a")
    assert isinstance(found, Foreign) and found.rule in rule


def test_an_object_without_class_or_series_is_foreign(series: Callable) -> None:
    """It cannot be grouped."""
    for name, rule in (("SOPClassUID", "unreadable"), ("SeriesInstanceUID", "missing_series_uid")):
        files = series()
        dataset = pydicom.dcmread(files.paths[0])
        delattr(dataset, name)
        dataset.file_meta.MediaStorageSOPClassUID = ""
        pydicom.dcmwrite(files.paths[0], dataset, enforce_file_format=False)
        found = read_header(files.paths[0])
        assert found == Foreign(files.paths[0], rule)


def test_an_empty_class_is_taken_from_the_meta_information(series: Callable) -> None:
    """PS3.10 7.1 wants them equal; a de-identifier that emptied one left the other."""
    files = series()
    files.edit(lambda dataset, k: setattr(dataset, "SOPClassUID", ""), 0)
    assert isinstance(read_header(files.paths[0]), Header)


def test_a_missing_file_is_foreign(tmp_path: Path) -> None:
    """A file that vanished between listing and reading stops no intake."""
    assert isinstance(read_header(tmp_path / "gone"), Foreign)


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_never_raise(series: Callable, tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere or altered anywhere, a file gives a header whose values can be asked for, or a rule."""
    if not (tmp_path / "whole").exists():
        (tmp_path / "whole").write_bytes(series().paths[0].read_bytes())
    raw = bytearray((tmp_path / "whole").read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        for place in data.draw(st.lists(st.integers(128, len(raw) - 1), min_size=1, max_size=6)):
            raw[place] = data.draw(st.integers(0, 255))
    (tmp_path / "damaged").write_bytes(raw)
    found = read_header(tmp_path / "damaged")
    if isinstance(found, Header):
        for name in ("ImageType", "PatientID", "PixelSpacing", "Rows", "BurnedInAnnotation"):
            found.text(name), found.numbers(name), found.integer(name)
    else:
        assert found.rule in FOREIGN


def test_files_are_listed_once_and_in_order(tmp_path: Path) -> None:
    """Overlapping arguments name no file twice; a file may be named by itself."""
    names = ["b/2", "b/1", "a/x/3", "c"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    everything = [tmp_path / name for name in sorted(names)]
    assert list(files_below([tmp_path])) == everything
    assert list(files_below([tmp_path, tmp_path / "b", tmp_path / "a" / ".." / "c"])) == everything
    assert list(files_below([tmp_path / "c", tmp_path / "b"])) == [tmp_path / "c", tmp_path / "b/1", tmp_path / "b/2"]


def test_linked_folders_are_not_entered(tmp_path: Path) -> None:
    """A link to a folder outside, or to a folder above, neither leaves the tree nor runs in circles."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").write_bytes(b"")
    (inside / "out").symlink_to(tmp_path / "outside")
    (inside / "up").symlink_to(tmp_path)
    assert list(files_below([inside])) == [inside / "a"]
