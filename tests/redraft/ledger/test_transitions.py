"""Every pair of states, in the code and in the database."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from redraft.errors import StateError
from redraft.ledger import (
    AssignmentState,
    Ledger,
    RoundState,
    fail_round,
    move_assignment,
    move_round,
    resume_round,
    verify_ledger,
)
from redraft.ledger.transitions import ASSIGNMENT

NOW = datetime(2026, 3, 2, tzinfo=UTC)
R, A = RoundState, AssignmentState

# Written out by hand from the design, not taken from the code.
FORWARD = {
    R.OPENING: {R.AWAITING_ANNOTATION},
    R.AWAITING_ANNOTATION: {R.CLOSING},
    R.CLOSING: {R.AWAITING_ANNOTATION, R.AWAITING_APPROVAL},
    R.AWAITING_APPROVAL: {R.PROMOTED, R.HELD},
}
ROUND_ALLOWED = {state: targets | {R.FAILED, R.ABORTED} for state, targets in FORWARD.items()}
ROUTE = {
    R.OPENING: [],
    R.AWAITING_ANNOTATION: [R.AWAITING_ANNOTATION],
    R.CLOSING: [R.AWAITING_ANNOTATION, R.CLOSING],
    R.AWAITING_APPROVAL: [R.AWAITING_ANNOTATION, R.CLOSING, R.AWAITING_APPROVAL],
    R.PROMOTED: [R.AWAITING_ANNOTATION, R.CLOSING, R.AWAITING_APPROVAL, R.PROMOTED],
    R.HELD: [R.AWAITING_ANNOTATION, R.CLOSING, R.AWAITING_APPROVAL, R.HELD],
    R.ABORTED: [R.ABORTED],
}
ASSIGNMENT_ROUTE = {
    A.DISPATCHED: [],
    A.RETURNED: [A.RETURNED],
    A.IN_REVIEW: [A.RETURNED, A.IN_REVIEW],
    A.ACCEPTED: [A.RETURNED, A.ACCEPTED],
    A.REJECTED: [A.RETURNED, A.REJECTED],
    A.RETURNED_TO_READER: [A.RETURNED, A.RETURNED_TO_READER],
    A.CARRIED_OVER: [A.CARRIED_OVER],
    A.WITHDRAWN: [A.WITHDRAWN],
}


def state_of(ledger: Ledger) -> str:
    row = ledger.one("round", number=1)
    assert row is not None
    return str(row["state"])


def force(ledger: Ledger, table: str, state: str, more: str = "") -> None:
    """Set a state past redraft's code, as only the database can refuse."""
    with ledger.engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET state = '{state}'{more}"))


@pytest.fixture(params=[*ROUTE, *(("FAILED", s) for s in FORWARD)], ids=str)
def round_in(request: pytest.FixtureRequest, empty: Ledger, new_round: Any) -> tuple[Ledger, set[RoundState]]:
    """A ledger whose round is in one state, and the states that may follow."""
    with empty.tx("test", NOW) as tx:
        tx.insert("round", new_round(1))
        if isinstance(request.param, tuple):
            for state in ROUTE[request.param[1]]:
                move_round(tx, 1, state)
            fail_round(tx, 1)
            return empty, {request.param[1], R.ABORTED}
        for state in ROUTE[request.param]:
            move_round(tx, 1, state)
    return empty, ROUND_ALLOWED.get(request.param, set())


def test_every_pair_of_round_states(round_in: tuple[Ledger, set[RoundState]]) -> None:
    """Code and database both allow exactly the pairs of the design; a FAILED round goes back to its own state only."""
    ledger, allowed = round_in
    start = state_of(ledger)
    for to in RoundState:
        if to in allowed:
            with pytest.raises(ZeroDivisionError), ledger.tx("test", NOW) as tx:
                move_round(tx, 1, to)
                raise ZeroDivisionError  # rolled back, so that every target starts from the same state
            continue
        with pytest.raises(StateError) as raised, ledger.tx("test", NOW) as tx:
            move_round(tx, 1, to)
        for name in allowed:
            assert name in raised.value.do
        assert allowed or "nothing" in raised.value.do
        if to != start:
            with pytest.raises(Exception, match="may not follow"):
                force(ledger, "round", to, ", failed_in = state" if to == R.FAILED else "")
    assert state_of(ledger) == start
    assert verify_ledger(ledger).broken == []


