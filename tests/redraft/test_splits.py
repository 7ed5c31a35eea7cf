"""Splits are drawn once per subject, follow from who is there and the seed alone, and keep their minimum counts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from redraft.config.schema import Splits
from redraft.errors import StateError
from redraft.splits import POOL, TEST, VALIDATION, draw_splits

SUBJECTS = st.dictionaries(
    st.text("abcdef0123456789", min_size=1, max_size=6), st.sampled_from("CMP"), min_size=12, max_size=60
)
CONFIGS = st.builds(
    Splits,
    validation=st.floats(0, 0.3),
    test=st.floats(0.01, 0.5),
    min_validation=st.integers(1, 5),
    min_test=st.integers(1, 6),
)
SEEDS = st.integers(0, 2**32)
CHECK = settings(max_examples=150, deadline=None)


def draw(strata: dict[str, str], drawn: dict[str, str], config: Splits, seed: int) -> dict[str, str]:
    """Everyone's split after a draw; discards the examples for which there are too few subjects."""
    try:
        return {**drawn, **draw_splits(strata, drawn, config, seed)}
    except StateError:
        assume(False)
        raise


@given(SUBJECTS, CONFIGS, SEEDS)
@CHECK
def test_everyone_gets_one_split_and_quotas_hold(strata: dict[str, str], config: Splits, seed: int) -> None:
    """Exactly the quota is drawn: the share of all subjects, at least the minimum, and the pool is never empty."""
    count = Counter(draw(strata, {}, config, seed).values())
    assert sum(count.values()) == len(strata)
    assert set(count) <= {POOL, TEST, VALIDATION}
    assert count[TEST] == max(config.min_test, round(config.test * len(strata)))
    assert count[VALIDATION] == max(config.min_validation, round(config.validation * len(strata)))
    assert count[POOL] >= 1


@given(SUBJECTS, CONFIGS, SEEDS, st.randoms())
@CHECK
def test_the_order_of_arrival_plays_no_part(strata: dict[str, str], config: Splits, seed: int, chance) -> None:
    """The same subjects in another order get the same splits."""
    turned = list(strata.items())
    chance.shuffle(turned)
    assert draw(strata, {}, config, seed) == draw(dict(turned), {}, config, seed)


@given(SUBJECTS, SUBJECTS, CONFIGS, SEEDS)
@CHECK
def test_what_was_drawn_is_never_drawn_again(
    first: dict[str, str], later: dict[str, str], config: Splits, seed: int
) -> None:
    """A later draw answers for new subjects only, whatever came in and whatever it does to the quotas."""
    drawn = draw(first, {}, config, seed)
    everyone = {**later, **first}
    try:
        new = draw_splits(everyone, drawn, config, seed)
    except StateError:
        assume(False)
    assert set(new) == set(everyone) - set(first)
    count = Counter({**drawn, **new}.values())
    assert count[TEST] >= config.min_test and count[VALIDATION] >= config.min_validation


@given(SUBJECTS, CONFIGS, SEEDS)
@CHECK
def test_a_second_draw_of_the_same_subjects_is_empty(strata: dict[str, str], config: Splits, seed: int) -> None:
    """Nothing changes when nobody is new, with another seed neither."""
    drawn = draw(strata, {}, config, seed)
    assert draw_splits(strata, drawn, config, seed) == {}
    assert draw_splits(strata, drawn, config, seed + 1) == {}


@given(st.integers(0, 30), CONFIGS)
@CHECK
def test_too_few_subjects_are_refused(count: int, config: Splits) -> None:
    """Below the minimum counts and one pool subject nothing is drawn, and the reason has a code of its own."""
    strata = {f"s{n}": "CT" for n in range(count)}
    need = config.min_test + config.min_validation + 1
    if count < need:
        with pytest.raises(StateError) as caught:
            draw_splits(strata, {}, config, 1)
        assert caught.value.code == "state.too_few_subjects"
    else:
        try:
            draw_splits(strata, {}, config, 1)
        except StateError as error:
            assert error.code != "state.too_few_subjects"


def test_shares_that_leave_no_pool_are_refused() -> None:
    """Validation and test never take everyone."""
    with pytest.raises(StateError):
        draw_splits({f"s{n}": "CT" for n in range(20)}, {}, Splits(validation=0.5, test=0.5), 1)


@given(st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 40), min_size=1), SEEDS)
@CHECK
def test_every_stratum_is_drawn_in_proportion(sizes: dict[str, int], seed: int) -> None:
    """In a first draw every stratum is less than two subjects from its share of the test set.

    Rules that divide by shares are unbiased but can miss a quota by a little more than one when there are few strata.
    """
    strata = {f"{name}{n}": name for name, size in sizes.items() for n in range(size)}
    drawn = draw(strata, {}, Splits(validation=0.1, test=0.3, min_validation=1, min_test=1), seed)
    tested = Counter(strata[subject] for subject, split in drawn.items() if split == TEST)
    for name, size in sizes.items():
        assert abs(tested[name] - size * sum(tested.values()) / len(strata)) < 2.0, (sizes, tested)


def test_seeds_draw_different_subjects() -> None:
    """Over many seeds every subject is tested about as often as its share says (4 standard errors)."""
    strata = {f"s{n}": "CT" for n in range(20)}
    config = Splits(validation=0.1, test=0.25, min_validation=1, min_test=1)
    runs = 600
    tested = Counter(
        subject
        for seed in range(runs)
        for subject, split in draw_splits(strata, {}, config, seed).items()
        if split == TEST
    )
    error = (0.25 * 0.75 * runs) ** 0.5
    assert all(abs(tested[subject] - 0.25 * runs) < 4 * error for subject in strata), tested


def test_new_subjects_fill_up_the_reference_sets() -> None:
    """When the project grows the test set grows with it, out of new subjects."""
    config = Splits(validation=0.1, test=0.2, min_validation=2, min_test=4)
    first = {f"a{n}": "CT" for n in range(20)}
    drawn = draw_splits(first, {}, config, 7)
    new = draw_splits({**first, **{f"b{n}": "CT" for n in range(20)}}, drawn, config, 7)
    assert Counter(drawn.values()) == {TEST: 4, VALIDATION: 2, POOL: 14}
    assert Counter(new.values()) == {TEST: 4, VALIDATION: 2, POOL: 14}
