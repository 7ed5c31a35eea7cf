"""`kill -9` at random moments of a round: running it again gives what an undisturbed run gives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redraft.lineage.lock import content_digests
from redraft.project import Project
from redraft.steps import Context

HERE = Path(__file__).parent
KILLS = 10


def start(root: Path) -> subprocess.Popen[bytes]:
    """Start a round in a process group of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, str(HERE / "plain.py"), str(root)]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def finish(root: Path) -> float:
    """Run a round to its end; returns seconds."""
    begin = time.monotonic()
    process = start(root)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()[-3000:]
    return time.monotonic() - begin


@pytest.mark.slow
def test_killed_rounds_end_alike(tmp_path: Path, phantom: Path) -> None:
    """Ten kills at random moments change no selection, label, split or weight, charge nothing twice, lose nothing."""
    sys.path.insert(0, str(HERE))
    from conftest import make_project

    calm = make_project(tmp_path / "a" / "kidneys", phantom)
    seconds = finish(calm.root)
    expected = content_digests(Context(Project.open(calm.root), 1))
    assert all(expected.values())
    chance = random.Random(5)
    killed = copies = 0
    while killed < KILLS:
        stormy = make_project(tmp_path / f"storm{copies}" / "kidneys", phantom)
        copies += 1
        while killed < KILLS:
            process = start(stormy.root)
            try:
                # A restart spends its first seconds importing; aim at the work behind that as well.
                process.wait(timeout=chance.uniform(0.1, 0.95) * seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                continue
            break  # it got through between kills: begin again with a fresh project
        finish_or_done(stormy)
        assert content_digests(Context(Project.open(stormy.root), 1)) == expected
        for table in ("annotation", "time_entry", "assignment", "selection", "model"):
            assert len(stormy.ledger.rows(table)) == len(calm.ledger.rows(table)), table
        assert charges(stormy) == charges(calm)


def finish_or_done(project: Project) -> None:
    """Finish the round unless it is finished."""
    if not project.ledger.rows("round", state="AWAITING_APPROVAL"):
        finish(project.root)


def charges(project: Project) -> list[tuple[str, str]]:
    """What was charged, compute apart: an interrupted step costs the time of its last attempt."""
    rows = [row for row in project.ledger.rows("cost_entry") if row["kind"] != "compute"]
    return sorted((row["kind"], row["exam_id"] or "") for row in rows)
