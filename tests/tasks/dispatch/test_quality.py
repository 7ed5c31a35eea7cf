"""Known-wrong drafts in a round: beside its work, unknown to their readers, and nothing in the package tells them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from redraft.cohort import Cohort
from redraft.digest import sha256_file
from redraft.project import Project
from redraft.splits import POOL
from redraft.volumes import read_volume, write_volume

TINY = Callable[..., Project]


def truth_for_p04(project: Project) -> None:
    """The exam that was accepted in round 1 gets a label that is there."""
    exam, path = "p04", "data/labels/p0/p04/note-p04.nii.gz"
    image = read_volume(project.image(exam))
    labels = np.zeros(image.shape, np.uint8)
    labels[2:9, 2:8, 1:7] = 1
    write_volume(project.root / path, image.like(labels))
    with project.ledger.tx("test") as tx:
        key = {"annotation_id": f"note-{exam}"}
        tx.update("annotation", key, {"path": path, "sha256": sha256_file(project.root / path)})


@pytest.fixture
def out(tiny: TINY) -> Project:
    """Round 2 with so many assisted exams that one known-wrong draft is planned at least."""
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    project = tiny(
        ("  deadline_days: 14", "  deadline_days: 14\n  seeded_errors: {share: 0.2}"),
        ("budget: {exams: 4}", "budget: {exams: 9}"),
        ("from_scratch_probability: 0.4", "from_scratch_probability: 0.1"),
    )
    truth_for_p04(project)
    select.fn(str(project.root), 2, None)
    dispatch.fn(str(project.root), 2, None)
    return project


def test_a_known_truth_goes_out_wrong_to_who_never_saw_it(out: Project) -> None:
    """One extra assignment: the accepted exam, to the other reader, with a draft that differs by the counted voxels."""
    (work,) = out.ledger.rows("assignment", purpose="quality")
    (error,) = out.ledger.rows("seeded_error")
    draft = out.ledger.one("draft", draft_id=work["draft_id"])
    assert (work["exam_id"], work["reader_id"], work["mode"]) == ("p04", "reader-2", "assisted")
    assert draft["model_digest"] == f"seeded-{work['assignment_id']}" and error["outcome"] == "pending"
    truth = read_volume(out.root / out.ledger.one("annotation", annotation_id=error["truth_annotation_id"])["path"])
    wrong = read_volume(out.work / work["assignment_id"] / "draft.nii.gz").array
    assert (wrong != truth.array).sum() == error["wrong_voxels"] > 0
    assert sha256_file(out.root / draft["path"]) == draft["sha256"]
    chosen = {row["exam_id"] for row in out.ledger.rows("selection", round=2)}
    training = out.ledger.rows("assignment", round=2, purpose="training")
    assert work["exam_id"] not in chosen and chosen <= {row["exam_id"] for row in training}


def test_nothing_in_the_package_tells(out: Project) -> None:
    """Same files, same fields, `training`, an assisted task; no word of seeds, no path, no model."""
    (work,) = out.ledger.rows("assignment", purpose="quality")
    other = out.ledger.rows("assignment", round=2, purpose="training", mode="assisted", attempt=1)[0]
    folders = [out.work / row["assignment_id"] for row in (work, other)]
    names = [{path.name for path in folder.rglob("*")} for folder in folders]
    tasks: list[dict[str, Any]] = [json.loads((folder / "task.json").read_text()) for folder in folders]
    assert names[0] == names[1] and set(tasks[0]) == set(tasks[1])
    own = {"assignment_id", "exam_id", "reader_id", "image_sha256", "draft_sha256", "token"}
    told = [{key: value for key, value in task.items() if key not in own} for task in tasks]
    assert told[0] == told[1] and told[0]["purpose"] == "training"
    for path in folders[0].rglob("*"):
        content = path.read_bytes().lower()
        assert b"seed" not in content and b"quality" not in content, path.name
    drafts = [read_volume(folder / "draft.nii.gz") for folder in folders]
    assert drafts[0].array.dtype == drafts[1].array.dtype
    scores = [out.ledger.one("draft", draft_id=row["draft_id"])["scores"] for row in (work, other)]
    assert set(scores[0]) == set(scores[1])  # what is shown beside a draft


def test_neither_its_name_nor_its_time_tells(out: Project) -> None:
    """Whoever computes ids finds the one of training work; packages are made in the order of their ids, not it last."""
    from redraft.digest import sha256_json

    (work,) = out.ledger.rows("assignment", purpose="quality")
    known = sha256_json([work["round"], work["exam_id"], work["reader_id"], "training"])[:20]
    assert work["assignment_id"] == known
    made = [row["assignment_id"] for row in out.ledger.rows("assignment", round=2) if row["attempt"] == 1]
    times = [(out.work / name / "image.nii.gz").stat().st_mtime_ns for name in sorted(made)]
    assert times == sorted(times) and len(set(times)) == len(times)


def test_it_trains_nothing_and_holds_nothing_up(out: Project) -> None:
    """The exam keeps the label that it had; the round's completion does not know of the extra work."""
    from redraft.rounds import completion

    label = Cohort(out).label_of("p04")
    assert label is not None and label.readings == ("note-p04",)
    assert "p04" in {item.exam_id for item in Cohort(out).labelled(POOL)}
    assert "p04" not in completion(out, 2).missing


def test_who_looked_at_a_reading_as_reviewer_is_not_blind_to_it(tiny: TINY) -> None:
    """A reader with a reviewer's account has seen the truth of the only exam that could go out wrong: it does not."""
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    project = tiny(
        ("  deadline_days: 14", "  deadline_days: 14\n  seeded_errors: {share: 0.2}"),
        ("budget: {exams: 4}", "budget: {exams: 9}"),
        ("from_scratch_probability: 0.4", "from_scratch_probability: 0.1"),
    )
    truth_for_p04(project)
    with project.ledger.tx("test") as tx:
        tx.insert(
            "account",
            {"account_id": "ac-1", "reader_id": "reader-2", "roles": ["reader", "reviewer"], "state": "active",
             "added_at": project.ledger.rows("round")[0]["opened_at"], "added_by": "test"},
        )  # fmt: skip
        tx.event("exam.viewed", {"account_id": "ac-1", "second_look": "a-review", "exam_id": "p04"})
    select.fn(str(project.root), 2, None)
    ref = dispatch.fn(str(project.root), 2, None)
    assert ref.quality == 0 and ref.quality_missing and not project.ledger.rows("assignment", purpose="quality")


def test_without_a_known_truth_there_is_none(tiny: TINY) -> None:
    """Where everybody has seen what is known, the plan says how many could not be made, and the round goes on."""
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    project = tiny(
        ("  deadline_days: 14", "  deadline_days: 14\n  seeded_errors: {share: 0.2}"),
        ("budget: {exams: 4}", "budget: {exams: 9}"),
        ("from_scratch_probability: 0.4", "from_scratch_probability: 0.1"),
        ("\n    - {id: reader-2, role: radiologist}", ""),
    )
    truth_for_p04(project)
    select.fn(str(project.root), 2, None)
    ref = dispatch.fn(str(project.root), 2, None)
    assert ref.quality == 0 and ref.quality_missing in (1, 2) and ref.training == 9
    assert not project.ledger.rows("seeded_error")
