"""Two rounds of the phantom project in browsers: drawn, corrected, accepted, sent back, closed by themselves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from redraft.phantom import write_phantom
from redraft.project import Project
from redraft.volumes import read_volume
from tests.flows.conftest import REPOSITORY, make_project
from tests.servers.dimse import free_port
from tests.servers.web import PASSWORD
from tests.web.conftest import wait_until
from tests.web.test_workstation import go_to, hand_in, open_exam, point, shown, stood_at

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580), pytest.mark.usefixtures("with_ui")]

READERS = {"reader-1": "anna", "reader-2": "ben"}
REVIEW = {
    "backend: folder": "backend: review",
    "from_scratch_probability: 0.4": "from_scratch_probability: 0.0",
    "gate:\n": "gate:\n",  # nobody is simulated
}


@dataclass
class Work:
    """One assignment as the script did it."""

    assignment_id: str
    seconds: float
    verdict: str
    mask: NDArray[np.uint8]


@dataclass
class Hospital:
    """The project, its pages on one port, and a browser per reader."""

    project: Project
    port: int
    password: Path
    pages: dict[str, Any] = field(default_factory=dict)
    server: subprocess.Popen[bytes] | None = None

    def command(self, *words: str) -> Any:
        """Run a command as its user would; returns its JSON."""
        line = [sys.executable, "-m", "app.cli.main", *words, "--project", str(self.project.root), "--json"]
        ran = subprocess.run(line, env=self._env(), capture_output=True, text=True, timeout=240)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-3000:]
        return json.loads(ran.stdout)

    def serve(self) -> None:
        """Start `redraft serve`, which sweeps by itself, and wait until it answers."""
        line = [sys.executable, "-m", "app.cli.main", "serve", "--project", str(self.project.root)]
        log = (self.project.root.parent / "serve.log").open("ab")
        self.server = subprocess.Popen([*line, "--port", str(self.port)], env=self._env(), stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            assert self.server.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9 the server."""
        assert self.server is not None
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def assignments(self, number: int) -> list[dict[str, Any]]:
        """The round's assignments, training first."""
        rows = self.project.ledger.rows("assignment", round=number)
        return sorted(rows, key=lambda row: (row["purpose"] != "training", row["assignment_id"]))

    def state(self, number: int) -> str:
        return str(self.project.ledger.rows("round", number=number)[0]["state"])

    def wait_until_closed(self, number: int, seconds: float = 300) -> None:
        """Nobody closes the round: the sweep after the last submission does."""
        deadline = time.monotonic() + seconds
        while self.state(number) != "AWAITING_APPROVAL":
            log = (self.project.root.parent / "serve.log").read_text()[-2000:]
            assert time.monotonic() < deadline, f"round {number} is {self.state(number)}; the server said: {log}"
            time.sleep(0.5)

    def _env(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def test_two_readers_work_whole_rounds_in_the_browser(tmp_path: Path, open_page: Any) -> None:
    """Every exam of two rounds, one through a killed server: labels are the masks on the screen, minutes the script's,
    the rounds close by themselves, and the cost report is about measured minutes."""
    phantom = tmp_path / "phantom"
    write_phantom(phantom, 10, 3, shape=(48, 40, 16), spacing=(7.2, 7.2, 12.0))
    hospital = Hospital(make_project(tmp_path / "kidneys", phantom, **REVIEW), free_port(), tmp_path / "password")
    hospital.password.write_text(PASSWORD + "\n")
    hospital.password.chmod(0o600)
    given = ("--password-file", str(hospital.password))
    for reader, login in READERS.items():
        hospital.command("user", "add", login, "--name", login, "--role", "reader", "--reader", reader, *given)
    hospital.command("user", "add", "ada", "--name", "ada", "--role", "approver", *given)
    hospital.command("round", "open")
    done: list[Work] = []
    try:
        hospital.serve()
        site = SimpleNamespace(url=f"http://127.0.0.1:{hospital.port}", project=hospital.project)
        hospital.pages = {reader: open_page(site, login) for reader, login in READERS.items()}
        first = hospital.assignments(1)
        assert {row["reader_id"] for row in first} == set(READERS) and {r["mode"] for r in first} == {"from_scratch"}
        for n, row in enumerate(first):
            done.append(draw(hospital, row, kill=n == 1))
        hospital.wait_until_closed(1)
        hospital.command("promote", "1", "--approve", "--by", "ada", "--reason", "gate passed", *given)
        hospital.command("round", "open")
        second = hospital.assignments(2)
        training = [row for row in second if row["purpose"] == "training"]
        assert {row["mode"] for row in training} == {"assisted"} and len(training) == 3
        for row, how in zip(training, ("accept", "correct", "reject"), strict=True):
            done.append(correct(hospital, row, how))
        for row in second:
            if row["purpose"] != "training":
                done.append(draw(hospital, row))
        hospital.wait_until_closed(2)
    finally:
        if hospital.server is not None:
            hospital.kill()
    check(hospital, done)


def draw(hospital: Hospital, row: dict[str, Any], *, kill: bool = False) -> Work:
    """Draw a kidney on two slices and what lies between; with `kill` the server dies in the middle."""
    page, name = _open(hospital, row)
    assert not shown(page, _shape(hospital, row)).any(), "a draft was shown where none is to be seen"
    page.keyboard.press("p")
    for foot in (6, 9):
        for side in (14, 33):
            go_to(page, (side, 16, foot))
            start, end = point(page, "axial", (side - 2, 16, foot)), point(page, "axial", (side + 2, 16, foot))
            page.mouse.move(*start)
            page.mouse.down()
            page.mouse.move(*end, steps=6)
            page.mouse.up()
    page.keyboard.press("2")  # a tumour of some voxels, beside the kidney
    go_to(page, (18, 16, 7))
    page.mouse.click(*point(page, "axial", (18, 16, 7)))
    page.keyboard.press("1")
    if kill:
        hospital.kill()
    go_to(page, (14, 16, 7))
    page.mouse.move(*point(page, "axial", (14, 16, 7)))
    page.keyboard.press("i")
    if kill:
        page.keyboard.press("Control+s")
        page.locator("#save").get_by_text("Offline: kept on this computer").wait_for()
        hospital.serve()
        wait_until(page, "workstation.save.clean && workstation.save.state === 'saved'", 60)
    return _hand_in(hospital, row, page, name, "s", "scratch")


def correct(hospital: Hospital, row: dict[str, Any], how: str) -> Work:
    """Take a draft as it is, change it, or send the exam back for another draft."""
    page, name = _open(hospital, row)
    if how == "accept":
        return _hand_in(hospital, row, page, name, "a", "accept")
    if how == "reject":
        return _hand_in(hospital, row, page, name, "Shift+R", "reject", "draft_unusable_redo")
    page.keyboard.press("p")
    for side in (14, 33):
        go_to(page, (side, 16, 8))
        page.mouse.click(*point(page, "axial", (side, 16, 8)))
        page.mouse.click(*point(page, "axial", (side + 1, 16, 8)))
    return _hand_in(hospital, row, page, name, "s", "correct")


def _shape(hospital: Hospital, row: dict[str, Any]) -> tuple[int, int, int]:
    i, j, k = hospital.project.ledger.rows("exam", exam_id=row["exam_id"])[0]["shape"]
    return int(i), int(j), int(k)


def _open(hospital: Hospital, row: dict[str, Any]) -> tuple[Any, str]:
    page, name = hospital.pages[row["reader_id"]], row["assignment_id"]
    open_exam(page, name)
    return page, name


def _hand_in(
    hospital: Hospital, row: dict[str, Any], page: Any, name: str, key: str, verdict: str, reason: str | None = None
) -> Work:
    mask = shown(page, _shape(hospital, row)).copy()
    assert reason is not None or verdict == "accept" or mask.any()
    # Whoever moves the mouse all the time is active from when the page stands.
    seconds = hand_in(page, key, reason) - stood_at(page)
    return Work(name, seconds, verdict, mask)


def check(hospital: Hospital, done: list[Work]) -> None:
    """The record against the script."""
    ledger, root = hospital.project.ledger, hospital.project.root
    notes = {row["assignment_id"]: row for row in ledger.rows("annotation")}
    assert set(notes) == {work.assignment_id for work in done}
    for work in done:
        note = notes[work.assignment_id]
        times = ledger.rows("time_entry", annotation_id=note["annotation_id"])
        assert {(row["origin"], row["simulated"]) for row in times} == {("measured", False)}
        assert 60 * sum(row["active_minutes"] for row in times) == pytest.approx(work.seconds, abs=2)
        if work.verdict == "reject":
            assert note["state"] == "rejected"
            continue
        assert note["state"] == "valid"
        assert np.array_equal(read_volume(root / note["path"]).array, work.mask)
        # What was drawn and is exactly the draft was accepted, and so on: the server decides by the voxels.
        assert note["verdict"] == work.verdict
    (rejection,) = ledger.rows("rejection")
    assert rejection["consequence"] == "redo"
    report = hospital.command("cost", "report")
    assert report["simulated"] is False
    minutes = report["total"]["minutes_training"] + report["total"]["minutes_reference"]
    assert 60 * minutes == pytest.approx(sum(work.seconds for work in done), abs=2 * len(done))
    assert set(report["origins"]) == {"measured"}
    assert hospital.command("audit", "verify")["ok"]
