"""Evaluation of a test set: per exam, summarised by structure and metric."""

from __future__ import annotations

import numpy as np
import pytest

from redraft.config.schema import Bootstrap, Structure
from redraft.errors import UsageError
from tasks.evaluate.metrics import ExamPair, dice_per_exam, evaluate_exams, summarise

STRUCTURES = (
    Structure(name="organ", value=1, kind="organ"),
    Structure(name="tumor", value=2, kind="tumor"),
)
FAST = Bootstrap(resamples=200)


def pair(name: str, shift: int, tumor: tuple[bool, bool]) -> ExamPair:
    reference, prediction = np.zeros((20, 20, 6), np.uint8), np.zeros((20, 20, 6), np.uint8)
    reference[4:12, 4:12, 1:5] = 1
    prediction[4 + shift : 12 + shift, 4:12, 1:5] = 1
    if tumor[0]:
        reference[15:18, 15:18, 2] = 2
    if tumor[1]:
        prediction[15:18, 15:18, 2] = 2
    return ExamPair(name, reference, prediction, (1.0, 1.0, 3.0))


def test_summary_leaves_out_absent_structures_and_counts_them() -> None:
    """Tumour in neither mask: excluded; in one: Dice 0 and no HD95; in both: counted. Organ: all exams."""
    states = [(True, True), (False, False), (True, False), (False, True), (True, True), (False, False)]
    exams = list(evaluate_exams((pair(f"e{i}", i % 3, s) for i, s in enumerate(states)), STRUCTURES))
    subjects = {f"e{i}": f"s{i // 2}" for i in range(6)}
    summary = summarise(exams, subjects, STRUCTURES, FAST, seed=1)
    organ, tumor = summary["organ"]["dice"], summary["tumor"]
    assert (organ.n, organ.clusters, organ.excluded) == (6, 3, 0)
    assert organ.mean == pytest.approx((1 + 7 / 8 + 6 / 8) / 3)
    assert (tumor["dice"].n, tumor["dice"].excluded, tumor["dice"].mean) == (4, 2, 0.5)
    assert (tumor["hd95_mm"].n, tumor["hd95_mm"].excluded, tumor["hd95_mm"].mean) == (2, 4, 0)
    assert dice_per_exam(exams)["e1"] == {"organ": pytest.approx(7 / 8), "tumor": None}
    assert dice_per_exam(exams)["e3"]["tumor"] == 0


def test_structure_that_no_exam_holds_is_not_estimable() -> None:
    """No values: no mean, no interval, a reason."""
    exams = list(evaluate_exams([pair("a", 0, (False, False)), pair("b", 1, (False, False))], STRUCTURES))
    found = summarise(exams, {"a": "s", "b": "t"}, STRUCTURES, FAST, seed=1)["tumor"]["dice"]
    assert (found.mean, found.lo, found.method, found.excluded) == (None, None, "not_estimable", 2)


def test_exam_twice_or_without_subject_is_refused() -> None:
    """Pairs must be one per exam, and every exam must have its subject."""
    exams = list(evaluate_exams([pair("a", 0, (True, True)), pair("a", 1, (True, True))], STRUCTURES))
    with pytest.raises(UsageError):
        summarise(exams, {"a": "s"}, STRUCTURES, FAST, seed=1)
    with pytest.raises(UsageError):
        summarise(exams[:1], {}, STRUCTURES, FAST, seed=1)


def test_exams_are_read_one_at_a_time() -> None:
    """Metrics come as a stream: the next pair is loaded only when the last one was measured."""
    loaded = []

    def load():  # type: ignore[no-untyped-def]
        for i in range(3):
            loaded.append(i)
            yield pair(f"e{i}", 0, (True, True))

    stream = evaluate_exams(load(), STRUCTURES)
    next(stream)
    assert loaded == [0]
