"""An empty project, and small series to fill the folder that is taken in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from redraft.create import create_project
from redraft.phantom.identities import draw_identity
from redraft.phantom.series import Uids, exam_header, write_series
from redraft.project import Project
from redraft.sources.folder import FolderSource
from redraft.sources.index import SourceIndex
from tasks.ingest.intake import Intake, Place
from tasks.ingest.jobs import Setup
from tasks.ingest.reading import scanner
from tasks.ingest.receipts import Receipt

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
SETTINGS = {
    "splits: {validation: 0.12, test: 0.25, min_validation: 2, min_test: 4}": (
        "splits: {validation: 0.1, test: 0.3, min_validation: 1, min_test: 2}"
    )
}


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project without exams, made once."""
    root = tmp_path_factory.mktemp("blank") / "kidneys"
    project = create_project(root, "kidney-ct", NOW, demo_keys=True, settings=SETTINGS)
    project.ledger.engine.dispose()  # the last connection empties the log into the file
    return root


@pytest.fixture
def project(blank: Path, tmp_path: Path) -> Callable[..., Project]:
    """Makes a copy of the empty project; text pairs are replaced in its project.yaml."""

    def copy(*pairs: tuple[str, str]) -> Project:
        root = tmp_path / f"place{len(list(tmp_path.glob('place*')))}" / "kidneys"
        shutil.copytree(blank, root, symlinks=True)
        text = (root / "project.yaml").read_text(encoding="utf-8")
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        (root / "project.yaml").write_text(text, encoding="utf-8")
        return Project.open(root)

    return copy


@pytest.fixture
def offered(tmp_path: Path) -> Path:
    """The folder that is taken in."""
    folder = tmp_path / "offered"
    folder.mkdir()
    return folder


@pytest.fixture
def add(offered: Path) -> Callable[..., list[Path]]:
    """Write one series of random values below `offered`; every call another patient unless told.

    `change` alters each slice's header (dataset, slice); returns the files from foot to head.
    """
    made = 0

    def write(
        folder: str, change: Callable[[pydicom.Dataset, int], Any] | None = None, *, patient: int | None = None,
        slices: int = 4,
    ) -> list[Path]:  # fmt: skip
        nonlocal made
        rng = np.random.default_rng(made)
        who = made if patient is None else patient
        identity = draw_identity(np.random.default_rng(who), who, f"ACC{made}")
        uids = Uids.of(0, made, slices)
        place = offered / folder
        before = set(place.rglob("*"))
        scratch = offered / "scratch"
        hu = rng.integers(-1024, 3072, (7, 5, slices)).astype(np.int16)
        write_series(scratch, exam_header(identity, uids, made, 0), identity, uids, hu, np.diag([2.0, 1.5, 3.0, 1.0]))
        place.mkdir(parents=True, exist_ok=True)
        paths = []
        for k, path in enumerate(sorted(scratch.glob("*.dcm"), reverse=True)):
            if change is not None:
                dataset = pydicom.dcmread(path)
                change(dataset, k)
                dataset.save_as(path)
            target = place / f"{made}-{path.name}"
            assert target not in before
            paths.append(path.rename(target))
        scratch.rmdir()
        made += 1
        return paths

    return write


@pytest.fixture
def look(project: Callable[..., Project], tmp_path: Path) -> Callable[[Path], list[Receipt]]:
    """Take a folder in, in this process and without the ledger: intake itself is under test."""
    place = project()

    def run(folder: Path) -> list[Receipt]:
        setup = Setup.of(place)
        scan = scanner(setup)
        index = SourceIndex(tmp_path / "index" / "sources.db")
        intake = Intake(setup, index, tmp_path / "spool", (), "rules", 0, 60.0, 4096)
        source = FolderSource("folder", [folder], place.pseudonyms, index, lambda batches: map(scan, batches))
        receipts = [receipt for settled in intake.run([Place(source, "folder")]) for receipt in settled.receipts]
        index.close()
        return receipts

    return run
