"""What a reviewer opens: one annotation that waits for a second look, or the readings that disagree on one exam.

Whose work it is stays unsaid: a reviewer judges what is on the screen. One's own readings are not there (404), nor are
other readers' readings of an exam that one still reads oneself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any

from fastapi import Depends, Request

from app.web.deps import Viewer, need, now_of, project_of
from app.web.errors import WebError
from redraft.desk.mask import Mask, pack, unpack
from redraft.desk.saves import WorkStore
from redraft.project import Project
from redraft.queues import being_read
from redraft.reviews import RETURN_REASONS
from redraft.second_reads import reading_array
from tasks.dispatch.contract import Task, TaskStructure
from tasks.dispatch.review.facts import facts
from tasks.dispatch.review.image import Prepared, prepare

Row = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """An exam that a reviewer has open; `record_id` is the review's or the consensus's."""

    project: Project
    who: Viewer
    now: datetime
    clock: Callable[[], datetime]
    record_id: str
    record: Row
    exam: Row
    annotations: tuple[Row, ...]

    @property
    def name(self) -> str:
        """Its name at the desk, among the assignments' own."""
        return f"look-{self.record_id}"

    @cached_property
    def store(self) -> WorkStore:
        return WorkStore(self.project.desk, self.project.state / "desk", self.clock)

    @property
    def assignment(self) -> Row:
        """Of the first annotation."""
        found = self.project.ledger.one("assignment", assignment_id=self.annotations[0]["assignment_id"])
        assert found is not None  # a foreign key
        return found

    @cached_property
    def image(self) -> Prepared:
        path = self.project.root / self.exam["image_path"]
        return prepare(path, self.exam["image_sha256"], self.project.cache / "review")

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image.shape

    @cached_property
    def draft(self) -> Row | None:
        """The draft that the reader was shown."""
        shown = self.annotations[0]["draft_id"] if len(self.annotations) == 1 else None
        return self.project.ledger.one("draft", draft_id=shown) if shown else None

    def mask(self, row: Row) -> Mask:
        """A stored label (annotation, consensus or draft row) as a mask on the wire."""
        return pack(reading_array(self.project, row))

    def unpack(self, body: bytes) -> Mask:
        """A mask that was sent, on this exam's grid and with known values."""
        return unpack(body, self.shape, {s.value for s in self.project.config.structures})

    def seen(self) -> None:
        """Record that the exam's pixels were looked at, once per sign-in."""
        account = self.who.account_id
        payload = {"account_id": account, "second_look": self.record_id, "exam_id": self.exam["exam_id"]}

        def tell() -> None:
            with self.project.ledger.tx(account, self.now) as tx:
                tx.event("exam.viewed", payload)

        sitting = hashlib.sha256(self.who.csrf.encode()).hexdigest()[:24]
        self.store.first_look(self.name, account, sitting, tell)

    def facts(self) -> Row:
        """What the page must know of the exam: as of a reader's work, without what is the reader's."""
        work = self.assignment
        task = Task(
            assignment_id=self.record_id, exam_id=self.exam["exam_id"], round=self.record["round"],
            purpose=work["purpose"], mode="assisted" if self.draft else "from_scratch", reader_id="",
            structures=tuple(
                TaskStructure(name=s.name, value=s.value, kind=s.kind, protocol=s.protocol)
                for s in self.project.config.structures
            ),
            image_sha256=self.exam["image_sha256"], draft_sha256=self.draft["sha256"] if self.draft else None,
        )  # fmt: skip
        profile = self.draft["scores"].get("profile") if self.draft else None
        known = facts(task, self.project.config, self.image, self.exam["modality"], profile=profile)
        for key in ("token", "assignment_id"):
            known.pop(key, None)
        reasons = [{"code": code, "words": words, "no_label": False} for code, words in RETURN_REASONS.items()]
        return {**known, "reasons": reasons, "notes": [], "offers": [], "lease": None, "returned": None}


def open_review(r: str, request: Request, who: Annotated[Viewer, Depends(need("reviewer"))]) -> Look:
    """A review that waits and is not of the viewer's own work; 404 whatever else it is."""
    project = project_of(request)
    record = project.ledger.one("review", review_id=r) if len(r) <= 64 else None
    note = project.ledger.one("annotation", annotation_id=record["annotation_id"]) if record else None
    if record is None or note is None or record["state"] != "open" or _own(project, who, [note]):
        raise _not_there()
    return _look(project, request, who, r, record, [note])


def open_adjudication(c: str, request: Request, who: Annotated[Viewer, Depends(need("reviewer"))]) -> Look:
    """Readings that wait for adjudication, none of them the viewer's own; 404 whatever else it is."""
    project = project_of(request)
    record = project.ledger.one("consensus", consensus_id=c) if len(c) <= 64 else None
    if record is None or record["state"] != "to_adjudicate":
        raise _not_there()
    rows = {row["annotation_id"]: row for row in project.ledger.rows("annotation", exam_id=record["exam_id"])}
    notes = [rows[identity] for identity in sorted(record["annotations"])]
    if _own(project, who, notes):
        raise _not_there()
    return _look(project, request, who, c, record, notes)


def _look(project: Project, request: Request, who: Viewer, identity: str, record: Row, notes: list[Row]) -> Look:
    exam = project.ledger.one("exam", exam_id=notes[0]["exam_id"])
    assert exam is not None  # a foreign key
    return Look(project, who, now_of(request), request.app.state.clock, identity, record, exam, tuple(notes))


def _own(project: Project, who: Viewer, notes: list[Row]) -> bool:
    """Whether one of the readings is the viewer's, or the viewer reads the exam and must stay blind to the others."""
    if who.reader_id is None:
        return False
    mine = any(row["reader_id"] == who.reader_id for row in notes)
    return mine or notes[0]["exam_id"] in being_read(project.ledger, who.reader_id)


def _not_there() -> WebError:
    return WebError(
        404, "review.not_found",
        "This does not wait for you: it was decided already, or it is an exam that you read yourself.",
        "Go back to the list.",
    )  # fmt: skip
