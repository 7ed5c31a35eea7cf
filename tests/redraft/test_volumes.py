"""Volumes: stored bytes are a function of the volume, and every orientation survives writing, by two other readers."""

from __future__ import annotations

import gzip
import itertools
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from redraft.errors import LabelError, ReadError
from redraft.files import write_bytes
from redraft.volumes import Volume, grid_difference, read_volume, write_volume

SHAPE = (5, 4, 3)
CORNERS = list(itertools.product(*[(0, n - 1) for n in SHAPE]))
AXES = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]  # fmt: skip
FREE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def grid(order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """An affine whose axes are permuted and flipped, with spacing 0.7, 1.5, 3 mm and an odd origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * np.array(signs) * (0.7, 1.5, 3.0)
    affine[:3, 3] = (-31.25, 17.5, 400.125)
    return affine


def values(dtype: type = np.int16, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """All different, so that any swap of voxels shows."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def lps(image: sitk.Image, index: tuple[int, ...]) -> np.ndarray:
    return np.array(image.TransformIndexToPhysicalPoint([int(n) for n in index]))


def assert_readers_agree(path: Path, volume: Volume) -> None:
    """nibabel, SimpleITK and redraft find the same values at the same places."""
    own, other, itk = read_volume(path), nib.load(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(own.array, volume.array)
    np.testing.assert_array_equal(np.asanyarray(other.dataobj), volume.array)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).transpose(2, 1, 0), volume.array)
    assert own.array.dtype == volume.array.dtype
    for found in (own.affine, other.affine, other.header.get_qform(), other.header.get_sform()):
        np.testing.assert_allclose(found, volume.affine, atol=2e-4)
    assert (other.header["qform_code"], other.header["sform_code"]) == (1, 1)
    assert other.header.get_xyzt_units()[0] == "mm"
    for index in CORNERS:
        ras = (volume.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(lps(itk, index), ras * [-1, -1, 1], atol=1e-3)


@pytest.mark.parametrize(("order", "signs"), AXES)
def test_every_orientation_comes_back(tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """All 48 ways to permute and flip the axes: no reader sees a flipped image."""
    volume = Volume(values(), grid(order, signs))
    write_volume(tmp_path / "a.nii.gz", volume)
    assert_readers_agree(tmp_path / "a.nii.gz", volume)
    assert grid_difference(volume, read_volume(tmp_path / "a.nii.gz")) is None


@given(st.integers(0, 10**6), st.tuples(*[st.floats(0.2, 8)] * 3), st.tuples(*[st.floats(-900, 900)] * 3))
@FREE
def test_oblique_grids_come_back(tmp_path: Path, seed: int, spacing: tuple[float, ...], origin: tuple[float, ...]):
    """Any rotation, spacing and origin."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * spacing
    affine[:3, 3] = origin
    volume = Volume(values(), affine)
    write_volume(tmp_path / "a.nii.gz", volume)
    assert_readers_agree(tmp_path / "a.nii.gz", volume)
    np.testing.assert_allclose(volume.spacing, spacing)
    assert volume.voxel_ml == pytest.approx(np.prod(spacing) / 1000)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32])
def test_types_are_kept(tmp_path: Path, dtype: type) -> None:
    """No value is rescaled or cast on the way, the type's extremes included."""
    array = values(dtype)
    limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    array.flat[:2] = (limits.min, limits.max)
    write_volume(tmp_path / "a.nii.gz", Volume(array, np.eye(4)))
    back = read_volume(tmp_path / "a.nii.gz").array
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


def test_memory_order_changes_no_byte(tmp_path: Path) -> None:
    """A transposed view and a copy are one volume."""
    array = values(shape=(3, 4, 5)).transpose(2, 1, 0)
    for name, item in (("a", array), ("b", np.ascontiguousarray(array)), ("c", np.asfortranarray(array))):
        write_volume(tmp_path / f"{name}.nii.gz", Volume(item, np.eye(4)))
    assert len({(tmp_path / f"{name}.nii.gz").read_bytes() for name in "abc"}) == 1


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the hour nor the file's name is in the stored bytes, and Python's own gzip reads them."""
    volume = Volume(values(np.float32), grid((1, 2, 0), (1, -1, 1)))
    write_volume(tmp_path / "a.nii.gz", volume)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    write_volume(tmp_path / "folder" / "another name.nii.gz", volume)
    first = (tmp_path / "a.nii.gz").read_bytes()
    assert first == (tmp_path / "folder" / "another name.nii.gz").read_bytes()
    assert first[3] == 0 and first[4:8] == bytes(4)  # RFC 1952: no flags (name, comment), no time
    assert nib.Nifti1Image.from_bytes(gzip.decompress(first)).shape == SHAPE


def test_another_voxel_gives_other_bytes(tmp_path: Path) -> None:
    """One voxel or a thousandth of a millimetre makes another file."""
    base = Volume(values(), np.eye(4))
    array, affine = values(), np.eye(4)
    array[1, 1, 1] += 1
    affine[0, 3] += 1e-3
    for name, volume in (("a", base), ("b", Volume(array, np.eye(4))), ("c", Volume(values(), affine))):
        write_volume(tmp_path / f"{name}.nii.gz", volume)
    assert len({(tmp_path / f"{name}.nii.gz").read_bytes() for name in "abc"}) == 3


def test_stored_scaling_is_applied(tmp_path: Path) -> None:
    """Slope and intercept of a foreign file are part of its values."""
    image = nib.Nifti1Image(values(), np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array([0.5, -10], "<f4").tobytes()
    write_bytes(tmp_path / "a.nii", bytes(raw))
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").array, values() * 0.5 - 10)


def test_a_fourth_axis_of_one_is_dropped(tmp_path: Path) -> None:
    """A 3D image that some tool wrote as 4D with one frame is taken, more frames are refused."""
    nib.Nifti1Image(values()[..., None], np.eye(4)).to_filename(tmp_path / "one.nii.gz")
    assert read_volume(tmp_path / "one.nii.gz").shape == SHAPE
    for name, array in (("four", np.stack([values()] * 2, axis=-1)), ("two", values()[..., 0])):
        nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / f"{name}.nii.gz")
        with pytest.raises(ReadError) as caught:
            read_volume(tmp_path / f"{name}.nii.gz")
        assert caught.value.rule == "dimensions"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("stored")
    for name in ("a.nii", "a.nii.gz"):
        nib.Nifti1Image(values(), np.diag([1, 2, 3, 1.0])).to_filename(folder / name)
    return {name: (folder / name).read_bytes() for name in ("a.nii", "a.nii.gz")}


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_read_errors(tmp_path: Path, stored: dict[str, bytes], data: st.DataObject) -> None:
    """Whatever bytes are cut off or changed, reading gives a volume or a ReadError: one bad file stops no batch."""
    name = data.draw(st.sampled_from(sorted(stored)))
    raw = bytearray(stored[name])
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        end = len(raw) if name.endswith(".gz") else 352
        for place in data.draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=4)):
            raw[place] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(raw)
    try:
        assert read_volume(tmp_path / name).array.ndim == 3
    except ReadError as error:
        assert error.rule in ("unreadable", "dimensions")


@pytest.mark.parametrize("dtype", [[("R", "u1"), ("G", "u1"), ("B", "u1")], "c8"])
def test_colours_and_complex_numbers_are_read_errors(tmp_path: Path, dtype: object) -> None:
    """What does not hold one number per voxel is refused as it is read, not where it is first counted with."""
    array = np.zeros((4, 3, 2), dtype=np.dtype(dtype))  # type: ignore[call-overload]
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "label.nii.gz")
    with pytest.raises(ReadError) as refused:
        read_volume(tmp_path / "label.nii.gz")
    assert refused.value.rule == "not_scalar"


def test_a_missing_file_is_a_read_error(tmp_path: Path) -> None:
    """A file that vanished between listing and reading stops no batch."""
    with pytest.raises(ReadError):
        read_volume(tmp_path / "gone.nii.gz")


# -- grids -------------------------------------------------------------------------------------------------------------


def test_equal_grids_do_not_differ() -> None:
    """The values play no part."""
    assert grid_difference(Volume(values(), np.eye(4)), Volume(values(np.float32) + 1, np.eye(4))) is None


def test_another_shape_is_named() -> None:
    """Both shapes are in the receipt, in the order found and expected."""
    found = grid_difference(Volume(values(), np.eye(4)), Volume(values(shape=(4, 5, 3)), np.eye(4)))
    assert found == {"shape": [4, 5, 3], "expected_shape": [5, 4, 3]}


@given(st.tuples(*[st.floats(-50, 50)] * 3))
@settings(max_examples=60, deadline=None)
def test_a_shift_is_measured_in_mm(shift: tuple[float, ...]) -> None:
    """A translation moves every corner by itself: the largest component is what is reported, either way round."""
    affine = grid((2, 0, 1), (1, 1, -1))
    moved = affine.copy()
    moved[:3, 3] += shift
    a, b = Volume(values(), affine), Volume(values(), moved)
    largest = float(np.abs(moved - affine).max())
    for found in (grid_difference(a, b), grid_difference(b, a)):
        if largest > 1.1e-3:
            assert found is not None and found["corner_shift_mm"] == pytest.approx(largest, abs=1e-4)
        elif largest < 0.9e-3:
            assert found is None


def test_a_small_turn_of_a_long_grid_is_found() -> None:
    """A turn that changes no affine entry by 1e-4 still moves the far corner of a long volume by more than 10 µm."""
    shape = (512, 512, 400)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0, 0, 5e-5]).as_matrix()
    empty = np.broadcast_to(np.uint8(0), shape)
    found = grid_difference(Volume(empty, np.eye(4)), Volume(empty, turn))
    assert np.abs(turn - np.eye(4)).max() < 1e-4
    assert found is not None and found["corner_shift_mm"] == pytest.approx(511 * 5e-5, rel=0.02)


@pytest.mark.parametrize("axis", range(3))
def test_flips_and_swaps_are_found(axis: int) -> None:
    """A flipped axis, or two swapped ones, is another grid although it covers the same box."""
    cube, affine = np.zeros((4, 4, 4)), np.eye(4)
    flipped = affine.copy()
    flipped[axis, axis], flipped[axis, 3] = -1, 3
    swapped = affine[:, [*np.roll([0, 1, 2], axis + 1), 3]] if axis < 2 else affine[:, [1, 0, 2, 3]]
    for other in (flipped, swapped):
        assert grid_difference(Volume(cube, affine), Volume(cube, other)) is not None


def test_like_keeps_the_grid_and_refuses_another_shape() -> None:
    """A mask made for one grid cannot be put on another."""
    volume = Volume(values(), grid((0, 1, 2), (1, 1, 1)))
    mask = volume.like(np.ones(SHAPE, np.uint8))
    assert grid_difference(volume, mask) is None
    with pytest.raises(LabelError) as caught:
        volume.like(np.ones(SHAPE[::-1]))
    assert caught.value.rule == "shape"


def test_a_failed_write_keeps_the_old_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that ends in an error leaves the old file and nothing beside it."""
    write_volume(tmp_path / "a.nii.gz", Volume(values(), np.eye(4)))
    before = (tmp_path / "a.nii.gz").read_bytes()

    def broken(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(nib.Nifti1Image, "to_bytes", broken)
    with pytest.raises(MemoryError):
        write_volume(tmp_path / "a.nii.gz", Volume(values() + 1, np.eye(4)))
    assert os.listdir(tmp_path) == ["a.nii.gz"] and (tmp_path / "a.nii.gz").read_bytes() == before
