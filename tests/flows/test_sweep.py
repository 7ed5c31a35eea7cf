"""A sweep does what has to be done, once, whenever it comes: with simulated readers, files and clock of its own."""

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
from redraft.work_leases import replacement_id

RUNNER = CliRunner()
TWO = "    - {id: reader-1, role: radiologist}\n    - {id: reader-2, role: radiologist, sloppiness_mm: 0.5}"


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
    from conftest import SETTINGS, make_project

    def make(**changes: str) -> Project:
        import flows.open_round as opening

        project = make_project(tmp_path / "kidneys", phantom, **changes)
        opening.open_round(str(project.root))
        return Project.open(project.root)

    assert SETTINGS
    return make


def sweep(project: Project, after: timedelta = timedelta(0)) -> Any:
    """One sweep, so much later than now."""
    from flows.sweep import run_sweep

    return run_sweep(str(project.root), lambda: datetime.now(UTC) + after)


def chain(project: Project) -> int:
    """How long the audit chain is: whatever is written makes it longer. Leases of the writer aside."""
    return len([row for row in project.ledger.rows("audit_event") if not row["kind"].startswith("lease.")])


def test_a_sweep_takes_in_and_closes_a_complete_round(opened: Callable[..., Project]) -> None:
    """Simulated readers finish everything: one sweep takes it in and closes the round; the next has nothing to do."""
    project = opened()
    out = sweep(project)
    assert out.closed == 1 and out.state == "AWAITING_APPROVAL" and out.complete == out.exams > 0
    assert out.received.valid == len(project.ledger.rows("assignment", round=1, state="ACCEPTED"))
    before = chain(project)
    again = sweep(project)
    assert (again.did, again.closed, chain(project)) == ((), None, before)


def test_a_lease_that_runs_out_goes_to_the_other_reader_once(opened: Callable[..., Project]) -> None:
    """Nobody works: after three days each exam is with the other reader, then it waits for a person."""
    project = opened(**{"backend: folder": "backend: review"})
    first = project.ledger.rows("assignment")
    assert first and {row["state"] for row in project.ledger.rows("work_lease")} == {"held"}
    before = chain(project)
    assert sweep(project, timedelta(hours=71)).did == () and chain(project) == before
    out = sweep(project, timedelta(hours=73))
    assert sorted(out.leases.expired) == sorted(row["assignment_id"] for row in first)
    rows = {row["assignment_id"]: row for row in project.ledger.rows("assignment")}
    for row in first:
        other = "reader-2" if row["reader_id"] == "reader-1" else "reader-1"
        new = rows[replacement_id(row["assignment_id"], other)]
        assert rows[row["assignment_id"]]["state"] == "WITHDRAWN" and new["state"] == "DISPATCHED"
        same = ("exam_id", "purpose", "mode", "mode_probability", "draft_id", "round", "due_at")
        assert [new[key] for key in same] == [row[key] for key in same]
        task = json.loads((project.work / new["assignment_id"] / "task.json").read_text())
        assert task["reader_id"] == other and task["token"]
        assert task["token"] != json.loads((project.work / row["assignment_id"] / "task.json").read_text())["token"]
    before = chain(project)
    assert sweep(project, timedelta(hours=74)).did == () and chain(project) == before
    last = sweep(project, timedelta(hours=146))
    assert set(last.leases.escalated) == {row["exam_id"] for row in first} and last.leases.handed == {}
    assert len(project.ledger.rows("assignment")) == 2 * len(first)
    before = chain(project)
    assert sweep(project, timedelta(hours=147)).leases.escalated == last.leases.escalated and chain(project) == before
