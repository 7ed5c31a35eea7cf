"""Decisions about a round's challenger: recorded in the ledger first, acted on afterwards.

A person's decision is an authenticated act of an account with the role approver. A policy may decide where project.yaml
says so (`gate.approval: automatic`) and where readers are simulated; the record tells which it was.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from redraft import rounds
from redraft.accounts import Identity
from redraft.digest import sha256_json
from redraft.errors import IntegrityError, SignInError, StateError, UsageError
from redraft.ledger import RoundState
from redraft.project import Project

APPROVER = "approver"
FOLLOW_THE_GATE = "policy: follow the gate"


def decide(project: Project, number: int, *, approve: bool, by: Identity, reason: str, now: datetime) -> str:
    """Record a person's decision and return its id; the same decision again returns the same id.

    Parameters
    ----------
    by : Identity
        Who has shown who they are (redraft.accounts).

    Raises
    ------
    SignInError
        The account may not approve.
    StateError
        When the round does not await approval, when it was decided otherwise, or when an approval meets a failed gate.
    """
    if not by.may(APPROVER):
        raise SignInError("A decision needs the role approver.", "Ask an approver.", code="sign_in.role")
    return _record(project, number, approve, by.account_id, "authenticated", reason, now)


def decide_by_policy(project: Project, number: int, *, now: datetime) -> str:
    """Let the gate decide and return the decision's id. StateError where a person has to."""
    row = rounds.get(project, number)
    if not row["simulated"] and project.config.gate.approval != "automatic":
        raise StateError(
            f"Round {number} is decided by a person.",
            f"`redraft promote {number} --approve|--hold --by LOGIN --reason TEXT`, or `gate.approval: automatic`.",
        )
    passed = bool(gate_of(project, number)["passed"])
    reason = "gate passed" if passed else "gate not passed"
    return _record(project, number, passed, FOLLOW_THE_GATE, "policy", reason, now)


def check(project: Project, number: int, *, approve: bool, reason: str) -> str | None:
    """The id of the same decision where it was recorded already; None where this one can be recorded.

    Raises
    ------
    UsageError
        No reason is given, or there is no such round.
    StateError
        As `decide`.
    """
    if not reason.strip():
        raise UsageError("A decision needs a reason.", "Give --reason.")
    row = rounds.get(project, number)
    kind = _kind(approve)
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
            f"Hold it: `redraft promote {number} --hold --by LOGIN --reason TEXT`.",
            code="state.gate_failed",
        )
    return None


def verified(project: Project, number: int, decision_id: str) -> dict[str, Any]:
    """A recorded decision that may be acted on.

    Raises
    ------
    StateError
        There is none of this id, or nobody has shown that it is theirs (records from before there were accounts are
        good where they were carried out then, and not otherwise).
    IntegrityError
        It names an account that is not there or was never an approver, or a policy that the project does not have.
    """
    decision = project.ledger.one("decision", decision_id=decision_id, round=number)
    if decision is None:
        raise StateError(
            f"Round {number}: there is no decision {decision_id} in the ledger.",
            f"Decide with `redraft promote {number} --approve|--hold --by LOGIN --reason TEXT`.",
        )
    row = rounds.get(project, number)
    identity, by = decision["identity"], str(decision["by_whom"])
    if identity == "authenticated":
        if not _was_approver(project, by):
            raise IntegrityError(
                f"The decision about round {number} names {by}, which is no approver's account.",
                "Run `redraft audit verify`; do not act on this decision.",
            )
    elif identity == "policy":
        if not row["simulated"] and project.config.gate.approval != "automatic":
            raise IntegrityError(
                f"The decision about round {number} is a policy's, and this project has people decide.",
                "Run `redraft audit verify`; do not act on this decision.",
            )
    elif row["state"] != (RoundState.PROMOTED if decision["kind"] == "approve" else RoundState.HELD):
        raise StateError(
            f"The decision about round {number} says who made it, and nobody has shown it.",
            f"Abort the round (`redraft round abort {number}`): this decision was recorded before there were accounts.",
            code="state.asserted",
        )
    return decision


def gate_of(project: Project, number: int) -> dict[str, Any]:
    """The gate's result as evaluate recorded it."""
    runs = project.ledger.rows("step_run", round=number, step="evaluate", state="done")
    if not runs:
        raise StateError(f"Round {number} was not evaluated yet.", f"Run `redraft round close {number}`.")
    gate: dict[str, Any] = max(runs, key=lambda run: run["finished_at"])["outputs"]["gate"]
    return gate


def _record(
    project: Project, number: int, approve: bool, by: str, identity: str, reason: str, now: datetime
) -> str:  # fmt: skip
    known = check(project, number, approve=approve, reason=reason)
    if known is not None:
        return known
    row, gate, kind = rounds.get(project, number), gate_of(project, number), _kind(approve)
    decision_id = sha256_json([number, kind, row["challenger"], by, reason])[:24]
    with project.ledger.tx(f"decision:{kind}", now) as tx:
        # Two people at the same moment: the second sees the first one's decision here.
        if tx.rows("decision", round=number):
            raise StateError(f"Round {number} was decided just now.", "See `redraft status`.")
        tx.insert(
            "decision",
            {
                "decision_id": decision_id,
                "round": number,
                "kind": kind,
                "model_digest": row["challenger"],
                "by_whom": by,
                "identity": identity,
                "reason": reason,
                "gate": gate,
                "at": now,
            },
        )
    return decision_id


def _kind(approve: bool) -> str:
    return "approve" if approve else "hold"


def _was_approver(project: Project, account_id: str) -> bool:
    """Whether the chain knows this account as an approver; roles may have been taken away since."""
    for kind in ("account.insert", "account.update"):
        for event in project.ledger.rows("audit_event", kind=kind):
            row = event["payload"]["row"]
            if row["account_id"] == account_id and APPROVER in row["roles"]:
                return True
    return False
