"""sweep: what has to be done from time to time while readers work. Safe to run at any moment, and twice.

Finished work is taken in, leases are kept, what nobody has goes to another reader, and the round closes when it is
complete or past its deadline. Events that ask for a sweep are hints; what is to be done is read from the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow

from flows.close_round import close_round, receive
from redraft import rounds
from redraft.desk.retention import clear_finished
from redraft.errors import ConflictError
from redraft.ledger import RoundState
from redraft.project import Project
from redraft.steps import Contract
from tasks.dispatch.assign import WORDS
from tasks.dispatch.packages import RESULT
from tasks.dispatch.refs import KeptRef
from tasks.dispatch.step import keep_leases
from tasks.validate.step import ArriveRef

# Each a sentence that has to be true again at the next sweep, until somebody does something.
NOTHING_TO_TRAIN = "past its deadline, and no training annotation is accepted"


class SweepRef(Contract):
    """What a sweep did and what it could not do.

    Attributes
    ----------
    round, state : the live round afterwards; None where there is none.
    busy : another process works on the project; it does what was to be done, or the next sweep does.
    did : what was done, in sentences; empty when there was nothing to do.
    waits : what a person has to look at, in sentences.
    late : withdrawn assignments whose readers finished them all the same; their packages are kept.
    closed : the round that was closed.
    cleared : pieces of work that have been over for so long that the desk keeps them no more.
    """

    round: int | None = None
    state: str | None = None
    busy: bool = False
    did: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    received: ArriveRef | None = None
    leases: KeptRef | None = None
    late: tuple[str, ...] = ()
    complete: int = 0
    exams: int = 0
    closed: int | None = None
    cleared: int = 0


@flow(name="sweep", persist_result=False, retries=0)
def sweep(project_dir: str) -> SweepRef:
    """One sweep, as a deployment runs it."""
    return run_sweep(project_dir)


def utc_now() -> datetime:
    return datetime.now(UTC)


def run_sweep(project_dir: str, clock: Callable[[], datetime] = utc_now) -> SweepRef:
    """One sweep. Only a closing goes through Prefect; everything else is quick.

    Raises
    ------
    RedraftError
        What receiving or closing ran into. A round that failed is left to a person by the next sweeps.
    """
    project = Project.open(project_dir)
    cleared = clear_finished(project, clock() - timedelta(days=project.config.web.keep_days))
    out = _sweep(project, project_dir, clock)
    if cleared:
        did = (*out.did, f"cleared the desk of {cleared} pieces of work that are long over")
        out = out.model_copy(update={"cleared": cleared, "did": did})
    return out


def _sweep(project: Project, project_dir: str, clock: Callable[[], datetime]) -> SweepRef:
    live = rounds.current(project)
    if live is None:
        return SweepRef()
    number, state = int(live["number"]), live["state"]
    if state == RoundState.CLOSING:  # a process that still closes it holds the lease, and `busy` comes of it
        return _close(project, SweepRef(round=number, state=state), early=True, why="its closing was interrupted")
    if state != RoundState.AWAITING_ANNOTATION:
        waits = (f"round {number} failed in {live['failed_in']}",) if state == RoundState.FAILED else ()
        return SweepRef(round=number, state=state, waits=waits)
    try:
        with rounds.writer(project, clock) as lease:
            received = receive(project_dir, number, lease.token, plain=True)
            kept = keep_leases.fn(project_dir, number, lease.token, clock)
            did = _did(received, kept)
            if did:
                with project.ledger.tx("sweep", clock()) as tx:
                    tx.event("sweep.done", {"round": number, **_counts(received, kept)})
    except ConflictError:
        return SweepRef(round=number, state=state, busy=True)
    progress = rounds.completion(project, number)
    out = SweepRef(
        round=number, state=state, did=tuple(did), waits=tuple(_waits(received, kept)), received=received, leases=kept,
        late=_late(project, number), complete=progress.complete, exams=progress.exams,
    )  # fmt: skip
    over = clock() >= datetime.fromisoformat(live["due_at"])
    if not (progress.done or over):
        return out
    if not rounds.anything_to_train_on(project):
        return out.model_copy(update={"waits": (*out.waits, f"round {number} is {_why_not(progress.done)}")})
    why = "it is complete" if progress.done else "its deadline is over; what is out is carried over"
    return _close(project, out, early=over, why=why)


def _close(project: Project, out: SweepRef, *, early: bool, why: str) -> SweepRef:
    number = out.round
    assert number is not None
    try:
        close_round(str(project.root), number, early)
    except ConflictError:
        return out.model_copy(update={"busy": True})
    state = rounds.get(project, number)["state"]
    return out.model_copy(update={"closed": number, "state": state, "did": (*out.did, f"closed round {number}: {why}")})


def _why_not(complete: bool) -> str:
    return "complete, and no training annotation is accepted" if complete else NOTHING_TO_TRAIN


def _did(received: ArriveRef, kept: KeptRef) -> list[str]:
    lines = []
    if received.valid:
        lines.append(f"took in {received.valid} annotations, {received.in_review} of them to be reviewed")
    if received.refused:
        lines.append(f"sent {len(received.refused)} back to their readers")
    if received.rejected:
        lines.append(f"took note of {received.rejected} exams that readers could not segment")
    if received.consensus:
        lines.append(f"put the readings of {received.consensus} exams together")
    if kept.expired:
        lines.append(f"withdrew {len(kept.expired)} assignments whose time ran out")
    if kept.left:
        lines.append(f"withdrew {len(kept.left)} assignments of readers who take no work any more")
    if kept.handed:
        lines.append(f"gave {len(kept.handed)} to other readers")
    if kept.renewed:
        lines.append(f"kept {kept.renewed} for their readers anew, for they were sent back")
    if kept.repaired:
        lines.append(f"made {len(kept.repaired)} packages that were missing")
    return lines


def _waits(received: ArriveRef, kept: KeptRef) -> list[str]:
    lines = [f"exam {exam}: its time ran out too often; decide who reads it" for exam in kept.escalated]
    lines += [f"exam {item.exam_id}: {WORDS[item.why]}" for item in kept.unassigned]
    lines += [f"assignment {name}: cannot be taken in ({rule})" for name, rule in sorted(received.unreadable.items())]
    return lines


def _counts(received: ArriveRef, kept: KeptRef) -> dict[str, Any]:
    return {
        "valid": received.valid,
        "refused": len(received.refused),
        "rejected": received.rejected,
        "expired": len(kept.expired),
        "left": len(kept.left),
        "handed": len(kept.handed),
        "escalated": len(kept.escalated),
        "repaired": len(kept.repaired),
    }


def _late(project: Project, number: int) -> tuple[str, ...]:
    rows = project.ledger.rows("assignment", round=number, state="WITHDRAWN")
    return tuple(row["assignment_id"] for row in rows if (project.work / row["assignment_id"] / RESULT).exists())
