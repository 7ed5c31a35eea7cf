"""Known-wrong drafts: wrong in one structure, by a known number of voxels, beyond what a border may differ by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.config.schema import Dispatch, Structure
from tasks.dispatch.seeded import DISCLOSURE, FEWEST_VOXELS, KINDS, LARGEST_SHARE, how_many, make_wrong, notes

STRUCTURES = [
    Structure(name="kidney", value=3, kind="organ", tolerance_mm=3.0),
    Structure(name="tumour", value=7, kind="tumor", tolerance_mm=2.0),
]
SPACING = (1.5, 1.5, 3.0)


def truth(tumour: bool = True) -> np.ndarray:
    """An ellipsoid with a ball in it, off centre."""
    i, j, k = np.ogrid[:48, :44, :20]
    labels = np.zeros((48, 44, 20), np.uint8)
    labels[((i - 20) * 1.5) ** 2 + ((j - 22) * 1.5) ** 2 + ((k - 9) * 3) ** 2 < 20**2] = 3
    if tumour:
        labels[((i - 27) * 1.5) ** 2 + ((j - 22) * 1.5) ** 2 + ((k - 9) * 3) ** 2 < 8**2] = 7
    return labels


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 10_000), tumour=st.booleans())
def test_wrong_in_one_structure_and_counted_to_the_voxel(seed: int, tumour: bool) -> None:
    """Only the named structure differs; the count is the difference; never a trifle, never the whole of it."""
    right = truth(tumour)
    kept = right.copy()
    wrong = make_wrong(right, STRUCTURES, SPACING, np.random.default_rng(seed))
    assert wrong is not None and wrong.kind in KINDS and wrong.labels.dtype == np.uint8
    np.testing.assert_array_equal(right, kept)
    value = {s.name: s.value for s in STRUCTURES}[wrong.structure]
    different = wrong.labels != right
    assert wrong.wrong_voxels == different.sum() >= FEWEST_VOXELS
    assert different.sum() <= LARGEST_SHARE * (right == value).sum()
    assert set(np.unique(np.concatenate([right[different], wrong.labels[different]]))) <= {0, value}
    again = make_wrong(truth(tumour), STRUCTURES, SPACING, np.random.default_rng(seed))
    assert again is not None and np.array_equal(again.labels, wrong.labels)


def test_every_kind_comes_up_and_every_structure() -> None:
    """Over seeds nothing is favoured so much that something is never drawn."""
    found = [make_wrong(truth(), STRUCTURES, SPACING, np.random.default_rng(seed)) for seed in range(150)]
    assert {w.kind for w in found if w} == set(KINDS) and {w.structure for w in found if w} == {"kidney", "tumour"}


@pytest.mark.parametrize("kind", ["grown", "shrunk"])
def test_borders_move_by_more_than_the_tolerance(kind: str) -> None:
    """By an independent measure: a chord along the first axis grows or shrinks by over twice the tolerance."""
    mask = truth(tumour=False) == 3
    changed = KINDS[kind](mask, 3.0, SPACING, np.random.default_rng(1))
    chord = [int(m[:, 22, 9].sum()) * SPACING[0] for m in (mask, changed)]
    assert (chord[1] - chord[0]) * (1 if kind == "grown" else -1) > 2 * 3.0


def test_displaced_is_the_same_shape_elsewhere() -> None:
    """Its centre moves by twice the tolerance at least, its volume does not change."""
    mask = truth(tumour=False) == 3
    moved = KINDS["displaced"](mask, 3.0, SPACING, np.random.default_rng(4))
    shift = (np.argwhere(moved).mean(axis=0) - np.argwhere(mask).mean(axis=0)) * SPACING
    assert moved.sum() == mask.sum() and np.linalg.norm(shift) > 2 * 3.0 - max(SPACING)


def test_an_exam_that_shows_nothing_is_no_seed() -> None:
    """Empty labels, or a speck, cannot be made wrong in a way that anybody should notice."""
    empty = np.zeros((8, 8, 8), np.uint8)
    assert make_wrong(empty, STRUCTURES, SPACING, np.random.default_rng(0)) is None
    empty[4, 4, 4] = 3
    assert make_wrong(empty, STRUCTURES, SPACING, np.random.default_rng(0)) is None


@settings(max_examples=30, deadline=None)
@given(assisted=st.integers(0, 60), share=st.floats(0, 0.2))
def test_the_planned_share_is_kept_on_average(assisted: int, share: float) -> None:
    """Never further from share × exams than rounding, and right on average."""
    found = [how_many(assisted, share, np.random.default_rng(seed)) for seed in range(200)]
    assert all(abs(n - share * assisted) < 1 for n in found)
    assert np.mean(found) == pytest.approx(share * assisted, abs=0.15)


def test_readers_are_told_where_there_are_any() -> None:
    """The sentence stands with the work exactly where the share is not zero."""
    readers = ({"id": "r"},)
    assert notes(Dispatch(readers=readers)) == []
    assert notes(Dispatch(readers=readers, seeded_errors={"share": 0.05})) == [DISCLOSURE]
