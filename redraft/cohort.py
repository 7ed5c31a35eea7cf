"""Which exams stand where: pool, held-out sets, annotated or out with readers. Queries that several steps share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.project import Project
from redraft.splits import POOL, UNDRAWN, VALIDATION

OPEN_STATES = ("DISPATCHED", "RETURNED", "IN_REVIEW", "RETURNED_TO_READER", "CARRIED_OVER")


@dataclass(frozen=True)
class Labelled:
    """An exam with the annotation that counts for it."""

    exam_id: str
    subject_id: str
    annotation_id: str
    image: Path
    label: Path
    image_sha256: str
    label_sha256: str

    def entry(self) -> dict[str, str]:
        """The exam's line in a step's inputs."""
        return {
            "exam_id": self.exam_id,
            "annotation_id": self.annotation_id,
            "image_sha256": self.image_sha256,
            "label_sha256": self.label_sha256,
        }


class Cohort:
    """A project's exams as the ledger has them now; one read of each table."""

    def __init__(self, project: Project):
        ledger = project.ledger
        self.root = project.root
        self.split = {row["subject_id"]: row["split"] for row in ledger.rows("subject")}
        self.exams = {row["exam_id"]: row for row in ledger.rows("exam")}
        self.assignments = {row["assignment_id"]: row for row in ledger.rows("assignment")}
        self._annotation: dict[str, dict[str, Any]] = {}
        rows = [row for row in ledger.rows("annotation") if row["state"] == "valid"]
        # A double read leaves two annotations; the one that counts is the first by assignment, its latest revision.
        for row in sorted(rows, key=lambda r: (r["assignment_id"], -r["revision"]), reverse=True):
            self._annotation[row["exam_id"]] = row

    def exams_in(self, split: str) -> list[dict[str, Any]]:
        """Exams of one split, by id."""
        return [row for _, row in sorted(self.exams.items()) if self.split[row["subject_id"]] == split]

    def annotated(self, exam_id: str) -> bool:
        return exam_id in self._annotation

    def in_work(self, before: int) -> set[str]:
        """Exams that were out with a reader before round `before` dispatched its own.

        What the round itself handed out does not count: opening it again after a crash must see the same pool.
        Work carried over into it (a further attempt) does.
        """
        return {
            row["exam_id"]
            for row in self.assignments.values()
            if row["state"] in OPEN_STATES and (row["round"] != before or row["attempt"] > 1)
        }

    def unlabelled_pool(self, before: int) -> list[dict[str, Any]]:
        """Pool exams that nobody has annotated or was annotating when round `before` opened."""
        busy = self.in_work(before)
        return [e for e in self.exams_in(POOL) if e["exam_id"] not in busy and not self.annotated(e["exam_id"])]

    def labelled(self, split: str) -> list[Labelled]:
        """Annotated exams of one split, by id."""
        return [self._labelled(row) for row in self.exams_in(split) if self.annotated(row["exam_id"])]

    def test_sets(self) -> list[str]:
        """Names of the sets that models are tested on: `test` and every external set."""
        return sorted(set(self.split.values()) - {POOL, VALIDATION, UNDRAWN})

    def reference_exams(self) -> list[dict[str, Any]]:
        """Validation and test exams."""
        return [row for split in (VALIDATION, *self.test_sets()) for row in self.exams_in(split)]

    def _labelled(self, exam: dict[str, Any]) -> Labelled:
        row = self._annotation[exam["exam_id"]]
        return Labelled(
            exam["exam_id"], exam["subject_id"], row["annotation_id"], self.root / exam["image_path"],
            self.root / row["path"], exam["image_sha256"], row["sha256"],
        )  # fmt: skip
