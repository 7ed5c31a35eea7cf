"""Which state may follow which: for rounds and for assignments. The same tables stand in the database as triggers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from redraft.errors import StateError

if TYPE_CHECKING:
    from redraft.ledger.store import Tx


class RoundState(StrEnum):
    OPENING = "OPENING"
    AWAITING_ANNOTATION = "AWAITING_ANNOTATION"
    CLOSING = "CLOSING"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    PROMOTED = "PROMOTED"
    HELD = "HELD"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


class AssignmentState(StrEnum):
    DISPATCHED = "DISPATCHED"
    RETURNED = "RETURNED"
    IN_REVIEW = "IN_REVIEW"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    RETURNED_TO_READER = "RETURNED_TO_READER"
    CARRIED_OVER = "CARRIED_OVER"
    WITHDRAWN = "WITHDRAWN"


_R, _A = RoundState, AssignmentState
_OPEN = (_A.DISPATCHED, _A.RETURNED, _A.IN_REVIEW, _A.RETURNED_TO_READER, _A.CARRIED_OVER)
_LIVE = (_R.OPENING, _R.AWAITING_ANNOTATION, _R.CLOSING, _R.AWAITING_APPROVAL)
ROUND: frozenset[tuple[RoundState, RoundState]] = frozenset(
    {
        (_R.OPENING, _R.AWAITING_ANNOTATION),
        (_R.AWAITING_ANNOTATION, _R.CLOSING),
        (_R.CLOSING, _R.AWAITING_ANNOTATION),
        (_R.CLOSING, _R.AWAITING_APPROVAL),
        (_R.AWAITING_APPROVAL, _R.PROMOTED),
        (_R.AWAITING_APPROVAL, _R.HELD),
        *((state, _R.FAILED) for state in _LIVE),
        *((_R.FAILED, state) for state in _LIVE),
        *((state, _R.ABORTED) for state in (*_LIVE, _R.FAILED)),
    }
)
ASSIGNMENT: frozenset[tuple[AssignmentState, AssignmentState]] = frozenset(
    {
        (_A.DISPATCHED, _A.RETURNED),
        (_A.RETURNED_TO_READER, _A.RETURNED),
        (_A.CARRIED_OVER, _A.RETURNED),
        (_A.RETURNED, _A.ACCEPTED),
        (_A.RETURNED, _A.RETURNED_TO_READER),
        # Sent back by the reader without a segmentation; final.
        (_A.RETURNED, _A.REJECTED),
        (_A.RETURNED, _A.IN_REVIEW),
        (_A.IN_REVIEW, _A.ACCEPTED),
        (_A.IN_REVIEW, _A.RETURNED_TO_READER),
        # A reviewer opens accepted work again.
        (_A.ACCEPTED, _A.IN_REVIEW),
        (_A.RETURNED_TO_READER, _A.DISPATCHED),
        (_A.DISPATCHED, _A.CARRIED_OVER),
        (_A.RETURNED_TO_READER, _A.CARRIED_OVER),
        (_A.CARRIED_OVER, _A.DISPATCHED),
        *((s, _A.WITHDRAWN) for s in _OPEN),
    }
)
TABLES: dict[str, frozenset[tuple[Any, Any]]] = {"round": ROUND, "assignment": ASSIGNMENT}
FIRST: dict[str, str] = {"round": _R.OPENING, "assignment": _A.DISPATCHED}


def move_round(tx: Tx, number: int, to: RoundState) -> None:
    """Move a round. Raises StateError naming the states that are allowed."""
    row = tx.get("round", number=number)
    state = RoundState(row["state"])
    allowed = sorted(str(target) for source, target in ROUND if source == state)
    if state == RoundState.FAILED:
        allowed = sorted({str(row["failed_in"]), str(RoundState.ABORTED)})
    if str(to) not in allowed:
        raise StateError(
            f"Round {number} cannot go from {state} to {to}.", f"Allowed from here: {', '.join(allowed) or 'nothing'}."
        )
    changes: dict[str, Any] = {"state": to}
    if to == RoundState.FAILED:
        changes["failed_in"] = state
    elif state == RoundState.FAILED and to != RoundState.ABORTED:
        changes["failed_in"] = None
    tx.update("round", {"number": number}, changes)


def fail_round(tx: Tx, number: int) -> None:
    """Mark a round FAILED; it remembers the state it failed in."""
    move_round(tx, number, RoundState.FAILED)


def resume_round(tx: Tx, number: int) -> None:
    """Take a FAILED round back to the state it failed in."""
    failed_in = tx.get("round", number=number)["failed_in"]
    if failed_in is None:
        raise StateError(f"Round {number} did not fail.", "See `redraft status`.")
    move_round(tx, number, RoundState(failed_in))


def move_assignment(tx: Tx, assignment_id: str, to: AssignmentState, **changes: Any) -> None:
    """Move an assignment. Raises StateError naming the states that are allowed."""
    state = AssignmentState(tx.get("assignment", assignment_id=assignment_id)["state"])
    if (state, to) not in ASSIGNMENT:
        allowed = sorted(str(target) for source, target in ASSIGNMENT if source == state)
        raise StateError(
            f"Assignment {assignment_id} cannot go from {state} to {to}.",
            f"Allowed from here: {', '.join(allowed) or 'nothing'}.",
        )
    tx.update("assignment", {"assignment_id": assignment_id}, {"state": to, **changes})
