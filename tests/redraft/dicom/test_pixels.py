"""Voxel values: rescaled per slice as SimpleITK rescales them, typed once over the volume, never silently cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from redraft.dicom.elements import Bounds
from redraft.dicom.frames import Frame, frames_of
from redraft.dicom.part10 import walk_file
from redraft.dicom.pixels import real_values, values_digest
from redraft.errors import ReadError


def itk_values(path: Path) -> np.ndarray:
    """One slice's real-world values by SimpleITK, shape (rows, columns)."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path), sitk.sitkFloat64))[0]


def rescale(slopes: list[float], intercepts: list[float]) -> Callable[[Dataset, int], None]:
    def change(dataset: Dataset, k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slopes[k]:.10g}", f"{intercepts[k]:.10g}"

    return change


def only_frame(path: Path) -> Frame:
    (frame,) = frames_of(walk_file(path.read_bytes(), Bounds()), enhanced=False)
    return frame


def read_slice(path: Path) -> np.ndarray:
    """One slice's real-world values by ours, shape (rows, columns)."""
    return real_values(only_frame(path))


def refused(call: Callable, *args: object) -> str:
    with pytest.raises(ReadError) as caught:
        call(*args)
    return caught.value.rule


def test_slopes_that_differ_per_slice_are_applied_per_slice(series: Callable) -> None:
    """PET: tiny slopes, another one in every slice; compared with SimpleITK slice by slice."""
    files = series()
    files.edit(rescale([0.00031, 1.25, 3.3e-7, 17.5], [0, -3, 0.5, 100]))
    volume = files.volume()
    assert volume.array.dtype == np.float32
    for k, path in enumerate(files.paths):
        np.testing.assert_allclose(volume.array[:, :, k].T, itk_values(path), rtol=2e-7)
        np.testing.assert_array_equal(read_slice(path), itk_values(path))


def test_a_first_slice_of_integers_does_not_decide_the_type(series: Callable) -> None:
    """One fractional slope, in the last slice, makes the whole volume float: nothing is truncated."""
    for place in (0, 3):
        files = series()
        slopes = [1.0] * 4
        slopes[place] = 0.5
        files.edit(rescale(slopes, [-1024] * 4))
        volume = files.volume()
        assert volume.array.dtype == np.float32
        for k, path in enumerate(files.paths):
            np.testing.assert_array_equal(volume.array[:, :, k].T, itk_values(path))


