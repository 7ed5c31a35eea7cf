"""The walk over a file's elements: finds what pydicom finds, and stops hostile files before they cost anything."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.data import get_charset_files
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from redraft.dicom.elements import Bounds, Elements, Short
from redraft.dicom.part10 import walk_file
from redraft.dicom.scan import Foreign, files_below, read_header
from redraft.errors import ReadError

EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"


def written(dataset: Dataset, implicit: bool = False, little: bool = True, syntax: str = EXPLICIT) -> bytes:
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=little)
    return buffer.getvalue()


def head(syntax: str = EXPLICIT) -> bytes:
    """Preamble and meta information."""
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return b"\0" * 128 + b"DICM" + b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value


def refused(data: bytes, bounds: Bounds | None = None) -> str:
    with pytest.raises(ReadError) as caught:
        walk_file(data, bounds or Bounds())
    return caught.value.rule


def assert_same(elements: Elements, dataset: Dataset) -> None:
    """Every value of text and number, in sequences too, is what pydicom says."""
    for element in dataset:
        if element.tag.group >= 0x7FE0 or not element.keyword:
            continue
        assert element.tag in elements.found, element.tag
        if element.VR == "SQ":
            items = elements.items(element.keyword)
            assert len(items) == len(element.value)
            for ours, theirs in zip(items, element.value, strict=True):
                assert_same(ours, theirs)
        elif dictionary_VR(element.tag) == "US or SS":
            continue  # which of both depends on other elements
        elif element.VR in ("DS", "IS", "US", "UL", "SS", "SL", "FD", "FL"):
            values = element.value if element.VM > 1 else [element.value]
            expected = tuple(float(value) for value in values) if element.VM else ()
            assert elements.numbers(element.keyword) == expected
        elif element.VR in ("CS", "UI", "LO", "SH", "DA", "TM", "AE", "AS"):
            values = element.value if element.VM > 1 else [element.value or ""]
            assert [text.rstrip() for text in elements.texts(element.keyword)] == [
                str(value).strip() for value in values if element.VM
            ]


def test_finds_what_pydicom_finds_in_real_files(shared_data: Path) -> None:
    """Images, structure sets and segmentations of five makers, of defined and undefined lengths."""
    for place in ("dicom_seg_rt", "brain_mr_dicom", "totalsegmentator_ref/example_ct_dicom"):
        paths = [path for path in files_below([shared_data / place]) if path.read_bytes()[128:132] == b"DICM"]
        assert paths
        for path in paths[:25]:
            file = walk_file(path.read_bytes(), Bounds())
            dataset = pydicom.dcmread(path)
            assert file.syntax == dataset.file_meta.TransferSyntaxUID
            assert_same(file.elements, dataset)


@pytest.mark.parametrize(
    ("implicit", "little", "syntax"),
    [
        (False, True, EXPLICIT), (True, True, "1.2.840.10008.1.2"), (False, False, "1.2.840.10008.1.2.2"),
        (False, True, DEFLATED),
    ],
    ids=["explicit", "implicit", "big endian", "deflated"],
)  # fmt: skip
@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "no lengths"])
def test_every_encoding_holds_the_same(
    series: Callable, implicit: bool, little: bool, syntax: str, undefined: bool
) -> None:
    """Sequences in sequences, private ones among them, numbers and texts; the pixels' place."""
    dataset = pydicom.dcmread(series().paths[0])
    inner, outer = Dataset(), Dataset()
    inner.DiffusionBValue, inner.Rows, inner.CodeMeaning = 1000.5, 7, "inside"
    outer.CTExposureSequence = Sequence([inner, inner])
    outer.CodeValue = "outside"
    dataset.SharedFunctionalGroupsSequence = Sequence([outer, Dataset()])
    dataset.SharedFunctionalGroupsSequence.is_undefined_length = undefined
    for item in (inner, outer):
        item.is_undefined_length_sequence_item = undefined
    dataset.private_block(0x0029, "TEST", create=True).add_new(0x10, "SQ", Sequence([inner]))
    file = walk_file(written(dataset, implicit, little, syntax), Bounds())
    assert_same(file.elements, dataset)
    (first, second) = file.elements.items("SharedFunctionalGroupsSequence")[0].items("CTExposureSequence")
    assert first.numbers("DiffusionBValue") == second.numbers("DiffusionBValue") == (1000.5,)
    _, start, length = file.elements.found[0x7FE00010]
    assert file.elements.buffer[start : start + length] == dataset.PixelData
    assert pydicom.dcmread(BytesIO(file.header)).PatientID == dataset.PatientID if syntax != DEFLATED else True


