"""Strategies are pure: weights are a distribution, utilities follow the scores, explanations hold the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.errors import StateError
from tasks.select.strategies import STRATEGIES, Candidate, entropy, fg_random, random


def exams(
    volumes: list[int], borders: list[int] | None = None, entropies: list[float] | None = None
) -> list[Candidate]:
    """Candidates with the given drafts."""
    borders, entropies = borders or volumes, entropies or [0.1] * len(volumes)
    return [
        Candidate(f"e{i}", f"s{i}", {"foreground_voxels": v, "border_voxels": b, "entropy_region": h}, "c", 20.0)
        for i, (v, b, h) in enumerate(zip(volumes, borders, entropies, strict=True))
    ]


def test_random_is_flat_and_needs_no_draft() -> None:
    """Every exam has the same weight, with or without scores."""
    weights = random([Candidate(f"e{i}", "s", None, None, 20.0) for i in range(7)]).weights
    assert weights is not None
    np.testing.assert_allclose(weights, 1 / 7)


def test_foreground_random_mixes_four_to_one_to_one() -> None:
    """4/6 anywhere, 1/6 by foreground, 1/6 by border, as published."""
    weights = fg_random(exams([300, 100, 0], [10, 0, 30])).weights
    assert weights is not None
    np.testing.assert_allclose(weights, np.array([4, 4, 4]) / 18 + np.array([3, 1, 0]) / 24 + np.array([1, 0, 3]) / 24)


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6)), min_size=1, max_size=60))
def test_foreground_random_is_a_distribution_that_leaves_nobody_out(drafts: list[tuple[int, int]]) -> None:
    """Weights add up to 1 and an exam with an empty draft keeps two thirds of its flat share, however few have one."""
    weights = fg_random(exams([v for v, _ in drafts], [b for _, b in drafts])).weights
    assert weights is not None
    assert weights.sum() == pytest.approx(1) and weights.min() >= 4 / 6 / len(drafts) - 1e-12


def test_foreground_random_over_empty_drafts_is_random() -> None:
    """Where no draft shows anything, every exam is alike."""
    weights = fg_random(exams([0, 0, 0, 0])).weights
    assert weights is not None
    np.testing.assert_allclose(weights, 0.25)


def test_entropy_is_greedy_on_its_score() -> None:
    """The utility is the recorded score, nothing is left to chance, and the explanation gives it in nats."""
    found = entropy(exams([1, 1, 1], entropies=[0.2, 0.9, 0.5]))
    assert found.weights is None
    np.testing.assert_array_equal(found.order_by, [0.2, 0.9, 0.5])
    assert found.explain(1)["entropy_nats"] == 0.9


@pytest.mark.parametrize("name", ["fg_random", "entropy"])
@pytest.mark.parametrize("scores", [None, {}])
def test_a_missing_score_is_named(name: str, scores: dict[str, float] | None) -> None:
    """Strategies that read drafts refuse an exam without one and name it."""
    with pytest.raises(StateError, match="bare"):
        STRATEGIES[name]([*exams([1]), Candidate("bare", "s", scores, "c", 20.0)])
