"""Orientation, spacing and intensities, there and back."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.plan import Plan
from models.preprocess import (
    from_canonical,
    normalise,
    preprocess_image,
    preprocess_label,
    resample,
    restore,
    restore_labels,
    to_canonical,
)
from redraft.errors import LabelError, ReadError
from redraft.volumes import Volume

ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Voxel axis n runs along world axis order[n], with a sign."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    affine[:3, 3] = (10.0, -20.0, 30.0)
    return affine


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Rotation matrix of three angles in radians."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = result @ turn
    return result


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_axis_order_comes_back_voxel_for_voxel(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """All 48 orientations go to RAS, keep every voxel at its place in the patient, and come back unchanged."""
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    volume = Volume(array, affine_of(order, signs, (1.0, 2.0, 3.0)))
    canonical = to_canonical(volume)
    assert nib.aff2axcodes(canonical.affine) == ("R", "A", "S")
    place = canonical.affine @ [*(int(n[0]) for n in np.nonzero(canonical.array == array[1, 2, 3])), 1]
    np.testing.assert_allclose(place, volume.affine @ [1, 2, 3, 1])
    np.testing.assert_array_equal(from_canonical(canonical.array, volume), array)
    both = np.stack([canonical.array, -canonical.array])
    np.testing.assert_array_equal(from_canonical(both, volume), np.stack([array, -array]))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.tuples(*[st.floats(0.4, 6.0)] * 3),
)
def test_oblique_grids_come_back_voxel_for_voxel(
    orientation: tuple[tuple[int, ...], tuple[int, ...]],
    angles: tuple[float, float, float],
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
) -> None:
    """However an oblique grid is turned, its canonical form is a flip and a permutation that can be undone."""
    affine = affine_of(*orientation, spacing)
    affine[:3, :3] = rotation(angles) @ affine[:3, :3]
    array = np.arange(np.prod(shape)).reshape(shape)
    volume = Volume(array, affine)
    canonical = to_canonical(volume)
    assert sorted(canonical.spacing) == pytest.approx(sorted(volume.spacing))
    np.testing.assert_array_equal(from_canonical(canonical.array, volume), array)


def test_resampling_agrees_with_torch_where_it_refines() -> None:
    """Upsampling equals torch's trilinear interpolation with aligned voxel edges, an independent implementation."""
    array = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(array)[None, None], size=(9, 12, 11), mode="trilinear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(resample(array, (9, 12, 11), 1), wanted, atol=1e-5)


def test_resampling_keeps_places() -> None:
    """The centre of mass of a smooth blob stays within a tenth of a millimetre through coarser and finer grids."""
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(30), np.arange(20), indexing="ij"))
    blob = np.exp(-(((grid - np.array([17.3, 14.1, 9.4])[:, None, None, None]) ** 2).sum(axis=0)) / 20)
    for shape in ((20, 15, 10), (53, 47, 31), (40, 15, 33)):
        found = resample(blob, shape, 1)
        places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).reshape(3, -1)
        centre = (places * found.ravel()).sum(axis=1) / found.sum()
        in_first_grid = (centre + 0.5) * np.array(blob.shape) / np.array(shape) - 0.5
        np.testing.assert_allclose(in_first_grid, [17.3, 14.1, 9.4], atol=0.1)


def test_thin_structures_survive_coarser_grids() -> None:
    """A plane one voxel thick weighs in wherever it lies, instead of falling between the samples."""
    for at in range(8, 16):
        array = np.zeros((24, 12, 12), dtype=np.float32)
        array[at] = 1
        coarse = resample(array, (6, 12, 12), 1)
        assert coarse.sum() * 4 == pytest.approx(array.sum(), rel=0.25)


def test_a_constant_stays_constant() -> None:
    """No grid change brightens or darkens an even image, borders included."""
    for shape in ((3, 3, 3), (10, 4, 30)):
        np.testing.assert_allclose(resample(np.full((9, 8, 7), 3.5), shape, 1), 3.5, rtol=1e-6)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5])
