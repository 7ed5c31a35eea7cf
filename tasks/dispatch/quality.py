"""Which known-wrong drafts go to whom: beside a round's assisted exams, from exams whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redraft.cohort import Cohort
from redraft.digest import sha256_file, sha256_json
from redraft.project import Project
from redraft.volumes import read_volume, write_volume
from tasks.dispatch.assign import Desk, Plan, plan
from tasks.dispatch.planning import Expectations, generator
from tasks.dispatch.seeded import Wrong, how_many, make_wrong

Row = Mapping[str, Any]
MODEL = "seeded-"


@dataclass(frozen=True)
class Seeded:
    """One known-wrong draft: the assignment that shows it, and rows for the ledger. Its file is written."""

    plan: Plan
    draft: dict[str, Any]
    error: dict[str, Any]


def plan_quality(
    project: Project, cohort: Cohort, expected: Expectations, desks: Sequence[Desk], plans: Sequence[Plan], number: int
) -> tuple[list[Seeded], int]:  # fmt: skip
    """Choose exams and readers, make the drafts and write them; returns them and how many could not be made.

    A reader gets one in proportion to the assisted exams that they have in this round. The exam was accepted in an
    earlier round, is unknown to the reader, and shows what an exam with a draft shows (scores of an earlier draft), so
    that nothing tells it from the others. Calling it again makes the same files.
    """
    rng = generator(project.config.seed, number, "dispatch", "seeded")
    assisted = [p.reader_id for p in plans if p.purpose == "training" and p.mode == "assisted"]
    wanted = how_many(len(assisted), project.config.dispatch.seeded_errors.share, rng)
    if not wanted:
        return [], 0
    truths = _truths(cohort, number)
    scores = _scores(project)
    by_reader = {desk.reader.id: desk for desk in desks}
    found: list[Seeded] = []
    used: set[str] = set()
    for reader in [assisted[int(n)] for n in rng.permutation(len(assisted))]:
        if len(found) == wanted:
            break
        desk = by_reader[reader]
        free = [exam for exam in sorted(truths) if exam in scores and exam not in used and exam not in desk.had]
        for n in rng.permutation(len(free)):
            exam = free[int(n)]
            item = expected.item(exam, "quality", "assisted", None)
            if desk.why_not(item) is not None:
                continue
            planned = plan(item, reader, number)
            wrong = _wrong(project, cohort, truths[exam], planned.assignment_id)
            used.add(exam)
            if wrong is not None:
                desk.take(item)
                found.append(_rows(project, planned, wrong, truths[exam], scores[exam], number))
                break
    return found, wanted - len(found)


def _truths(cohort: Cohort, number: int) -> dict[str, Row]:
    """Exam to the accepted training annotation of an earlier round that counts for it, where one reader's does."""
    found: dict[str, Row] = {}
    for exam_id in cohort.readings:
        label = cohort.label_of(exam_id)
        if label is None or label.of != "reading":
            continue
        (row,) = cohort.readings[exam_id]
        work = cohort.assignments[row["assignment_id"]]
        if work["purpose"] == "training" and work["round"] < number:
            found[exam_id] = row
    return found


def _scores(project: Project) -> dict[str, dict[str, Any]]:
    """Exam to the scores of the latest model that drafted it: what readers see beside a draft."""
    rounds = {row["model_digest"]: row["round"] for row in project.ledger.rows("model")}
    known = [row for row in project.ledger.rows("draft") if row["model_digest"] in rounds]
    known.sort(key=lambda row: (rounds[row["model_digest"]], row["model_digest"]))
    return {row["exam_id"]: row["scores"] for row in known}


def _wrong(project: Project, cohort: Cohort, truth: Row, assignment_id: str) -> Wrong | None:
    volume = read_volume(project.root / truth["path"])
    labels = np.rint(volume.array).astype(np.uint8)
    rng = generator(project.config.seed, 0, "seeded", assignment_id)
    return make_wrong(labels, project.config.structures, volume.spacing, rng)


def _rows(
    project: Project, planned: Plan, wrong: Wrong, truth: Row, scores: dict[str, Any], number: int
) -> Seeded:  # fmt: skip
    exam, digest = planned.exam_id, f"{MODEL}{planned.assignment_id}"
    relative = f"data/drafts/{exam[:2]}/{exam}/{digest}.nii.gz"
    write_volume(project.root / relative, read_volume(project.image(exam)).like(wrong.labels))
    draft = {
        "draft_id": sha256_json([exam, digest])[:24],
        "exam_id": exam,
        "model_digest": digest,
        "path": relative,
        "sha256": sha256_file(project.root / relative),
        "scores": scores,
    }
    error = {
        "assignment_id": planned.assignment_id,
        "exam_id": exam,
        "round": number,
        "structure": wrong.structure,
        "kind": wrong.kind,
        "truth_annotation_id": truth["annotation_id"],
        "wrong_voxels": wrong.wrong_voxels,
        "corrected": None,
        "outcome": "pending",
    }
    return Seeded(planned, draft, error)
