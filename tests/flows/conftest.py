"""A small phantom project that runs a whole round in seconds: the real loop with a tiny network."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from redraft.create import create_project
from redraft.phantom import write_phantom
from redraft.project import Project

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = {
    "modalities: [CT]": "modalities: [CT]\n  sources: [PHANTOM/images]",
    "splits: {validation: 0.12, test: 0.25, min_validation: 2, min_test: 4}": (
        "splits: {validation: 0.1, test: 0.3, min_validation: 1, min_test: 3}"
    ),
    "budget: {exams: 5}": "budget: {exams: 3}",
    "backend: folder": "backend: simulated",
    "    - {id: reader-1, role: radiologist}": (
        "    - {id: reader-1, role: radiologist}\n    - {id: reader-2, role: radiologist, sloppiness_mm: 0.5}"
    ),
    "train:\n  members: 2\n  steps: 400": (
        "train:\n  channels: [4, 8]\n  members: 2\n  steps: 12\n  checkpoint_every: 4\n  threads: 1"
    ),
    "gate:\n": "simulation: {oracle: PHANTOM/truth}\n\ngate:\n",
    "floor: {kidney: 0.6, kidney_tumor: 0.05}": "floor: {kidney: 0.0, kidney_tumor: 0.0}",
}


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small phantom exams."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, 10, 3, shape=(48, 40, 16), spacing=(7.2, 7.2, 12.0))
    return folder


def make_project(root: Path, phantom: Path, **extra: str) -> Project:
    """A project over the phantom; `extra` replaces further template text."""
    settings = {old: new.replace("PHANTOM", str(phantom)) for old, new in SETTINGS.items()}
    return create_project(root, "kidney-ct", datetime.now(UTC), demo_keys=True, settings={**settings, **extra})


def run_python(code: str, *args: str, timeout: float = 300, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, as a user's command would."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done
