"""Uncertainty against golden values, scipy and its own algebra."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from models.uncertainty import bald, class_entropy, expected_entropy, predictive_entropy, summarise

GOLDEN = np.array([[0.9, 0.1], [0.5, 0.5]])


def test_golden_values() -> None:
    """The published example of two members: (.9, .1) and (.5, .5)."""
    assert float(predictive_entropy(GOLDEN)) == pytest.approx(0.6108643, abs=1e-7)
    assert float(expected_entropy(GOLDEN)) == pytest.approx(0.5091151, abs=1e-7)
    assert float(bald(GOLDEN)) == pytest.approx(0.1017492, abs=1e-7)
    np.testing.assert_allclose(class_entropy(GOLDEN), [0.4276050, 0.1832593], atol=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
def test_algebra(count: int, classes: int, seed: int, kind: type) -> None:
    """Entropies equal scipy's; 0 <= BALD <= PE <= log C; the class entropies sum to PE."""
    rng = np.random.default_rng(seed)
    members = rng.dirichlet(np.full(classes, 0.3), size=(count, 6)).transpose(0, 2, 1).astype(kind)
    tolerance = 1e-5 if kind is np.float32 else 1e-9
    whole = predictive_entropy(members)
    np.testing.assert_allclose(whole, scipy_entropy(members.mean(axis=0), axis=0), atol=tolerance)
    np.testing.assert_allclose(expected_entropy(members), scipy_entropy(members, axis=1).mean(axis=0), atol=tolerance)
    assert (bald(members) >= 0).all() and (bald(members) <= whole + tolerance).all()
    assert (whole <= np.log(classes) + tolerance).all()
    np.testing.assert_allclose(class_entropy(members).sum(axis=0), whole, atol=tolerance)


@given(st.integers(1, 5), st.integers(0, 1000))
def test_members_that_agree_carry_no_information(count: int, seed: int) -> None:
    """BALD of identical members is zero."""
    one = np.random.default_rng(seed).dirichlet((1, 1, 1), size=5).T
    np.testing.assert_allclose(bald(np.stack([one] * count)), 0, atol=1e-12)


def test_certainty_has_no_entropy() -> None:
    """Probabilities of exactly 0 and 1 give zero, not a logarithm of nothing."""
    assert float(predictive_entropy(np.array([[1.0, 0.0]]))) == 0.0


def test_summary_counts_and_measures() -> None:
    """Volumes, borders and regional means of a cube in which two members disagree."""
    members = np.zeros((2, 2, 12, 12, 12), np.float32)
    members[:, 0] = 1
    inside = (slice(3, 7),) * 3
    for member, value in ((0, 0.9), (1, 0.5)):
        members[(member, 1, *inside)], members[(member, 0, *inside)] = value, 1 - value
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[inside] = 9
    scores = summarise(members, labels, {"cube": 9}, voxel_ml=0.5)
    assert scores["foreground_voxels"] == 64 and scores["border_voxels"] == 64 - 8
    assert scores["structures"]["cube"]["volume_ml"] == 32.0  # type: ignore[index]
    assert scores["entropy_image"] == pytest.approx(0.6108643 * 64 / 12**3, rel=1e-5)
    # Two voxels around a cube of edge 4, by faces: 64 + 2·(6·16) + what the second step adds along the edges.
    grown = 64 + 2 * 96 + 12 * 4
    assert scores["entropy_region"] == pytest.approx(0.6108643 * 64 / grown, rel=1e-5)
    assert scores["bald_region"] == pytest.approx(0.1017492 * 64 / grown, rel=1e-5)
    assert scores["structures"]["cube"]["class_entropy"] == pytest.approx(0.4276050 * 64 / grown, rel=1e-5)  # type: ignore[index]
    slices = scores["entropy_slices"]
    assert isinstance(slices, list) and len(slices) == 12
    assert slices[2] == 0 and slices[3] == pytest.approx(0.6108643 * 16 / 144, rel=1e-5)


def test_summary_without_foreground_is_the_whole_exam() -> None:
    """Where nothing is predicted, the region is the exam, so that an overlooked organ can still be chosen."""
    members = np.full((2, 2, 4, 4, 4), 0.5, np.float32)
    scores = summarise(members, np.zeros((4, 4, 4), np.uint8), {"cube": 1}, voxel_ml=1.0)
    assert scores["entropy_region"] == scores["entropy_image"] == pytest.approx(np.log(2), rel=1e-5)
