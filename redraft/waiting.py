"""What waits for whom: readers, reviewers, adjudicators, approvers, and whoever runs the rounds. From the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redraft.ledger import RoundState
from redraft.project import Project
from redraft.rounds import anything_to_train_on, completion
from redraft.work_leases import COUNTED, OUT, openings

Row = Mapping[str, Any]
Add = Callable[[str, str, str], None]
TERMINAL = ("PROMOTED", "HELD", "ABORTED")
# Why an exam has no reader; keys as dispatch records them (tasks.dispatch.assign.WORDS says them of one exam).
WHY = {
    "gone": "no reader takes work",
    "record": "their records (exam.json) cannot be read",
    "skill": "no reader works on all structures and the modality",
    "conflict": "the readers who could work on them reported them",
    "blind": "every reader who could work on them has had them",
    "lapsed": "nobody but the reader who let them lie could work on them",
    "hours": "no reader has minutes left in this round",
}


def waiting_for(project: Project, rounds: Sequence[Row], assignments: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows {who, what, do}, in the order of a round's life. `who` is a reader's id or a role."""
    ledger = project.ledger
    waiting: list[dict[str, Any]] = []

    def add(who: str, what: str, do: str) -> None:
        waiting.append({"who": who, "what": what, "do": do})

    if any(row["split"] == "undrawn" for row in ledger.rows("subject")):
        add("operator", "too few subjects for validation and test sets", "redraft ingest PATH")
    live = next((row for row in rounds if row["state"] not in TERMINAL), None)
    _reviewers(project, add)
    if live is None:
        add("operator", "no round is open", "redraft round open")
        return waiting
    number, state = live["number"], live["state"]
    if state == RoundState.AWAITING_ANNOTATION:
        out: dict[str, int] = {}
        for row in assignments:
            if row["state"] in OUT:
                out[row["reader_id"]] = out.get(row["reader_id"], 0) + 1
        due = f"{live['due_at'][:16].replace('T', ' ')} UTC"
        for reader, count in sorted(out.items()):
            add(reader, f"{count} exams to segment by {due}", where(project))
        _nobody_has(project, number, assignments, add)
        found = completion(project, number)
        if found.done and not anything_to_train_on(project):
            what = f"round {number} is complete, and no training annotation is accepted"
            add("operator", what, f"redraft round abort {number}")
        elif found.done:
            add("operator", f"round {number} is complete", "redraft sweep")
        else:
            what = f"round {number} awaits annotation: {found.complete} of {found.exams} exams are complete"
            add("operator", what, f"redraft round close {number}")
    elif state == RoundState.AWAITING_APPROVAL:
        do = f"redraft promote {number} --approve|--hold --by LOGIN --reason TEXT"
        add("approver", f"round {number} awaits a decision", do)
    else:
        stage = live["failed_in"] or state
        verb = "open" if stage == RoundState.OPENING else f"close {number}"
        word = "failed" if state == RoundState.FAILED else "was interrupted or is running"
        add("operator", f"round {number} {word} in {stage}", f"redraft round {verb}")
    return waiting


def where(project: Project) -> str:
    """Where readers find their work."""
    backend = project.config.dispatch.backend
    if backend == "review":
        return _page(project, "")
    if backend == "dicomweb":
        return "series of drafts in the PACS"
    return "work packages"


def _reviewers(project: Project, add: Add) -> None:
    reviews = project.ledger.rows("review", state="open")
    if reviews:
        add("reviewer", f"{len(reviews)} annotations to look at", _page(project, "reviews"))
    disputes = project.ledger.rows("consensus", state="to_adjudicate")
    if disputes:
        what = f"{len(disputes)} exams whose readers disagree"
        add("adjudicator", what, _page(project, "adjudications"))


def _page(project: Project, name: str) -> str:
    web = project.config.web
    scheme = "https" if web.certificate else "http"
    base = web.url or f"{scheme}://{web.host}:{web.port}"
    return f"{base.rstrip('/')}/{name} (redraft serve)"


def _nobody_has(project: Project, number: int, assignments: Sequence[Row], add: Add) -> None:
    """Exams that wait for a reader: escalated ones by name, the others by what stands in the way."""
    rows = [row for row in assignments if row["round"] == number]
    leases = {row["assignment_id"]: row for row in project.ledger.rows("work_lease")}
    free = openings(rows, leases, project.config.dispatch.lease.escalate_after)
    for opening in free:
        exam = opening.last["exam_id"]
        if opening.escalated:
            what = f"exam {exam}: its readers let it lie {opening.expired} times; decide who reads it"
            add("operator", what, f"redraft round assign {exam} READER")
    left = [opening.last["exam_id"] for opening in free if not opening.escalated]
    if left:
        what = f"{len(left)} exams were given back and have no reader yet ({left[0]}{' …' if left[1:] else ''})"
        add("operator", what, "redraft sweep, or redraft round assign EXAM READER")
    given = {row["exam_id"] for row in rows if row["purpose"] in COUNTED}
    by_reason: dict[str, list[str]] = {}
    for item in _unassigned(project, number):
        if not item["second"] and item["exam_id"] not in given:
            by_reason.setdefault(item["why"], []).append(item["exam_id"])
    for why, exams in sorted(by_reason.items()):
        what = f"{len(exams)} exams have no reader: {WHY.get(why, why)} ({exams[0]}{' …' if exams[1:] else ''})"
        add("operator", what, "change dispatch.readers in project.yaml, or redraft round assign EXAM READER")


def _unassigned(project: Project, number: int) -> list[dict[str, Any]]:
    runs = project.ledger.rows("step_run", round=number, step="dispatch", state="done")
    if not runs:
        return []
    latest = max(runs, key=lambda run: run["finished_at"])
    return list(latest["outputs"].get("unassigned", ()))
