"""From a selection to packages, and from packages to collected work, on a project without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redraft.digest import sha256_file, sha256_json
from redraft.project import Project
from redraft.volumes import read_volume, write_volume

TINY = Callable[..., Project]


@pytest.fixture
def out(tiny: TINY) -> Project:
    """A project whose second round has been selected and dispatched, every reference exam read twice."""
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    project = tiny(
        ("  deadline_days: 14", "  deadline_days: 14\n  double_read_share: 1.0"),
        ("budget: {exams: 4}", "budget: {exams: 10}"),
    )
    select.fn(str(project.root), 2, None)
    dispatch.fn(str(project.root), 2, None)
    return project


def assignments(project: Project, **where: Any) -> list[dict[str, Any]]:
    """What round 2 handed out anew."""
    rows = project.ledger.rows("assignment", round=2, **where)
    return [row for row in rows if row["attempt"] == 1]


def finish(folder: Path, reader: str, **changes: Any) -> None:
    """Hand in an empty label for a package."""
    image = read_volume(folder / "image.nii.gz")
    write_volume(folder / "label.nii.gz", image.like(np.zeros(image.shape, np.uint8)))
    verdict = "correct" if (folder / "draft.nii.gz").exists() else "scratch"
    token = json.loads((folder / "task.json").read_text())["token"]
    result = {
        "assignment_id": folder.name, "reader_id": reader, "verdict": verdict, "origin": "typed", "token": token,
        "minutes": {"kidney": {"active": 3}}, **changes,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))


def test_what_is_chosen_and_what_is_held_out_goes_out(out: Project) -> None:
    """Every chosen exam once; every waiting reference exam to two readers; none that is annotated or still out."""
    training = assignments(out, purpose="training")
    assert sorted(a["exam_id"] for a in training) == sorted(r["exam_id"] for r in out.ledger.rows("selection", round=2))
    reference = assignments(out, purpose="reference")
    assert sorted((a["exam_id"], a["reader_id"]) for a in reference) == sorted(
        (exam, reader) for exam in ("v1", "t1", "t2", "x0", "x1") for reader in ("reader-1", "reader-2")
    )
    assert {a["state"] for a in training + reference} == {"DISPATCHED"}


def test_carried_over_work_goes_out_again_in_this_round(out: Project) -> None:
    """The same assignment with its next attempt; what is out or was sent back in another round is left alone."""
    again = [row for row in out.ledger.rows("assignment", round=2) if row["attempt"] > 1]
    assert [(row["assignment_id"], row["attempt"], row["state"]) for row in again] == [("old-p02", 2, "DISPATCHED")]


def test_drafts_are_shown_in_assisted_packages_only(out: Project) -> None:
    """Modes are the selection's; a from-scratch or reference package holds no draft, no hash of one, no way to it."""
    modes = {row["exam_id"]: row["explanation"]["mode"] for row in out.ledger.rows("selection", round=2)}
    assert set(modes.values()) == {"assisted", "from_scratch"}
    hashes = {row["exam_id"]: row["sha256"] for row in out.ledger.rows("draft")}
    for work in assignments(out):
        folder = out.work / work["assignment_id"]
        text = (folder / "task.json").read_text()
        task = json.loads(text)
        assert task["mode"] == work["mode"] == modes.get(work["exam_id"], "from_scratch")
        names = {path.name for path in folder.iterdir()}
        if work["mode"] == "assisted":
            assert names >= {"image.nii.gz", "task.json", "draft.nii.gz"}
            assert sha256_file(folder / "draft.nii.gz") == hashes[work["exam_id"]] == task["draft_sha256"]
        else:
            assert not [name for name in names if name.startswith("draft")] and task["draft_sha256"] is None
            assert not any(digest in path.read_text() for digest in hashes.values() for path in folder.glob("*.json"))
        assert work["package_sha256"] == sha256_json(task)


def test_both_arms_record_the_draft_that_could_have_been_shown(out: Project) -> None:
    """Training work names its exam's draft in either mode; reference work never does."""
    drafts = {row["exam_id"]: row["draft_id"] for row in out.ledger.rows("draft")}
    assert {(a["exam_id"], a["draft_id"]) for a in assignments(out, purpose="training")} <= set(drafts.items())
    assert {a["draft_id"] for a in assignments(out, purpose="reference")} == {None}
    assert {a["mode_probability"] for a in assignments(out, purpose="training")} <= {0.4, 0.6}


def test_nothing_identifies_the_subject(out: Project) -> None:
    """Neither subject nor series pseudonyms nor split nor the choice's reasons stand in a package."""
    for work in assignments(out):
        text = (out.work / work["assignment_id"] / "task.json").read_text()
        for word in ("subject", "series", "entropy", "control", "champion", "validation", "external", str(out.root)):
            assert word not in text, word


def test_dispatching_again_is_the_same_work(out: Project) -> None:
    """After a crash the step hands out the same assignments and leaves packages as they are."""
    from tasks.dispatch.step import dispatch

    before = {path: path.stat().st_mtime_ns for path in out.work.rglob("*")}
    ref = dispatch.fn(str(out.root), 2, None)
    assert {path: path.stat().st_mtime_ns for path in out.work.rglob("*")} == before
    assert ref.training == len(assignments(out, purpose="training")) and ref.carried_over == 1


def test_collecting_takes_what_is_finished_and_names_the_rest_without_names(out: Project) -> None:
    """Good work comes back; broken work by rule; a package nobody dispatched by a hash of its name."""
    from tasks.dispatch.step import collect

    good, broken, waiting = assignments(out)[:3]
    finish(out.work / good["assignment_id"], good["reader_id"])
    finish(out.work / broken["assignment_id"], broken["reader_id"], minutes={"kidney": {"active": float("inf")}})
    stranger = out.work / "MUELLER^HANS"
    stranger.mkdir()
    (stranger / "result.json").write_text("{}")
    ref = collect.fn(str(out.root), 2, None)
    assert [item.assignment_id for item in ref.items] == [good["assignment_id"]]
    assert ref.items[0].label == f"work/{good['assignment_id']}/label.nii.gz"
    unknown = f"unknown-{sha256_json('MUELLER^HANS')[:12]}"
    assert ref.unreadable == {broken["assignment_id"]: "result", unknown: "never_dispatched"}
    assert "MUELLER" not in ref.model_dump_json() and waiting["assignment_id"] not in ref.model_dump_json()


def test_work_of_withdrawn_or_finished_assignments_is_not_collected(out: Project) -> None:
    """A result in the package of an assignment that is no longer out is neither taken in nor called a stranger."""
    from redraft.ledger import AssignmentState, move_assignment
    from tasks.dispatch.step import collect

    work = assignments(out)[0]
    finish(out.work / work["assignment_id"], work["reader_id"])
    with out.ledger.tx("test") as tx:
        move_assignment(tx, work["assignment_id"], AssignmentState.WITHDRAWN)
    ref = collect.fn(str(out.root), 2, None)
    assert ref.items == () and ref.unreadable == {}


def test_what_is_out_is_carried_over(out: Project) -> None:
    """At closing every open assignment of the round is carried over, once."""
    from tasks.dispatch.step import carry_over

    count = len(assignments(out)) + 1
    assert carry_over.fn(str(out.root), 2, None) == count
    assert {row["state"] for row in out.ledger.rows("assignment", round=2)} == {"CARRIED_OVER"}
    assert carry_over.fn(str(out.root), 2, None) == 0
