"""Selection strategies. `score` is pure; all chance comes from the generator that `select` passes.

- random: every exam alike.
- fg_random: foreground-aware random (nnActive, TMLR 2025). Theirs draws regions on the pool's true foreground; a
  hospital has drafts only, so an exam is drawn with a probability proportional to a mixture, 4/6 any exam, 1/6 by the
  draft's foreground volume, 1/6 by its border (their weights of region types).
- entropy: mean predictive entropy over the draft's region, highest first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.errors import StateError


@dataclass(frozen=True)
class Rework:
    """A reader sent the exam back to be worked again.

    `same_draft`: the champion is still the model whose draft they saw, so that its draft would be the same again.
    """

    round: int
    reason_code: str
    same_draft: bool


@dataclass(frozen=True)
class Candidate:
    """An exam that may be chosen. `scores` as in models.uncertainty.summarise; None without a draft."""

    exam_id: str
    subject_id: str
    scores: Mapping[str, Any] | None
    model_digest: str | None
    expected_minutes: float
    rework: Rework | None = None


@dataclass(frozen=True)
class Utilities:
    """What a strategy says of the candidates, in their order.

    Attributes
    ----------
    order_by : float array
        Greedy strategies: the utility, highest first.
    weights : float array or None
        Random strategies: draw probabilities that sum to 1; None for greedy ones.
    """

    order_by: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    explain: Callable[[int], dict[str, Any]]


def random(candidates: Sequence[Candidate]) -> Utilities:
    """Every exam alike."""
    n = len(candidates)
    return Utilities(np.zeros(n), np.full(n, 1 / n), lambda i: {"reason": "drawn at random, every exam alike"})


def fg_random(candidates: Sequence[Candidate]) -> Utilities:
    """Random with more weight where the drafts show foreground and border."""
    volume = np.array([float(_score(c, "foreground_voxels")) for c in candidates])
    border = np.array([float(_score(c, "border_voxels")) for c in candidates])
    flat = np.full(len(candidates), 1 / len(candidates))
    weights = 4 / 6 * flat + sum(1 / 6 * (part / part.sum() if part.sum() else flat) for part in (volume, border))

    def explain(i: int) -> dict[str, Any]:
        return {
            "reason": "drawn at random with more weight for drafts with much foreground and border",
            "foreground_voxels": int(volume[i]),
            "border_voxels": int(border[i]),
            "weight": round(float(weights[i]), 6),
        }

    return Utilities(weights, np.asarray(weights), explain)


def entropy(candidates: Sequence[Candidate]) -> Utilities:
    """Most uncertain drafts first."""
    values = np.array([float(_score(c, "entropy_region")) for c in candidates])

    def explain(i: int) -> dict[str, Any]:
        return {"reason": "the model is uncertain about its draft", "entropy_nats": round(float(values[i]), 6)}

    return Utilities(values, None, explain)


STRATEGIES: dict[str, Callable[[Sequence[Candidate]], Utilities]] = {
    "random": random,
    "fg_random": fg_random,
    "entropy": entropy,
}


def _score(candidate: Candidate, name: str) -> Any:
    if candidate.scores is None or name not in candidate.scores:
        raise StateError(
            f"Exam {candidate.exam_id} has no score `{name}`.", "Draft the pool with the current champion first."
        )
    return candidate.scores[name]
