"""Real git + DVC repositories in temporary folders, made once and copied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from redraft.dataset import dvc, git
from redraft.files import write_bytes, write_text


@pytest.fixture(scope="session")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "project"
    write_text(root / ".gitignore", "/.redraft/\n/work/\n/data/\n")
    git.init(root)
    dvc.init(root)
    git.commit(root, [".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvcignore"], "Project")
    return root


@pytest.fixture
def root(empty_project: Path, tmp_path: Path) -> Path:
    """A project directory with git, DVC and three exams with a label each, nothing published yet."""
    root = tmp_path / "project"
    shutil.copytree(empty_project, root)
    for number in range(3):
        add_exam(root, number)
    return root


def add_exam(root: Path, number: int) -> str:
    exam = f"{number:02x}" + "e0" * 4
    content = f"exam {number} ".encode() * 2000
    write_bytes(root / "data" / "exams" / exam[:2] / exam / "image.nii.gz", content)
    write_text(root / "data" / "exams" / exam[:2] / exam / "exam.json", json.dumps({"exam": exam}))
    write_bytes(root / "data" / "labels" / exam[:2] / exam / "a0.nii.gz", b"label " + content)
    write_text(root / "data" / "labels" / exam[:2] / exam / "a0.json", "{}")
    return exam


@pytest.fixture(scope="session")
def exam_maker() -> Callable[[Path, int], str]:
    return add_exam