@given(st.lists(st.tuples(st.sampled_from([1, 2, -1, 16]), st.integers(-40000, 40000)), min_size=4, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_integers_out_of_range_are_not_wrapped(series: Callable, pairs: list[tuple[int, int]]) -> None:
    """int16 where every value fits in, float32 otherwise; the values are the same either way."""
    files = series()
    files.edit(rescale([a for a, _ in pairs], [b for _, b in pairs]))
    volume = files.volume()
    expected = np.stack([itk_values(path).T for path in files.paths], axis=-1)
    np.testing.assert_array_equal(volume.array, expected)
    fits = expected.min() >= -32768 and expected.max() <= 32767
    assert volume.array.dtype == (np.int16 if fits else np.float32)


def test_absent_rescale_is_the_identity(series: Callable) -> None:
    """MR has neither slope nor intercept; empty values count as absent."""

    def remove(dataset: Dataset, k: int) -> None:
        del dataset.RescaleSlope, dataset.RescaleIntercept
        if k == 1:
            dataset.RescaleSlope, dataset.RescaleIntercept = None, None

    files = series()
    files.edit(remove)
    np.testing.assert_array_equal(files.volume().array, files.hu.astype(int) + 1024)


@pytest.mark.parametrize(
    ("bits", "stored", "signed"),
    [(16, 16, 1), (16, 16, 0), (16, 12, 1), (16, 12, 0), (8, 8, 0), (8, 8, 1), (32, 32, 1)],
)
def test_signed_and_unsigned_values_of_every_width(series: Callable, bits: int, stored: int, signed: int) -> None:
    """The extremes of every representation are read as what they are."""
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    dtype = np.dtype(f"<{'i' if signed else 'u'}{bits // 8}")
    values = np.linspace(low, high, 35).astype(dtype).reshape(5, 7)
    values.flat[0], values.flat[-1] = low, high

    def change(dataset: Dataset, k: int) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, stored, stored - 1
        dataset.PixelRepresentation = signed
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", "0"
        data = values.tobytes()
        dataset.PixelData = data + b"\x00" * (len(data) % 2)

    files = series()
    files.edit(change)
    volume = files.volume()
    for k, path in enumerate(files.paths):
        np.testing.assert_array_equal(read_slice(path), values)
        np.testing.assert_allclose(volume.array[:, :, k].T, values, rtol=1e-7)
        if bits < 32:  # GDCM refuses 32 bits in CT
            np.testing.assert_array_equal(read_slice(path), itk_values(path))


def test_compressed_slices_are_the_same_volume(series: Callable) -> None:
    """A lossless transfer syntax changes no value, and slices may differ in it."""
    plain, packed = series(), None
    expected = plain.volume()
    packed = plain
    packed.edit(lambda dataset, k: dataset.compress(RLELossless, generate_instance_uid=False), 0, 2)
    assert packed.headers()[1].transfer_syntax != packed.headers()[0].transfer_syntax
    np.testing.assert_array_equal(packed.volume().array, expected.array)


def test_digest_is_of_values_not_of_files(series: Callable, tmp_path: Path) -> None:
    """Two copies with other headers agree, one other voxel does not."""
    files = series()
    before = values_digest(only_frame(files.paths[0]))
    files.edit(lambda dataset, k: setattr(dataset, "SeriesDescription", "copy"), 0)
    assert values_digest(only_frame(files.paths[0])) == before

    def alter(dataset: Dataset, k: int) -> None:
        data = bytearray(dataset.PixelData)
        data[0] ^= 1
        dataset.PixelData = bytes(data)

    files.edit(alter, 0)
    assert values_digest(only_frame(files.paths[0])) != before


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_every_truncation_is_refused(series: Callable) -> None:
    """A file cut anywhere in its pixels is refused before they are read, and when they are read."""
    path = series().paths[0]
    whole = path.read_bytes()
    for cut in (1, 2, 35, 69):
        path.write_bytes(whole[:-cut])
        assert refused(read_slice, path) == "truncated"
    path.write_bytes(whole[:-71])
    assert refused(read_slice, path) in ("truncated", "no_pixels")


def test_a_size_larger_than_the_file_is_refused_without_reading(series: Callable) -> None:
    """65535 x 65535 in a file of 2 kB allocates nothing."""
    files = series()

    def grow(dataset: Dataset, k: int) -> None:
        dataset.Rows = dataset.Columns = 65535

    files.edit(grow, 0)
    assert refused(read_slice, files.paths[0]) == "truncated"


@pytest.mark.parametrize("name", ["Rows", "Columns"])
@pytest.mark.parametrize("value", [0, None])
def test_no_size_is_refused(series: Callable, name: str, value: int | None) -> None:
    """Absent or zero rows and columns."""

    def spoil(dataset: Dataset, k: int) -> None:
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)

    files = series()
    files.edit(spoil, 1)
    assert refused(read_slice, files.paths[1]) == "no_size"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.__delattr__("PixelData"), "no_pixels"),
        (lambda d: setattr(d, "NumberOfFrames", 2), "truncated"),
        (lambda d: setattr(d, "BitsAllocated", 13), "undecodable"),
        (lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.3.4"), "undecodable"),
        (lambda d: setattr(d, "RescaleSlope", "1e400"), "rescale"),
        (lambda d: d.__delattr__("PixelRepresentation"), "undecodable"),
    ],
    ids=["no pixels", "frames", "bits", "unknown syntax", "infinite slope", "no sign"],
)
def test_what_cannot_be_decoded_is_refused_by_rule(series: Callable, change: Callable, expected: str) -> None:
    """Absent pixels, odd widths, foreign syntaxes and infinite slopes."""
    files = series()
    dataset = pydicom.dcmread(files.paths[0])
    change(dataset)
    pydicom.dcmwrite(files.paths[0], dataset, implicit_vr=False, little_endian=True)
    assert refused(read_slice, files.paths[0]) == expected


def test_several_frames_are_refused(series: Callable) -> None:
    """A slice is one frame."""

    def double(dataset: Dataset, k: int) -> None:
        dataset.NumberOfFrames, dataset.PixelData = 2, dataset.PixelData * 2

    files = series()
    files.edit(double, 0)
    assert refused(read_slice, files.paths[0]) == "not_single_frame"


@given(st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_slices_are_read_errors(series: Callable, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes are cut off or changed, a slice gives finite numbers or a ReadError."""
    if not (tmp_path / "whole").exists():
        (tmp_path / "whole").write_bytes(series().paths[0].read_bytes())
    raw = bytearray((tmp_path / "whole").read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=6)):
            raw[place] = data.draw(st.integers(0, 255))
    (tmp_path / "damaged.dcm").write_bytes(raw)
    try:
        assert read_slice(tmp_path / "damaged.dcm").ndim == 2
    except ReadError as error:
        assert error.rule


def test_half_a_word_of_swapped_bytes_is_no_pixel(series: Callable) -> None:
    """8 bits in words of big endian, one byte short of a word: refused, not an error of the array."""
    files = series((5, 5, 3))

    def eight(dataset: Dataset, k: int) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelData = 8, 8, 7, bytes(26)

    files.edit(eight)
    path = files.paths[1]
    dataset = pydicom.dcmread(path)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False)
    files.volume()
    raw = path.read_bytes()
    length = raw.index(b"\x7f\xe0\x00\x10OW") + 8
    path.write_bytes(raw[:length] + (25).to_bytes(4, "big") + raw[length + 4 : -1])
    assert refused(files.volume) == "truncated"
