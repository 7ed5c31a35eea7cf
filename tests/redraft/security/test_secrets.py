"""Secrets lie outside of project.yaml and of the project, are read when they are needed, and are never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.config.base import SecretRef
from redraft.errors import SecurityError
from redraft.security.secrets import read_secret

SECRET = "hunter2 ÄÖ\tü"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def refusal(reference: SecretRef, project: Path, env: dict[str, str] | None = None) -> SecurityError:
    with pytest.raises(SecurityError) as caught:
        read_secret(reference, env or {}, project)
    assert SECRET not in str(caught.value)
    assert caught.value.do, "an error says what to do"
    return caught.value


def test_a_variable_holds_the_secret_itself(project: Path) -> None:
    """The value as it stands, blanks and all; it is read anew each time."""
    env = {"TOKEN": f" {SECRET} "}
    assert read_secret(SecretRef(env="TOKEN"), env, project) == f" {SECRET} "
    env["TOKEN"] = "another"
    assert read_secret(SecretRef(env="TOKEN"), env, project) == "another"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), min_size=1))
def test_a_file_holds_the_secret_without_its_line_end(tmp_path: Path, secret: str) -> None:
    """Editors end files with a line; blanks belong to the secret."""
    path = tmp_path / "secret"
    for end in ("", "\n", "\r\n"):
        path.write_bytes(f"{secret}{end}".encode())
        assert read_secret(SecretRef(file=path), {}, tmp_path / "project") == secret


def test_paths_are_relative_to_the_project_and_know_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`../secret` beside the project and `~/secret` at home; the current directory plays no part."""
    (project.parent / "secret").write_text(SECRET, encoding="utf-8")
    monkeypatch.setenv("HOME", str(project.parent))
    monkeypatch.chdir("/")
    for path in ("../secret", "~/secret", str(project.parent / "secret")):
        assert read_secret(SecretRef(file=Path(path)), {}, project) == SECRET


@pytest.mark.parametrize("env", [{}, {"TOKEN": ""}, {"OTHER": SECRET}])
def test_a_variable_that_is_not_set_is_named(project: Path, env: dict[str, str]) -> None:
    """Unset and empty are the same; no other variable is looked at."""
    assert "TOKEN" in refusal(SecretRef(env="TOKEN"), project, env).what


def test_files_that_hold_no_secret_are_refused(project: Path) -> None:
    """Missing, a folder, empty, a line end alone, no text: each is named by its path, never by its content."""
    path = project.parent / "secret"
    assert "cannot be read" in refusal(SecretRef(file=path), project).what
    for content, words in ((b"", "empty"), (b"\r\n", "empty"), (b"\xff\xfehunter2", "cannot be read")):
        path.write_bytes(content)
        error = refusal(SecretRef(file=path), project)
        assert words in error.what and str(path) in error.what and "hunter2" not in repr(error)
    path.unlink()
    path.mkdir()
    assert "cannot be read" in refusal(SecretRef(file=path), project).what


def test_a_file_inside_of_the_project_is_refused_however_it_is_reached(project: Path) -> None:
    """The project gets published: its own path, a detour and a link into it are all inside."""
    inside = project / "deep" / "secret"
    inside.parent.mkdir()
    inside.write_text(SECRET, encoding="utf-8")
    link = project.parent / "link"
    link.symlink_to(inside)
    alias = project.parent / "alias"
    alias.symlink_to(project)
    for path in ("deep/secret", str(inside), "../project/deep/secret", str(link), str(alias / "deep" / "secret")):
        assert "inside the project" in refusal(SecretRef(file=Path(path)), project).what
        assert "inside the project" in refusal(SecretRef(file=Path(path)), alias).what
    outward = project / "outward"
    outside = project.parent / "outside"
    outside.write_text(SECRET, encoding="utf-8")
    outward.symlink_to(outside)
    assert read_secret(SecretRef(file=Path("outward")), {}, project) == SECRET  # a link holds no secret


def test_a_folder_whose_name_begins_like_the_project_is_outside(project: Path) -> None:
    """`project-secrets` beside `project` is another folder."""
    beside = project.with_name("project-secrets")
    beside.mkdir()
    (beside / "secret").write_text(SECRET, encoding="utf-8")
    assert read_secret(SecretRef(file=beside / "secret"), {}, project) == SECRET


def test_a_reference_shows_where_a_secret_lies_and_not_what_it_is(project: Path) -> None:
    """Configurations are printed and digested: what they hold is a path or a name."""
    os.environ["REDRAFT_TEST_SECRET"] = SECRET
    try:
        reference = SecretRef(env="REDRAFT_TEST_SECRET")
        assert SECRET not in repr(reference) + reference.model_dump_json()
    finally:
        del os.environ["REDRAFT_TEST_SECRET"]
