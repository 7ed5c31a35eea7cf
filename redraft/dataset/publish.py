"""Publication in the one safe order: files → dvc add → dvc push → nothing missing → git commit → tag → git push.

A pointer is never published before its data, and every step may be repeated: after a crash the same call converges to
the same commit and tags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from redraft.dataset import dvc, git
from redraft.dataset.manifest import MANIFEST, write_manifest
from redraft.digest import sha256_file
from redraft.files import sweep_partials


@dataclass(frozen=True)
class DatasetVersion:
    """A published snapshot of `data/`."""

    dvc_md5: str
    commit_sha: str
    manifest_sha256: str
    files: int


def publish_dataset(
    root: Path, round_number: int, *, check_lease: Callable[[], None], dvc_remote: bool
) -> DatasetVersion:
    """Version `data/` and commit its pointer.

    Parameters
    ----------
    check_lease : callable
        Called right before the commit; raises ConflictError when another writer took over.
    dvc_remote : bool
        Whether a DVC remote is set: then the data is pushed and verified there first.
    """
    data, cache = root / "data", root / ".redraft" / "manifest-cache.json"
    sweep_partials(data)
    before = (data / MANIFEST).read_bytes() if (data / MANIFEST).exists() else None
    files = write_manifest(data, cache, round_number)
    unchanged = before == (data / MANIFEST).read_bytes() and (root / "data.dvc").exists() and _pointed(root)
    # The manifest lists every file's hash: when it is byte for byte what the pointer holds, data/ is too.
    md5 = dvc.pointer(root) if unchanged else dvc.add_data(root)
    if not unchanged:
        (root / ".redraft" / "pointed").write_text(f"{md5} {sha256_file(data / MANIFEST)}", encoding="utf-8")
    if dvc_remote:
        dvc.push(root)
    check_lease()
    commit = git.commit(root, ["data.dvc"], f"Round {round_number}: dataset {md5}")
    return DatasetVersion(md5, commit, sha256_file(data / MANIFEST), files)


def _pointed(root: Path) -> bool:
    """Whether data.dvc was made from the manifest as it stands."""
    try:
        md5, manifest = (root / ".redraft" / "pointed").read_text(encoding="utf-8").split()
    except (FileNotFoundError, ValueError):
        return False
    return md5 == dvc.pointer(root) and manifest == sha256_file(root / "data" / MANIFEST)


def publish_records(root: Path, paths: list[str], message: str, tags: Mapping[str, str], git_remote: str | None) -> str:
    """Commit record files, set annotated tags, push branch and tags where a remote is set; returns the commit."""
    commit = git.commit(root, paths, message) if paths else git.head(root)
    for name, text in tags.items():
        git.tag(root, name, text)
    if git_remote:
        git.push(root, git_remote)
    return commit
