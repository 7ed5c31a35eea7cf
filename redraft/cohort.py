"""Which exams stand where: pool, held-out sets, annotated or out with readers. Queries that several steps share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from redraft.project import Project
from redraft.splits import POOL, UNDRAWN, VALIDATION

OPEN_STATES = ("DISPATCHED", "RETURNED", "IN_REVIEW", "RETURNED_TO_READER", "CARRIED_OVER")


# Purposes whose labels may count; the work of seeded errors (`quality`) never does.
COUNTED = ("training", "reference")


@dataclass(frozen=True)
class Labelled:
    """An exam with the label that counts for it: a reading, or the consensus of several.

    Attributes
    ----------
    annotation_id : id of the annotation, or of the consensus
    of : `reading` or `consensus`.
    readings : the annotations it was made of; of a reading itself alone.
    """

    exam_id: str
    subject_id: str
    annotation_id: str
    of: Literal["reading", "consensus"]
    readings: tuple[str, ...]
    image: Path
    label: Path
    image_sha256: str
    label_sha256: str

    def entry(self) -> dict[str, str]:
        """The exam's line in a step's inputs; `annotation_id` is a consensus's id where `of` says so."""
        return {
            "exam_id": self.exam_id,
            "annotation_id": self.annotation_id,
            "of": self.of,
            "image_sha256": self.image_sha256,
            "label_sha256": self.label_sha256,
        }


class Cohort:
    """A project's exams as the ledger has them now; one read of each table.

    The label that counts for an exam (docs/second-reads.md): its accepted reading; of several accepted readings the
    consensus that was made of exactly these, agreed or adjudicated. None counts while a reading of the exam is in
    review or its consensus waits for adjudication, nor of an exam that a reader excluded.
    """

    def __init__(self, project: Project):
        ledger = project.ledger
        self.root = project.root
        self.split = {row["subject_id"]: row["split"] for row in ledger.rows("subject")}
        self.exams = {row["exam_id"]: row for row in ledger.rows("exam")}
        self.assignments = {row["assignment_id"]: row for row in ledger.rows("assignment")}
        self.readings: dict[str, list[dict[str, Any]]] = {}
        for row in accepted(self.assignments, ledger.rows("annotation", state="valid")):
            self.readings.setdefault(row["exam_id"], []).append(row)
        self._in_review = {
            row["exam_id"]
            for row in self.assignments.values()
            if row["state"] == "IN_REVIEW" and row["purpose"] in COUNTED
        }
        self._consensus = {row["exam_id"]: row for row in ledger.rows("consensus") if row["state"] != "superseded"}
        self._rejected: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(ledger.rows("rejection"), key=lambda row: (row["round"], row["at"], row["rejection_id"])):
            if self.assignments[row["assignment_id"]]["purpose"] in COUNTED:
                self._rejected.setdefault(row["exam_id"], []).append(row)

    def exams_in(self, split: str) -> list[dict[str, Any]]:
        """Exams of one split, by id."""
        return [row for _, row in sorted(self.exams.items()) if self.split[row["subject_id"]] == split]

    def annotated(self, exam_id: str) -> bool:
        """Whether the exam was read, be it in review or before adjudication. Whether its label counts: `label_of`."""
        return exam_id in self.readings or exam_id in self._in_review

    def excluded(self, exam_id: str) -> dict[str, Any] | None:
        """The rejection by which an exam left the project, or None. Its image and readings stay on record."""
        rows = self._rejected.get(exam_id, [])
        return next((row for row in rows if row["consequence"] == "exclude"), None)

    def rework(self, exam_id: str) -> dict[str, Any] | None:
        """The rejection for which an exam is to be worked again; None when it was, or is being, or nobody asked."""
        rows = self._rejected.get(exam_id, [])
        if not rows or self.annotated(exam_id) or self.excluded(exam_id):
            return None
        return rows[-1]

    def in_work(self, before: int) -> set[str]:
        """Exams that were out with a reader before round `before` dispatched its own.

        What the round itself handed out does not count: opening it again after a crash must see the same pool.
        Work carried over into it (a further attempt) does.
        """
        return {
            row["exam_id"]
            for row in self.assignments.values()
            if row["state"] in OPEN_STATES
            and row["purpose"] in COUNTED
            and (row["round"] != before or row["attempt"] > 1)
        }

    def unlabelled_pool(self, before: int) -> list[dict[str, Any]]:
        """Pool exams that nobody has annotated, excluded, or was annotating when round `before` opened."""
        busy = self.in_work(before)
        return [
            row
            for row in self.exams_in(POOL)
            if row["exam_id"] not in busy and not self.annotated(row["exam_id"]) and not self.excluded(row["exam_id"])
        ]

    def labelled(self, split: str) -> list[Labelled]:
        """Exams of one split whose label counts, by id."""
        found = [self.label_of(row["exam_id"]) for row in self.exams_in(split)]
        return [item for item in found if item is not None]

    def consensus_of(self, exam_id: str) -> dict[str, Any] | None:
        """The consensus row of exactly the readings that are accepted now, in whatever state; None where none is."""
        row = self._consensus.get(exam_id)
        if row is None or set(row["annotations"]) != {r["annotation_id"] for r in self.readings.get(exam_id, [])}:
            return None
        return row

    def label_of(self, exam_id: str) -> Labelled | None:
        """The label that counts for an exam; None where none does."""
        readings = self.readings.get(exam_id, [])
        if not readings or exam_id in self._in_review or self.excluded(exam_id):
            return None
        exam = self.exams[exam_id]
        found: tuple[str, Literal["reading", "consensus"], dict[str, Any]]
        if len(readings) == 1:
            found = (readings[0]["annotation_id"], "reading", readings[0])
        else:
            row = self.consensus_of(exam_id)
            if row is None or row["state"] not in ("agreed", "adjudicated"):
                return None
            found = (row["consensus_id"], "consensus", row)
        identity, of, row = found
        return Labelled(
            exam_id, exam["subject_id"], identity, of, tuple(sorted(r["annotation_id"] for r in readings)),
            self.root / exam["image_path"], self.root / row["path"], exam["image_sha256"], row["sha256"],
        )  # fmt: skip

    def test_sets(self) -> list[str]:
        """Names of the sets that models are tested on: `test` and every external set."""
        return sorted(set(self.split.values()) - {POOL, VALIDATION, UNDRAWN})

    def reference_exams(self) -> list[dict[str, Any]]:
        """Validation and test exams that no reader excluded."""
        return [
            row
            for split in (VALIDATION, *self.test_sets())
            for row in self.exams_in(split)
            if not self.excluded(row["exam_id"])
        ]


def accepted(
    assignments: Mapping[str, Mapping[str, Any]], annotations: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Of valid annotations those that count as readings: of accepted work, its latest revision; never of seeded errors.

    One per assignment, by assignment id.
    """
    latest: dict[str, dict[str, Any]] = {}
    for row in annotations:
        work = assignments[row["assignment_id"]]
        if row["state"] != "valid" or work["state"] != "ACCEPTED" or work["purpose"] not in COUNTED:
            continue
        if row["revision"] > latest.get(row["assignment_id"], {"revision": 0})["revision"]:
            latest[row["assignment_id"]] = row
    return [latest[key] for key in sorted(latest)]
