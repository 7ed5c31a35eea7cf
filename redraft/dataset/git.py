"""The git a project needs: commit named paths, annotated tags, push. The user's own staged changes stay untouched."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from redraft.dataset.command import run
from redraft.errors import VersioningError

# Hooks and signing of a user's own configuration have no part in records; loose objects and refs are flushed to disk.
_SETTINGS = (
    "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "tag.gpgSign=false",
    "-c", "core.fsync=added,reference", "-c", "core.quotePath=false", "-c", "gc.auto=0",
    "-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60",
)  # fmt: skip
_LOCK_SECONDS = 20.0
_LOCKED = ("File exists", "Another git process")


def _git(
    root: Path,
    *args: str,
    do: str = "Mend what git names and run the command again.",
    code: str = "versioning.git",
    allow: Sequence[int] = (0,),
) -> str:
    """Run git; a lock file that a killed git left behind is removed, one of a living git is waited for."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return run(["git", *_SETTINGS, *args], root, do=do, code=code, allow=allow).stdout
        except VersioningError as error:
            if ".lock" not in error.what or not any(word in error.what for word in _LOCKED):
                raise
            if not _clear_dead_locks(root):
                if time.monotonic() > deadline:
                    what = f"Another git command works in {root.name}."
                    do = "Let it finish, then run the command again."
                    raise VersioningError(what, do, code="versioning.busy", retry=True) from error
                time.sleep(0.25)


def init(root: Path) -> None:
    """Make `root` a repository of its own (branch main); nothing happens where it is one."""
    if not (root / ".git" / "HEAD").exists() and not (root / ".git").is_file():
        root.mkdir(parents=True, exist_ok=True)
        _git(root, "init", "--quiet", "--initial-branch=main")


def commit(root: Path, paths: Sequence[str], message: str) -> str:
    """Commit exactly these paths and return the commit; without a change the current commit is returned."""
    _git(root, "add", "--", *paths)
    changed = _git(root, "diff", "--cached", "--name-only", "--", *paths).strip()
    if changed:
        _git(root, "commit", "--quiet", "--no-verify", "--cleanup=verbatim", "-m", message, "--", *paths)
    return head(root)


def head(root: Path) -> str:
    """The current commit."""
    return _git(root, "rev-parse", "--verify", "HEAD").strip()


def last_commit(root: Path, path: str) -> str:
    """The commit that last changed a path. Raises VersioningError where none did."""
    found = _git(root, "log", "-1", "--format=%H", "--", path).strip()
    if not found:
        raise VersioningError(f"{path} was never committed.", "Run the command again; it goes on where it stopped.")
    return found


def is_clean(root: Path, paths: Sequence[str]) -> bool:
    """Whether these paths are committed as they lie on disk."""
    return not _git(root, "status", "--porcelain", "--untracked-files=all", "--", *paths).strip()


def tag(root: Path, name: str, message: str) -> None:
    """Set an annotated tag on the current commit; the same tag again is fine, another message is refused."""
    if tag_exists(root, name):
        if tag_message(root, name).strip() != message.strip():
            raise VersioningError(
                f"The tag {name} exists with another content.",
                "A tag is never moved. Look at it with `git show`.",
                code="versioning.tag_exists",
            )
        return
    # Verbatim: the message carries signatures, and git would drop lines that look like comments.
    _git(root, "tag", "--annotate", "--cleanup=verbatim", name, "-m", message)


def tag_exists(root: Path, name: str) -> bool:
    """Whether there is a tag of this name."""
    return bool(_git(root, "for-each-ref", "--format=%(refname)", f"refs/tags/{name}").strip())


def tags(root: Path, pattern: str) -> list[str]:
    """Names of the tags that fit a pattern such as `round-*`, sorted."""
    return _git(root, "tag", "--list", pattern).split()


def tag_message(root: Path, name: str) -> str:
    """The message of an annotated tag. Raises VersioningError where there is none."""
    kind = _git(root, "for-each-ref", "--format=%(objecttype)", f"refs/tags/{name}").strip()
    if kind != "tag":
        what = f"The tag {name} is not there." if not kind else f"The tag {name} carries no message."
        raise VersioningError(what, "Fetch it from the remote.", code="versioning.no_tag")
    return _git(root, "for-each-ref", "--format=%(contents)", f"refs/tags/{name}")


def tagged_commit(root: Path, name: str) -> str:
    """The commit behind a tag. Raises VersioningError where there is none."""
    tag_message(root, name)
    return _git(root, "rev-parse", "--verify", f"refs/tags/{name}^{{commit}}").strip()


def push(root: Path, remote: str) -> None:
    """Push the branch and its annotated tags, all or nothing.

    Raises
    ------
    VersioningError
        When the remote refuses or does not answer; everything local stays as it is, and pushing again is all it takes.
    """
    do = "Nothing local was lost. Mend the remote (access, or somebody else's commits) and run the command again."
    _git(
        root, "push", "--quiet", "--atomic", "--follow-tags", "--", remote, "HEAD:refs/heads/main",
        do=do, code="versioning.push_refused",
    )  # fmt: skip


def _clear_dead_locks(root: Path) -> bool:
    """Remove git's lock files when no git process works in `root`; whether there is nothing to wait for any more."""
    import psutil

    for process in psutil.process_iter(["name", "cwd"]):
        name, cwd = process.info["name"] or "", process.info["cwd"]
        if name.startswith("git") and cwd and Path(cwd).is_relative_to(root.resolve()):
            return False
    folder = root / ".git"
    names = ("index.lock", "HEAD.lock", "config.lock", "packed-refs.lock")
    for lock in [*(folder / name for name in names), *(folder / "refs").rglob("*.lock")]:
        lock.unlink(missing_ok=True)
    return True
