from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from redraft.dataset import git
from redraft.errors import VersioningError
from redraft.files import write_text


def sh(root: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    git.init(root)
    write_text(root / "a.txt", "1")
    git.commit(root, ["a.txt"], "first")
    return root


def test_a_commit_takes_named_paths_and_leaves_what_the_user_staged(repo: Path) -> None:
    """The user's own staged and unstaged changes are as they were before our commit."""
    write_text(repo / "mine.txt", "user")
    sh(repo, "add", "mine.txt")
    write_text(repo / "other.txt", "user")
    write_text(repo / "a.txt", "2")
    commit = git.commit(repo, ["a.txt"], "second")
    assert sh(repo, "show", "--name-only", "--format=%s|%an|%ae", commit).split() == [
        "second|redraft|redraft@localhost", "a.txt",
    ]  # fmt: skip
    assert sh(repo, "status", "--short").splitlines() == ["A  mine.txt", "?? other.txt"]


def test_the_same_commit_twice_is_one(repo: Path) -> None:
    """Without a change nothing is committed and the current commit is returned."""
    before = git.head(repo)
    assert git.commit(repo, ["a.txt"], "again") == before
    assert git.is_clean(repo, ["a.txt"])
    write_text(repo / "a.txt", "3")
    assert not git.is_clean(repo, ["a.txt"])


def test_the_commit_of_a_path_is_the_one_that_changed_it(repo: Path) -> None:
    """Later commits of other files do not change which commit brought a pointer."""
    first = git.head(repo)
    write_text(repo / "b.txt", "1")
    git.commit(repo, ["b.txt"], "b")
    assert git.last_commit(repo, "a.txt") == first
    with pytest.raises(VersioningError, match="never committed"):
        git.last_commit(repo, "nothing.txt")


def test_hooks_and_signing_of_the_user_play_no_part(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A global configuration that signs everything and runs failing hooks does not stop a commit or a tag."""
    hooks = tmp_path / "hooks"
    for name in ("pre-commit", "prepare-commit-msg", "commit-msg", "reference-transaction"):
        write_text(hooks / name, "#!/bin/sh\nexit 1\n", mode=0o755)
    write_text(
        tmp_path / "gitconfig",
        f"[core]\n hooksPath = {hooks}\n[commit]\n gpgSign = true\n[tag]\n gpgSign = true\n",
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    write_text(repo / "a.txt", "2")
    git.commit(repo, ["a.txt"], "second")
    git.tag(repo, "round-0001", "message")
    assert git.tagged_commit(repo, "round-0001") == git.head(repo)


def test_variables_of_a_surrounding_git_are_not_inherited(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called from another repository's hook, commits still go to the project."""
    other = tmp_path / "other"
    git.init(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    write_text(repo / "a.txt", "2")
    git.commit(repo, ["a.txt"], "second")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    assert sh(repo, "log", "--format=%s").splitlines() == ["second", "first"]
    assert sh(other, "for-each-ref") == ""


def test_a_project_without_git_never_commits_to_the_repository_around_it(repo: Path) -> None:
    """A project inside another repository that lost its own .git is refused."""
    inner = repo / "project"
    write_text(inner / "data.dvc", "x")
    with pytest.raises(VersioningError, match="not a git repository"):
        git.commit(inner, ["data.dvc"], "wrong place")
    assert sh(repo, "log", "--format=%s") == "first"


def test_a_tag_message_comes_back_as_it_was(repo: Path) -> None:
    """Lines that look like comments, JSON and signatures survive in an annotated tag."""
    message = 'Round 1\n\n{"hash": "ab"}\n# not a comment\nsignature: aGVsbG8='
    git.tag(repo, "round-0001", message)
    git.tag(repo, "round-0001", message)
    assert git.tag_message(repo, "round-0001").strip() == message
    assert sh(repo, "tag", "--list") == "round-0001"


def test_a_tag_is_never_moved(repo: Path) -> None:
    """Another message under the same name is refused; so is reading a tag that is not there or not annotated."""
    git.tag(repo, "round-0001", "one")
    with pytest.raises(VersioningError, match="another content") as caught:
        git.tag(repo, "round-0001", "two")
    assert caught.value.code == "versioning.tag_exists"
    sh(repo, "tag", "light")
    for name in ("absent", "light"):
        with pytest.raises(VersioningError):
            git.tag_message(repo, name)


def test_push_takes_branch_and_tags(repo: Path, tmp_path: Path) -> None:
    """The remote has the branch and the annotated tags; pushing again changes nothing."""
    sh(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    git.tag(repo, "round-0001", "one")
    for _ in range(2):
        git.push(repo, str(tmp_path / "remote.git"))
    assert sh(tmp_path / "remote.git", "for-each-ref", "--format=%(refname)").splitlines() == [
        "refs/heads/main", "refs/tags/round-0001",
    ]  # fmt: skip


def test_a_remote_that_refuses_leaves_everything_as_it_was_and_the_next_push_completes(
    repo: Path, tmp_path: Path
) -> None:
    """A refused tag takes the branch with it (nothing half published), the error says why, a later push succeeds."""
    remote = tmp_path / "remote.git"
    sh(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    hook = remote / "hooks" / "update"
    write_text(hook, '#!/bin/sh\ncase "$1" in refs/tags/*) echo "no tags here" >&2; exit 1;; esac\n', mode=0o755)
    git.tag(repo, "round-0001", "one")
    before = sh(repo, "for-each-ref")
    with pytest.raises(VersioningError, match="no tags here") as caught:
        git.push(repo, str(remote))
    assert caught.value.code == "versioning.push_refused"
    assert "run the command again" in caught.value.do
    assert sh(remote, "for-each-ref") == ""
    assert sh(repo, "for-each-ref") == before
    hook.unlink()
    git.push(repo, str(remote))
    assert "refs/tags/round-0001" in sh(remote, "for-each-ref")


def test_somebody_elses_commits_on_the_remote_are_never_overwritten(repo: Path, tmp_path: Path) -> None:
    """A remote whose branch went another way refuses, and keeps what it has."""
    remote = tmp_path / "remote.git"
    sh(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    other = tmp_path / "other"
    git.init(other)
    write_text(other / "x", "x")
    theirs = git.commit(other, ["x"], "theirs")
    git.push(other, str(remote))
    with pytest.raises(VersioningError):
        git.push(repo, str(remote))
    assert sh(remote, "rev-parse", "main") == theirs


def test_credentials_in_a_remote_never_reach_an_error(repo: Path) -> None:
    """User and password of a URL are blanked in what a failed push says."""
    with pytest.raises(VersioningError) as caught:
        git.push(repo, "http://doctor:secret@127.0.0.1:9/none.git")
    assert "secret" not in str(caught.value) and "doctor" not in str(caught.value)


def test_a_lock_left_by_a_killed_git_is_removed(repo: Path) -> None:
    """kill -9 leaves index.lock; the next commit goes through."""
    for name in ("index.lock", "refs/heads/main.lock"):
        write_text(repo / ".git" / name, "")
    write_text(repo / "a.txt", "2")
    git.commit(repo, ["a.txt"], "second")
    assert sh(repo, "log", "--format=%s").splitlines() == ["second", "first"]


def test_a_living_git_is_waited_for_and_then_named(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a git that still works is respected."""
    monkeypatch.setattr(git, "_LOCK_SECONDS", 0.3)
    living = subprocess.Popen(["git", "cat-file", "--batch"], cwd=repo, stdin=subprocess.PIPE)
    try:
        write_text(repo / ".git" / "index.lock", "")
        write_text(repo / "a.txt", "2")
        with pytest.raises(VersioningError, match="Another git command") as caught:
            git.commit(repo, ["a.txt"], "second")
        assert caught.value.retry
        assert (repo / ".git" / "index.lock").exists()
    finally:
        assert living.stdin is not None
        living.stdin.close()
        living.wait()


def test_a_missing_git_is_said(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git on the path the error says what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(VersioningError, match="git is not installed"):
        git.head(repo)
