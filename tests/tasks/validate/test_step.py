"""What comes back is judged one by one: good work is stored, bad work goes back with reasons, nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from redraft.digest import sha256_file
from redraft.project import Project
from redraft.volumes import Volume, read_volume, write_volume

TINY = Callable[..., Project]


def hand_in(project: Project, work: dict[str, Any], kind: str = "good", minutes: float = 3.0) -> Path:
    """Finished work in its package: `good`, or with one thing wrong."""
    folder: Path = project.work / work["assignment_id"]
    image = read_volume(folder / "image.nii.gz")
    label = np.zeros(image.shape, np.uint8)
    label[2:8, 2:8, 2:6] = 0 if kind == "empty" else 1
    affine = image.affine @ np.diag([-1.0, 1, 1, 1]) if kind == "mirrored" else image.affine
    if kind == "colour":
        rgb = np.zeros(image.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
        nib.save(nib.Nifti1Image(rgb, affine), folder / "label.nii.gz")
    else:
        write_volume(folder / "label.nii.gz", Volume(label, affine))
    verdict = "correct" if (folder / "draft.nii.gz").exists() else "scratch"
    result = {
        "assignment_id": folder.name, "reader_id": work["reader_id"], "verdict": verdict, "origin": "typed",
        "token": json.loads((folder / "task.json").read_text())["token"],
        "minutes": {"kidney": {"active": minutes}, "exam": {"active": 1.0, "away": 9.0}}, "remark": "Frau Mueller",
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def receive(project: Project) -> Any:
    """Collect, judge and send back, as closing does."""
    from tasks.dispatch.step import collect, send_back
    from tasks.validate.step import arrive

    back = collect.fn(str(project.root), 2, None)
    ref = arrive.fn(str(project.root), 2, None, back.model_dump(mode="json"))
    send_back.fn(str(project.root), 2, None)
    return ref


@pytest.fixture
def out(tiny: TINY) -> Project:
    """A project whose second round is with its readers."""
    from redraft.ledger import RoundState, move_round
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    project = tiny()
    select.fn(str(project.root), 2, None)
    dispatch.fn(str(project.root), 2, None)
    with project.ledger.tx("test") as tx:
        move_round(tx, 2, RoundState.AWAITING_ANNOTATION)
    return project


def test_good_work_is_kept_and_bad_work_goes_back(out: Project) -> None:
    """Three bad returns are refused by rule and go back whole with their reasons; the good one is stored and timed."""
    work = [row for row in out.ledger.rows("assignment", round=2) if row["attempt"] == 1]
    kinds = ("good", "mirrored", "empty", "colour")
    folders = {kind: hand_in(out, row, kind) for kind, row in zip(kinds, work, strict=False)}
    sent = {kind: sha256_file(folder / "label.nii.gz") for kind, folder in folders.items()}
    ref = receive(out)
    by_name = {kind: ref.refused.get(folder.name) for kind, folder in folders.items()}
    assert ref.valid == 1
    assert by_name == {
        "good": None, "mirrored": ["flipped", "grid"], "empty": ["required_empty"], "colour": ["not_scalar"],
    }  # fmt: skip
    states = {row["assignment_id"]: row["state"] for row in out.ledger.rows("assignment", round=2)}
    assert states[folders["good"].name] == "ACCEPTED"
    for kind in kinds[1:]:
        folder = folders[kind]
        assert states[folder.name] == "RETURNED_TO_READER" and (folder / "RETURNED.txt").read_text().count("\n- ") >= 1
        assert sha256_file(folder / "returned-1" / "label.nii.gz") == sent[kind]
        assert not (folder / "result.json").exists()
    note = out.ledger.rows("annotation", assignment_id=folders["good"].name)[0]
    assert sha256_file(out.root / note["path"]) == note["sha256"] and note["state"] == "valid"
    times = out.ledger.rows("time_entry", annotation_id=note["annotation_id"])
    assert sorted((t["structure"] or "", t["active_minutes"], t["away_minutes"]) for t in times) == [
        ("", 1.0, 9.0), ("kidney", 3.0, 0.0),
    ]  # fmt: skip


def test_a_reader_mends_and_hands_in_again(out: Project) -> None:
    """The second return is the second revision; the refused one stays on record with its minutes."""
    work = next(row for row in out.ledger.rows("assignment", round=2) if row["attempt"] == 1)
    hand_in(out, work, "mirrored", minutes=10.0)
    receive(out)
    hand_in(out, work, "good", minutes=2.0)
    assert receive(out).valid == 1
    notes = out.ledger.rows("annotation", assignment_id=work["assignment_id"])
    assert sorted((n["revision"], n["state"]) for n in notes) == [(1, "invalid"), (2, "valid")]
    wanted = {n["annotation_id"] for n in notes}
    times = [t for t in out.ledger.rows("time_entry") if t["annotation_id"] in wanted and t["structure"] == "kidney"]
    assert sorted(t["active_minutes"] for t in times) == [2.0, 10.0]


def test_free_text_never_reaches_the_records(out: Project) -> None:
    """A remark may name a patient: the ledger keeps only that there was one."""
    work = next(row for row in out.ledger.rows("assignment", round=2) if row["attempt"] == 1)
    hand_in(out, work)
    receive(out)
    note = out.ledger.rows("annotation", assignment_id=work["assignment_id"])[0]
    assert note["remark_present"] is True
    for path in out.root.rglob("*"):
        if path.is_file() and not path.is_relative_to(out.work):
            assert b"Mueller" not in path.read_bytes(), path.name


def test_what_was_saved_again_meanwhile_is_not_taken_in(out: Project) -> None:
    """A label that is another one when it is judged than when it was collected waits for the next collecting."""
    from tasks.dispatch.step import collect
    from tasks.validate.step import arrive

    work = out.ledger.rows("assignment", round=2, state="DISPATCHED")[0]
    folder = hand_in(out, work)
    back = collect.fn(str(out.root), 2, None).model_dump(mode="json")
    image = read_volume(folder / "image.nii.gz")
    other = np.zeros(image.shape, np.uint8)
    other[1:9, 2:8, 2:6] = 1
    write_volume(folder / "label.nii.gz", image.like(other))
    assert arrive.fn(str(out.root), 2, None, back).valid == 0
    assert out.ledger.one("assignment", assignment_id=folder.name)["state"] == "DISPATCHED"
    assert receive(out).valid == 1
    (note,) = out.ledger.rows("annotation", assignment_id=folder.name)
    np.testing.assert_array_equal(read_volume(out.root / note["path"]).array, other)
    assert not list(out.state.glob("arriving-*"))


def test_nothing_back_is_no_error(out: Project) -> None:
    """Receiving while everybody still works changes nothing."""
    before = out.ledger.rows("audit_event")
    assert receive(out).valid == 0
    assert out.ledger.rows("audit_event") == before


def test_a_label_altered_after_it_was_accepted_stops_the_closing(out: Project) -> None:
    """Judged again with all others at closing, an annotation that no longer passes is an IntegrityError naming it."""
    from redraft.errors import IntegrityError
    from tasks.validate.step import validate

    work = next(row for row in out.ledger.rows("assignment", round=2) if row["attempt"] == 1)
    hand_in(out, work)
    receive(out)
    with out.ledger.tx("test") as tx:  # round 1's annotations are invented: no file lies behind them
        for row in tx.rows("annotation", state="valid"):
            if row["annotation_id"].startswith("note-"):
                tx.update("annotation", {"annotation_id": row["annotation_id"]}, {"state": "invalid"})
    ref = validate.fn(str(out.root), 2, None)
    assert ref.annotations == 1 and sha256_file(out.root / ref.result) == ref.result_sha256
    note = out.ledger.rows("annotation", assignment_id=work["assignment_id"])[0]
    path = out.root / note["path"]
    path.chmod(0o644)
    write_volume(path, read_volume(path).like(np.zeros((12, 10, 8), np.uint8)))
    with out.ledger.tx("test") as tx:
        tx.update("annotation", {"annotation_id": note["annotation_id"]}, {"sha256": sha256_file(path)})
    with pytest.raises(IntegrityError, match=note["annotation_id"]):
        validate.fn(str(out.root), 2, None)
