"""DVC through its command line (only `dvc.api` is public API). A start costs a second, so calls are few."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ruamel.yaml import YAML

from redraft.dataset.command import run
from redraft.errors import VersioningError

_DO = "Nothing was published. Mend the cause and run the command again; it goes on where it stopped."


def _dvc(root: Path, *args: str, code: str = "versioning.dvc", allow: tuple[int, ...] = (0,)) -> str:
    return run([sys.executable, "-m", "dvc", *args], root, do=_DO, code=code, allow=allow).stdout


CONFIG = """[core]
    analytics = false
    check_update = false
    autostage = false
[cache]
    type = "reflink,hardlink,symlink"
"""


def init(root: Path) -> None:
    """Make `root` a DVC repository; nothing happens where it is one."""
    if (root / ".dvc" / "config").exists() and "analytics" in (root / ".dvc" / "config").read_text():
        return
    _dvc(root, "init", "--quiet", "--force")
    (root / ".dvc" / "config").write_text(CONFIG, encoding="utf-8")


def set_remote(root: Path, url: str) -> None:
    """Set the default remote."""
    _dvc(root, "remote", "add", "--quiet", "--force", "--default", "storage", url)


def add_data(root: Path) -> str:
    """Put `data/` under DVC's control (tracked files become read-only) and return its `<md5>.dir`."""
    _dvc(root, "add", "--quiet", "data")
    return pointer(root)


def pointer(root: Path) -> str:
    """The `<md5>.dir` in data.dvc: 36 characters that name the snapshot."""
    path = root / "data.dvc"
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        md5 = content["outs"][0]["md5"]
    except (FileNotFoundError, KeyError, IndexError, TypeError) as error:
        raise VersioningError(f"{path.name} is missing or broken.", "Restore it with git.") from error
    return str(md5)


def push(root: Path) -> None:
    """Copy the snapshot to the remote and make sure that nothing is missing there. Raises VersioningError otherwise."""
    _dvc(root, "push", "--quiet", "data.dvc", code="versioning.remote")
    status = _dvc(root, "status", "--cloud", "--json", "data.dvc", code="versioning.remote")
    missing = json.loads(status or "{}")
    if missing:
        raise VersioningError(
            f"{len(missing)} files are missing on the DVC remote after the push.",
            _DO,
            code="versioning.remote",
            retry=True,
        )


def checkout(root: Path) -> None:
    """Bring `data/` to what data.dvc says."""
    _dvc(root, "checkout", "--quiet", "--force", "data.dvc")