@pytest.mark.parametrize(("source", "to"), list(itertools.product(AssignmentState, AssignmentState)))
def test_every_pair_of_assignment_states(ledger: Ledger, source: AssignmentState, to: AssignmentState) -> None:
    """Code and database agree about every pair; accepted work is only opened again, and two states are final."""
    with ledger.tx("test", NOW) as tx:
        for state in ASSIGNMENT_ROUTE[source]:
            move_assignment(tx, "a1", state)
    if (source, to) in ASSIGNMENT:
        assert source not in (A.REJECTED, A.WITHDRAWN)
        assert source != A.ACCEPTED or to == A.IN_REVIEW
        with ledger.tx("test", NOW) as tx:
            move_assignment(tx, "a1", to, attempt=2)
        assert ledger.rows("assignment", state=to, attempt=2)
    else:
        with pytest.raises(StateError, match=f"from {source} to {to}"), ledger.tx("test", NOW) as tx:
            move_assignment(tx, "a1", to)
        if source != to:
            with pytest.raises(Exception, match="may not follow"):
                force(ledger, "assignment", to)


def test_the_assignment_states_of_the_design_are_there() -> None:
    """The pairs that the design names are allowed, and every non-final state can be withdrawn."""
    named = {
        (A.DISPATCHED, A.RETURNED), (A.RETURNED, A.ACCEPTED), (A.RETURNED, A.RETURNED_TO_READER),
        (A.RETURNED_TO_READER, A.DISPATCHED), (A.DISPATCHED, A.CARRIED_OVER), (A.CARRIED_OVER, A.DISPATCHED),
        (A.RETURNED, A.REJECTED), (A.RETURNED, A.IN_REVIEW), (A.IN_REVIEW, A.ACCEPTED),
        (A.IN_REVIEW, A.RETURNED_TO_READER), (A.ACCEPTED, A.IN_REVIEW),
    }  # fmt: skip
    open_states = set(AssignmentState) - {A.ACCEPTED, A.REJECTED, A.WITHDRAWN}
    assert named | {(state, A.WITHDRAWN) for state in open_states} <= ASSIGNMENT


def test_failing_and_resuming(empty: Ledger, new_round: Any) -> None:
    """A round fails from where it stands, remembers that, and comes back with a clean slate."""
    with empty.tx("test", NOW) as tx:
        tx.insert("round", new_round(1))
        move_round(tx, 1, R.AWAITING_ANNOTATION)
        fail_round(tx, 1)
        assert tx.get("round", number=1)["failed_in"] == R.AWAITING_ANNOTATION
        resume_round(tx, 1)
        assert tx.get("round", number=1)["state"] == R.AWAITING_ANNOTATION
        assert tx.get("round", number=1)["failed_in"] is None
    with pytest.raises(StateError, match="did not fail"), empty.tx("test", NOW) as tx:
        resume_round(tx, 1)
    with pytest.raises(Exception, match="may not follow"):
        force(empty, "round", "FAILED", ", failed_in = 'CLOSING'")


@pytest.mark.parametrize("state", [s for s in RoundState if s != R.OPENING])
def test_a_round_begins_as_opening(empty: Ledger, new_round: Any, state: RoundState) -> None:
    """No round enters the ledger half-way or finished."""
    with pytest.raises(StateError, match="must begin as OPENING"), empty.tx("test", NOW) as tx:
        tx.insert("round", new_round(1, state=state))


def test_a_round_that_is_not_there(empty: Ledger) -> None:
    """Moving an unknown round or assignment names it."""
    for move in (lambda tx: move_round(tx, 4, R.CLOSING), lambda tx: move_assignment(tx, "a9", A.RETURNED)):
        with pytest.raises(StateError, match=r"round 4|assignment a9"), empty.tx("test", NOW) as tx:
            move(tx)
