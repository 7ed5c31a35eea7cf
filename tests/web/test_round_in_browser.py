"""n of m: double reads, breaks and a server killed while it saves; the round closes while a second reading is out.

test_whole_round.py works every exam of two rounds. Here is what it has no use for: readings beyond the rule, readers
who are blind to one another, pauses, and a killing at the moment when a stroke is on its way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from redraft.phantom import write_phantom
from tests.flows.conftest import make_project
from tests.servers.dimse import free_port
from tests.servers.web import PASSWORD
from tests.web.conftest import wait_until
from tests.web.test_whole_round import READERS, Hospital
from tests.web.test_workstation import go_to, hand_in, open_exam, point, saved, shown, stood_at, stored

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580), pytest.mark.usefixtures("with_ui")]

IDLE_AFTER, BREAK = 15.0, 18.0
SETTINGS = {
    "backend: folder": (
        "backend: review\n  training_double_read_share: 1.0\n  reference_per_round: 2\n  completion: {readings: 1}"
    ),
    "gate:\n": f"time: {{idle_after_seconds: {IDLE_AFTER}, heartbeat_seconds: 2, away_after_seconds: 20}}\n\ngate:\n",
}


@dataclass
class Reading:
    """One assignment as the script did it, in seconds from a standing page to the click that handed it in."""

    assignment_id: str
    seconds: float
    pause: float
    mask: NDArray[np.uint8]


@pytest.fixture
def hospital(tmp_path: Path) -> Any:
    """A round that is out, accounts made by command, and `redraft serve`."""
    write_phantom(tmp_path / "phantom", 10, 3, shape=(48, 40, 16), spacing=(7.2, 7.2, 12.0))
    project = make_project(tmp_path / "kidneys", tmp_path / "phantom", **SETTINGS)
    made = Hospital(project, free_port(), tmp_path / "password")
    made.password.write_text(PASSWORD + "\n")
    made.password.chmod(0o600)
    given = ("--password-file", str(made.password))
    for reader, login in READERS.items():
        made.command("user", "add", login, "--name", login, "--role", "reader", "--reader", reader, *given)
    for login, role in (("ada", "approver"), ("omar", "ops")):
        made.command("user", "add", login, "--name", login, "--role", role, *given)
    made.command("round", "open")
    try:
        made.serve()
        yield made
    finally:
        if made.server is not None:
            made.kill()


def test_a_round_closes_when_one_of_two_readings_is_in(hospital: Hospital, open_page: Any) -> None:
    """Not before the last exam has a reading, and then by itself; what was drawn and how long are the script's."""
    site = SimpleNamespace(url=f"http://127.0.0.1:{hospital.port}", project=hospital.project)
    hospital.pages = {reader: open_page(site, login) for reader, login in READERS.items()}
    by_exam: dict[str, list[dict[str, Any]]] = {}
    for row in hospital.assignments(1):
        by_exam.setdefault(row["exam_id"], []).append(row)
    doubles = [rows for rows in by_exam.values() if len(rows) == 2]
    assert (len(by_exam), len(doubles)) == (5, 3)
    assert all({row["reader_id"] for row in rows} == set(READERS) for rows in doubles)
    first, second = doubles[0]
    done = [read(hospital, first, pause=BREAK)]
    blind(hospital, first, second)
    done.append(read(hospital, second, kill=True))
    singles = [rows[0] for rows in by_exam.values() if rows is not doubles[0]]
    for row in singles[:-1]:
        done.append(read(hospital, row))
    taken_in(hospital, [one.assignment_id for one in done])
    assert hospital.state(1) == "AWAITING_ANNOTATION"
    done.append(read(hospital, singles[-1]))
    hospital.wait_until_closed(1)
    left = {row["assignment_id"] for row in hospital.assignments(1)} - {one.assignment_id for one in done}
    assert len(left) == 2 and left == {row["assignment_id"] for row in hospital.assignments(1) if not valid(row)}
    on_record(hospital, done)
    agreed = hospital.project.ledger.rows("agreement", exam_id=first["exam_id"])
    assert {row["structure"] for row in agreed} == {"kidney", "kidney_tumor"}
    assert all(0.7 < row["dice"] <= 1 for row in agreed)
    seen_by_ops(open_page(site, "omar"), hospital.pages["reader-1"])
    approved(hospital)


def read(hospital: Hospital, row: dict[str, Any], *, pause: float = 0, kill: bool = False) -> Reading:
    """Draw two kidneys and a tumour by pointer and keys; perhaps sit still in between, perhaps lose the server."""
    page, name = hospital.pages[row["reader_id"]], row["assignment_id"]
    shape = hospital.project.ledger.rows("exam", exam_id=row["exam_id"])[0]["shape"]
    open_exam(page, name)
    assert not shown(page, shape).any(), "a draft or another's work was shown where none is to be seen"
    page.keyboard.press("p")
    for foot in (6, 9):
        for side in (14, 33):
            stroke(page, side, foot)
    page.keyboard.press("2")
    go_to(page, (18, 16, 7))
    page.mouse.click(*point(page, "axial", (18, 16, 7)))
    page.keyboard.press("1")
    still = time.monotonic()
    time.sleep(pause)
    go_to(page, (14, 16, 7))
    where = point(page, "axial", (14, 16, 7))
    still = time.monotonic() - still  # what a busy computer adds to the break is the break's
    page.mouse.move(*where)
    page.keyboard.press("i")
    assert (shown(page, shape) == 1).any(axis=(0, 1)).sum() == 4, "the two slices in between were not filled"
    if kill:
        killed_while_saving(hospital, page, name, shape)
    saved(page)
    mask = shown(page, shape).copy()
    assert set(np.unique(mask)) == {0, 1, 2}
    assert np.array_equal(stored(page, name, shape), mask)
    seconds = hand_in(page, "s") - stood_at(page)
    return Reading(name, seconds, still if pause else 0, mask)


