"""The workstation's parts that need no browser: geometry, tools, undo, saving, by Node's own test runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UI = Path(__file__).parents[2] / "app" / "web" / "ui"
FILES = sorted((UI / "test").glob("*.test.js"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_workstations_parts(file: Path) -> None:
    """Each file of app/web/ui/test passes, and holds tests."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not here (apt install nodejs npm)")
    run = subprocess.run([node, "--test", str(file)], cwd=UI, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "# pass 0" not in run.stdout


def test_there_are_tests() -> None:
    """The folder was found where it is looked for."""
    assert len(FILES) >= 3
