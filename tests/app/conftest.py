"""The command line called in this process the way the installed command calls it, and projects to call it on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from redraft import rounds
from redraft.create import create_project
from redraft.ledger import RoundState, move_round
from redraft.project import Project

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def redraft(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command; an exception that is no exit goes on to the test, as it would become a stack trace."""

    def call(*args: object) -> Answer:
        from app.cli.main import main

        monkeypatch.setattr(sys, "argv", ["redraft", *map(str, args)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        seen = capsys.readouterr()
        return Answer(int(code), seen.out, seen.err)

    return call


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project, one whose round is with its readers, and one that awaits a decision after a failed gate."""
    folder = tmp_path_factory.mktemp("projects")
    empty = create_project(folder / "empty", "kidney-ct", NOW, demo_keys=True)
    empty.ledger.engine.dispose()  # the last connection empties the log into the file
    for name in ("waiting", "failing"):
        shutil.copytree(empty.root, folder / name, symlinks=True)
        project = Project.open(folder / name)
        rounds.begin(project, NOW, "test", lambda champion: {})
        _further(project, decide=name == "failing")
        project.ledger.engine.dispose()
    return folder


def _further(project: Project, *, decide: bool) -> None:
    gate = {"passed": False, "criteria": [{"name": "floor", "structure": "kidney", "passed": False}]}
    with project.ledger.tx("test", NOW) as tx:
        move_round(tx, 1, RoundState.AWAITING_ANNOTATION)
        if not decide:
            return
        move_round(tx, 1, RoundState.CLOSING)
        model = {
            "model_digest": "m" * 64, "round": 1, "mlflow_run_id": "r", "mlflow_model_id": "m", "name": "kidney",
            "version": "1", "package_uri": "u", "manifest_sha256": "v", "training_digest": "w", "state": "READY",
            "software": {}, "seeds": [1], "created_at": NOW,
        }  # fmt: skip
        run = {
            "step_run_id": "s", "round": 1, "step": "evaluate", "digest": "d", "state": "done", "attempt": 1,
            "inputs": {}, "outputs": {"gate": gate}, "started_at": NOW, "finished_at": NOW, "seconds": 1.0,
            "host": None, "error": None,
        }  # fmt: skip
        tx.insert("model", model)
        tx.insert("step_run", run)
        tx.update("round", {"number": 1}, {"challenger": "m" * 64})
        move_round(tx, 1, RoundState.AWAITING_APPROVAL)


@pytest.fixture
def who(tmp_path: Path) -> Callable[..., tuple[object, ...]]:
    """Add an account to a project; the options that name it to a command and show its password."""
    from redraft.accounts import directory

    def add(root: Path, *roles: str, login: str = "quentin") -> tuple[object, ...]:
        project = Project.open(root)
        directory.add(
            project, login, name="Dr. Quentin", roles=roles, reader_id=None, password="a long enough sentence", now=NOW
        )
        path = tmp_path / f"{login}.password"
        path.write_text("a long enough sentence\n")
        path.chmod(0o600)
        return ("--by", login, "--password-file", path)

    return add


@pytest.fixture
def copy(templates: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of `empty`, `waiting` or `failing`."""

    def make(name: str) -> Path:
        shutil.copytree(templates / name, tmp_path / name, symlinks=True)
        return tmp_path / name

    return make
