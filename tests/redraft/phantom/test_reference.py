"""The reference dataset is rebuilt byte for byte."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from redraft.dataset.dvc import pointer
from redraft.errors import IntegrityError, UsageError
from redraft.phantom.reference import REPOSITORY, build_reference, main, snapshot_id


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "data"
    build_reference(out)
    return out


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A repository whose data.dvc names another snapshot."""
    text = (REPOSITORY / "data.dvc").read_text()
    (tmp_path / "data.dvc").write_text(text.replace(pointer(REPOSITORY), "0" * 32 + ".dir"))
    return tmp_path


def test_rebuilt_data_is_what_data_dvc_names(built):
    """The committed pointer and a fresh build agree in every byte."""
    assert snapshot_id(built) == pointer(REPOSITORY)


def test_dvc_agrees_on_the_name(built, tmp_path):
    """DVC itself gives the folder the same name, number of files and size."""
    shutil.copytree(built, tmp_path / "data")
    for command in (["init", "--no-scm", "-q"], ["add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    committed = (REPOSITORY / "data.dvc").read_text().splitlines()
    assert (tmp_path / "data.dvc").read_text().splitlines() == committed


def test_building_again_changes_nothing(built):
    """A folder that is right is left alone."""
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    build_reference(built)
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before


def test_anything_else_in_the_folder_is_refused(built, tmp_path):
    """Files that are not the reference dataset are neither overwritten nor deleted."""
    out = tmp_path / "data"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds something else"):
        build_reference(out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_other_bytes_are_an_integrity_error(elsewhere):
    """A build that is not what data.dvc names leaves nothing behind."""
    with pytest.raises(IntegrityError, match=r"data\.dvc names"):
        build_reference(elsewhere / "data", elsewhere)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["data.dvc"]


def test_command_line(built, capsys):
    """`make data` says what it did and ends with 0; a wrong call ends with 2."""
    assert main([str(built)]) == 0
    assert pointer(REPOSITORY) in capsys.readouterr().out
    assert main([]) == main([str(built), "--what"]) == 2
