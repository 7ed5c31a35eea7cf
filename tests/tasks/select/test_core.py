"""Spending the budget: what is bought, why it says so, and that every recorded probability is the true one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from redraft.config.schema import Budget, Select
from redraft.errors import StateError
from tasks.select.core import Chosen, select
from tasks.select.strategies import STRATEGIES, Candidate, Rework

CHAMPION = "c" * 64


def pool(n: int, *, minutes: float | list[float] = 20.0, champion: str | None = CHAMPION) -> list[Candidate]:
    """Exams e000, e001, … with rising entropy, and foreground in every second one."""
    per = minutes if isinstance(minutes, list) else [minutes] * n
    return [
        Candidate(
            f"e{i:03d}",
            f"s{i}",
            {"entropy_region": 0.01 * (i + 1), "foreground_voxels": 100 * (i % 2), "border_voxels": 30 * (i % 2)},
            champion,
            per[i],
        )
        for i in range(n)
    ]


def rules(strategy: str = "entropy", exams: int | None = 6, minutes: float | None = None, **more: Any) -> Select:
    return Select(strategy=strategy, budget=Budget(exams=exams, minutes=minutes), **more)  # type: ignore[arg-type]


def choose(candidates: list[Candidate], config: Select, seed: int = 0, champion: str | None = CHAMPION) -> list[Chosen]:
    return select(candidates, config, champion=champion, rng=np.random.default_rng(seed))


@settings(max_examples=150, deadline=None)
@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    minutes=st.lists(st.floats(1, 90), min_size=1, max_size=25),
    budget=st.one_of(st.integers(1, 30), st.floats(91, 900)),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_the_budget_is_kept_and_used(
    strategy: str, minutes: list[float], budget: int | float, share: float, seed: int
) -> None:
    """Never more than the budget, no exam twice, and nothing affordable is left over; ranks count from 1."""
    candidates = pool(len(minutes), minutes=minutes)
    by_exams = isinstance(budget, int)
    config = rules(strategy, budget if by_exams else None, None if by_exams else budget, control_share=share)  # type: ignore[arg-type]
    chosen = choose(candidates, config, seed)
    names = [item.exam_id for item in chosen]
    assert len(set(names)) == len(names) and [item.rank for item in chosen] == list(range(1, len(names) + 1))
    cost = {c.exam_id: 1.0 if by_exams else c.expected_minutes for c in candidates}
    left = budget - sum(cost[name] for name in names)
    assert left >= -1e-6
    assert all(price > left - 1e-6 for name, price in cost.items() if name not in names)


@pytest.mark.parametrize(("exams", "share", "controls"), [(10, 0.2, 2), (10, 0.0, 0), (10, 1.0, 10), (5, 0.5, 2)])
def test_controls_are_their_share_of_the_budget(exams: int, share: float, controls: int) -> None:
    """Control exams are the configured share (rounded), come first and say so."""
    chosen = choose(pool(40), rules(exams=exams, control_share=share))
    assert [item.chosen_by for item in chosen] == ["control"] * controls + ["strategy"] * (exams - controls)


def test_controls_of_a_budget_in_minutes_are_their_share_of_it() -> None:
    """200 minutes at 20 each are ten exams, two of them controls."""
    chosen = choose(pool(40), rules(exams=None, minutes=200.0, control_share=0.2))
    assert Counter(item.chosen_by for item in chosen) == {"control": 2, "strategy": 8}


def test_a_budget_beyond_the_pool_leaves_the_strategy_its_part() -> None:
    """With money for 100 exams and ten in the pool, a fifth of the ten is control, not all of them."""
    for config in (rules(exams=100, control_share=0.2), rules(exams=None, minutes=2000.0, control_share=0.2)):
        assert Counter(item.chosen_by for item in choose(pool(10), config)) == {"control": 2, "strategy": 8}


def test_the_control_draw_does_not_see_the_strategy() -> None:
    """The same seed draws the same controls whatever the strategy and the scores are."""
    drawn = set()
    for strategy in STRATEGIES:
        chosen = choose(pool(30), rules(strategy, control_share=0.5), seed=4)
        drawn.add(tuple(item.exam_id for item in chosen if item.chosen_by == "control"))
    assert len(drawn) == 1


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(18)), strategy=st.sampled_from(sorted(STRATEGIES)), seed=st.integers(0, 100))
def test_the_order_of_the_candidates_plays_no_part(order: list[int], strategy: str, seed: int) -> None:
    """The same exams in any order give the same selection, modes and explanations included."""
    candidates = pool(18)
    config = rules(strategy, control_share=0.34, from_scratch_probability=0.4)
    assert choose([candidates[i] for i in order], config, seed) == choose(candidates, config, seed)


def test_entropy_takes_the_most_uncertain_and_ties_go_by_exam_id() -> None:
    """Highest score first; equal scores in the order of exam ids, whatever order they came in."""
    chosen = choose(pool(20), rules(control_share=0.0))
    assert [item.exam_id for item in chosen] == [f"e{i:03d}" for i in range(19, 13, -1)]
    assert [item.score for item in chosen] == sorted((item.score for item in chosen), reverse=True)
    tied = [Candidate(c.exam_id, c.subject_id, {"entropy_region": 0.5}, CHAMPION, 20.0) for c in pool(20)][::-1]
    assert [item.exam_id for item in choose(tied, rules(control_share=0.0))] == [f"e{i:03d}" for i in range(6)]


def test_without_a_champion_everything_is_random_and_from_scratch() -> None:
    """On a cold start the strategy is not asked, no score is claimed, and no mode is drawn by chance."""
    candidates = [Candidate(c.exam_id, c.subject_id, None, None, 20.0) for c in pool(20)]
    chosen = choose(candidates, rules("entropy", from_scratch_probability=0.0), champion=None)
    assert {(i.strategy, i.mode, i.mode_probability, i.score) for i in chosen} == {
        ("random", "from_scratch", 1.0, None)
    }


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_choice_says_why(strategy: str) -> None:
    """The explanation names reason, rank and pool; what a strategy went by stands in it with its number."""
    facts = {
        "random": set(),
        "fg_random": {"foreground_voxels", "border_voxels", "weight"},
        "entropy": {"entropy_nats"},
    }
    by_id = {c.exam_id: c for c in pool(30)}
    for item in choose(pool(30), rules(strategy, control_share=0.34)):
        why = item.explanation
        assert why["sentence"].startswith(why["reason"]) and f"{item.rank} of 6 from a pool of 30" in why["sentence"]
        assert (why["rank"], why["pool"]) == (item.rank, 30)
        if item.chosen_by == "control":
            assert item.strategy == "random" and item.score is None and "control" in why["reason"]
            continue
        assert item.strategy == strategy and facts[strategy] <= set(why)
        scores = by_id[item.exam_id].scores
        assert scores is not None
        assert why.get("entropy_nats", scores["entropy_region"]) == pytest.approx(scores["entropy_region"])
        assert why.get("foreground_voxels", scores["foreground_voxels"]) == scores["foreground_voxels"]


def test_the_recorded_mode_probability_is_the_frequency() -> None:
    """Over many seeds the share worked from scratch is the configured one, for controls and strategy alike."""
    scratch = 0.3
    counts: Counter[tuple[str, str]] = Counter()
    for seed in range(1500):
        for item in choose(pool(12), rules("entropy", 4, control_share=0.5, from_scratch_probability=scratch), seed):
            counts[item.chosen_by, item.mode] += 1
            assert item.mode_probability == pytest.approx(scratch if item.mode == "from_scratch" else 1 - scratch)
    for by in ("control", "strategy"):
        seen = [counts[by, "from_scratch"], counts[by, "assisted"]]
        expected = [scratch * sum(seen), (1 - scratch) * sum(seen)]
        assert stats.chisquare(seen, expected).pvalue > 1e-4, seen


def test_modes_are_drawn_apart_from_the_choice() -> None:
    """Two exams of one round get their modes independently: all four pairs come as often as the product says."""
    pairs = Counter(
        tuple(
            item.mode for item in choose(pool(12), rules(exams=2, control_share=0.0, from_scratch_probability=0.5), s)
        )
        for s in range(1200)
    )
    assert len(pairs) == 4 and stats.chisquare(list(pairs.values())).pvalue > 1e-4


@pytest.mark.parametrize(("probability", "mode"), [(0.0, "assisted"), (1.0, "from_scratch")])
def test_a_certain_mode_is_certain(probability: float, mode: str) -> None:
    """Probabilities 0 and 1 leave nothing to chance and are recorded as certain."""
    chosen = choose(pool(30), rules(exams=20, from_scratch_probability=probability))
    assert {(item.mode, item.mode_probability) for item in chosen} == {(mode, 1.0)}


def frequencies(config: Select, n: int, repeats: int) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Per exam: how often control, how often chosen by the strategy where it was no control, and the mean recorded."""
    candidates = pool(n)
    control: Counter[str] = Counter()
    by_strategy: Counter[str] = Counter()
    recorded: dict[str, list[float]] = {}
    for seed in range(repeats):
        for item in choose(candidates, config, seed):
            if item.chosen_by == "control":
                control[item.exam_id] += 1
            else:
                by_strategy[item.exam_id] += 1
                recorded.setdefault(item.exam_id, []).append(item.inclusion_probability)
    names = [c.exam_id for c in candidates]
    return (
        {e: control[e] / repeats for e in names},
        {e: by_strategy[e] / (repeats - control[e]) for e in names},
        {e: float(np.mean(recorded[e])) for e in names if e in recorded},
    )


