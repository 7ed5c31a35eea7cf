"""Batches are a function of (seed, member, rank, step), and patches are cut where they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from models.data import Prepared
from models.sampling import Cut, Sampler, _box, apply, plain_patch, turning_planes


@pytest.fixture
def sampler(prepared: list[Prepared]) -> Sampler:
    return Sampler(prepared, (16, 16, 16), (2.0, 2.0, 3.0), 3, 0.66, seed=5, member=1)


def test_a_batch_follows_from_its_step(sampler: Sampler, prepared: list[Prepared]) -> None:
    """Any step can be made alone, in any order and by another sampler, and is the same to the bit."""
    first = [sampler.batch(step) for step in range(6)]
    again = Sampler(prepared, (16, 16, 16), (2.0, 2.0, 3.0), 3, 0.66, seed=5, member=1)
    for step in (5, 0, 3, 3):
        for a, b in zip(first[step], again.batch(step), strict=True):
            np.testing.assert_array_equal(a, b)


def test_streams_differ(sampler: Sampler) -> None:
    """Another step, seed, member or device sees other patches."""
    base = sampler.batch(7)[0]
    others = [sampler.batch(8)[0]]
    others += [dataclasses.replace(sampler, **{name: 3}).batch(7)[0] for name in ("seed", "member", "rank")]
    assert all(not np.array_equal(base, other) for other in others)


def test_batches_have_the_network_s_form(sampler: Sampler) -> None:
    """(B, 1, I, J, K) float32 and class indices that the plan knows."""
    image, label = sampler.batch(0)
    assert image.shape == label.shape == (3, 1, 16, 16, 16)
    assert image.dtype == np.float32 and label.dtype == np.uint8 and image.flags["C_CONTIGUOUS"]
    assert set(np.unique(label)) <= {0, 1, 2}


def test_foreground_share_one_always_shows_foreground(sampler: Sampler) -> None:
    """With a share of 1 every patch holds a structure, and the rare core is centred as often as the organ."""
    everywhere = dataclasses.replace(sampler, foreground_share=1.0, batch_size=8)
    labels = np.concatenate([everywhere.batch(step)[1] for step in range(10)])
    assert all((label > 0).any() for label in labels)
    assert np.mean([(label == 2).any() for label in labels]) > 0.8


def test_an_untouched_cut_is_a_slice(prepared: list[Prepared]) -> None:
    """Without rotation and scaling a patch inside the exam is that part of its array."""
    image, label = prepared[0].image(), prepared[0].label()
    cut = Cut(np.array([9.5, 8.5, 7.5]), None, gain=1.0, offset=0.0, noise=0.0)
    values, indices = apply(cut, image, label, (16, 16, 16))
    np.testing.assert_array_equal(values, image[2:18, 1:17, 0:16])
    np.testing.assert_array_equal(indices, label[2:18, 1:17, 0:16])


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(-0.26, 0.26)] * 3), st.floats(0.85, 1.2), st.integers(0, 1000))
def test_a_turned_cut_is_the_whole_image_turned(angles: tuple[float, float, float], zoom: float, seed: int) -> None:
    """Reading only the box a turned patch touches gives what transforming the whole (padded) image gives."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(20, 18, 16)).astype(np.float32)
    label = (rng.random(image.shape) < 0.3).astype(np.uint8)
    matrix = np.eye(3)
    for (a, b), angle in zip(((0, 1), (0, 2), (1, 2)), angles, strict=True):
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix /= zoom
    centre, patch = rng.uniform(2, 15, 3), (10, 12, 8)
    values, indices = apply(Cut(centre, matrix, 1.0, 0.0, 0.0), image, label, patch)
    pad = 30
    offset = centre + pad - matrix @ ((np.array(patch) - 1) / 2)
    whole = ndimage.affine_transform(np.pad(image, pad, mode="edge"), matrix, offset, patch, order=1)
    marks = ndimage.affine_transform(np.pad(label, pad), matrix, offset, patch, order=0)
    np.testing.assert_allclose(values, whole, atol=1e-5)
    assert (indices != marks).mean() < 0.01  # ties at .5 may fall either way


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(-20, 20)] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
)
def test_boxes_reach_over_every_edge(
    shape: tuple[int, int, int], start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    """A box anywhere, even fully outside, equals the same box of a padded array."""
    array = np.arange(1, np.prod(shape) + 1).reshape(shape)
    for outside, mode in (("edge", "edge"), ("zero", "constant")):
        padded = np.pad(array, 40, mode=mode)  # type: ignore[call-overload]
        wanted = padded[tuple(slice(s + 40, s + 40 + n) for s, n in zip(start, size, strict=True))]
        np.testing.assert_array_equal(_box(array, np.array(start), size, outside), wanted)


def test_rotations_are_rigid_in_millimetres(prepared: list[Prepared]) -> None:
    """In voxels of 2 x 3 mm a turn is a shear; in millimetres every matrix is a rotation times a scale."""
    spacing = (2.0, 3.0, 9.0)
    sampler = Sampler(prepared, (16, 16, 16), spacing, 1, 0.5, seed=0, member=0)
    seen = 0
    for step in range(60):
        matrix = sampler._matrix(np.random.default_rng(step))
        if matrix is None:
            continue
        metric = np.diag(spacing) @ matrix @ np.diag(1 / np.array(spacing))
        scale = np.cbrt(np.linalg.det(metric))
        np.testing.assert_allclose(metric @ metric.T, np.eye(3) * scale**2, atol=1e-9)
        np.testing.assert_allclose(metric[2], [0, 0, scale], atol=1e-12)
        seen += not np.allclose(metric, np.eye(3) * scale)
    assert seen > 10


def test_only_near_square_planes_are_turned() -> None:
    """Thick slices are not turned into each other; an isotropic grid is turned in every plane."""
    assert turning_planes((1.0, 1.0, 1.0)) == [(0, 1), (0, 2), (1, 2)]
    assert turning_planes((0.7, 0.7, 5.0)) == [(0, 1)]
    assert turning_planes((5.0, 0.7, 0.8)) == [(1, 2)]
    assert turning_planes((1.0, 2.0, 4.0)) == []


def test_exams_smaller_than_the_patch_lie_whole_inside_it(prepared: list[Prepared]) -> None:
    """A small exam is shown whole, at varying places."""
    sampler = Sampler(prepared[:1], (40, 40, 40), (1.0, 2.0, 4.0), 1, 0.5, seed=0, member=0)
    whole, untouched = int((prepared[0].label() > 0).sum()), []
    for step in range(12):
        rng = np.random.default_rng(step)
        cut = sampler._draw(rng, prepared[0], prepared[0].image().shape)
        if cut.matrix is None:
            _, label = apply(cut, prepared[0].image(), prepared[0].label(), sampler.patch)
            assert int((label > 0).sum()) == whole
            untouched.append(tuple(np.argwhere(label).min(axis=0)))
    assert len(set(untouched)) > 2


def test_validation_patches_are_not_augmented(prepared: list[Prepared]) -> None:
    """The validation patch is a plain piece of the exam around its foreground."""
    image, label = plain_patch(prepared[0], (16, 16, 16))
    windows = np.lib.stride_tricks.sliding_window_view(prepared[0].image(), (16, 16, 16))
    assert (windows == image).all(axis=(3, 4, 5)).any()
    assert (label > 0).sum() > 0.9 * (prepared[0].label() > 0).sum()
