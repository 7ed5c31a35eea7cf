"""A project with a ledger, a desk and the published keys."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from redraft.accounts import Account, directory
from redraft.create import create_project
from redraft.project import Project

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
PASSWORD = "a long enough sentence"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project, made once: tests take copies."""
    project = create_project(tmp_path_factory.mktemp("made") / "kidneys", "kidney-ct", NOW, demo_keys=True)
    project.ledger.engine.dispose()
    return project.root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Iterator[Project]:
    """A copy of the new project."""
    shutil.copytree(made, tmp_path / "kidneys", symlinks=True)
    project = Project.open(tmp_path / "kidneys")
    yield project
    project.ledger.engine.dispose()
    project.desk.engine.dispose()


@pytest.fixture
def add(project: Project) -> Callable[..., Account]:
    """Add an account with a usual password."""

    def call(login: str = "anna", *roles: str, reader: str | None = None, **more: Any) -> Account:
        settings = {"name": "Dr. Anna", "password": PASSWORD, "now": NOW, **more}
        wanted = roles or ("reader",)
        reader_id = reader or ("reader-1" if "reader" in wanted else None)
        return directory.add(project, login, roles=wanted, reader_id=reader_id, **settings)

    return call