def test_inclusion_probabilities_of_random_draws_are_exact() -> None:
    """Controls: share of the pool. Random: share of what the controls left. Both as often as recorded (4.5 sigma)."""
    n, repeats = 20, 3000
    config = rules("random", 8, control_share=0.25)
    one = choose(pool(n), config)
    assert {i.inclusion_probability for i in one if i.chosen_by == "control"} == {2 / 20}
    assert {i.inclusion_probability for i in one if i.chosen_by == "strategy"} == {round(6 / 18, 6)}
    control, strategy, _ = frequencies(config, n, repeats)
    for found, expected in ((control, 2 / 20), (strategy, 6 / 18)):
        sigma = np.sqrt(expected * (1 - expected) / repeats)
        assert max(abs(value - expected) for value in found.values()) < 4.5 * sigma / np.sqrt(0.9)


@pytest.mark.parametrize("exams", [3, 8, 14])
def test_inclusion_probabilities_of_weighted_draws_match_simulation(exams: int) -> None:
    """fg_random draws exams with foreground more often, and each as often as its record says, within 0.03."""
    _, found, recorded = frequencies(rules("fg_random", exams, control_share=0.0), 16, 3000)
    assert max(abs(found[exam] - recorded[exam]) for exam in found) < 0.03
    assert sum(recorded.values()) == pytest.approx(exams, abs=1e-3)
    assert min(found[f"e{i:03d}"] for i in range(1, 16, 2)) > max(found[f"e{i:03d}"] for i in range(0, 16, 2))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_who_takes_the_whole_pool_includes_everybody_for_certain(strategy: str) -> None:
    """Where the budget covers the pool, every inclusion probability of the strategy is 1."""
    chosen = choose(pool(9), rules(strategy, 9, control_share=0.0))
    assert len(chosen) == 9 and {item.inclusion_probability for item in chosen} == {1.0}


