"""The git a project needs: commit named paths, annotated tags, push. The user's own staged changes stay untouched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from redraft.dataset.command import run
from redraft.errors import VersioningError


def _git(
    root: Path,
    *args: str,
    do: str = "See the message above.",
    code: str = "versioning.git",
    allow: Sequence[int] = (0,),
) -> str:
    return run(["git", *args], root, do=do, code=code, allow=allow).stdout


def init(root: Path) -> None:
    """Make `root` a repository of its own (branch main); nothing happens where it is one."""
    if not (root / ".git").exists():
        _git(root, "init", "--quiet", "--initial-branch=main")


def commit(root: Path, paths: Sequence[str], message: str) -> str:
    """Commit exactly these paths and return the commit; without a change the current commit is returned."""
    _git(root, "add", "--", *paths)
    changed = _git(root, "diff", "--cached", "--name-only", "--", *paths).strip()
    if changed:
        _git(root, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", message, "--", *paths)
    return head(root)


def head(root: Path) -> str:
    """The current commit."""
    return _git(root, "rev-parse", "HEAD").strip()


def tag(root: Path, name: str, message: str) -> None:
    """Set an annotated tag; the same tag again is fine, another message under the same name is refused."""
    if tag_exists(root, name):
        if tag_message(root, name).strip() != message.strip():
            raise VersioningError(
                f"The tag {name} exists with another content.", "A tag is never moved. Look at it with `git show`."
            )
        return
    _git(root, "tag", "--annotate", "--no-sign", name, "-m", message)


def tag_exists(root: Path, name: str) -> bool:
    return bool(_git(root, "tag", "--list", name).strip())


def tag_message(root: Path, name: str) -> str:
    """The message of an annotated tag. Raises VersioningError where there is none."""
    if not tag_exists(root, name):
        raise VersioningError(f"The tag {name} is not there.", "Fetch it from the remote.")
    return _git(root, "tag", "--list", "--format=%(contents)", name)


def push(root: Path, remote: str) -> None:
    """Push branch and tags. Raises VersioningError when the remote refuses; everything local stays as it is."""
    _git(
        root,
        "push",
        "--quiet",
        "--follow-tags",
        remote,
        "HEAD:main",
        do="Nothing local was lost. Mend the remote (access, or somebody else's commits) and run the command again.",
        code="versioning.push_refused",
    )