def test_labels_return_to_the_original_grid(plan: Plan, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """A label turned into class probabilities and restored is the label, voxel for voxel, in any orientation."""
    rng = np.random.default_rng(3)
    spacing = tuple(np.array(plan.spacing_mm)[list(order)])  # canonical spacing is the plan's
    label = Volume(rng.choice([0, 1, 4], size=(7, 6, 5)).astype(np.uint8), affine_of(order, signs, spacing))
    indices = preprocess_label(label, plan)
    probabilities = np.eye(3, dtype=np.float32)[indices].transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(restore_labels(probabilities, label, plan), label.array)


def test_restoring_labels_is_the_largest_restored_probability(plan: Plan) -> None:
    """Working through one class at a time gives what the largest of all restored probabilities gives."""
    rng = np.random.default_rng(4)
    reference = Volume(np.zeros((13, 9, 11), np.int16), affine_of((2, 0, 1), (-1, 1, -1), (1.0, 2.5, 1.7)))
    probabilities = rng.dirichlet((1, 1, 1), size=(6, 5, 4)).transpose(3, 0, 1, 2).astype(np.float32)
    restored = restore(probabilities, reference)
    assert restored.shape == (3, *reference.shape)
    np.testing.assert_allclose(restored.sum(axis=0), 1, atol=1e-5)
    wanted = np.array(plan.classes, dtype=np.uint8)[restored.argmax(axis=0)]
    np.testing.assert_array_equal(restore_labels(probabilities, reference, plan), wanted)


def test_labels_come_through_another_spacing(plan: Plan) -> None:
    """An ellipsoid on a finer oblique grid keeps a Dice above .9 through the plan's spacing and back."""
    affine = affine_of((1, 0, 2), (-1, -1, 1), (1.3, 1.1, 2.0))
    affine[:3, :3] = rotation((0.1, -0.2, 0.15)) @ affine[:3, :3]
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(36), np.arange(24), indexing="ij"))
    inside = (
        ((grid - np.array([19, 17, 12])[:, None, None, None]) / np.array([14, 11, 8])[:, None, None, None]) ** 2
    ).sum(axis=0) < 1
    label = Volume(inside.astype(np.uint8), affine)
    indices = preprocess_label(label, plan)
    back = restore_labels(np.eye(3, dtype=np.float32)[indices].transpose(3, 0, 1, 2), label, plan)
    assert 2 * (back & label.array).sum() / (back.sum() + label.array.sum()) > 0.9


def test_ct_is_normalised_by_the_training_set(plan: Plan) -> None:
    """CT values are clipped to the plan's range and standardised by its mean and deviation, whatever the exam holds."""
    values = normalise(np.array([[[-1000.0, 100.0, 150.0, 3000.0]]], np.float32), plan)
    np.testing.assert_allclose(values.ravel(), [-2.0, 0.0, 1.0, 3.0])


def test_mr_is_normalised_by_itself(plan: Plan) -> None:
    """An MR exam scaled or shifted by its scanner gives the same input; its background does not count."""
    mr = plan.model_copy(update={"intensity": "exam_zscore", "intensity_values": (0.5, 99.5, 0.0, 1.0)})
    rng = np.random.default_rng(5)
    array = np.where(rng.random((20, 20, 20)) < 0.3, 0, rng.normal(300, 40, (20, 20, 20))).astype(np.float32)
    first, second = normalise(array, mr), normalise(array * 7.5, mr)
    np.testing.assert_allclose(first, second, atol=1e-4)
    inside = first[array > 0]
    assert abs(inside.mean()) < 0.01 and abs(inside.std() - 1) < 0.01


def test_an_even_exam_is_no_division_by_zero(plan: Plan) -> None:
    """An exam of one value becomes finite input."""
    mr = plan.model_copy(update={"intensity": "exam_zscore", "intensity_values": (0.5, 99.5, 0.0, 1.0)})
    assert np.isfinite(normalise(np.full((4, 4, 4), 7.0, np.float32), mr)).all()


def test_what_is_no_number_is_refused(plan: Plan) -> None:
    """A voxel that is not finite is an error that counts them, not a draft full of nothing."""
    array = np.zeros((4, 4, 4), np.float32)
    array[1, 2, 3] = np.nan
    with pytest.raises(ReadError, match="1 voxels are not finite") as caught:
        preprocess_image(Volume(array, np.eye(4)), plan)
    assert caught.value.rule == "not_finite"


@pytest.mark.parametrize("value", [2, 255, 0.5])
def test_unknown_label_values_are_refused(plan: Plan, value: float) -> None:
    """A value the plan does not know is not learned as background."""
    array = np.zeros((4, 4, 4), np.float32)
    array[0, 0, 0] = value
    with pytest.raises(LabelError) as caught:
        preprocess_label(Volume(array, np.eye(4)), plan)
    assert caught.value.measured == {"unknown": [value]}