def stroke(page: Any, side: int, foot: int) -> None:
    """Draw a short line on one slice."""
    go_to(page, (side, 16, foot))
    page.mouse.move(*point(page, "axial", (side - 2, 16, foot)))
    page.mouse.down()
    page.mouse.move(*point(page, "axial", (side + 2, 16, foot)), steps=6)
    page.mouse.up()


def killed_while_saving(hospital: Hospital, page: Any, name: str, shape: Any) -> None:
    """The server stops answering, a stroke is on its way to it, it is killed; the page goes on and loses nothing."""
    saved(page)
    before = stored(page, name, shape)
    assert hospital.server is not None
    os.kill(hospital.server.pid, signal.SIGSTOP)
    stroke(page, 14, 10)
    drawn = shown(page, shape).copy()
    assert not np.array_equal(drawn, before)
    wait_until(page, "workstation.save.state === 'saving' && !workstation.save.clean")
    hospital.kill()
    page.locator("#save").get_by_text("Offline: kept on this computer").wait_for()
    stroke(page, 33, 10)  # who draws is not stopped by it
    hospital.serve()
    page.mouse.move(*point(page, "axial", (20, 16, 10)))
    wait_until(page, "workstation.save.clean && workstation.save.state === 'saved'", 60)
    after = stored(page, name, shape)
    assert np.array_equal(after, shown(page, shape)) and (after[drawn > 0] == drawn[drawn > 0]).all()


def blind(hospital: Hospital, first: dict[str, Any], second: dict[str, Any]) -> None:
    """To the second reader the first one's reading does not exist."""
    page = hospital.pages[second["reader_id"]]
    for path in ("", "/image", "/mask"):
        assert page.request.get(f"/api/work/{first['assignment_id']}{path}").status == 404


def taken_in(hospital: Hospital, names: list[str], seconds: float = 60) -> None:
    """Wait until the server's own sweeps have taken in this work."""
    deadline = time.monotonic() + seconds
    while not set(names) <= {row["assignment_id"] for row in hospital.assignments(1) if valid(row)}:
        assert time.monotonic() < deadline, hospital.assignments(1)
        time.sleep(0.3)


def valid(row: dict[str, Any]) -> bool:
    return bool(row["state"] == "ACCEPTED")


def on_record(hospital: Hospital, done: list[Reading]) -> None:
    """Labels voxel for voxel as nibabel reads them; active and idle seconds; the report knows of nothing else."""
    ledger, active = hospital.project.ledger, 0.0
    for one in done:
        (note,) = ledger.rows("annotation", assignment_id=one.assignment_id)
        label = np.asarray(nib.load(hospital.project.root / note["path"]).dataobj)
        assert note["path"].startswith("data/labels/") and np.array_equal(label, one.mask)
        times = ledger.rows("time_entry", annotation_id=note["annotation_id"])
        assert {(row["origin"], row["simulated"]) for row in times} == {("measured", False)}
        assert 60 * sum(row["active_minutes"] for row in times) == pytest.approx(one.seconds - one.pause, abs=2)
        assert 60 * sum(row["idle_minutes"] for row in times) == pytest.approx(one.pause, abs=2)
        active += one.seconds - one.pause
    report = hospital.command("cost", "report")
    assert report["simulated"] is False and set(report["origins"]) == {"measured"}
    minutes = report["total"]["minutes_training"] + report["total"]["minutes_reference"]
    assert 60 * minutes == pytest.approx(active, abs=2 * len(done))


def seen_by_ops(ops: Any, reader: Any) -> None:
    """Ops see who has what; a reader does not."""
    assert ops.request.get("/api/ops").status == 200
    assert reader.request.get("/api/ops").status in (403, 404)


def approved(hospital: Hospital) -> None:
    """Nobody approves with a wrong password; with the right one the chain names the account and holds."""
    wrong = hospital.password.with_name("wrong")
    wrong.write_text("not the right sentence\n")
    wrong.chmod(0o600)
    words = ["promote", "1", "--approve", "--by", "ada", "--reason", "gate passed", "--password-file"]
    line = [sys.executable, "-m", "app.cli.main", *words, str(wrong), "--project", str(hospital.project.root)]
    refused = subprocess.run(line, env=hospital._env(), capture_output=True, text=True, timeout=120)
    assert refused.returncode != 0 and hospital.state(1) == "AWAITING_APPROVAL", refused.stdout
    hospital.command(*words, str(hospital.password))
    assert hospital.state(1) == "PROMOTED"
    assert hospital.command("audit", "verify")["ok"]
