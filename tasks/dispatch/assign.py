"""Who works on what: the reader with the least expected work, ties by a seeded order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from redraft.digest import sha256_json


@dataclass(frozen=True)
class Plan:
    """One planned assignment."""

    assignment_id: str
    exam_id: str
    reader_id: str
    purpose: Literal["training", "reference"]
    mode: Literal["assisted", "from_scratch"]
    mode_probability: float | None
    expected_minutes: float


def assignment_id(round_number: int, exam_id: str, reader_id: str, purpose: str) -> str:
    """Deterministic id: dispatching again after a crash is the same assignment."""
    return sha256_json([round_number, exam_id, reader_id, purpose])[:20]


def assign(
    training: Sequence[tuple[str, Literal["assisted", "from_scratch"], float]], reference: Sequence[str],
    readers: Sequence[str], load: Mapping[str, float], *, round_number: int, expected_minutes: float,
    double_read_share: float, rng: np.random.Generator,
) -> list[Plan]:  # fmt: skip
    """Assign training exams (exam, mode, probability) and reference exams, the latter always from scratch.

    Parameters
    ----------
    load : mapping of reader to expected minutes of work that is still out
    double_read_share : float
        Share of reference exams that a second, different reader segments too.
    """
    carried = {reader: float(load.get(reader, 0.0)) for reader in readers}
    tie = {reader: int(n) for reader, n in zip(readers, rng.permutation(len(readers)), strict=True)}
    plans: list[Plan] = []

    def give(exam: str, purpose: Literal["training", "reference"], mode: Literal["assisted", "from_scratch"],
             probability: float | None, not_to: str | None = None) -> str:  # fmt: skip
        free = [reader for reader in readers if reader != not_to]
        reader = min(free, key=lambda r: (carried[r], tie[r]))
        carried[reader] += expected_minutes
        identity = assignment_id(round_number, exam, reader, purpose)
        plans.append(Plan(identity, exam, reader, purpose, mode, probability, expected_minutes))
        return reader

    for exam, mode, probability in training:
        give(exam, "training", mode, probability)
    for exam in sorted(reference):
        first = give(exam, "reference", "from_scratch", None)
        if len(readers) > 1 and rng.random() < double_read_share:
            give(exam, "reference", "from_scratch", None, not_to=first)
    return plans
