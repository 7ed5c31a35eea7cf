"""Which readings came back to their readers, and which never found one: asked before work is given away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from redraft.cohort import Cohort
from redraft.project import Project
from redraft.work_leases import COUNTED
from tasks.dispatch.assign import Item
from tasks.dispatch.planning import Expectations
from tasks.dispatch.refs import DispatchRef

Row = Mapping[str, Any]


def sent_back(project: Project) -> dict[str, datetime]:
    """Assignment to when it last went back to its reader: refused on arrival, or returned by a reviewer."""
    found: dict[str, datetime] = {}
    annotations = {row["annotation_id"]: row for row in project.ledger.rows("annotation")}
    times = [(row["assignment_id"], row["received_at"]) for row in annotations.values() if row["state"] == "invalid"]
    times += [
        (annotations[row["annotation_id"]]["assignment_id"], row["decided_at"])
        for row in project.ledger.rows("review", state="returned")
    ]
    for assignment, at in times:
        moment = datetime.fromisoformat(at)
        found[assignment] = max(moment, found.get(assignment, moment))
    return found


def never_given(
    project: Project, cohort: Cohort, expected: Expectations, rows: Sequence[Row], number: int
) -> list[Item]:  # fmt: skip
    """Exams of this round that found no reader when it was dispatched: there may be one by now."""
    runs = project.ledger.rows("step_run", round=number, step="dispatch", state="done")
    if not runs:
        return []
    latest = DispatchRef.model_validate(max(runs, key=lambda run: run["finished_at"])["outputs"])
    given = {row["exam_id"] for row in rows if row["purpose"] in COUNTED}
    selection = {row["exam_id"]: row for row in project.ledger.rows("selection", round=number)}
    items = []
    for item in latest.unassigned:
        if item.second or item.exam_id in given or cohort.annotated(item.exam_id):
            continue
        if item.purpose == "reference":
            items.append(expected.reference(item.exam_id))
        elif item.exam_id in selection:
            items.append(expected.chosen(selection[item.exam_id]))
    return items
