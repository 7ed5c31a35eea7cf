"""The life of a round in the ledger: opened or resumed, closed, failed, aborted, promoted."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from redraft.digest import sha256_json
from redraft.errors import ConflictError, RedraftError, StateError, UsageError
from redraft.ledger import RoundState, fail_round, hold_lease, move_round, resume_round
from redraft.ledger.lease import Lease
from redraft.project import Project
from redraft.steps import Context
from redraft.work_leases import Progress, progress

PLACES = ("services", "remote", "security", "simulation")
TERMINAL = (RoundState.PROMOTED, RoundState.HELD, RoundState.ABORTED)
LEASE_SECONDS = 180


@contextmanager
def writer(project: Project, clock: Any) -> Iterator[Lease]:
    """Hold the project's single-writer lease. Raises ConflictError naming the holder when another process has it."""
    import psutil

    started = int(psutil.Process().create_time())
    holder = f"{machine_tag()}-{os.getpid()}-{started}-{uuid.uuid4().hex[:8]}"
    with hold_lease(project.ledger, "writer", holder, ttl_s=LEASE_SECONDS, clock=clock, alive=_alive) as lease:
        yield lease


def _alive(holder: str) -> bool:
    """Whether a lease's holder still runs; one of another machine counts as alive until its lease expires."""
    import psutil

    try:
        tag, pid, started, _ = holder.split("-")
        if tag != machine_tag():
            return True
        return abs(psutil.Process(int(pid)).create_time() - int(started)) < 2
    except psutil.NoSuchProcess:
        return False
    except ValueError:
        return True


def machine_tag() -> str:
    """Eight characters that tell machines apart without naming them."""
    return sha256_json([platform.node(), uuid.getnode()])[:8]


@contextmanager
def failing(ctx: Context) -> Iterator[None]:
    """Mark the round FAILED (with the state it failed in) when a step raises; the error goes on to the caller.

    A lost lease marks nothing: the round belongs to another process then.
    """
    try:
        yield
    except ConflictError:
        raise
    except Exception as error:
        code = error.code if isinstance(error, RedraftError) else type(error).__name__
        ctx.check_lease()
        with ctx.ledger.tx(ctx.actor, ctx.clock()) as tx:
            fail_round(tx, ctx.number)
            tx.event("round.failed", {"round": ctx.number, "error": code})
        raise


def current(project: Project) -> dict[str, Any] | None:
    """The round that is not in a terminal state, if any."""
    live = [row for row in project.ledger.rows("round") if row["state"] not in TERMINAL]
    return live[-1] if live else None


def get(project: Project, number: int | None) -> dict[str, Any]:
    """A round by number, or the latest. Raises UsageError when it does not exist."""
    rows = sorted(project.ledger.rows("round"), key=lambda row: row["number"])
    if not rows:
        raise UsageError("This project has no round yet.", "Open one with `redraft round open`.")
    if number is None:
        return rows[-1]
    for row in rows:
        if row["number"] == number:
            return row
    raise UsageError(f"There is no round {number}.", f"Rounds: 1 to {rows[-1]['number']}.")


def begin(project: Project, now: datetime, actor: str, criteria: Callable[[str | None], dict[str, Any]]) -> int:
    """Open a new round record, or resume the one whose opening was interrupted; returns its number.

    `criteria` makes the gate's criteria from the champion's digest (None on a cold start).

    What decides the round is recorded here and never read from project.yaml again: configuration, seed, champion and
    the gate's criteria.
    """
    live = current(project)
    if live is not None:
        state = live["failed_in"] if live["state"] == RoundState.FAILED else live["state"]
        if state != RoundState.OPENING:
            raise StateError(
                f"Round {live['number']} is {live['state']}; one round runs at a time.",
                f"Finish it first (`redraft round close {live['number']}`, `redraft promote {live['number']} …`), "
                f"or `redraft round abort {live['number']}`.",
            )
        if live["state"] == RoundState.FAILED:
            with project.ledger.tx(actor, now) as tx:
                resume_round(tx, live["number"])
        return int(live["number"])
    config = project.config
    numbers = [row["number"] for row in project.ledger.rows("round")]
    number = max(numbers, default=0) + 1
    model = champion(project)
    with project.ledger.tx(actor, now) as tx:
        tx.insert(
            "round",
            {
                "number": number,
                "state": RoundState.OPENING,
                "failed_in": None,
                "strategy": config.select.strategy,
                "seed": config.seed,
                "config": config.model_dump(mode="json", by_alias=True, exclude=set(PLACES)),
                "config_sha256": project.config_digest,
                "criteria": criteria(model["model_digest"] if model else None),
                "opened_at": now,
                "due_at": now + timedelta(days=config.dispatch.deadline_days),
                "closed_at": None,
                "champion": model["model_digest"] if model else None,
                "challenger": None,
                "simulated": config.dispatch.backend == "simulated",
            },
        )
    return number


