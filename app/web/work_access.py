"""Whose exam this is, and what may be done with it now: decided in one place for every route below /api/work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import StringConstraints

from app.web.deps import Viewer, need, now_of
from app.web.errors import WebError
from redraft import work_leases
from redraft.desk.saves import Closed, WorkStore
from redraft.project import Project
from redraft.segmentation.exam import ExamGeometry
from redraft.signing import same_token, token
from tasks.dispatch.contract import Result, Task
from tasks.dispatch.packages import IMAGE, RESULT, TASK
from tasks.dispatch.review.submit import handed_in

Sitting = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
VERDICTS = ("accept", "correct", "reject", "scratch")
WITH_READER = ("DISPATCHED", "RETURNED_TO_READER", "CARRIED_OVER")


@dataclass(frozen=True)
class Work:
    """One assignment of the reader who asks."""

    project: Project
    who: Viewer
    row: dict[str, Any]
    now: datetime
    store: WorkStore

    @property
    def name(self) -> str:
        return str(self.row["assignment_id"])

    @property
    def package(self) -> Path:
        return self.project.work / self.name

    @property
    def cache(self) -> Path:
        """Copies for browsers; may be deleted at any time."""
        return self.project.cache / "review"

    @property
    def session(self) -> str:
        """Names this sign-in without telling it."""
        return hashlib.sha256(self.who.csrf.encode()).hexdigest()[:24]

    @cached_property
    def task(self) -> Task:
        self.require_package()
        return Task.model_validate(json.loads((self.package / TASK).read_text(encoding="utf-8")))

    @property
    def values(self) -> set[int]:
        return {structure.value for structure in self.task.structures}

    @property
    def token(self) -> str:
        return token(self.project.checked_keys, self.name, self.row["reader_id"], self.row["attempt"])

    @cached_property
    def lease(self) -> dict[str, Any] | None:
        return self.project.ledger.one("work_lease", assignment_id=self.name)

    def lease_view(self) -> dict[str, Any] | None:
        """`{expires_at, extensions_left, expired}`."""
        return work_leases.view(self.lease, self.project.config.dispatch.lease, self.now) if self.lease else None

    @property
    def state(self) -> str:
        """The assignment's state; RETURNED as soon as it was handed in: the ledger hears of it a little later."""
        if self.row["state"] == "DISPATCHED" and self.handed_in() is not None:
            return "RETURNED"
        return str(self.row["state"])

    def geometry(self) -> ExamGeometry:
        """Where the exam lies."""
        return ExamGeometry.load(self.project.image(self.row["exam_id"]).with_name("exam.json"))

    def handed_in(self) -> Result | None:
        """What lies finished in the package, in this attempt."""
        if not (self.package / RESULT).exists():
            return None
        return handed_in(self.package, self.task, self.project.checked_keys, self.row["attempt"])

    def left_by(self) -> list[str]:
        """This reader's own earlier assignments of the exam, latest first: what they drew then is offered here.

        Another reader's drawing is not: it would end blindness, and its minutes would be missing from this reading's.
        """
        rows = {
            row["assignment_id"]: row for row in self.project.ledger.rows("assignment", exam_id=self.row["exam_id"])
        }
        before = work_leases.replaced(list(rows.values()))
        found: list[str] = []
        step, seen = before.get(self.name), {self.name}
        while step is not None and step not in seen:
            seen.add(step)
            if rows[step]["reader_id"] == self.row["reader_id"]:
                found.append(step)
            step = before.get(step)
        return found

    def closed(self) -> Closed | None:
        """Why no more is saved on it; None while it is the reader's to work on."""
        if self.row["state"] == "WITHDRAWN":
            return "lease_expired"
        if self.row["state"] not in WITH_READER or self.handed_in() is not None:
            return "submitted"
        view = self.lease_view()
        return "lease_expired" if view is not None and view["expired"] else None

    def require_here(self) -> None:
        """Raise WebError 410 where the exam was given away."""
        if self.row["state"] == "WITHDRAWN":
            raise WebError(
                410, "work.lease_expired", "This exam is not yours any more: its time was over, or it was withdrawn.",
                "What you drew is kept. It is offered to you again if the exam comes back to you.",
            )  # fmt: skip

    def require_open(self) -> None:
        """Raise WebError unless the exam is the reader's to work on."""
        closed = self.closed()
        if closed == "submitted":
            raise WebError(409, "work.submitted", "This exam was handed in already.", "See your work list.")
        if closed is not None:
            raise WebError(
                410, "work.lease_expired", "The time for this exam is over.", "Extend it, or ask who plans the work."
            )

    def require_package(self) -> None:
        """Raise WebError where the work package is not there."""
        if not (self.package / TASK).is_file() or not (self.package / IMAGE).is_file():
            raise WebError(
                503, "work.package", f"The work package of assignment {self.name} is not there.",
                "Tell who runs redraft: it lies in the project's work folder.",
            )  # fmt: skip

    def seen(self) -> None:
        """Record in the ledger that the exam's pixels were looked at, once per sign-in."""
        account = self.who.account_id
        payload = {"account_id": account, "assignment_id": self.name, "exam_id": self.row["exam_id"]}

        def tell() -> None:
            with self.project.ledger.tx(account, self.now) as tx:
                tx.event("exam.viewed", payload)

        self.store.first_look(self.name, account, self.session, tell)


def is_handed_in(project: Project, assignment_id: str) -> bool:
    """Whether finished work lies in the package. An answer to an earlier handing-out is none: it is not taken in, and
    its reader must be able to hand in again."""
    path = project.work / assignment_id / RESULT
    if not path.exists():
        return False
    row = project.ledger.one("assignment", assignment_id=assignment_id)
    if row is None or row["backend"] != "review":
        return True
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["token"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return False
    wanted = token(project.checked_keys, assignment_id, row["reader_id"], row["attempt"])
    return isinstance(found, str) and same_token(found, wanted)


def open_work(a: str, request: Request, who: Annotated[Viewer, Depends(need("reader"))]) -> Work:
    """The assignment, where it is this reader's and is worked in the browser; 404 whatever else it is."""
    project: Project = request.app.state.project
    row = project.ledger.one("assignment", assignment_id=a) if len(a) <= 64 else None
    if row is None or who.reader_id is None or row["reader_id"] != who.reader_id or row["backend"] != "review":
        raise WebError(
            404, "work.not_found", "There is no such exam among those assigned to you.", "Go back to your work list."
        )
    store = WorkStore(project.desk, project.state / "desk", request.app.state.clock)
    return Work(project, who, row, now_of(request), store)
