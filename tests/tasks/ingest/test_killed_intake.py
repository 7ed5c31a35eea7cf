"""An intake killed at any moment and started again ends like one that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import intake
from redraft.digest import sha256_file
from redraft.ledger import verify_ledger
from redraft.project import Project

REPOSITORY = Path(__file__).resolve().parents[3]
# Kills its own process at the n-th rename of a file into place, or at the n-th commit of the ledger.
KILLED = """
import os, signal, sys
from pathlib import Path
import flows.intake
import tasks.ingest.admit
from redraft.project import Project
from sqlalchemy import event
from sqlalchemy.engine import Engine
tasks.ingest.admit.BATCH = 2
kind, left = sys.argv[3], int(sys.argv[4])
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
if kind == "rename":
    sys.addaudithook(lambda name, _: count() if name == "os.rename" else None)
else:
    event.listen(Engine, "commit", count)
flows.intake.take_in(Project.open(sys.argv[1]), [Path(sys.argv[2])], workers=0)
"""


def kill_in_the_middle(place: Project, offered: Path, kind: str, number: int) -> None:
    """Run an intake in a process of its own that dies by SIGKILL."""
    place.ledger.engine.dispose()
    command = [sys.executable, "-c", KILLED, str(place.root), str(offered), kind, str(number)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


def outcome(place: Project) -> dict[str, Any]:
    """Everything that must not depend on interruptions: exams, splits, receipts, files, links."""
    times = ("admitted_at", "drawn_at", "at")
    tables = {
        name: sorted(
            json.dumps({k: v for k, v in row.items() if k not in times}, sort_keys=True)
            for row in place.ledger.rows(name)
        )
        for name in ("exam", "subject", "receipt")
    }
    files = {
        str(path.relative_to(place.root)): sha256_file(path)
        for path in place.data.rglob("*")
        if path.is_file() and not path.name.startswith(".partial-")
    }
    links = sorted(json.dumps(item, sort_keys=True) for item in place.vault.links())
    originals = sorted((item.pseudonym, item.sha256) for item in place.vault.originals())
    return {**tables, "files": files, "links": links, "originals": originals}


@pytest.fixture
def folder(offered: Path, add: Callable) -> Path:
    """Seven exams of six patients, one quarantined series, one refused series, one stray file."""
    for n in range(7):
        add(f"s{n}", patient=min(n, 5))
    add("capture", lambda dataset, k: setattr(dataset, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"))
    add("gap", slices=6)[2].unlink()
    (offered / "letter.txt").write_text("Dear colleague")
    return offered


@pytest.mark.parametrize(
    "kills",
    [
        [("rename", 4)],  # in the middle of an exam: an image that lies aside, or without its exam.json
        [("rename", 5)],
        [("commit", 3)],  # files whose exams no table knows
        [("rename", 13), ("rename", 6), ("commit", 2)],  # again and again, on what the last one left
        [("rename", 22), ("commit", 4)],
    ],
    ids=lambda kills: "-".join(f"{kind}{number}" for kind, number in kills),
)
def test_killed_and_started_again(project: Callable[..., Project], folder: Path, kills: list[tuple[str, int]]) -> None:
    """The same exams, splits, receipts, bytes and links; nothing twice, and the audit chain holds."""
    calm, stormy = project(), project()
    intake.take_in(calm, [folder])
    expected = outcome(calm)
    assert len(expected["exam"]) == 7 and len(expected["subject"]) == 6 and '"undrawn"' not in str(expected["subject"])
    for kind, number in kills:
        kill_in_the_middle(stormy, folder, kind, number)
    intake.take_in(stormy, [folder])
    assert outcome(stormy) == expected
    assert not verify_ledger(stormy.ledger).broken
