"""Uncertainty per slice: on the image's own slices, whichever way they run, and loud where a border is doubtful."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from models.inference import profile
from models.plan import Plan
from models.preprocess import from_canonical, plan_shape, to_canonical
from models.uncertainty import LEAST_MM2, slice_profile
from redraft.volumes import Volume

PLAN = Plan(
    modality="CT", labels={"organ": 1, "lesion": 3}, spacing_mm=(2.0, 2.0, 3.0), patch=(8, 8, 8),
    intensity="clip_zscore", intensity_values=(0.0, 100.0, 50.0, 20.0), architecture="unet", channels=(4, 8),
    strides=((2, 2, 2),),
)  # fmt: skip


def probabilities(shape: tuple[int, int, int], doubtful: slice) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A sure organ in the middle whose slices `doubtful` (third axis) are drawn at p = 0.6."""
    mean = np.zeros((3, *shape), np.float32)
    mean[0] = 1
    inside = np.zeros(shape, bool)
    inside[5:15, 5:15, 4:-4] = True
    doubt = inside.copy()
    doubt[..., [k for k in range(shape[2]) if k not in range(*doubtful.indices(shape[2]))]] = False
    for where, p in ((inside, 0.999), (doubt, 0.6)):
        mean[1][where], mean[0][where] = p, 1 - p
    return mean, np.where(inside, 1, 0).astype(np.uint8)


def entropy(*p: float) -> float:
    return float(-sum(v * np.log(v) for v in p))


def test_profile_is_hand_computed() -> None:
    """One slice of a doubtful 10 × 10 square: its entropy over the square grown by two voxels, as a share of log 3."""
    mean, labels = probabilities((20, 20, 16), slice(8, 9))
    sums, areas = slice_profile(mean, labels, PLAN.labels, (2.0, 2.0, 3.0), 2)
    grown = 100 + 4 * 20 + 4  # faces: two rows on each side, and one voxel in each corner
    assert areas["organ"][8] == grown
    assert sums["organ"][8] / areas["organ"][8] == pytest.approx(100 * entropy(0.6, 0.4) / np.log(3) / grown, rel=1e-5)
    assert int(np.argmax(sums["organ"] / areas["organ"])) == 8
    assert areas["lesion"][8] == LEAST_MM2 / 4 and sums["lesion"].sum() == 0
    np.testing.assert_array_equal(sums[""], sums["organ"])


def test_an_overlooked_slice_stands_out() -> None:
    """Where nothing is drawn but a structure is possible, the slice is uncertain, though no draft is near."""
    mean, labels = probabilities((20, 20, 30), slice(8, 9))
    labels[..., 6:] = 0
    mean[:, :, :, 10:] = np.array([1, 0, 0], np.float32)[:, None, None, None]
    mean[:, 5:15, 5:15, 20] = np.array([0.7, 0.0, 0.3], np.float32)[:, None, None]
    sums, areas = slice_profile(mean, labels, PLAN.labels, (2.0, 2.0, 3.0), 2)
    assert int(np.argmax(sums["lesion"] / areas["lesion"])) == 20
    assert sums["lesion"][20] / areas["lesion"][20] == pytest.approx(entropy(0.7, 0.3) / np.log(3), rel=1e-5)


def test_a_speck_does_not_outshine_a_border() -> None:
    """One voxel at p = 0.5 counts less than a doubtful square."""
    mean, labels = probabilities((20, 20, 30), slice(8, 9))
    mean[:, 2, 2, 20] = (0.5, 0.5, 0.0)
    sums, areas = slice_profile(mean, labels, PLAN.labels, (1.0, 1.0, 3.0), 2)
    values = sums["organ"] / areas["organ"]
    assert 0 < values[20] < 0.02 < values[8]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "RAI", "ASR", "SRA", "PIL"])
def test_slices_are_the_image_s_own(axes: str) -> None:
    """Whatever way the image lies, the slice that is doubtful in the image is the one whose number is highest."""
    ras = Volume(np.zeros((20, 20, 20), np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    flips = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axes))
    )
    array = nib.orientations.apply_orientation(ras.array, flips)
    image = Volume(array, ras.affine @ nib.orientations.inv_ornt_aff(flips, ras.shape))
    canonical = to_canonical(image)
    assert plan_shape(canonical, PLAN) == (20, 20, 20)
    # Doubt drawn on the image itself, third axis slice 6 of 20, then taken to canonical axes as a volume.
    own = np.full(image.shape, 0.999, np.float32)
    own[:, :, 6] = 0.6
    organ = to_canonical(Volume(own, image.affine)).array
    np.testing.assert_array_equal(from_canonical(organ, image), own)
    mean = np.stack([1 - organ, organ, np.zeros_like(organ)])
    found = profile(mean, np.ones((20, 20, 20), np.uint8), image, PLAN)
    assert found["axis"] == 2 and set(found["structures"]) == {"organ", "lesion"}  # type: ignore[call-overload]
    values = found["exam"]
    assert isinstance(values, list) and len(values) == 20
    assert int(np.argmax(values)) == 6 and values[6] == pytest.approx(entropy(0.6, 0.4) / np.log(3), abs=1e-3)


@pytest.mark.parametrize("slices", [7, 20, 60])
def test_profile_has_the_image_s_number_of_slices(slices: int) -> None:
    """Thicker or thinner slices than the plan's: as many values, each from 0 to 1, highest at the doubtful height."""
    image = Volume(np.zeros((20, 20, slices), np.int16), np.diag([2.0, 2.0, 60.0 / slices, 1.0]))
    mean, labels = probabilities((20, 20, 20), slice(12, 15))
    values = profile(mean, labels, image, PLAN)["exam"]
    assert isinstance(values, list) and len(values) == slices
    assert all(0 <= value <= 1 and round(value, 3) == value for value in values)
    height = (int(np.argmax(values)) + 0.5) * 60.0 / slices
    assert 36.0 <= height <= 45.0
