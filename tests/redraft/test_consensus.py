"""Several readings of one exam: consensus against independent computations, and what must hold whatever they are."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from redraft.agreement import disputed, lowest, pairwise
from redraft.config.schema import Structure
from redraft.consensus import consensus, disagreement, majority, staple, staple_probability
from redraft.errors import LabelError

Labels = NDArray[np.uint8]
SHAPE = (5, 4, 3)
STRUCTURES = (
    Structure(name="kidney", value=1, kind="organ", tolerance_mm=2.0),  # type: ignore[arg-type]
    Structure(name="tumor", value=2, kind="tumor", tolerance_mm=2.0),  # type: ignore[arg-type]
)


def readings(count: int, values: int = 3) -> st.SearchStrategy[list[Labels]]:
    """Any labels of this many readers."""
    one = arrays(np.uint8, SHAPE, elements=st.integers(0, values - 1))
    return st.lists(one, min_size=count, max_size=count)


def sloppy(count: int, errors: float, seed: int) -> list[Labels]:
    """Readings of one truth (two structures) with voxels wrong at random."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((14, 12, 10), np.uint8)
    truth[3:10, 3:9, 2:8] = 1
    truth[5:8, 5:8, 4:7] = 2
    found = []
    for _ in range(count):
        label = truth.copy()
        wrong = rng.random(label.shape) < errors
        label[wrong] = rng.integers(0, 3, int(wrong.sum()))
        found.append(label)
    return found


@settings(max_examples=60, deadline=None)
@given(readings(3))
def test_majority_of_three_is_the_mode_of_each_voxel(given_: list[Labels]) -> None:
    """Counted voxel by voxel in plain Python; of tied values the smallest."""
    found = majority(given_)
    for place in np.ndindex(SHAPE):
        votes = Counter(int(reading[place]) for reading in given_)
        most = max(votes.values())
        assert found[place] == min(value for value, count in votes.items() if count == most)


@settings(max_examples=40, deadline=None)
@given(readings(4))
def test_who_came_first_changes_nothing(given_: list[Labels]) -> None:
    """Majority, STAPLE and the map are the same to the last voxel for any order of the readers."""
    for method in (majority, lambda r: staple(r, [1, 2]), disagreement):
        first = method(given_)
        for order in list(permutations(range(4)))[::5]:
            np.testing.assert_array_equal(method([given_[n] for n in order]), first)


@settings(max_examples=30, deadline=None)
@given(readings(1), st.integers(2, 5))
def test_readers_who_agree_are_the_consensus(one: list[Labels], count: int) -> None:
    """Identical readings give themselves, and no voxel of the map is in dispute."""
    same = [one[0]] * count
    np.testing.assert_array_equal(staple(same, [1, 2]), one[0])
    np.testing.assert_array_equal(majority(same), one[0])
    assert not disagreement(same).any()


@settings(max_examples=40, deadline=None)
@given(readings(3))
def test_the_map_counts_different_values(given_: list[Labels]) -> None:
    """Per voxel the size of the set of votes, less one."""
    found = disagreement(given_)
    for place in np.ndindex(SHAPE):
        assert found[place] == len({int(reading[place]) for reading in given_}) - 1


@settings(max_examples=30, deadline=None)
@given(readings(3))
def test_where_all_agree_so_does_the_consensus(given_: list[Labels]) -> None:
    """Voxels on which all agree keep their value, and no voxel gets a structure that nobody drew there."""
    together = disagreement(given_) == 0
    for method in ("staple", "majority"):
        label = consensus(given_, [1, 2], method)  # type: ignore[arg-type]
        np.testing.assert_array_equal(label[together], given_[0][together])
        stack = np.stack(given_)
        assert all(label[p] == 0 or label[p] in stack[(slice(None), *p)] for p in np.ndindex(SHAPE))


def em(masks: list[NDArray[np.bool_]], rounds: int = 200) -> NDArray[np.float64]:
    """STAPLE written down from the paper (Warfield 2004, equations 13, 18, 19), with the global prior."""
    votes = np.stack([mask.ravel() for mask in masks]).astype(float)
    prior = votes.mean()
    p, q = np.full(len(masks), 0.99999), np.full(len(masks), 0.99999)
    for _ in range(rounds):
        a = prior * np.prod(np.where(votes == 1, p[:, None], 1 - p[:, None]), axis=0)
        b = (1 - prior) * np.prod(np.where(votes == 0, q[:, None], 1 - q[:, None]), axis=0)
        w = a / (a + b)
        p, q = (votes * w).sum(axis=1) / w.sum(), ((1 - votes) * (1 - w)).sum(axis=1) / (1 - w).sum()
    return w.reshape(masks[0].shape)