def move(ctx: Context, to: RoundState, **changes: Any) -> None:
    """Move the round, checking the lease first."""
    ctx.check_lease()
    with ctx.ledger.tx(ctx.actor, ctx.clock()) as tx:
        move_round(tx, ctx.number, to)
        if changes:
            tx.update("round", {"number": ctx.number}, changes)


def begin_close(project: Project, number: int, now: datetime, actor: str) -> None:
    """Move a round into CLOSING, or resume an interrupted closing."""
    row = get(project, number)
    state = row["state"]
    if state == RoundState.CLOSING:
        return
    if state == RoundState.FAILED and row["failed_in"] == RoundState.CLOSING:
        with project.ledger.tx(actor, now) as tx:
            resume_round(tx, number)
        return
    if state != RoundState.AWAITING_ANNOTATION:
        raise StateError(
            f"Round {number} is {state}; only a round that awaits annotation can be closed.", "See `redraft status`."
        )
    with project.ledger.tx(actor, now) as tx:
        move_round(tx, number, RoundState.CLOSING)


def abort(project: Project, number: int, now: datetime, actor: str) -> None:
    """Abort a round: its open assignments are withdrawn, what readers returned stays."""
    from redraft.ledger import AssignmentState, move_assignment

    final = {AssignmentState.ACCEPTED, AssignmentState.REJECTED, AssignmentState.WITHDRAWN}
    with project.ledger.tx(actor, now) as tx:
        move_round(tx, number, RoundState.ABORTED)
        for row in tx.rows("assignment", round=number):
            if row["state"] not in final:
                move_assignment(tx, row["assignment_id"], AssignmentState.WITHDRAWN)


def champion(project: Project) -> dict[str, Any] | None:
    """The model in use: the one of the latest approval."""
    approvals = [row for row in project.ledger.rows("decision") if row["kind"] == "approve"]
    if not approvals:
        return None
    latest = max(approvals, key=lambda row: (row["round"], row["at"]))
    return project.ledger.one("model", model_digest=latest["model_digest"])


def awaits_annotation(project: Project, number: int) -> bool:
    """True while work may come in, False while an interrupted closing goes on; StateError for any other round."""
    row = get(project, number)
    stage = row["failed_in"] if row["state"] == RoundState.FAILED else row["state"]
    if stage not in (RoundState.AWAITING_ANNOTATION, RoundState.CLOSING):
        what = f"Round {number} is {row['state']}; only a round that awaits annotation can be closed."
        raise StateError(what, "See `redraft status`.")
    return bool(stage == RoundState.AWAITING_ANNOTATION)


def completion(project: Project, number: int) -> Progress:
    """How far a round is by the rule of dispatch.completion (redraft.work_leases.progress)."""
    ledger = project.ledger
    undecided = [row["exam_id"] for row in ledger.rows("consensus", state="to_adjudicate")]
    return progress(ledger.rows("assignment", round=number), project.config, undecided)


def round_complete(project: Project, number: int) -> bool:
    """Whether a round may close by itself: n of m readings of an exam are in, for the share of exams asked for."""
    return completion(project, number).done


def anything_to_train_on(project: Project) -> bool:
    """Whether a closing would have a training annotation to start from."""
    work = {row["assignment_id"]: row for row in project.ledger.rows("assignment")}
    return any(
        work[row["assignment_id"]]["state"] == "ACCEPTED" and work[row["assignment_id"]]["purpose"] == "training"
        for row in project.ledger.rows("annotation", state="valid")
    )


def require_returns(project: Project, number: int, now: datetime, *, early: bool) -> None:
    """Raise StateError unless the round may be closed.

    It may when it is complete, past its deadline, or `early`; and only with an accepted training annotation at least.
    Readings that are still out then are carried over by the closing.
    """
    row = get(project, number)
    found = completion(project, number)
    if not anything_to_train_on(project):
        raise StateError(
            f"Round {number}: no training annotation is accepted ({len(found.missing)} of {found.exams} exams are "
            "not complete).",
            "Wait for readers and reviewers, or abort the round.",
            code="state.nothing_to_train",
        )
    if not found.done and now < datetime.fromisoformat(row["due_at"]) and not early:
        raise StateError(
            f"Round {number}: {len(found.missing)} of {found.exams} exams are not complete; "
            f"the deadline is {row['due_at']}.",
            f"Wait, or `redraft round close {number} --early`: what is out is carried over to the next round.",
            code="state.work_out",
        )