def test_what_cannot_be_selected_is_said() -> None:
    """An empty pool, scores of another model, missing scores and a budget below one exam are refused with a remedy."""
    cases: list[tuple[list[Candidate], Select, str | None]] = [
        ([], rules(), "state.pool_empty"),
        ([*pool(3), Candidate("old", "s", {"entropy_region": 1.0}, "b" * 64, 20.0)], rules(), "state.stale_scores"),
        ([Candidate("bare", "s", {}, CHAMPION, 20.0)], rules(control_share=0.0), None),
        (pool(3), rules(exams=None, minutes=19.0), None),
    ]
    for candidates, config, code in cases:
        with pytest.raises(StateError) as caught:
            choose(candidates, config)
        assert caught.value.do and (code is None or caught.value.code == code)


def test_exams_that_were_sent_back_come_first() -> None:
    """All of them while the budget lasts, the longest waiting first, at probability 1 and at the budget's cost; they
    are no part of the pool that controls stand for."""
    candidates = pool(10)
    back = {"e003": Rework(4, "draft_unusable_redo", True), "e007": Rework(2, "draft_unusable_redo", False)}
    candidates = [replace(c, rework=back.get(c.exam_id)) for c in candidates]
    chosen = choose(candidates, rules(exams=6, control_share=0.5, from_scratch_probability=0.0))
    assert [(c.exam_id, c.chosen_by, c.inclusion_probability) for c in chosen[:2]] == [
        ("e007", "rework", 1.0), ("e003", "rework", 1.0),
    ]  # fmt: skip
    assert [c.mode for c in chosen[:2]] == ["assisted", "from_scratch"] and chosen[1].mode_probability == 1.0
    assert len(chosen) == 6 and "sent back in round 2 (draft_unusable_redo)" in chosen[0].explanation["sentence"]
    controls = [c for c in chosen if c.chosen_by == "control"]
    assert len(controls) == 2 and all(c.inclusion_probability == 2 / 8 for c in controls)
    only = choose(candidates, rules(exams=1))
    assert [c.exam_id for c in only] == ["e007"]
