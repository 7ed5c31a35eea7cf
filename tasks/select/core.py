"""Spending a round's budget: a control draw, the strategy on the rest, then the mode by a recorded coin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from redraft.config.schema import Select
from redraft.errors import StateError
from tasks.select.strategies import STRATEGIES, Candidate, Utilities


class Chosen(BaseModel):
    """One chosen exam and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    exam_id: str
    rank: int
    chosen_by: Literal["strategy", "control", "rework"]
    strategy: str
    score: float | None
    inclusion_probability: float
    mode: Literal["assisted", "from_scratch"]
    mode_probability: float
    explanation: dict[str, Any]


def select(
    candidates: Sequence[Candidate], config: Select, *, champion: str | None, rng: np.random.Generator
) -> list[Chosen]:
    """Choose exams for training annotations.

    The control exams are drawn first and from the whole pool, so that their inclusion probability is exact
    (controls/pool) and does not depend on the strategy; the strategy then works on the rest. Without a champion
    everything is drawn at random and from scratch.

    Before both come exams that readers sent back to be worked again: all of them while the budget lasts, the longest
    waiting first. They cost as others do, and nothing was left to chance (probability 1, and they are no part of the
    pool that controls stand for). One whose draft would be the same again is worked from scratch.

    Inclusion probabilities: a control's over the whole pool, a strategy's over what the controls left. Exact for
    control and random; for weighted random approximate (see `_inclusion`); 1 for greedy strategies, which leave
    nothing to chance.

    Raises
    ------
    StateError
        Empty pool, a budget below one exam, or drafts by another model than the champion.
    """
    if not candidates:
        raise StateError("No pool exam is left to select.", "Ingest more exams.", code="state.pool_empty")
    ordered = sorted(candidates, key=lambda c: c.exam_id)
    stale = [c.exam_id for c in ordered if champion is not None and c.model_digest != champion]
    if stale:
        raise StateError(
            f"{len(stale)} exams carry scores of another model than the champion (first: {stale[0]}).",
            "Run `redraft round open` again; it drafts them anew.",
            code="state.stale_scores",
        )
    name = config.strategy if champion is not None else "random"
    order = rng.permutation(len(ordered))
    budget = _Budget(config, ordered)
    again = sorted((c.rework.round, i) for i, c in enumerate(ordered) if c.rework is not None)
    back = [i for _, i in again if budget.spend(ordered[i])]
    fresh = [i for i in order if ordered[int(i)].rework is None]
    wanted = round(config.control_share * budget.expected_of(len(fresh)))
    controls = _take(fresh, wanted, budget, ordered)
    control_probability = len(controls) / len(fresh) if fresh else 0.0
    rest = sorted({int(i) for i in fresh} - set(controls))
    chosen = _by_strategy(rest, ordered, name, budget, rng) if rest else []
    if not back and not controls and not chosen:
        raise StateError(
            f"The budget ({config.budget.minutes} min) does not cover one exam "
            f"({min(c.expected_minutes for c in ordered):.1f} min expected).",
            "Raise select.budget.minutes.",
        )
    picks: list[tuple[int, Literal["strategy", "control", "rework"], str, float | None, float, dict[str, Any]]] = [
        (i, "rework", "rework", None, 1.0, _why_again(ordered[i])) for i in back
    ]
    picks += [
        (i, "control", "random", None, control_probability, {"reason": "control: drawn at random beside the strategy"})
        for i in controls
    ]
    picks += [(i, "strategy", name, score, p, why) for i, score, p, why in chosen]
    result = []
    for rank, (i, by, strategy, score, probability, why) in enumerate(picks, 1):
        work = ordered[i].rework
        scratch = 1.0 if champion is None or (work and work.same_draft) else config.from_scratch_probability
        from_scratch = bool(rng.random() < scratch)
        place = f"{rank} of {len(picks)} from a pool of {len(ordered)}"
        result.append(
            Chosen(
                exam_id=ordered[i].exam_id, rank=rank, chosen_by=by, strategy=strategy, score=score,
                inclusion_probability=round(probability, 6), mode="from_scratch" if from_scratch else "assisted",
                mode_probability=scratch if from_scratch else 1 - scratch,
                explanation={**why, "rank": rank, "pool": len(ordered), "sentence": f"{why['reason']} ({place})"},
            )
        )  # fmt: skip
    return result


def _why_again(candidate: Candidate) -> dict[str, Any]:
    work = candidate.rework
    assert work is not None
    reason = f"worked again: sent back in round {work.round} ({work.reason_code})"
    return {"reason": reason, "reason_code": work.reason_code, "sent_back_in": work.round}


class _Budget:
    """What is left to spend, in exams or in expected minutes."""

    def __init__(self, config: Select, candidates: Sequence[Candidate]):
        self._minutes = config.budget.minutes is not None
        self._left = float(config.budget.minutes or config.budget.exams or 0)
        self._mean = float(np.mean([c.expected_minutes for c in candidates]))

    def expected_of(self, pool: int) -> float:
        """Exams of a pool that what is left may pay for. Where it covers all, shares are shares of the pool."""
        return min(self._left / self._mean if self._minutes else self._left, pool)

    def spend(self, candidate: Candidate) -> bool:
        cost = candidate.expected_minutes if self._minutes else 1.0
        if cost > self._left + 1e-9:
            return False
        self._left -= cost
        return True


def _take(order: list[int], count: int, budget: _Budget, candidates: Sequence[Candidate]) -> list[int]:
    taken: list[int] = []
    for i in order:
        if len(taken) >= count:
            break
        if budget.spend(candidates[int(i)]):
            taken.append(int(i))
    return taken


def _by_strategy(
    rest: list[int], candidates: Sequence[Candidate], name: str, budget: _Budget, rng: np.random.Generator
) -> list[tuple[int, float | None, float, dict[str, Any]]]:
    utilities: Utilities = STRATEGIES[name]([candidates[i] for i in rest])
    if utilities.weights is None:
        # Greedy; ties (and equal scores to the last digit) are broken by exam id.
        order = sorted(range(len(rest)), key=lambda n: (-utilities.order_by[n], candidates[rest[n]].exam_id))
    else:
        keys = np.log(utilities.weights) + rng.gumbel(size=len(rest))  # weighted draw without replacement
        order = sorted(range(len(rest)), key=lambda n: -keys[n])
    taken = [n for n in order if budget.spend(candidates[rest[n]])]
    inclusion = None if utilities.weights is None else _inclusion(utilities.weights, len(taken))
    result = []
    for n in taken:
        if inclusion is None:
            probability = 1.0
        elif name == "random":
            probability = len(taken) / len(rest)
        else:
            probability = float(inclusion[n])
        score = None if name == "random" else float(utilities.order_by[n])
        result.append((rest[n], score, probability, utilities.explain(n)))
    return result


def _inclusion(weights: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Inclusion probabilities of `count` successive weighted draws without replacement.

    A key log(w)+Gumbel is an exponential clock of rate w; the first `count` to ring are taken. With the ringing time
    of the last one fixed at t, each is in with 1−exp(−w·t); t is chosen so that they add up to `count`.
    """
    if count >= len(weights):
        return np.ones(len(weights))
    low, high = 0.0, 1.0
    while -np.expm1(-weights * high).sum() < count:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(-weights * middle).sum() < count else (low, middle)
    return np.asarray(-np.expm1(-weights * high))
