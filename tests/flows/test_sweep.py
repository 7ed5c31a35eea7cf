"""A sweep does what has to be done, once, whenever it comes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from redraft import rounds
from redraft.project import Project

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def plain() -> None:
    """Flows call the plain functions: what they do is under test, not Prefect."""
    sys.path.insert(0, str(Path(__file__).parent))
    from plain import unwrap

    unwrap()
    import flows.sweep as sweeping

    closing: Any = sweeping.close_round
    sweeping.close_round = getattr(closing, "fn", closing)


@pytest.fixture
def opened(tmp_path: Path, phantom: Path, plain: None) -> Callable[..., Project]:
    """Makes a phantom project and opens its first round; text pairs replace what its project.yaml says."""
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import make_project

    def make(**changes: str) -> Project:
        import flows.open_round as opening

        project = make_project(tmp_path / "kidneys", phantom, **changes)
        opening.open_round(str(project.root))
        return Project.open(project.root)

    return make


def sweep(project: Project, after: timedelta = timedelta(0)) -> Any:
    """One sweep, so much later than now."""
    from flows.sweep import run_sweep

    return run_sweep(str(project.root), lambda: datetime.now(UTC) + after)


def chain(project: Project) -> int:
    """How long the audit chain is: whatever is written makes it longer. The writer's own lease aside."""
    return len([row for row in project.ledger.rows("audit_event") if not row["kind"].startswith("lease.")])


def test_a_sweep_takes_in_and_closes_a_complete_round(
    opened: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated readers finish everything: it is taken in and the round closes, by the next sweep where one was killed
    in the middle of the closing; the one after that has nothing to do."""
    import flows.close_round as closing

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    project = opened()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(closing, "retrain", killed)
        sweep(project)
    assert rounds.get(project, 1)["state"] == "CLOSING"
    taken_in = project.ledger.rows("annotation", state="valid")
    out = sweep(project)
    assert out.closed == 1 and out.state == "AWAITING_APPROVAL" and out.received is None
    assert len(taken_in) == len(project.ledger.rows("assignment", round=1, state="ACCEPTED")) > 0
    assert project.ledger.rows("annotation", state="valid") == taken_in
    (told,) = [row["payload"] for row in project.ledger.rows("audit_event", kind="sweep.done")]
    assert told["valid"] == len(taken_in)
    before = chain(project)
    again = sweep(project)
    assert (again.did, again.closed, chain(project)) == ((), None, before)


def test_a_sweep_before_anything_came_back(opened: Callable[..., Project]) -> None:
    """Nothing to do, however often: nothing is written, exit code 0, in words and as JSON; past the deadline with
    nothing to train on it says so and closes nothing."""
    from app.cli.main import app

    project = opened(**{"backend: folder": "backend: review"})
    before = chain(project)
    result = RUNNER.invoke(app, ["sweep", "--project", str(project.root), "--json"])
    content = json.loads(result.output)
    assert result.exit_code == 0 and (content["did"], content["closed"], content["busy"]) == ([], None, False)
    result = RUNNER.invoke(app, ["sweep", "--project", str(project.root)])
    assert result.exit_code == 0 and "nothing to do" in result.output
    assert chain(project) == before
    much_later = timedelta(hours=80)
    with rounds.writer(project, lambda: datetime.now(UTC) + much_later):  # another process works on the project
        busy = sweep(project, much_later)
    assert busy.busy and not busy.did and not project.ledger.rows("assignment", state="WITHDRAWN")
    late = sweep(project, timedelta(days=15))
    assert late.closed is None and any("deadline" in line for line in late.waits)
    assert late.leases.expired and rounds.get(project, 1)["state"] == "AWAITING_ANNOTATION"