@pytest.mark.parametrize("path", [Path(name) for name in get_charset_files("*.dcm")], ids=lambda path: path.name)
def test_names_in_every_script(path: Path) -> None:
    """Latin, Greek, Cyrillic, Arabic, Hebrew, Thai, Chinese, Japanese, Korean: as pydicom decodes them."""
    file = walk_file(path.read_bytes(), Bounds())
    dataset = pydicom.dcmread(path)
    assert file.elements.text("PatientName").rstrip("^= ") == str(dataset.get("PatientName", "")).rstrip("^= ")


# -- hostile files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defined", [False, True], ids=["undefined lengths", "lengths"])
def test_sequences_in_sequences_end_at_a_depth(defined: bool) -> None:
    """Five thousand levels neither end the stack nor pass; as many as allowed pass."""

    def nested(depth: int) -> bytes:
        if not defined:
            sequence = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
            end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
            return head() + sequence * depth + end * depth
        body = b""
        for _ in range(depth):
            body = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(body)) + body
            body = b"\x40\x00\x30\xa7SQ\0\0" + struct.pack("<I", len(body)) + body
        return head() + body

    walk_file(nested(24), Bounds(nesting=24))
    assert refused(nested(25), Bounds(nesting=24)) == "nesting"
    assert refused(nested(5000)) == "nesting"


def test_a_private_sequence_of_unknown_kind_is_bounded_too() -> None:
    """UN of undefined length is a sequence, of implicit encoding inside (PS3.5 6.2.2)."""
    inside = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x09\x00\x10\x10\xff\xff\xff\xff" * 3000
    assert refused(head() + b"\x09\x00\x10\x10UN\0\0\xff\xff\xff\xff" + inside) == "nesting"


def test_elements_are_counted(tmp_path: Path) -> None:
    """Two million elements of no length end at the bound, in sequences as well; the header scan counts too."""
    empty = b"\x08\x00\x01\x00LO\0\0"
    many = np.zeros(2_000_000, dtype=[("group", "<u2"), ("element", "<u2"), ("vr", "S2"), ("length", "<u2")])
    tags = np.arange(0x00090000, 0x00090000 + len(many))
    many["group"], many["element"], many["vr"] = tags >> 16, tags & 0xFFFF, b"LO"
    data = head() + many.tobytes()
    assert refused(data) == "elements"
    sequence = b"\x40\x00\x30\xa7SQ\0\0" + struct.pack("<I", 800_008) + b"\xfe\xff\x00\xe0" + struct.pack("<I", 800_000)
    assert refused(head() + sequence + empty * 100_000, Bounds(elements=99_999)) == "elements"
    (tmp_path / "many").write_bytes(data)
    assert read_header(tmp_path / "many") == Foreign(tmp_path / "many", "elements")


def deflated(body: bytes) -> bytes:
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return head(DEFLATED) + machine.compress(body) + machine.flush()


@pytest.mark.parametrize("kind", ["header", "pixels", "behind"])
def test_a_deflate_bomb_is_not_inflated(series: Callable, tmp_path: Path, kind: str) -> None:
    """200 MB of zeros in 200 kB, as a header value or as pixels that no one asks for: memory stays low."""
    zeros = b"\0" * 200_000_000
    size = b"\x28\x00\x10\x00US\x02\0\x05\0\x28\x00\x11\x00US\x02\0\x07\0\x28\x00\x00\x01US\x02\0\x10\0"
    body = {
        "header": b"\x09\x00\x10\x10OB\0\0" + struct.pack("<I", len(zeros)) + zeros,
        "pixels": size + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", len(zeros)) + zeros,
        "behind": size + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 70) + zeros,
    }[kind]
    data = deflated(body)
    del zeros, body
    tracemalloc.start()
    if kind == "behind":  # what stands behind the pixels is never inflated
        file = walk_file(data, Bounds())
        assert file.elements.found[0x7FE00010][2] == 70
    else:
        assert refused(data) == "inflated_size"
    (tmp_path / "bomb").write_bytes(data)
    assert isinstance(read_header(tmp_path / "bomb"), Foreign)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150_000_000


