"""DVC through its command line (only `dvc.api` is public API). A start costs a second, so calls are few."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ruamel.yaml import YAML

from redraft.dataset.command import run
from redraft.errors import VersioningError
from redraft.files import write_text

_DO = "Nothing was published. Mend the cause and run the command again; it goes on where it stopped."
_LOCK_SECONDS = 60.0
_LOCKED = ("Unable to acquire lock", "is busy, it is being blocked by")
_REMOTE = "storage"
_CHECK = "remote-check.dvc"
POINTER = "data.dvc"

# Hard links come first: with `reflink` first DVC leaves a writable second copy of every file on a filesystem that has
# no reflinks (ext4), and with hard links first it never removes a file of data/ while it works.
CONFIG = """[core]
    analytics = false
    check_update = false
    autostage = false
[cache]
    type = "hardlink,symlink"
"""


def _dvc(root: Path, *args: str, code: str = "versioning.dvc", site: Path | None = None) -> str:
    """Run DVC; a lock of a living DVC is waited for, the remains of a killed one are removed."""
    # DVC's index of hashes and remotes lies in the project, not in a folder of the machine that users share.
    env = {"DVC_SITE_CACHE_DIR": str(site or root / ".dvc" / "tmp" / "site")}
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return run([sys.executable, "-m", "dvc", *args], root, do=_DO, code=code, env=env).stdout
        except VersioningError as error:
            if "RWLock" in error.what:  # killed while it wrote this file
                (root / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)
            elif not any(word in error.what for word in _LOCKED):
                raise
            if time.monotonic() > deadline:
                raise VersioningError(
                    f"Another DVC command works in {root.name}.",
                    "Let it finish, then run the command again.",
                    code="versioning.busy",
                    retry=True,
                ) from error
            time.sleep(0.5)


def init(root: Path) -> None:
    """Make `root` a DVC repository; nothing happens where it is one, and a cache is never removed."""
    config = root / ".dvc" / "config"
    if config.exists() and config.read_text(encoding="utf-8").strip():
        return
    if not config.exists():
        # `--force` empties .dvc; without a configuration there is nothing but an interrupted start in it.
        force = ["--force"] if (root / ".dvc").exists() and not (root / ".dvc" / "cache").exists() else []
        _dvc(root, "init", *force)  # not --quiet: that hides why it failed
    write_text(config, CONFIG)


def set_remote(root: Path, url: str) -> None:
    """Set the default remote; nothing happens where it is set already.

    A folder is relative to the project, and stays so in DVC's configuration: no path of a machine goes into history.
    """
    url = url.removeprefix("file://")  # DVC would take it for a folder named `file:`
    if "://" not in url:
        url = str(Path(url).expanduser())
    if remote_url(root) != _resolved(root, url):
        _dvc(root, "remote", "add", "--force", "--default", _REMOTE, url)


def remote_url(root: Path) -> str | None:
    """URL of the default remote, a folder as absolute path; None where none is set."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(root / ".dvc" / "config", encoding="utf-8")
    name = parser.get("core", "remote", fallback=None)
    url = parser.get(f"'remote \"{name}\"'", "url", fallback=None) if name else None
    return None if url is None else _resolved(root / ".dvc", url)


def _resolved(base: Path, url: str) -> str:
    return url if "://" in url else str((base / url).resolve())


def add_data(root: Path) -> str:
    """Put `data/` under DVC's control (tracked files become read-only) and return its `<md5>.dir`."""
    _dvc(root, "add", "data")
    return pointer(root)


def pointer(root: Path) -> str:
    """The `<md5>.dir` in data.dvc: 36 characters that name the snapshot. Raises VersioningError where it is not one."""
    path = root / POINTER
    try:
        md5 = str(YAML(typ="safe").load(path.read_text(encoding="utf-8"))["outs"][0]["md5"])
    except (FileNotFoundError, KeyError, IndexError, TypeError) as error:
        raise VersioningError(f"{path.name} is missing or broken.", "Restore it with git.") from error
    if not re.fullmatch(r"[0-9a-f]{32}\.dir", md5):
        raise VersioningError(f"{path.name} does not name a snapshot of a directory.", "Restore it with git.")
    return md5