@pytest.mark.parametrize(("count", "errors", "seed"), [(3, 0.05, 0), (3, 0.2, 1), (5, 0.1, 2), (5, 0.3, 3)])
def test_staple_is_the_paper_s(count: int, errors: float, seed: int) -> None:
    """SimpleITK's probabilities are those of an EM of our own, to 0.001."""
    masks = [reading == 1 for reading in sloppy(count, errors, seed)]
    np.testing.assert_allclose(staple_probability(masks), em(masks), atol=1e-3)


def test_staple_trusts_the_better_readers() -> None:
    """Two careful readers outvote three careless ones who err alike; the majority follows the three."""
    truth = sloppy(1, 0.0, 0)[0]
    bad = truth.copy()
    bad[3:10, 3:9, 2] = 0
    rng = np.random.default_rng(4)
    careless = []
    for _ in range(3):
        label = bad.copy()
        noise = rng.random(label.shape) < 0.25
        label[noise] = np.where(label[noise] == 1, 0, 1)
        careless.append(label)
    found = staple([truth, truth.copy(), *careless], [1, 2])
    assert (found != truth).sum() < (majority([truth, truth.copy(), *careless]) != truth).sum()


def test_the_field_of_view_plays_no_part() -> None:
    """Empty slices around an exam leave its consensus as it was."""
    given_ = sloppy(3, 0.02, 5)
    inside = [r * (np.indices(r.shape).min(axis=0) >= 2) for r in given_]
    wide = [np.pad(r.astype(np.uint8), 20) for r in inside]
    core = (slice(20, -20),) * 3
    small = [np.pad(r.astype(np.uint8), 4) for r in inside]
    np.testing.assert_array_equal(staple(wide, [1, 2])[core], staple(small, [1, 2])[(slice(4, -4),) * 3])


def test_what_cannot_be_put_together_is_refused() -> None:
    """One reading alone, or two grids."""
    one = np.zeros(SHAPE, np.uint8)
    for wrong in ([one], [one, np.zeros((2, 2, 2), np.uint8)]):
        with pytest.raises(LabelError):
            consensus(wrong, [1], "staple")


def test_agreement_of_known_shapes() -> None:
    """Dice of two shifted boxes by hand; what one reader drew alone is 0, what nobody drew is None."""
    a, b = np.zeros((12, 8, 8), np.uint8), np.zeros((12, 8, 8), np.uint8)
    a[2:6, 2:6, 2:6], b[3:7, 2:6, 2:6] = 1, 1
    (kidney, tumor) = pairwise({"n2": b, "n1": a}, (1.0, 1.0, 1.0), STRUCTURES)
    assert (kidney.first_id, kidney.second_id, kidney.dice) == ("n1", "n2", 0.75) and kidney.surface_dice == 1.0
    assert (tumor.dice, tumor.surface_dice) == (None, None)
    b[0, 0, 0] = 2
    pairs = pairwise({"n1": a, "n2": b}, (1.0, 1.0, 1.0), STRUCTURES)
    assert pairs[1].dice == 0.0 and lowest(pairs)["tumor"]["surface_dice"] == 0.0


def test_what_calls_for_a_person() -> None:
    """Any pair below the bound in any structure; absence that all agree on does not, a structure of one reader does."""
    a = np.zeros((12, 8, 8), np.uint8)
    a[2:6, 2:6, 2:6] = 1
    b = np.roll(a, 1, axis=0)
    pairs = pairwise({"n1": a, "n2": a.copy(), "n3": b}, (1.0, 1.0, 1.0), STRUCTURES)
    assert disputed(pairs, 0.75) == [] and disputed(pairs, 0.76) == ["kidney"] and disputed(pairs, 0.0) == []
    b[11, 7, 7] = 2
    assert disputed(pairwise({"n1": a, "n2": b}, (1.0, 1.0, 1.0), STRUCTURES), 0.5) == ["tumor"]
