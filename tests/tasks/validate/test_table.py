"""What is measured of a returned label, against labels whose properties are known by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.errors import ReadError
from redraft.volumes import Volume, write_volume
from tasks.validate.table import ReturnedLabel, measure

STRUCTURES = (
    Structure(name="kidney", value=1, kind="organ", required=True),  # type: ignore[arg-type]
    Structure(name="tumor", value=7, kind="tumor"),  # type: ignore[arg-type]
)
AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2.0, 0, 30], [0, 0, 5.0, -100], [0, 0, 0, 1]])
SHAPE = (20, 16, 12)


def label_array() -> NDArray[np.uint8]:
    array = np.zeros(SHAPE, np.uint8)
    array[2:6, 3:7, 2:5] = 1
    array[12:16, 3:7, 2:5] = 1
    array[3:5, 4:6, 3:4] = 7
    return array


def row(folder: Path, array: NDArray[Any], affine: NDArray[np.float64] = AFFINE, **more: Any) -> dict[str, Any]:
    """The table's row for a label saved with plain nibabel, as a reader's tool would."""
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / "image.nii.gz", Volume(np.zeros(SHAPE, np.int16), AFFINE))
    nib.save(nib.Nifti1Image(array, affine), folder / "label.nii.gz")
    item = ReturnedLabel(
        "a", "e", "r", folder / "label.nii.gz", folder / "image.nii.gz", more.pop("draft", None), "correct",
        more.pop("minutes", 4.5),
    )  # fmt: skip
    return measure(item, STRUCTURES)


def test_a_good_label_is_measured_as_it_was_made(tmp_path: Path) -> None:
    """Grid, values, volumes in ml, components and time of a label that is in order."""
    found = row(tmp_path, label_array())
    assert (found["same_grid"], found["flipped"], found["integral"], found["unknown_values"]) == (True, False, True, 0)
    assert found["kidney_ml"] == pytest.approx((2 * 48 - 4) * 0.02) and found["tumor_ml"] == pytest.approx(4 * 0.02)
    assert (found["kidney_components"], found["tumor_components"], found["foreground_voxels"]) == (2, 1, 96)
    assert (found["minutes"], found["seconds"], found["voxels_changed"]) == (4.5, 270.0, None)


def test_floats_of_whole_numbers_are_a_label(tmp_path: Path) -> None:
    """Tools that save labels as float32 are served; a half is not a label."""
    assert row(tmp_path / "a", label_array().astype(np.float32))["integral"]
    half = label_array().astype(np.float32)
    half[0, 0, 0] = 0.5
    assert not row(tmp_path / "b", half)["integral"]


def flip(axis: int) -> NDArray[np.float64]:
    """The affine of the same grid counted from its other end along one axis."""
    turn = np.eye(4)
    turn[axis, axis], turn[axis, 3] = -1, SHAPE[axis] - 1
    return AFFINE @ turn


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_label_is_called_mirrored(tmp_path: Path, axis: int) -> None:
    """An affine with one axis turned round, at the same place or with the sign alone changed, is flipped."""
    for n, affine in enumerate((flip(axis), AFFINE @ np.diag([*(-1.0 if i == axis else 1.0 for i in range(3)), 1.0]))):
        found = row(tmp_path / str(n), label_array(), affine)
        assert found["flipped"] and not found["same_grid"]


def moved(mm: float) -> NDArray[np.float64]:
    other = AFFINE.copy()
    other[1, 3] += mm
    return other


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        (SHAPE, moved(3.0)), (SHAPE, moved(-0.5)), (SHAPE, AFFINE @ np.diag([1.0, 1.0, 1.01, 1.0])),
        (SHAPE, AFFINE[:, [1, 0, 2, 3]]), ((20, 16, 11), AFFINE), ((16, 20, 12), AFFINE), ((20, 16, 24), AFFINE),
    ],
)  # fmt: skip
def test_another_grid_is_not_the_image_s(tmp_path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> None:
    """Shifted, stretched, turned, cropped or resampled labels are on another grid, and are not called mirrored."""
    found = row(tmp_path, np.zeros(shape, np.uint8), affine)
    assert not found["same_grid"] and not found["flipped"]


def test_rounding_of_the_affine_is_no_other_grid(tmp_path: Path) -> None:
    """What single precision in a header loses is no difference."""
    affine = (AFFINE + 1e-7).astype(np.float32).astype(np.float64)
    assert row(tmp_path, label_array(), affine)["same_grid"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_no_label(tmp_path: Path, value: float) -> None:
    """NaN and infinity make the label not integral; the row stays a row of plain numbers."""
    array = label_array().astype(np.float32)
    array[0, 0, 0] = value
    found = row(tmp_path, array)
    assert not found["integral"] and found["unknown_values"] == -1 and found["foreground_voxels"] == -1
    assert np.isfinite([found["kidney_ml"], found["tumor_ml"]]).all()


@pytest.mark.parametrize(("extra", "count"), [([2], 1), ([2, 3, 200], 3), ([-1], 1), ([1, 7], 0)])
def test_unknown_values_are_counted(tmp_path: Path, extra: list[int], count: int) -> None:
    """Every value that is neither background nor a structure's counts once, negative ones too."""
    array = label_array().astype(np.int16)
    for n, value in enumerate(extra):
        array[0, n, :] = value
    assert row(tmp_path, array)["unknown_values"] == count


@pytest.mark.parametrize("kind", ["rgb", "complex"])
def test_values_that_are_no_numbers_are_unreadable(tmp_path: Path, kind: str) -> None:
    """A colour overlay or a complex volume exported as label is refused as unreadable, not with a stack trace."""
    if kind == "rgb":
        array: NDArray[Any] = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    else:
        array = label_array().astype(np.complex64)
    with pytest.raises(ReadError) as caught:
        row(tmp_path, array)
    assert caught.value.rule == "not_scalar" and caught.value.do


def test_changed_voxels_are_counted_against_the_draft(tmp_path: Path) -> None:
    """Every voxel that differs counts, whatever it became; a draft on another grid gives no count."""
    draft = tmp_path / "draft.nii.gz"
    write_volume(draft, Volume(label_array(), AFFINE))
    array = label_array()
    array[0, 0, :5] = 1
    array[3, 4, 3] = 1
    assert row(tmp_path / "a", array, draft=draft)["voxels_changed"] == 6
    assert row(tmp_path / "b", label_array(), draft=draft)["voxels_changed"] == 0
    assert row(tmp_path / "c", np.zeros((20, 16, 11), np.uint8), draft=draft)["voxels_changed"] is None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.0, 0.3))
def test_components_agree_with_another_library(
    tmp_path_factory: pytest.TempPathFactory, seed: int, density: float
) -> None:
    """Pieces that touch at a corner are one: the count is that of SimpleITK with full connectivity."""
    array = (np.random.default_rng(seed).random(SHAPE) < density).astype(np.uint8)
    found = row(tmp_path_factory.mktemp("components"), array)
    expected = sitk.ConnectedComponentImageFilter()
    expected.FullyConnectedOn()
    expected.Execute(sitk.GetImageFromArray(array))
    assert found["kidney_components"] == expected.GetObjectCount()
    assert found["kidney_ml"] == pytest.approx(int(array.sum()) * 0.02)
