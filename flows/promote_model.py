"""promote_model: an approval, then the champion alias moves.

As a deployment the flow suspends at its first line until somebody resumes it with a decision's id; started with the id
(from the command line) it goes straight on. Either way the ledger is asked what was decided and whether whoever did
has shown who they are: the id is all that a resume carries, and a made-up one is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput

from redraft import rounds
from redraft.decisions import verified
from redraft.ledger import RoundState
from redraft.lineage.publish import publish_decision
from redraft.project import Project
from redraft.steps import Context, Contract


class Decision(RunInput):
    """What a resume must carry. No default: Prefect accepts a resume without input and would fill it in."""

    decision_id: str


class PromoteRef(Contract):
    """Outcome of a decision."""

    round: int
    state: str
    champion: str | None


@flow(name="promote_model", persist_result=False, retries=0)
def promote_model(project_dir: str, number: int, decision_id: str | None = None) -> PromoteRef:
    """Carry out a recorded decision: move the champion alias or hold, then tag and publish it."""
    if decision_id is None:
        decision_id = suspend_flow_run(wait_for_input=Decision, timeout=14 * 24 * 3600).decision_id
    project = Project.open(project_dir)
    decision = verified(project, number, decision_id)
    with rounds.writer(project, _now) as lease:
        ctx = Context(project, number, lease.token, "promote_model")
        publish_decision(ctx, decision)
        target = RoundState.PROMOTED if decision["kind"] == "approve" else RoundState.HELD
        if rounds.get(project, number)["state"] != target:
            rounds.move(ctx, target)
    champion = rounds.champion(project)
    return PromoteRef(round=number, state=target, champion=champion["model_digest"] if champion else None)


def _now() -> datetime:
    return datetime.now(UTC)
