"""An exam that fits nobody is named, the others go on, and it goes out as soon as somebody fits."""

from __future__ import annotations

import json
from collections.abc import Callable

from redraft.project import Project
from redraft.status import project_status
from redraft.steps import Context

TINY = Callable[..., Project]
HOURS = ", minutes_per_round: 45}"


def named(project: Project) -> list[str]:
    return [item["what"] for item in project_status(project)["waiting_for"] if "have no reader" in item["what"]]


def test_what_does_not_fit_is_named_and_goes_out_later(tiny: TINY) -> None:
    """Two exams of 20 minutes fit into 45; the rest is in the record, in the chain and in the status, until it fits."""
    from tasks.dispatch.step import dispatch, give, keep_leases
    from tasks.select.step import select

    project = tiny(
        ("{id: reader-1, role: radiologist}", "{id: reader-1, role: radiologist" + HOURS),
        ("{id: reader-2, role: radiologist}", "{id: reader-2, role: radiologist" + HOURS),
    )
    select.fn(str(project.root), 2, None)
    ref = dispatch.fn(str(project.root), 2, None)
    with project.ledger.tx("test") as tx:
        tx.update("round", {"number": 2}, {"state": "AWAITING_ANNOTATION"})
    wanted = {row["exam_id"] for row in project.ledger.rows("selection", round=2)} | {"v1", "t1", "t2", "x0", "x1"}
    left = {item.exam_id for item in ref.unassigned}
    out = project.ledger.rows("assignment", round=2)
    minutes = {name: 20.0 * sum(row["reader_id"] == name for row in out) for name in ("reader-1", "reader-2")}
    assert left and {item.why for item in ref.unassigned} == {"hours"} and max(minutes.values()) <= 45
    assert {row["exam_id"] for row in out if row["attempt"] == 1} | left == wanted
    (event,) = project.ledger.rows("audit_event", kind="dispatch.unassigned")
    assert {item["exam_id"] for item in event["payload"]["readings"]} == left
    assert named(project) and named(project)[0].startswith(f"{len(left)} exams have no reader: no reader has minutes")
    # A person may decide that the minutes do not matter.
    exam = sorted(left)[0]
    identity = give(Context(project, 2, None, "test"), exam, "reader-2")
    assert json.loads((project.work / identity / "task.json").read_text())["exam_id"] == exam
    before = len(project.ledger.rows("audit_event"))
    assert not keep_leases.fn(str(project.root), 2, None).handed and len(project.ledger.rows("audit_event")) == before
    # More minutes in project.yaml: the next sweep hands the rest out.
    path = project.root / "project.yaml"
    path.write_text(path.read_text().replace(HOURS, ", minutes_per_round: 4000}"))
    kept = keep_leases.fn(str(project.root), 2, None)
    assert set(kept.handed.values()) == left - {exam} and not kept.unassigned
    assert {row["exam_id"] for row in project.ledger.rows("assignment", round=2)} >= wanted
    assert named(Project.open(project.root)) == []
