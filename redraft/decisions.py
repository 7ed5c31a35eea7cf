"""Decisions about a round's challenger: recorded in the ledger first, acted on afterwards."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from redraft import rounds
from redraft.digest import sha256_json
from redraft.errors import StateError, UsageError
from redraft.ledger import RoundState
from redraft.project import Project


def decide(project: Project, number: int, *, approve: bool, by: str, reason: str, now: datetime) -> str:
    """Record a decision and return its id; the same decision again returns the same id.

    Until accounts exist the identity is what the caller asserts, and the record says so.

    Raises
    ------
    StateError
        When the round does not await approval, when it was decided otherwise, or when an approval meets a failed gate.
    """
    if not by.strip() or not reason.strip():
        raise UsageError("A decision needs who decides and why.", "Give --by and --reason.")
    row = rounds.get(project, number)
    kind = "approve" if approve else "hold"
    earlier = project.ledger.rows("decision", round=number)
    if earlier:
        if earlier[-1]["kind"] != kind:
            raise StateError(f"Round {number} was decided already: {earlier[-1]['kind']} by {earlier[-1]['by_whom']}.")
        return str(earlier[-1]["decision_id"])
    if row["state"] != RoundState.AWAITING_APPROVAL:
        raise StateError(
            f"Round {number} is {row['state']}; a decision is due when it awaits approval.", "See `redraft status`."
        )
    gate = gate_of(project, number)
    if approve and not gate["passed"]:
        failed = [f"{c['name']} of {c['structure']}" for c in gate["criteria"] if not c["passed"]]
        raise StateError(
            f"Round {number} did not pass its gate ({', '.join(failed)}).",
            f"Hold it: `redraft promote {number} --hold --by WHO --reason TEXT`.",
            code="state.gate_failed",
        )
    decision_id = sha256_json([number, kind, row["challenger"], by, reason])[:24]
    with project.ledger.tx(f"decision:{kind}", now) as tx:
        tx.insert(
            "decision",
            {
                "decision_id": decision_id,
                "round": number,
                "kind": kind,
                "model_digest": row["challenger"],
                "by_whom": by,
                "identity": "asserted",
                "reason": reason,
                "gate": gate,
                "at": now,
            },
        )
    return decision_id


def gate_of(project: Project, number: int) -> dict[str, Any]:
    """The gate's result as evaluate recorded it."""
    runs = project.ledger.rows("step_run", round=number, step="evaluate", state="done")
    if not runs:
        raise StateError(f"Round {number} was not evaluated yet.", f"Run `redraft round close {number}`.")
    gate: dict[str, Any] = max(runs, key=lambda run: run["finished_at"])["outputs"]["gate"]
    return gate
