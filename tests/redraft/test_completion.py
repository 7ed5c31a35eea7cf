"""When a round may close by itself: n of m readings of an exam, for a share of the exams."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.config.schema import Completion
from redraft.work_leases import Progress, progress, replacement_id

STATES = ("DISPATCHED", "RETURNED", "IN_REVIEW", "ACCEPTED", "REJECTED", "RETURNED_TO_READER", "WITHDRAWN")


class Rules:
    """The part of a configuration that decides."""

    def __init__(self, **completion: Any):
        self.dispatch = type("D", (), {"completion": Completion(**completion)})()


def judge(
    exams: dict[str, list[str]], undecided: tuple[str, ...] = (), purpose: str = "training", **rules: Any
) -> Progress:
    rows = [
        {"assignment_id": f"{exam}-{n}", "exam_id": exam, "purpose": purpose, "reader_id": f"r{n}", "state": state}
        for exam, states in exams.items()
        for n, state in enumerate(states)
    ]
    return progress(rows, Rules(**rules), undecided)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "readings", "complete"),
    [
        (["ACCEPTED"], None, True), (["DISPATCHED"], None, False), (["IN_REVIEW"], None, False),
        (["RETURNED"], None, False), (["RETURNED_TO_READER"], None, False),
        (["ACCEPTED", "DISPATCHED"], None, False), (["ACCEPTED", "DISPATCHED"], 1, True),
        (["ACCEPTED", "ACCEPTED"], None, True), (["ACCEPTED"], 2, True),  # n is m at most
        # Sent back without a segmentation: final, and waits for nothing.
        (["REJECTED"], None, True), (["REJECTED", "ACCEPTED"], None, True), (["REJECTED", "DISPATCHED"], 1, False),
        # Nobody has it: a person must decide.
        (["WITHDRAWN"], None, False), (["WITHDRAWN", "ACCEPTED"], None, False), (["WITHDRAWN", "ACCEPTED"], 1, True),
    ],
)  # fmt: skip
def test_when_an_exam_is_complete(states: list[str], readings: int | None, complete: bool) -> None:
    """n of m by state, each case for itself."""
    assert judge({"e": states}, readings=readings).done is complete


def test_a_reading_that_was_given_on_counts_once() -> None:
    """The withdrawn one is not missed; the one who stands in for it is."""
    old = {"assignment_id": "old", "exam_id": "e", "purpose": "training", "reader_id": "a", "state": "WITHDRAWN"}
    new = {**old, "assignment_id": replacement_id("old", "b"), "reader_id": "b"}
    assert progress([old, {**new, "state": "ACCEPTED"}], Rules()).done  # type: ignore[arg-type]
    assert not progress([old, {**new, "state": "DISPATCHED"}], Rules()).done  # type: ignore[arg-type]


def test_disputes_and_known_wrong_drafts() -> None:
    """An exam whose readers disagree is not complete; work on known-wrong drafts holds nothing up, and is no round."""
    assert not judge({"e": ["ACCEPTED", "ACCEPTED"]}, ("e",)).done
    assert judge({"e": ["DISPATCHED"]}, purpose="quality") == Progress(0, 0, False, ())


@pytest.mark.parametrize(
    ("share", "accepted", "done"), [(1.0, 9, False), (0.9, 9, True), (0.91, 9, False), (0.3, 3, True)]
)
def test_the_share_of_exams(share: float, accepted: int, done: bool) -> None:
    """Of ten exams so many; exactly the share is enough."""
    states = {f"e{n}": ["ACCEPTED" if n < accepted else "DISPATCHED"] for n in range(10)}
    found = judge(states, share=share)
    assert (found.done, found.complete, found.exams) == (done, accepted, 10) and len(found.missing) == 10 - accepted


@settings(max_examples=200, deadline=None)
@given(
    exams=st.dictionaries(
        st.sampled_from("abcdef"), st.lists(st.sampled_from(STATES), min_size=1, max_size=3), min_size=1
    ),
    readings=st.none() | st.integers(1, 3), share=st.floats(0.05, 1), one=st.integers(0, 99),
)  # fmt: skip
def test_accepting_one_more_never_undoes_it(exams: Any, readings: int | None, share: float, one: int) -> None:
    """Monotone: what is complete stays complete when another reading is accepted."""
    before = judge(exams, readings=readings, share=share)
    exam = sorted(exams)[one % len(exams)]
    states = list(exams[exam])
    if states[one % len(states)] != "REJECTED":
        states[one % len(states)] = "ACCEPTED"
    after = judge({**exams, exam: states}, readings=readings, share=share)
    assert set(after.missing) <= set(before.missing) and after.done >= before.done
