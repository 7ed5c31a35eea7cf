"""The PACS that `dispatch.pacs` names, for the dicomweb backend: out by the export gateway, back under pseudonyms.

Every object that leaves and every one that is picked up is an event of the ledger, in pseudonyms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from redraft.gateway import SENDING, SENT, naming_of, send_drafts
from redraft.pacs_returns import Found, PacsReturns, marked
from redraft.project import Project
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.export import Item
from redraft.segmentation.origin import Origin
from tasks.dispatch.contract import Task
from tasks.dispatch.packages import DRAFT
from tasks.dispatch.pacs_work import Draft

FETCHED = "label.fetched"
REASON = "draft for a reader's work"


class ProjectPacs:
    """See tasks.dispatch.pacs_work.Pacs.

    Parameters
    ----------
    name : str
        Of a DICOMweb source of project.yaml.

    Raises ConfigError where there is none of that name.
    """

    def __init__(self, project: Project, name: str, clock: Callable[[], datetime]):
        self._project, self._name, self._clock = project, name, clock
        self._returns = PacsReturns(project, name)

    def draft(self, assignment_id: str, task: Task) -> Draft:
        """The assignment's work code, and the pseudonyms of what its draft is called in the PACS."""
        pseudonyms = self._project.pseudonyms
        code = pseudonyms.work_code(assignment_id)
        if task.draft_sha256 is None:
            return Draft(assignment_id, code)
        named = (task.exam_id, assignment_id, task.draft_sha256)
        uid = naming_of(pseudonyms).uid
        instance = pseudonyms.uid(uid(*named, "instance"))
        tracking = {pseudonyms.uid(uid(*named, "tracking", s.name)) for s in self._project.config.structures}
        return Draft(assignment_id, code, instance, frozenset({instance, *tracking}))

    def stored(self) -> tuple[set[str], set[str]]:
        """From the ledger: assignments whose draft was stored, and all that was ever sent."""
        sent = [row["payload"] for row in self._project.ledger.rows("audit_event", kind=SENT)]
        begun = [row["payload"] for row in self._project.ledger.rows("audit_event", kind=SENDING)]
        there = {payload["source_id"] for payload in sent if payload["ok"] and payload["to"] == self._name}
        return there, {payload["sop_instance"] for payload in begun}

    def store(self, tasks: Sequence[Task]) -> Iterator[tuple[str, str | None, str]]:
        """Store the drafts that lie in the packages, each under its assignment's own UIDs."""
        items = [self._item(task) for task in tasks]
        code = self._project.pseudonyms.work_code
        answers = send_drafts(
            self._project, items, self._name, reason=REASON, clock=self._clock,
            describe=lambda item: marked(code(item.origin.identity), draft=True),
        )  # fmt: skip
        for task, sent in zip(tasks, answers, strict=True):
            yield task.assignment_id, sent.rule, sent.why

    def look(self, exam: ExamGeometry) -> list[Found]:
        """See PacsReturns.look."""
        return self._returns.look(exam)

    def elsewhere(self, exams: Iterable[ExamGeometry]) -> frozenset[str]:
        """See PacsReturns.elsewhere."""
        return self._returns.elsewhere(exams)

    def labels(self, found: Found, exam: ExamGeometry) -> NDArray[np.uint8]:
        """See PacsReturns.labels."""
        return self._returns.labels(found, exam, self._project.config.structures)

    def took(self, task: Task, found: Found, label_sha256: str) -> None:
        """One event: whose work, which object, and what it was read as."""
        record = {
            "assignment_id": task.assignment_id, "exam_id": task.exam_id, "from": self._name,
            "sop_instance": found.sop_instance, "label_sha256": label_sha256,
        }  # fmt: skip
        with self._project.ledger.tx("dispatch", self._clock()) as tx:
            tx.event(FETCHED, record)

    def _item(self, task: Task) -> Item:
        model = self._model(task)
        origin = Origin(
            task.assignment_id, str(task.draft_sha256), "AUTOMATIC", datetime.fromisoformat(model["created_at"]),
            model["name"], model["model_digest"],
        )  # fmt: skip
        return Item(task.exam_id, self._project.work / task.assignment_id / DRAFT, origin)

    def _model(self, task: Task) -> dict[str, str]:
        """The model that drafted it; of a draft that no model made, what those beside it say: the round's champion."""
        ledger = self._project.ledger
        work = ledger.one("assignment", assignment_id=task.assignment_id)
        assert work is not None, "work that was never dispatched"
        draft = ledger.one("draft", draft_id=work["draft_id"]) if work["draft_id"] else None
        round_ = ledger.one("round", number=work["round"])
        names = [draft["model_digest"] if draft else None, round_["champion"] if round_ else None]
        found = next(model for name in names if name is not None and (model := self._models.get(name)) is not None)
        return {key: str(found[key]) for key in ("created_at", "name", "model_digest")}

    @cached_property
    def _models(self) -> dict[str, dict[str, object]]:
        return {row["model_digest"]: row for row in self._project.ledger.rows("model")}
