"""close_round: collect → validate → retrain → evaluate → account, then the round is locked and published."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow

from redraft import rounds
from redraft.ledger import RoundState
from redraft.lineage.publish import lock_and_publish
from redraft.project import Project
from redraft.steps import Context
from tasks.account.step import account
from tasks.dispatch.step import carry_over, collect
from tasks.evaluate.step import EvaluateRef, evaluate
from tasks.retrain.step import retrain
from tasks.validate.step import validate


@flow(name="close_round", persist_result=False, retries=0)
def close_round(project_dir: str, number: int, early: bool = False) -> EvaluateRef:
    """Close a round, or resume a closing that was interrupted.

    Parameters
    ----------
    early : bool
        Close before the deadline although work is still out; it is carried over to the next round.
    """
    project = Project.open(project_dir)
    with rounds.writer(project, _now) as lease:
        ctx = Context(project, number, lease.token, "close_round")
        rounds.may_close(project, number)
        collect(project_dir, number, lease.token)
        validate(project_dir, number, lease.token, "arrival")
        rounds.require_returns(project, number, _now(), early=early)
        rounds.begin_close(project, number, _now(), "close_round")
        with rounds.failing(ctx):
            validate(project_dir, number, lease.token, "close")
            carry_over(project_dir, number, lease.token)
            retrain(project_dir, number, lease.token)
            out = evaluate(project_dir, number, lease.token)
            account(project_dir, number, lease.token)
            lock_and_publish(ctx)
        rounds.move(ctx, RoundState.AWAITING_APPROVAL, closed_at=_now())
        return out


def _now() -> datetime:
    return datetime.now(UTC)
