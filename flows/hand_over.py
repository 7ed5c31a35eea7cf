"""A person decides who reads an exam that nobody has: `redraft round assign`."""

from __future__ import annotations

from datetime import UTC, datetime

from redraft import rounds
from redraft.errors import StateError
from redraft.ledger import RoundState
from redraft.project import Project
from redraft.steps import Context


def give_exam(project: Project, exam_id: str, reader_id: str) -> str:
    """Give the exam to the reader in the live round; returns the assignment. Errors as of tasks.dispatch.step.give."""
    from tasks.dispatch.step import give

    def now() -> datetime:
        return datetime.now(UTC)

    with rounds.writer(project, now) as lease:
        live = rounds.current(project)
        if live is None or live["state"] != RoundState.AWAITING_ANNOTATION:
            raise StateError("No round awaits annotation.", "See `redraft status`.")
        return give(Context(project, live["number"], lease.token, "assign", now), exam_id, reader_id)
