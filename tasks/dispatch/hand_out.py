"""Assignments as packages: task.json with its token, image, draft where there is one to show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from redraft.digest import sha256_json
from redraft.project import Project
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.origin import Origin
from redraft.signing import token
from tasks.dispatch.contract import Task, TaskStructure
from tasks.dispatch.packages import TASK, Tools, make_package
from tasks.dispatch.seeded import notes

Row = Mapping[str, Any]


class HandOut:
    """Makes the packages of assignment rows; one read of each table."""

    def __init__(self, project: Project):
        self._project = project
        self._exams = {row["exam_id"]: row for row in project.ledger.rows("exam")}
        self._drafts = {row["draft_id"]: row for row in project.ledger.rows("draft")}
        self._models = {row["model_digest"]: row for row in project.ledger.rows("model")}

    def add_draft(self, row: Row) -> None:
        """A draft that the ledger does not have yet."""
        self._drafts[row["draft_id"]] = dict(row)

    def task(self, row: Row) -> Task:
        """task.json of an assignment. Work on known-wrong drafts looks like any other: it says `training`."""
        draft = self._drafts[row["draft_id"]] if row["mode"] == "assisted" else None
        return Task(
            assignment_id=row["assignment_id"],
            exam_id=row["exam_id"],
            round=row["round"],
            purpose="training" if row["purpose"] == "quality" else row["purpose"],
            mode=row["mode"],
            reader_id=row["reader_id"],
            structures=tuple(
                TaskStructure(name=s.name, value=s.value, kind=s.kind, protocol=s.protocol)
                for s in self._project.config.structures
            ),
            image_sha256=self._exams[row["exam_id"]]["image_sha256"],
            draft_sha256=draft["sha256"] if draft else None,
            token=token(self._project.checked_keys, row["assignment_id"], row["reader_id"], row["attempt"]),
        )

    def digest(self, row: Row) -> str:
        """What `package` returns, before there is a package."""
        return sha256_json(self.task(row).model_dump(mode="json"))

    def package(self, row: Row) -> str:
        """Make the package of an assignment (or renew the token of the one that is there); its SHA-256."""
        draft = self._drafts[row["draft_id"]] if row["mode"] == "assisted" else None
        path = self._project.root / draft["path"] if draft else None
        image = self._project.root / self._exams[row["exam_id"]]["image_path"]
        return make_package(self._project.work, self.task(row), image, path, self._tools(row, draft))

    def is_missing(self, row: Row) -> bool:
        """Whether an assignment has no package: its making was interrupted, or somebody removed it."""
        return not (self._project.work / row["assignment_id"] / TASK).exists()

    def _tools(self, row: Row, draft: Row | None) -> Tools:
        config = self._project.config
        dicom = config.dispatch.backend == "folder" and config.dispatch.package == "seg"
        exam: ExamGeometry | None = None
        origin: Origin | None = None
        if dicom:
            exam = ExamGeometry.load(Path(self._project.image(row["exam_id"])).with_name("exam.json"))
            if draft is not None:
                origin = self._origin(row, draft)
        in_pacs = config.dispatch.backend == "dicomweb"
        code = self._project.pseudonyms.work_code(row["assignment_id"]) if in_pacs else None
        return Tools(config.structures, exam, dicom, origin, code, tuple(notes(config.dispatch)))

    def _origin(self, row: Row, draft: Row) -> Origin:
        """Where a draft came from. A known-wrong one says what those beside it say: nothing may tell it apart."""
        model = self._models.get(draft["model_digest"]) or self._models[self._champion(row["round"])]
        at = datetime.fromisoformat(model["created_at"])
        return Origin(draft["draft_id"], draft["sha256"], "AUTOMATIC", at, model["name"], model["model_digest"])

    def _champion(self, number: int) -> str:
        found = self._project.ledger.one("round", number=number)
        assert found is not None and found["champion"] is not None, "a draft without a model"
        return str(found["champion"])
