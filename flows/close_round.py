"""close_round: collect → validate → retrain → evaluate → account, then the round is locked and published."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import flow

from redraft import rounds
from redraft.errors import StateError
from redraft.ledger import RoundState
from redraft.lineage.publish import lock_and_publish
from redraft.project import Project
from redraft.steps import Context
from tasks.account.step import account
from tasks.dispatch.step import carry_over, collect, send_back
from tasks.evaluate.step import EvaluateRef, evaluate
from tasks.retrain.step import retrain
from tasks.validate.step import ArriveRef, arrive, validate


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
        if rounds.awaits_annotation(project, number):
            receive(project_dir, number, lease.token)
            rounds.require_returns(project, number, _now(), early=early)
        rounds.begin_close(project, number, _now(), "close_round")
        with rounds.failing(ctx):
            validate(project_dir, number, lease.token)
            carry_over(project_dir, number, lease.token)
            retrain(project_dir, number, lease.token)
            out = evaluate(project_dir, number, lease.token)
            account(project_dir, number, lease.token)
            lock_and_publish(ctx)
        rounds.move(ctx, RoundState.AWAITING_APPROVAL, closed_at=_now())
        return out


def receive(project_dir: str, number: int, token: int, *, plain: bool = False) -> ArriveRef:
    """Take in what readers have finished: judged on arrival, refused work goes back with its reasons.

    Readers' work may come in at any time while the round waits; closing starts from what is in.

    Parameters
    ----------
    plain : bool
        Run the steps without Prefect: it costs seconds, and a sweep comes every few minutes.
    """
    run = _without_prefect if plain else _as_it_is
    collected = run(collect)(project_dir, number, token)
    out = run(arrive)(project_dir, number, token, collected.model_dump(mode="json"))
    run(send_back)(project_dir, number, token)
    return out.model_copy(update={"unreadable": collected.unreadable})


@flow(name="receive_labels", persist_result=False, retries=0)
def receive_labels(project_dir: str, number: int) -> ArriveRef:
    """Take in finished work while the round goes on waiting for the rest."""
    project = Project.open(project_dir)
    with rounds.writer(project, _now) as lease:
        if not rounds.awaits_annotation(project, number):
            raise StateError(f"Round {number} is closing.", f"Finish it: `redraft round close {number}`.")
        return receive(project_dir, number, lease.token)


def _as_it_is(step: Any) -> Any:
    return step


def _without_prefect(step: Any) -> Any:
    return getattr(step, "fn", step)


def _now() -> datetime:
    return datetime.now(UTC)
