from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.config.sources import Retry
from redraft.sources.retry import NotNow, gave_up, persist

RULES = Retry(attempts=4, wait_seconds=0.5, timeout_seconds=10)


def failing(times: int, after: float | None = None):
    """A call that fails so often and then answers; and the count of calls."""
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise NotNow("the connection broke", after)
        return "answer"

    return call, calls


def test_waits_double() -> None:
    """Three failures: waits of 0.5, 1 and 2 seconds, then the answer."""
    call, calls = failing(3)
    waits: list[float] = []
    assert persist(call, RULES, wait=waits.append) == "answer"
    assert waits == [0.5, 1.0, 2.0] and len(calls) == 4


def test_the_last_failure_is_raised_when_attempts_are_used_up() -> None:
    """Four attempts and no fifth; no wait behind the last."""
    call, calls = failing(99)
    waits: list[float] = []
    with pytest.raises(NotNow, match="the connection broke"):
        persist(call, RULES, wait=waits.append)
    assert len(calls) == 4 and len(waits) == 3


def test_other_errors_are_not_repeated() -> None:
    """What asking again does not change is raised at once."""
    calls = []

    def call() -> None:
        calls.append(1)
        raise ValueError

    with pytest.raises(ValueError):
        persist(call, RULES, wait=lambda _: pytest.fail("waited"))
    assert len(calls) == 1


@pytest.mark.parametrize(("asked", "waited"), [(0.1, 0.5), (3.0, 3.0), (86_400.0, 10.0)])
def test_a_server_may_ask_for_a_longer_wait_within_bounds(asked: float, waited: float) -> None:
    """Retry-After lengthens a wait up to `timeout_seconds` and never shortens it."""
    waits: list[float] = []
    persist(failing(1, asked)[0], RULES, wait=waits.append)
    assert waits == [waited]


@given(drops=st.integers(0, 40), stuck=st.integers(0, 6))
def test_progress_earns_new_attempts(drops: int, stuck: int) -> None:
    """A transfer that brings something each time goes on however often it drops; one that is stuck ends."""
    state = {"calls": 0, "have": 0}

    def call() -> int:
        state["calls"] += 1
        if state["have"] < drops:
            state["have"] += 1
            raise NotNow("the connection broke")
        if state["calls"] <= drops + stuck:
            raise NotNow("the connection broke")
        return state["have"]

    if drops:
        stays = 1 + stuck < RULES.attempts  # the last drop that brought something counts as one failure
    else:
        stays = stuck < RULES.attempts
    if stays:
        assert persist(call, RULES, progress=lambda: state["have"], wait=lambda _: None) == drops
    else:
        with pytest.raises(NotNow):
            persist(call, RULES, progress=lambda: state["have"], wait=lambda _: None)


def test_the_error_for_the_user_names_the_source_and_what_to_do() -> None:
    """It says how often the source was asked, why that failed, and that it can be tried again."""
    error = gave_up("pacs", NotNow("the connection broke"), RULES)
    assert error.retry and error.code == "service.unreachable"
    assert error.what == "The source pacs was asked 4 times in a row: the connection broke."
    assert "run the command again" in error.do
