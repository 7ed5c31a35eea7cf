"""`audit verify`: replay the ledger's chain, then hold every file, manifest line, lock, tag and package against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from redraft.digest import sha256_bytes, sha256_file
from redraft.errors import ModelPackageError, VersioningError
from redraft.project import Project


@dataclass(frozen=True)
class Broken:
    """One record that is not what the ledger says: its kind, which one, where it lies, and why."""

    kind: str
    record: str
    path: str | None
    why: str


@dataclass
class Verification:
    """Outcome of a verification; `ok` only when nothing at all is broken."""

    checked: dict[str, int] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.broken

    def count(self, kind: str, n: int = 1) -> None:
        self.checked[kind] = self.checked.get(kind, 0) + n

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "checked": self.checked, "broken": [asdict(item) for item in self.broken]}


def verify_project(project: Project, verify_package: Callable[[Path], str]) -> Verification:
    """Verify everything a project's ledger vouches for.

    Parameters
    ----------
    verify_package : callable
        Takes a model package directory, returns its model digest, raises ModelPackageError.
    """
    from redraft.ledger import verify_checkpoints, verify_ledger

    result = Verification()
    report = verify_ledger(project.ledger)
    for kind, count in report.checked.items():
        result.count(kind, count)
    result.broken += [Broken(item.kind, item.record, item.path, item.why) for item in report.broken]
    checkpoints = verify_checkpoints(project.ledger, trusted_keys(project))
    for kind, count in checkpoints.checked.items():
        result.count(kind, count)
    result.broken += [Broken(item.kind, item.record, item.path, item.why) for item in checkpoints.broken]
    _files(project, result)
    _manifest(project, result)
    _locks(project, result)
    _tags(project, result)
    _packages(project, result, verify_package)
    return result


def trusted_keys(project: Project) -> list[str]:
    """Public keys that verification trusts: the configured file's lines, else the key file's own."""
    chosen = project.config.security.trusted_keys
    if chosen is not None:
        return [line.strip() for line in project.resolve(chosen).read_text().splitlines() if line.strip()]
    return [project.keys.public_key]


def _recorded_files(project: Project) -> Iterator[tuple[str, str, str, str]]:
    """(kind, record, path relative to the project, sha256) of every file a ledger row names."""
    ledger = project.ledger
    for row in ledger.rows("exam"):
        yield "image", row["exam_id"], row["image_path"], row["image_sha256"]
    for row in ledger.rows("draft"):
        yield "draft", row["draft_id"], row["path"], row["sha256"]
    for row in ledger.rows("annotation"):
        yield "label", row["annotation_id"], row["path"], row["sha256"]
    seen = set()
    for row in ledger.rows("validation"):
        if row["result_path"] and row["result_path"] not in seen:
            seen.add(row["result_path"])
            yield "validation", row["validation_id"], row["result_path"], row["result_sha256"]


def _files(project: Project, result: Verification) -> None:
    for kind, record, path, sha256 in _recorded_files(project):
        result.count(kind)
        file = project.root / path
        if not file.is_file():
            result.broken.append(Broken(kind, record, path, "missing"))
        elif sha256_file(file) != sha256:
            result.broken.append(Broken(kind, record, path, "content differs from the ledger"))


def _manifest(project: Project, result: Verification) -> None:
    from redraft.dataset.manifest import MANIFEST, verify_manifest

    versions = project.ledger.rows("dataset_version")
    if not versions:
        return
    latest = max(versions, key=lambda row: (row["round"], row["created_at"]))
    path = project.data / MANIFEST
    relative = path.relative_to(project.root).as_posix()
    if not path.is_file():
        result.broken.append(Broken("manifest", f"round {latest['round']}", relative, "missing"))
        return
    if sha256_file(path) != latest["manifest_sha256"]:
        result.broken.append(
            Broken("manifest", f"round {latest['round']}", relative, "content differs from the ledger")
        )
    entries, problems = verify_manifest(project.data)
    result.count("manifest_line", entries)
    for problem in problems:
        result.broken.append(Broken("manifest_line", problem.path, f"data/{problem.path}", problem.why))


def _locks(project: Project, result: Verification) -> None:
    for event in project.ledger.rows("audit_event", kind="round.locked"):
        payload = event["payload"]
        result.count("round_lock")
        file = project.root / payload["path"]
        if not file.is_file():
            result.broken.append(Broken("round_lock", f"round {payload['round']}", payload["path"], "missing"))
        elif sha256_bytes(file.read_bytes()) != payload["sha256"]:
            result.broken.append(
                Broken("round_lock", f"round {payload['round']}", payload["path"], "content differs from the ledger")
            )


def _tags(project: Project, result: Verification) -> None:
    """Every closed round's tag must carry the checkpoint that the ledger holds for that round."""
    from redraft.dataset import git

    for row in project.ledger.rows("checkpoint"):
        if row["round"] is None or not project.ledger.rows("audit_event", kind="round.published"):
            continue
        name = f"round-{row['round']:04d}"
        result.count("tag")
        try:
            message = git.tag_message(project.root, name)
        except VersioningError as error:
            result.broken.append(Broken("tag", name, None, error.what))
            continue
        if row["hash"] not in message:
            result.broken.append(Broken("tag", name, None, "its checkpoint is not the ledger's"))


def _packages(project: Project, result: Verification, verify_package: Callable[[Path], str]) -> None:
    for row in project.ledger.rows("model"):
        result.count("model_package")
        folder = project.root / row["package_uri"]
        try:
            digest = verify_package(folder)
            if digest != row["model_digest"]:
                why = f"digest is {digest[:12]}, the ledger says {row['model_digest'][:12]}"
                result.broken.append(Broken("model_package", row["model_digest"], row["package_uri"], why))
        except ModelPackageError as error:
            result.broken.append(Broken("model_package", row["model_digest"], row["package_uri"], error.what))
        except (OSError, json.JSONDecodeError) as error:
            why = f"unreadable ({type(error).__name__})"
            result.broken.append(Broken("model_package", row["model_digest"], row["package_uri"], why))
