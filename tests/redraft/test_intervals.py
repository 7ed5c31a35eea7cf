"""Intervals against scipy, by simulated coverage, and where there is nothing to estimate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.errors import UsageError
from redraft.intervals import Design, bca, bca_interval


@pytest.mark.parametrize("seed", range(3))
def test_unclustered_interval_agrees_with_scipy(seed: int) -> None:
    """Skewed data, every value its own cluster: the bounds are scipy's BCa bounds up to resampling noise."""
    from scipy.stats import bootstrap

    values = np.random.default_rng(seed).exponential(1.0, 40)
    ours = bca_interval(values, resamples=100_000, seed=seed, expand=False)
    theirs = bootstrap(
        (values,), np.mean, method="BCa", n_resamples=100_000, batch=20_000, rng=seed
    ).confidence_interval
    assert ours.lo == pytest.approx(theirs.low, abs=0.02)
    assert ours.hi == pytest.approx(theirs.high, abs=0.02)
    assert ours.mean == pytest.approx(values.mean())


def test_two_sample_difference_agrees_with_scipy() -> None:
    """A difference of two arms, resampled within arms, is scipy's two-sample BCa up to resampling noise."""
    from scipy.stats import bootstrap

    rng = np.random.default_rng(5)
    a, b = rng.exponential(2.0, 25), rng.exponential(1.0, 40)
    values, first = np.concatenate([a, b]), np.arange(65) < 25

    def difference(counts: np.ndarray) -> np.ndarray:
        return counts @ (values * first) / (counts @ first) - counts @ (values * ~first) / (counts @ ~first)

    design = Design(tuple(range(65)), tuple(bool(f) for f in first))
    ours = bca(difference, design, resamples=20_000, confidence=0.95, seed=1, expand=False)
    theirs = bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis), method="BCa", n_resamples=20_000, rng=1
    ).confidence_interval
    assert ours.lo == pytest.approx(theirs.low, abs=0.05)
    assert ours.hi == pytest.approx(theirs.high, abs=0.05)


def coverage(subjects: int, per_subject: int, clustered: bool, runs: int = 300, expand: bool = True) -> float:
    """Share of simulated data sets whose 95 % interval holds the true mean 0; values correlate within subjects."""
    rng = np.random.default_rng(11)
    hits = 0
    for run in range(runs):
        names = np.repeat(np.arange(subjects), per_subject)
        values = rng.standard_normal(subjects)[names] + 0.5 * rng.standard_normal(names.size)
        found = bca_interval(values, names.tolist() if clustered else None, resamples=500, seed=run, expand=expand)
        assert found.lo is not None and found.hi is not None
        hits += found.lo <= 0 <= found.hi
    return hits / runs


def test_clustered_interval_covers_and_the_naive_one_does_not() -> None:
    """Thirty subjects with four correlated exams: clustering covers about 95 %, ignoring it falls far short."""
    assert coverage(30, 4, clustered=True) > 0.90
    assert coverage(30, 4, clustered=False) < 0.80


def test_expanded_levels_repair_most_of_what_few_clusters_lose() -> None:
    """Six subjects: the plain 95 % interval covers far less than it says, the expanded one nearly does."""
    assert coverage(6, 2, clustered=True, expand=False) < 0.88
    assert coverage(6, 2, clustered=True) > 0.90


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9999])
def test_two_clusters_give_bounds_within_their_values(confidence: float) -> None:
    """However wide the level, a bound never leaves the resamples."""
    found = bca_interval([1.0, 3.0], confidence=confidence, seed=1)
    assert found.lo is not None and found.hi is not None and 1 <= found.lo <= found.hi <= 3


def test_two_level_interval_is_wider_than_exams_alone() -> None:
    """Readers that differ: resampling readers and their exams is wider than resampling exams."""
    rng = np.random.default_rng(3)
    readers = np.repeat(np.arange(8), 10)
    values = 3 * rng.standard_normal(8)[readers] + rng.standard_normal(80)
    two = bca_interval(values, readers.tolist(), within=True, seed=1)
    one = bca_interval(values, seed=1)
    assert two.method == "bca_clusters_then_units_expanded"
    assert two.hi - two.lo > 1.5 * (one.hi - one.lo)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("values", "clusters", "reason"),
    [
        ([], [], "no values"),
        ([3.0], ["a"], "fewer than two"),
        ([1.0, 2.0, 3.0], ["a", "a", "a"], "fewer than two"),
        ([2.0, 2.0, 2.0], ["a", "b", "c"], "equal"),
    ],
)
def test_what_cannot_be_estimated_is_said_so(values: list[float], clusters: list[str], reason: str) -> None:
    """Too few clusters or no spread: no bounds, `not_estimable` and a reason; the mean stays where there is one."""
    found = bca_interval(values, clusters)
    assert (found.lo, found.hi, found.p_negative, found.method) == (None, None, None, "not_estimable")
    assert reason in (found.reason or "")
    assert found.mean == (np.mean(values) if values else None)


def test_equal_cluster_means_are_not_estimable() -> None:
    """Values that differ only within clusters give resamples without spread."""
    found = bca_interval([1.0, 3.0, 1.0, 3.0], ["a", "a", "b", "b"])
    assert found.method == "not_estimable" and found.mean == 2


def test_statistic_that_mostly_does_not_exist_gives_no_interval() -> None:
    """An arm that most resamples miss is reported, not papered over."""
    values = np.array([1.0, 2.0, 3.0, 4.0])

    def only_first(counts: np.ndarray) -> np.ndarray:
        return counts[:, 0] * values[0] / counts[:, 0] + counts @ values

    found = bca(only_first, Design(("a", "b", "c", "d")), resamples=500, confidence=0.95, seed=1)
    assert found.method == "not_estimable" and "resamples" in (found.reason or "")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-100, 100), st.sampled_from("abcdef")), min_size=2, max_size=25),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_order_of_rows_does_not_matter(rows, random, within) -> None:  # type: ignore[no-untyped-def]
    """The same rows in another order give the same interval, and the same seed the same one again."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, two = (
        bca_interval([v for v, _ in r], [c for _, c in r], within=within, resamples=200, seed=4)
        for r in (rows, shuffled)
    )
    assert one == two
    if one.lo is not None and one.hi is not None:
        assert one.lo <= one.hi and 0 <= (one.p_negative or 0) <= 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=20, unique=True), st.floats(-5, 5), st.floats(0.5, 4))
def test_interval_moves_with_the_data(values: list[float], shift: float, scale: float) -> None:
    """Shifting and scaling the data shifts and scales the interval."""
    one = bca_interval(values, resamples=300, seed=2)
    two = bca_interval([scale * v + shift for v in values], resamples=300, seed=2)
    if one.lo is not None and two.lo is not None and two.hi is not None and one.hi is not None:
        assert two.lo == pytest.approx(scale * one.lo + shift, abs=1e-6)
        assert two.hi == pytest.approx(scale * one.hi + shift, abs=1e-6)


def test_share_of_resamples_below_zero() -> None:
    """Values around zero have about half of their resamples below it; positive ones none."""
    rng = np.random.default_rng(0)
    centred = rng.standard_normal(50)
    assert bca_interval(centred - centred.mean(), seed=1).p_negative == pytest.approx(0.5, abs=0.05)
    assert bca_interval(np.abs(centred) + 1, seed=1).p_negative == 0


def test_missing_values_are_refused() -> None:
    """NaN must be left out and counted by the caller, never averaged."""
    with pytest.raises(UsageError):
        bca_interval([1.0, float("nan")])
    with pytest.raises(UsageError):
        bca_interval([1.0, 2.0], ["a"])
