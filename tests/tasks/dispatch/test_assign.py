"""Every exam goes out once (or twice, to different readers), and nobody gets more than his share."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dispatch.assign import Plan, assign, assignment_id

Training = list[tuple[str, Literal["assisted", "from_scratch"], float]]


def plan(
    training: Training, reference: list[str], readers: list[str], load: dict[str, float] | None = None,
    share: float = 0.0, seed: int = 0, minutes: float = 20.0, number: int = 3,
) -> list[Plan]:  # fmt: skip
    return assign(
        training, reference, readers, load or {}, round_number=number, expected_minutes=minutes,
        double_read_share=share, rng=np.random.default_rng(seed),
    )  # fmt: skip


def some(n: int) -> Training:
    return [(f"e{i}", "assisted" if i % 2 else "from_scratch", 0.6 if i % 2 else 0.4) for i in range(n)]


CASES = {
    "exams": st.integers(0, 25), "held_out": st.integers(0, 25), "readers": st.integers(1, 6),
    "loads": st.lists(st.floats(0, 500), min_size=6, max_size=6), "share": st.floats(0, 1), "seed": st.integers(0, 999),
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(**CASES)
def test_every_exam_once_and_its_mode_kept(
    exams: int, held_out: int, readers: int, loads: list[float], share: float, seed: int
) -> None:
    """Training exams once with their drawn mode; reference exams once or twice, from scratch, never the same reader."""
    names = [f"r{i}" for i in range(readers)]
    reference = [f"t{i}" for i in range(held_out)]
    plans = plan(some(exams), reference, names, dict(zip(names, loads, strict=False)), share, seed)
    training = [p for p in plans if p.purpose == "training"]
    assert [(p.exam_id, p.mode, p.mode_probability) for p in training] == some(exams)
    held = [p for p in plans if p.purpose == "reference"]
    assert {p.exam_id for p in held} == set(reference)
    assert {(p.mode, p.mode_probability) for p in held} <= {("from_scratch", None)}
    pairs = Counter((p.exam_id, p.reader_id) for p in plans)
    per_exam = Counter(p.exam_id for p in held)
    assert set(pairs.values()) <= {1} and set(per_exam.values()) <= ({1} if readers == 1 else {1, 2})
    assert len({p.assignment_id for p in plans}) == len(plans)


@settings(max_examples=150, deadline=None)
@given(**{name: value for name, value in CASES.items() if name != "share"})
def test_load_is_levelled(exams: int, held_out: int, readers: int, loads: list[float], seed: int) -> None:
    """What each new piece of work lands on is the least loaded reader: at the end, whoever got work is level."""
    names = [f"r{i}" for i in range(readers)]
    before = dict(zip(names, loads, strict=False))
    plans = plan(some(exams), [f"t{i}" for i in range(held_out)], names, before, seed=seed)
    given_to = Counter(p.reader_id for p in plans)
    after = {name: before[name] + 20.0 * given_to[name] for name in names}
    for name in given_to:
        assert after[name] - 20.0 <= min(after.values()) + 1e-6


def test_who_is_busy_gets_nothing_until_the_others_caught_up() -> None:
    """A reader with 60 minutes still out waits for three exams of 20 minutes to go elsewhere."""
    plans = plan(some(4), [], ["a", "b"], {"a": 60.0})
    assert [p.reader_id for p in plans[:3]] == ["b", "b", "b"]


def test_ties_are_broken_by_the_seed_and_not_by_the_list() -> None:
    """With equal loads the first exam goes to anybody, over seeds; one seed always decides alike."""
    first = [plan(some(1), [], ["a", "b", "c"], seed=seed)[0].reader_id for seed in range(60)]
    assert set(first) == {"a", "b", "c"}
    assert first == [plan(some(1), [], ["a", "b", "c"], seed=seed)[0].reader_id for seed in range(60)]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 50), (0.3, 15)])
def test_the_share_of_double_reads_is_kept(share: float, expected: int) -> None:
    """None, all, or about the configured share of reference exams gets a second reader; training exams never do."""
    reference = [f"t{i:02d}" for i in range(50)]
    found = [len(plan(some(10), reference, ["a", "b", "c"], share=share, seed=s)) - 60 for s in range(40)]
    assert np.mean(found) == pytest.approx(expected, abs=2.5)
    assert share not in (0.0, 1.0) or set(found) == {expected}


def test_one_reader_alone_reads_nothing_twice() -> None:
    """A second read needs a second reader."""
    assert len(plan([], ["t1", "t2"], ["a"], share=1.0)) == 2


@settings(max_examples=30, deadline=None)
@given(order=st.permutations([f"t{i}" for i in range(9)]), seed=st.integers(0, 50))
def test_reference_exams_in_any_order_are_one_plan(order: list[str], seed: int) -> None:
    """Who gets which reference exam does not depend on the order they were listed in."""
    assert plan([], order, ["a", "b"], share=0.4, seed=seed) == plan(
        [], sorted(order), ["a", "b"], share=0.4, seed=seed
    )


def test_assignment_ids_are_a_function_of_what_they_name() -> None:
    """The same round, exam, reader and purpose is the same assignment; any other is another one."""
    base = assignment_id(1, "e", "r", "training")
    assert assignment_id(1, "e", "r", "training") == base
    others = {assignment_id(2, "e", "r", "training"), assignment_id(1, "f", "r", "training"),
              assignment_id(1, "e", "q", "training"), assignment_id(1, "e", "r", "reference")}  # fmt: skip
    assert len(others) == 4 and base not in others
    assert plan(some(1), [], ["r"], number=7)[0].assignment_id == assignment_id(7, "e0", "r", "training")
