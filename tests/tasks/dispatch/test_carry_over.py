"""Work that was still out when a round closed goes out again in the next: same reader, same package, a new token."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redraft import rounds
from redraft.ledger import RoundState, move_round
from redraft.project import Project
from redraft.volumes import read_volume, write_volume
from redraft.work_leases import replacement_id

TINY = Callable[..., Project]


@pytest.fixture
def closed(tiny: TINY) -> Project:
    """Round 2 went out, nothing came back, and round 3 is about to open."""
    from tasks.dispatch.step import carry_over, dispatch
    from tasks.select.step import select

    project = tiny(("budget: {exams: 4}", "budget: {exams: 2}"))
    select.fn(str(project.root), 2, None)
    dispatch.fn(str(project.root), 2, None)
    with project.ledger.tx("test") as tx:
        for state in ("AWAITING_ANNOTATION", "CLOSING"):
            move_round(tx, 2, RoundState(state))
    carry_over.fn(str(project.root), 2, None)
    with project.ledger.tx("test") as tx:
        for state in ("AWAITING_APPROVAL", "HELD"):
            move_round(tx, 2, RoundState(state))
    rounds.begin(project, datetime.now(UTC), "test", lambda champion: {})
    return project


def open_next(project: Project) -> Any:
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    select.fn(str(project.root), 3, None)
    return dispatch.fn(str(project.root), 3, None)


def finish(folder: Path, token: str) -> None:
    image = read_volume(folder / "image.nii.gz")
    write_volume(folder / "label.nii.gz", image.like(np.zeros(image.shape, np.uint8)))
    task = json.loads((folder / "task.json").read_text())
    result = {
        "assignment_id": folder.name, "reader_id": task["reader_id"], "origin": "typed", "token": token,
        "verdict": "correct" if task["mode"] == "assisted" else "scratch", "minutes": {"kidney": {"active": 3}},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))


def test_an_answer_to_the_earlier_handing_out_is_refused(closed: Project) -> None:
    """The token of before says `token`; the one that lies in the package now is taken; the reader's label stayed."""
    from tasks.dispatch.step import collect

    out = {row["assignment_id"]: row for row in closed.ledger.rows("assignment", round=2, state="CARRIED_OVER")}
    name = next(name for name, row in out.items() if row["attempt"] == 1)
    folder = closed.work / name
    old = json.loads((folder / "task.json").read_text())["token"]
    (folder / "draft-of-mine.nii.gz").write_bytes(b"kept")
    ref = open_next(closed)
    row = closed.ledger.one("assignment", assignment_id=name)
    task = json.loads((folder / "task.json").read_text())
    assert (row["state"], row["round"], row["attempt"]) == ("DISPATCHED", 3, 2) and ref.carried_over >= len(out)
    assert task["round"] == 3 and task["token"] != old and (folder / "draft-of-mine.nii.gz").read_bytes() == b"kept"
    assert closed.ledger.one("work_lease", assignment_id=name)["state"] == "held"
    finish(folder, old)
    assert collect.fn(str(closed.root), 3, None).unreadable[name] == "token"
    finish(folder, task["token"])
    assert [item.assignment_id for item in collect.fn(str(closed.root), 3, None).items] == [name]


def test_what_a_reader_who_left_had_is_another_s(closed: Project) -> None:
    """Taken out of project.yaml between rounds: withdrawn, and the same reading goes out to who is left."""
    path = closed.root / "project.yaml"
    text = path.read_text()
    assert "\n    - {id: reader-1, role: radiologist}" in text
    path.write_text(text.replace("\n    - {id: reader-1, role: radiologist}", ""))
    project = Project.open(closed.root)
    hers = [row for row in project.ledger.rows("assignment", state="CARRIED_OVER") if row["reader_id"] == "reader-1"]
    open_next(project)
    assert hers
    for row in hers:
        assert project.ledger.one("assignment", assignment_id=row["assignment_id"])["state"] == "WITHDRAWN"
        new = project.ledger.one("assignment", assignment_id=replacement_id(row["assignment_id"], "reader-2"))
        assert new is not None and (new["state"], new["round"], new["mode"]) == ("DISPATCHED", 3, row["mode"])
        assert (project.work / new["assignment_id"] / "task.json").exists()
    open_work = [row for row in project.ledger.rows("assignment", round=3) if row["state"] == "DISPATCHED"]
    assert {row["reader_id"] for row in open_work} == {"reader-2"}


@pytest.mark.parametrize("origin", ["typed", "measured"])
def test_work_finished_while_no_round_took_it_in_is_not_lost(closed: Project, origin: str) -> None:
    """Handed in after the closing: it is taken in with the next round's work, minutes and label as they were."""
    from redraft.digest import sha256_file
    from redraft.signing import sign_result
    from tasks.dispatch.contract import Result
    from tasks.dispatch.step import collect

    rows = closed.ledger.rows("assignment", round=2, state="CARRIED_OVER")
    folder = closed.work / next(row["assignment_id"] for row in rows if row["attempt"] == 1)
    finish(folder, json.loads((folder / "task.json").read_text())["token"])
    result = Result.model_validate({**json.loads((folder / "result.json").read_text()), "origin": origin})
    label = sha256_file(folder / "label.nii.gz")
    if origin == "measured":
        signature = sign_result(closed.checked_keys, result.model_dump(mode="json"), label)
        result = result.model_copy(update={"signature": signature})
    (folder / "result.json").write_text(result.model_dump_json())
    open_next(closed)
    back = collect.fn(str(closed.root), 3, None)
    (item,) = [item for item in back.items if item.assignment_id == folder.name]
    assert folder.name not in back.unreadable and item.label_sha256 == label
    assert item.result["origin"] == origin and item.result["minutes"]["kidney"]["active"] == 3.0


def test_a_result_that_was_forged_is_not_made_good(closed: Project) -> None:
    """Minutes called measured without our signature stay unsigned when the work is carried over."""
    from tasks.dispatch.step import collect

    rows = closed.ledger.rows("assignment", round=2, state="CARRIED_OVER")
    folder = closed.work / next(row["assignment_id"] for row in rows if row["attempt"] == 1)
    finish(folder, json.loads((folder / "task.json").read_text())["token"])
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "origin": "measured"}))
    open_next(closed)
    assert collect.fn(str(closed.root), 3, None).unreadable[folder.name] in ("token", "unsigned")
