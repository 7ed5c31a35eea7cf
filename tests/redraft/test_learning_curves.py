"""Learning-curve summaries against golden values and known winners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.errors import UsageError
from redraft.learning_curves import aubc, foreground_efficiency, pairwise_penalty


def test_aubc_golden_value() -> None:
    """The field's golden value: equally spaced .5 .6 .7 .72 .74 has area .66."""
    assert aubc([1, 2, 3, 4, 5], [0.5, 0.6, 0.7, 0.72, 0.74]) == pytest.approx(0.66)


@given(st.floats(0, 1), st.lists(st.floats(0.1, 50), min_size=1, max_size=8))
def test_constant_curve_returns_its_value(value: float, steps: list[float]) -> None:
    """Whatever the budgets, a constant curve's area is its value."""
    x = np.concatenate([[0], np.cumsum(steps)])
    assert aubc(x, np.full(x.size, value)) == pytest.approx(value)


def test_curve_must_be_increasing_in_budget() -> None:
    """Equal or falling budgets are refused."""
    for x in ([1, 1], [2, 1], [1]):
        with pytest.raises(UsageError):
            aubc(x, [0.5] * len(x))


def test_pairwise_penalty_names_the_winner() -> None:
    """A clear winner beats the loser at every budget; equal methods do not beat each other."""
    rng = np.random.default_rng(0)
    base = 0.6 + 0.01 * rng.standard_normal((5, 4))
    result = pairwise_penalty({"good": base + 0.1 + 0.001 * rng.standard_normal((5, 4)), "bad": base, "same": base})
    good, bad, same = range(3)
    assert result.matrix[good][bad] == pytest.approx(1.0) and result.matrix[bad][good] == 0
    assert result.matrix[bad][same] == result.matrix[same][bad] == 0
    assert result.penalty[good] == 0 and result.penalty[bad] == pytest.approx(0.5)
    assert "row" in result.direction


def test_pairwise_penalty_is_paired_by_seed() -> None:
    """A small gain that every seed shows counts, although seeds differ far more than methods."""
    seeds = np.array([[0.2], [0.5], [0.8]])
    gain = np.array([[0.010], [0.011], [0.0105]])
    assert pairwise_penalty({"a": seeds + gain, "b": seeds}).matrix[0][1] == 1.0


def test_pairwise_penalty_needs_two_seeds() -> None:
    """One seed has no spread to test against."""
    with pytest.raises(UsageError):
        pairwise_penalty({"a": np.ones((1, 3)), "b": np.ones((1, 3))})


def test_efficiency_fit_finds_its_own_parameters() -> None:
    """Noise-free curves give back plateau, gap and rate, on minutes as on money."""
    for scale in (1.0, 100.0):
        x = np.linspace(10, 500, 9) * scale
        fit = foreground_efficiency(x, 0.8 - 0.3 * np.exp(-0.01 / scale * (x - x[0])))
        assert (fit.c, fit.a) == pytest.approx((0.8, 0.3), abs=1e-6)
        assert fit.beta == pytest.approx(0.01 / scale, rel=1e-4)
        assert fit.rmse < 1e-8
