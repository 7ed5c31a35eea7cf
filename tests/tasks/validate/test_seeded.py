"""Drafts that are wrong on purpose: judged when they come back, and never learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redraft.cohort import Cohort
from redraft.digest import sha256_file
from redraft.people import reader_page
from redraft.project import Project
from redraft.volumes import read_volume, write_volume
from tests.tasks.validate.made_readings import (
    NOW,
    TINY,
    broken,
    decide,
    dispatched,
    fresh,
    hand_in,
    note,
    receive,
    rules,
    training,
)


def seed_error(project: Project, work: dict[str, Any], truth: dict[str, Any]) -> np.ndarray:
    """Make an assignment one of a draft that is wrong on purpose: without the upper half of the truth."""
    right = np.array(read_volume(project.root / truth["path"]).array)
    wrong = right.copy()
    wrong[:, :, 4:] = 0
    path = f"data/drafts/{truth['exam_id'][:2]}/{truth['exam_id']}/seeded.nii.gz"
    write_volume(project.root / path, read_volume(project.root / truth["path"]).like(wrong))
    row = {**work, "assignment_id": "quality-1", "exam_id": truth["exam_id"], "purpose": "quality", "mode": "assisted",
           "draft_id": "seeded-1", "state": "DISPATCHED", "mode_probability": None}  # fmt: skip
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("draft", {"draft_id": "seeded-1", "exam_id": truth["exam_id"], "model_digest": "seeded-1",
                            "path": path, "sha256": sha256_file(project.root / path), "scores": {}})  # fmt: skip
        tx.insert("assignment", row)
        tx.insert("seeded_error", {
            "assignment_id": "quality-1", "exam_id": truth["exam_id"], "round": 2, "structure": "kidney",
            "kind": "removed", "truth_annotation_id": truth["annotation_id"],
            "wrong_voxels": int((wrong != right).sum()), "corrected": None, "outcome": "pending",
        })  # fmt: skip
    return wrong


def bring(project: Project, label: np.ndarray | None, verdict: str) -> None:
    """What collect would say of the quality assignment."""
    from tasks.validate.step import arrive

    folder = project.work / "quality-1"
    folder.mkdir(exist_ok=True)
    path = folder / "label.nii.gz"
    if label is not None:
        exam = project.ledger.rows("seeded_error")[0]["exam_id"]
        write_volume(path, read_volume(project.image(exam)).like(label))
    minutes = {"exam": {"active": 2.0, "idle": 0.0, "away": 0.0}}
    result = {"assignment_id": "quality-1", "reader_id": "reader-2", "verdict": verdict, "reason_code": "poor_image",
              "remark": None, "origin": "typed", "simulated": False, "minutes": minutes}  # fmt: skip
    item: dict[str, Any] = {"assignment_id": "quality-1", "label": None, "label_sha256": None, "result": result}
    if label is not None:
        item |= {"label": path.relative_to(project.root).as_posix(), "label_sha256": sha256_file(path)}
    arrive.fn(str(project.root), 2, None, {"items": [item]})


@pytest.mark.parametrize("mended", ["nothing", "little", "half", "all", "sent_back"])
def test_seeded_errors_are_judged_and_never_learned_from(tiny: TINY, mended: str) -> None:
    """The mended share of the wrong voxels decides; whatever the reader made of it, the exam's label, the training
    data, consensus, reviews and the pool are as if it had never been."""
    project = dispatched(tiny(rules("review_share: 1.0, review_flagged: true")))
    work = fresh(project)[0]
    hand_in(project, work)
    receive(project)
    for review in project.ledger.rows("review", state="open"):
        decide(project, review["review_id"], "accept")
    truth = note(project, work)
    wrong = seed_error(project, work, truth)
    counted = {k: v.entry() for k, v in training(project).items()}
    pool = Cohort(project).unlabelled_pool(3)
    right = np.array(read_volume(project.root / truth["path"]).array)
    back = {"nothing": wrong, "all": right, "sent_back": None}.get(mended, wrong.copy())
    if mended in ("little", "half"):
        back[:, :, 4 : 4 + (1 if mended == "half" else 0)] = right[:, :, 4 : 4 + (1 if mended == "half" else 0)]
        back[2, 2, 5] = right[2, 2, 5]
    bring(project, back, "accept" if mended == "nothing" else "reject" if back is None else "correct")
    (error,) = project.ledger.rows("seeded_error")
    expected = {"nothing": "missed", "little": "missed", "half": "detected", "all": "detected", "sent_back": "detected"}
    assert error["outcome"] == expected[mended]
    if back is not None:
        assert error["corrected"] == pytest.approx((back == right)[wrong != right].mean())
    assert {k: v.entry() for k, v in training(project).items()} == counted
    assert Cohort(project).unlabelled_pool(3) == pool and not project.ledger.rows("rejection")
    assert not project.ledger.rows("consensus") and not project.ledger.rows("review", state="open")
    readings = [row for rows in Cohort(project).readings.values() for row in rows]
    assert all(row["assignment_id"] != "quality-1" for row in readings)
    assert broken(project) == []
    # Nothing tells the reader while the round goes on: the next drafts would be read with other eyes.
    assert reader_page(project.ledger, "reader-2")["seeded"] == {"n": 0, "noticed": 0}
    with project.ledger.tx("test") as tx:
        tx.update("round", {"number": error["round"]}, {"closed_at": NOW})
    noticed = int(expected[mended] == "detected")
    assert reader_page(project.ledger, "reader-2")["seeded"] == {"n": 1, "noticed": noticed}
