"""Readers at work on the little project: work handed in, received, reviewed; what counts afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from redraft import reviews
from redraft.cohort import Cohort
from redraft.lineage.verify import Verification, _files
from redraft.project import Project
from redraft.volumes import read_volume, write_volume
from tasks.dispatch.open_backend import backend_for

TINY = Callable[..., Project]
NOW = datetime(2026, 3, 3, 9, 0, tzinfo=UTC)
DOUBLE = ("dispatch:\n", "dispatch:\n  training_double_read_share: 1.0\n")

ASSISTED = ("from_scratch_probability: 0.4", "from_scratch_probability: 0.0")


def rules(text: str) -> tuple[str, str]:
    """The project with this section `validate`."""
    return "\ntrain:", f"\nvalidate: {{{text}}}\n\ntrain:"


def label_for(project: Project, exam_id: str, shift: int = 0) -> np.ndarray:
    image = read_volume(project.image(exam_id))
    label = np.zeros(image.shape, np.uint8)
    label[2 + shift : 8 + shift, 2:8, 2:6] = 1
    return label


def hand_in(project: Project, work: dict[str, Any], *, shift: int = 0, draft: bool = False, **said: Any) -> Path:
    """Finished work in its package: a box moved by `shift`, or the draft as it was."""
    folder: Path = project.work / work["assignment_id"]
    no_label = said.get("no_label", False)
    if draft:
        (folder / "label.nii.gz").write_bytes((folder / "draft.nii.gz").read_bytes())
    elif not no_label:
        image = read_volume(folder / "image.nii.gz")
        write_volume(folder / "label.nii.gz", image.like(label_for(project, work["exam_id"], shift)))
    verdict = "accept" if draft else "correct" if work["mode"] == "assisted" else "scratch"
    result = {
        "assignment_id": folder.name, "reader_id": work["reader_id"], "verdict": verdict, "origin": "typed",
        "minutes": {"exam": {"active": 3.0}}, "token": json.loads((folder / "task.json").read_text())["token"], **said,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def receive(project: Project) -> Any:
    from tasks.dispatch.step import collect, send_back
    from tasks.validate.step import arrive

    back = collect.fn(str(project.root), 2, None)
    ref = arrive.fn(str(project.root), 2, None, back.model_dump(mode="json"))
    send_back.fn(str(project.root), 2, None)
    return ref


def dispatched(project: Project, *, accounts: bool = True) -> Project:
    from redraft.ledger import RoundState, move_round
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    select.fn(str(project.root), 2, None)
    dispatch.fn(str(project.root), 2, None)
    with project.ledger.tx("test") as tx:
        move_round(tx, 2, RoundState.AWAITING_ANNOTATION)
        for name, reader in (("ac-reviewer", None), ("ac-reader", "reader-1"), ("ac-nobody", None)) if accounts else ():
            roles = ["reader"] if name == "ac-nobody" else ["reader", "reviewer"]
            tx.insert("account", {"account_id": name, "reader_id": reader, "roles": roles, "state": "active",
                                  "added_at": NOW, "added_by": "test"})  # fmt: skip
    return project


def copied(made: Path, root: Path, *pairs: tuple[str, str]) -> Project:
    """As the fixture `tiny`, at a place of the caller's: what a module makes once."""
    shutil.copytree(made, root, symlinks=True)
    text = (root / "project.yaml").read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    (root / "project.yaml").write_text(text, encoding="utf-8")
    return Project.open(root)


def fresh(project: Project, purpose: str = "training") -> list[dict[str, Any]]:
    rows = project.ledger.rows("assignment", round=2, purpose=purpose)
    return [row for row in rows if row["attempt"] == 1 and row["state"] == "DISPATCHED"]


def pair(project: Project) -> list[dict[str, Any]]:
    """The two readings of one training exam."""
    rows = fresh(project)
    exam = next(r["exam_id"] for r in rows if sum(o["exam_id"] == r["exam_id"] for o in rows) == 2)
    return [row for row in rows if row["exam_id"] == exam]


def note(project: Project, work: dict[str, Any]) -> dict[str, Any]:
    """The latest revision of an assignment."""
    rows = project.ledger.rows("annotation", assignment_id=work["assignment_id"])
    return max(rows, key=lambda row: row["revision"])


def state(project: Project, work: dict[str, Any]) -> str:
    row = project.ledger.one("assignment", assignment_id=work["assignment_id"])
    assert row is not None
    return str(row["state"])


def training(project: Project) -> dict[str, Any]:
    return {item.exam_id: item for item in Cohort(project).labelled("pool")}


def broken(project: Project) -> list[tuple[str, str]]:
    found = Verification()
    _files(project, found)
    return [(item.kind, item.record) for item in found.broken if item.record not in ("note-p04", "note-t0")]


def decide(project: Project, review_id: str, decision: str, account: str = "ac-reviewer", **more: Any) -> Any:
    """As the page does it: rows and package in one transaction."""
    with project.ledger.tx(account, NOW) as tx:
        done = reviews.decide_review(tx, review_id, account, decision, now=NOW, **more)  # type: ignore[arg-type]
        if done["reasons"]:
            backend_for(project).send_back(done["assignment_id"], done["reasons"])
    return done
