"""Publication in the one safe order: files → dvc add → dvc push → nothing missing → git commit → tag → git push.

A pointer is never published before its data, and every step may be repeated: after a crash the same call converges to
the same commit and tags.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redraft.dataset import dvc, git
from redraft.dataset.manifest import MANIFEST, write_manifest
from redraft.digest import canonical, sha256_file
from redraft.errors import VersioningError
from redraft.files import sweep_partials, write_bytes


@dataclass(frozen=True)
class DatasetVersion:
    """A published snapshot of `data/`."""

    dvc_md5: str
    commit_sha: str
    manifest_sha256: str
    files: int


def publish_dataset(
    root: Path,
    round_number: int,
    *,
    check_lease: Callable[[], None],
    dvc_remote: str | None,
    records: Sequence[str] = (),
    erased: Collection[str] = (),
) -> DatasetVersion:
    """Version `data/` and commit its pointer.

    Data that did not change since the last time costs no call of DVC.

    Parameters
    ----------
    check_lease : callable
        Called right before the commit; raises ConflictError when another writer took over.
    dvc_remote : str or None
        URL of the DVC remote (a folder is relative to the project): the data is pushed and verified there first.
    records : sequence of str
        Further files, relative to `root`, that belong into the same commit.
    erased : collection of str
        Paths below data/ that were erased by law and may be missing.

    Raises
    ------
    IntegrityError
        When published files were lost or changed, or data/ holds a foreign file.
    VersioningError
        When git, DVC or a remote refuses; nothing half is published, and calling again goes on.
    """
    data, state = root / "data", root / ".redraft"
    sweep_partials(data)
    dvc.sweep(root)
    files = write_manifest(data, state / "manifest-cache.json", round_number, erased)
    manifest = sha256_file(data / MANIFEST)
    done = _progress(state)
    # The manifest lists every file's hash: while it is what the pointer was made from, data/ is too.
    md5 = _pointer(root)
    if md5 is None or done.get("pointer") != md5 or done.get("manifest") != manifest:
        md5 = dvc.add_data(root)
        done = {"pointer": md5, "manifest": manifest}
        write_bytes(state / "published.json", canonical(done))
    if dvc_remote is not None:
        dvc.set_remote(root, dvc_remote)
        url = dvc.remote_url(root) or dvc_remote
        if done.get("remote") != url:
            dvc.push(root)
            write_bytes(state / "published.json", canonical({**done, "remote": url}))
    check_lease()
    git.commit(root, [dvc.POINTER, ".dvc/config", *records], f"Round {round_number}: dataset {md5}")
    return DatasetVersion(md5, git.last_commit(root, dvc.POINTER), manifest, files)


def publish_records(
    root: Path, paths: Sequence[str], message: str, tags: Mapping[str, str], git_remote: str | None
) -> str:
    """Commit record files, set annotated tags, push branch and tags where a remote is set; returns the commit.

    Raises
    ------
    VersioningError
        When a tag exists with another message, or the remote refuses: everything is then committed and tagged here,
        and the same call completes it.
    """
    commit = git.commit(root, paths, message) if paths else git.head(root)
    for name, text in tags.items():
        git.tag(root, name, text)
    if git_remote:
        git.push(root, git_remote)
    return commit


def _progress(state: Path) -> dict[str, str]:
    """What the last publication from this directory got done: pointer, the manifest it was made from, remote."""
    try:
        content = json.loads((state / "published.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return {}  # nothing is known to be done: DVC is asked
    return content if isinstance(content, dict) else {}


def _pointer(root: Path) -> str | None:
    """The pointer as it lies there; None where there is none yet, or a broken one that `dvc add` replaces."""
    try:
        return dvc.pointer(root)
    except VersioningError:
        return None