def test_a_deflated_image_with_a_large_header_is_read(series: Callable) -> None:
    """9 MB of private header before the pixels are more than the first look inflates, and fine."""
    dataset = pydicom.dcmread(series().paths[0])
    noise = np.random.default_rng(0).bytes(9_000_000)
    dataset.private_block(0x0029, "TEST", create=True).add_new(0x10, "OB", noise)
    file = walk_file(written(dataset, syntax=DEFLATED), Bounds())
    _, start, length = file.elements.found[0x7FE00010]
    assert file.elements.buffer[start : start + length] == dataset.PixelData


def test_values_behind_the_end_are_short(series: Callable) -> None:
    """A part of a file asks for more; a whole file that ends is truncated."""
    data = series().paths[0].read_bytes()
    with pytest.raises(Short):
        walk_file(data[:600], Bounds(), whole=False)
    assert refused(data[:600]) == "truncated"


def test_a_header_longer_than_the_first_look_is_read(series: Callable, tmp_path: Path) -> None:
    """A private element of 300 kB before the geometry, as Siemens writes them."""
    files = series()

    def grow(dataset: Dataset, k: int) -> None:
        dataset.private_block(0x0009, "TEST", create=True).add_new(0x10, "OB", bytes(300_000))

    files.edit(grow, 0)
    header = read_header(files.paths[0])
    assert not isinstance(header, Foreign) and header.integer("Rows") == 5


@given(st.data())
@example(None)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_raise_anything_else(series: Callable, tmp_path: Path, data: st.DataObject | None) -> None:
    """Cut, altered or spliced, a file is walked or refused by a rule; asking for any value never raises."""
    if not (tmp_path / "whole").exists():
        dataset = pydicom.dcmread(series().paths[0])
        item = Dataset()
        item.CodeMeaning = "x"
        dataset.SharedFunctionalGroupsSequence = Sequence([item])
        dataset.SharedFunctionalGroupsSequence.is_undefined_length = True
        (tmp_path / "whole").write_bytes(written(dataset))
    raw = bytearray((tmp_path / "whole").read_bytes())
    if data is not None:
        for place in data.draw(st.lists(st.integers(132, len(raw) - 1), max_size=6)):
            raw[place] = data.draw(st.integers(0, 255))
        start, stop = sorted(data.draw(st.integers(132, len(raw))) for _ in range(2))
        raw[start:stop] = data.draw(st.binary(max_size=40))
    try:
        elements = walk_file(bytes(raw), Bounds()).elements
        for keyword in ("PatientName", "Rows", "PixelSpacing", "ImageType", "SpecificCharacterSet"):
            elements.text(keyword), elements.numbers(keyword), elements.integer(keyword), elements.texts(keyword)
        elements.items("SharedFunctionalGroupsSequence")
    except ReadError as error:
        assert error.rule in ("truncated", "malformed", "nesting", "elements", "inflated_size", "not_dicom")


def test_an_element_that_stands_twice_is_refused() -> None:
    """Readers disagree on which one counts, before the pixels and behind them; padding may follow those."""
    rows = b"\x28\x00\x10\x00US\x02\0\x04\0"
    pixels = b"\xe0\x7f\x10\x00OW\0\0\x02\0\0\0\x01\x02"
    padding = b"\xfc\xff\xfc\xffOB\0\0\x02\0\0\0\0\0"
    walk_file(head() + rows + pixels + padding, Bounds())
    walk_file(head() + rows + pixels + bytes(10), Bounds())
    for data in (rows + rows + pixels, rows + pixels + pixels, pixels + rows):
        assert refused(head() + data) == "malformed"