def push(root: Path) -> None:
    """Copy the snapshot to the remote and make sure that every file of it is there.

    DVC itself takes a snapshot's files for present once its listing is (and remembers that), so a file that the remote
    lost would never be missed. Here each file is asked for by itself, with no memory of earlier answers, and what is
    missing is sent again.

    Raises
    ------
    VersioningError
        When the remote refuses, does not answer, or still misses a file.
    """
    with _site(root) as site:
        _dvc(root, "push", POINTER, code="versioning.remote", site=site)
    missing = missing_on_remote(root)
    if missing:
        with _single_files(root), _site(root) as site:
            _dvc(root, "push", _CHECK, code="versioning.remote", site=site)
        missing = missing_on_remote(root)
    if missing:
        what = f"{len(missing)} files are missing on the DVC remote after the push."
        raise VersioningError(what, _DO, code="versioning.remote", retry=True)


def missing_on_remote(root: Path) -> list[str]:
    """MD5 of every file of the snapshot that the remote does not hold. Raises VersioningError without an answer."""
    url = remote_url(root)
    if url is not None and "://" not in url:  # a folder: looking is enough
        wanted = sorted({entry["md5"] for entry in snapshot(root)} | {pointer(root)})
        return [md5 for md5 in wanted if not (Path(url) / _object(md5)).is_file()]
    with _single_files(root), _site(root) as site:
        answer = json.loads(_dvc(root, "status", "--cloud", "--json", _CHECK, code="versioning.remote", site=site))
    return sorted(path.rsplit("/", 1)[-1] for path in answer)


def _object(md5: str) -> str:
    """Place of an object in a cache or remote (DVC 3)."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def snapshot(root: Path) -> list[dict[str, str]]:
    """The snapshot's listing (md5 and relpath of every file) from the local cache."""
    md5 = pointer(root)
    path = cache_dir(root) / _object(md5)
    try:
        listing: list[dict[str, str]] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        do = "Fetch it with `dvc pull`, or run `dvc add data`."
        raise VersioningError(f"The listing of snapshot {md5[:8]} is not in DVC's cache.", do) from error
    return listing


def cache_dir(root: Path) -> Path:
    """Where DVC keeps this project's objects."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    return (root / ".dvc" / parser.get("cache", "dir", fallback="cache").strip('"')).resolve()


def checkout(root: Path) -> None:
    """Bring `data/` to what data.dvc says. Raises VersioningError where the cache lacks a file."""
    _dvc(root, "checkout", "--force", POINTER)


def pull(root: Path) -> None:
    """Fetch what data.dvc names from the remote and bring `data/` to it."""
    _dvc(root, "pull", "--force", POINTER, code="versioning.remote")


def sweep(root: Path) -> None:
    """Remove what an interrupted check left behind."""
    (root / _CHECK).unlink(missing_ok=True)
    for site in (root / ".dvc" / "tmp").glob("check-*"):
        shutil.rmtree(site, ignore_errors=True)


@contextmanager
def _single_files(root: Path) -> Iterator[None]:
    """A pointer that names the snapshot's files one by one, for as long as a question about them takes."""
    lines = ["outs:"]
    for md5 in sorted({entry["md5"] for entry in snapshot(root)}):
        lines += [f"- md5: '{md5}'", "  hash: md5", f"  path: remote-check/{md5}"]  # some are numbers to YAML
    path = root / _CHECK
    write_text(path, "\n".join(lines) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _site(root: Path) -> Iterator[Path]:
    """A site folder without memory."""
    site = root / ".dvc" / "tmp" / f"check-{time.monotonic_ns()}"
    try:
        yield site
    finally:
        shutil.rmtree(site, ignore_errors=True)
