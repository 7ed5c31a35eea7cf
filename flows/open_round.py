"""open_round: ingest → infer → select → dispatch, then the flow is complete and readers work for days."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow

from redraft import rounds
from redraft.ledger import RoundState
from redraft.project import Project
from redraft.steps import Context
from tasks.dispatch.refs import DispatchRef
from tasks.dispatch.step import dispatch
from tasks.evaluate.gate import criteria
from tasks.infer.step import infer
from tasks.ingest.step import ingest
from tasks.select.step import select


@flow(name="open_round", persist_result=False, retries=0)
def open_round(project_dir: str) -> DispatchRef:
    """Open the next round, or resume the one whose opening was interrupted.

    Parameters
    ----------
    project_dir : str
        The project directory. Sources are read from its project.yaml, never passed as parameters.
    """
    project = Project.open(project_dir)
    with rounds.writer(project, _now) as lease:

        def fixed(champion: str | None) -> dict[str, object]:
            return criteria(project.config.gate, project.config.structures, champion).model_dump(mode="json")

        number = rounds.begin(project, _now(), "open_round", fixed)
        ctx = Context(project, number, lease.token, "open_round")
        with rounds.failing(ctx):
            ingest(project_dir, number, lease.token)
            infer(project_dir, number, lease.token)
            select(project_dir, number, lease.token)
            out = dispatch(project_dir, number, lease.token)
        rounds.move(ctx, RoundState.AWAITING_ANNOTATION)
        return out


def _now() -> datetime:
    return datetime.now(UTC)
