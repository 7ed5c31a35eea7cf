"""How long unfinished work is kept once it is finished: autosaves of work that is over go, offers that are open stay.

Over is work whose round was closed `web.keep_days` ago and on which nothing was saved since:

- accepted: the newest autosave stays, for a reviewer may open the work again; what is before it goes;
- sent back without a segmentation: all of it goes;
- withdrawn: kept as long as the exam has no label that counts, for somebody may be offered what was drawn;
- second looks and adjudications that wait no more: all of it goes, the label that was chosen is on record.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from redraft.cohort import Cohort
from redraft.desk.saves import WorkStore
from redraft.desk.store import Desk, autosave, tab, viewing
from redraft.ledger.values import plain
from redraft.project import Project

LOOK = "look-"
_OVER = ("PROMOTED", "HELD", "ABORTED")


def clear_finished(project: Project, before: datetime) -> int:
    """Clear the desk of work that was over before a moment; returns how many pieces of work it was.

    Doing it again changes nothing. A crash leaves files that no row names; WorkStore.sweep removes them.
    """
    store = WorkStore(project.desk, project.state / "desk")
    at = str(plain(before))
    names = _untouched_since(project.desk, at)
    if not names:
        return 0
    over = {
        row["number"]
        for row in project.ledger.rows("round")
        if row["state"] in _OVER and (row["closed_at"] or row["due_at"]) < at
    }
    work = {row["assignment_id"]: row for row in project.ledger.rows("assignment") if row["round"] in over}
    looks = {row["review_id"]: row["state"] != "open" for row in project.ledger.rows("review") if row["round"] in over}
    looks |= {
        row["consensus_id"]: row["state"] != "to_adjudicate"
        for row in project.ledger.rows("consensus")
        if row["round"] in over
    }
    cohort = Cohort(project)
    cleared = 0
    for name in names:
        if name.startswith(LOOK):
            keep = 0 if looks.get(name.removeprefix(LOOK), False) else None
        else:
            keep = _keep(work.get(name), cohort)
        if keep is not None and store.forget(name, keep=keep):
            cleared += 1
    return cleared


def _keep(row: dict[str, Any] | None, cohort: Cohort) -> int | None:
    """How many of an assignment's autosaves stay; None where all do."""
    if row is None:
        return None
    if row["state"] == "ACCEPTED":
        return 1
    if row["state"] == "REJECTED":
        return 0
    exam = row["exam_id"]
    settled = cohort.label_of(exam) is not None or cohort.excluded(exam) is not None
    return 0 if row["state"] == "WITHDRAWN" and settled else None


def _untouched_since(desk: Desk, at: str) -> list[str]:
    """Names with anything at the desk, and nothing saved or held since a moment."""
    with desk.read() as connection:
        latest = select(autosave.c.assignment_id, func.max(autosave.c.at)).group_by(autosave.c.assignment_id)
        saved = {row[0]: row[1] for row in connection.execute(latest)}
        held = {row[0]: row[1] for row in connection.execute(select(tab.c.assignment_id, tab.c.seen_at))}
        seen = set(connection.scalars(select(viewing.c.assignment_id).distinct()))
    return sorted(
        name for name in {*saved, *held, *seen} if max(saved.get(name, ""), held.get(name, "")) < at
    )  # fmt: skip
