"""data/MANIFEST.sha256.jsonl: path, SHA-256, size, role and round of every file, one canonical JSON line each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.digest import canonical, sha256_file, sha256_json
from redraft.errors import IntegrityError
from redraft.files import write_bytes

MANIFEST = "MANIFEST.sha256.jsonl"


@dataclass(frozen=True)
class Problem:
    """A manifest line or file that does not fit."""

    path: str
    why: str


def role_of(path: str) -> str:
    """Role of a file by its place: image, exam, draft, label or label_meta."""
    top, name = path.split("/", 1)[0], path.rsplit("/", 1)[-1]
    if top == "exams":
        return "image" if name == "image.nii.gz" else "exam"
    if top == "drafts":
        return "draft"
    return "label" if name.endswith(".nii.gz") else "label_meta"


def write_manifest(data: Path, cache: Path, round_number: int) -> int:
    """Write the manifest of everything under `data`; returns how many files it lists.

    Files whose path, size and modification time are known from the last time keep their hash and round: image bytes
    are read once. The cache may be deleted; `verify_manifest` never trusts it.
    """
    known = _load_cache(cache)
    earlier = {line["path"]: line for line in read_manifest(data)} if (data / MANIFEST).exists() else {}
    lines, fresh = [], {}
    for path in _files(data):
        relative = path.relative_to(data).as_posix()
        stat = path.stat()
        stamp = [stat.st_size, str(stat.st_mtime_ns)]
        entry = known.get(relative)
        sha256 = entry[2] if entry and entry[:2] == stamp else sha256_file(path)
        fresh[relative] = [*stamp, sha256]
        before = earlier.get(relative)
        number = before["round"] if before and before["sha256"] == sha256 else round_number
        lines.append(
            {"path": relative, "role": role_of(relative), "round": number, "sha256": sha256, "size": stat.st_size}
        )
    content = b"".join(canonical(line) + b"\n" for line in lines)
    target = data / MANIFEST
    if not target.exists() or target.read_bytes() != content:
        write_bytes(target, content)
    write_bytes(cache, canonical(fresh))
    return len(lines)


def read_manifest(data: Path) -> list[dict[str, Any]]:
    """The manifest's lines. Raises IntegrityError naming the first line that is not one."""
    lines = []
    for number, text in enumerate((data / MANIFEST).read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            if set(line) != {"path", "role", "round", "sha256", "size"}:
                raise ValueError
        except ValueError as error:
            raise IntegrityError(
                f"Line {number} of {MANIFEST} is broken.", "Restore it with `dvc checkout`."
            ) from error
        lines.append(line)
    return lines


def verify_manifest(data: Path) -> tuple[int, list[Problem]]:
    """Hash every file again; returns how many lines were checked and what is missing, altered or not listed."""
    try:
        lines = read_manifest(data)
    except IntegrityError as error:
        return 0, [Problem(MANIFEST, error.what)]
    problems = []
    listed = set()
    for line in lines:
        path = data / line["path"]
        listed.add(line["path"])
        if not path.is_file():
            problems.append(Problem(line["path"], "listed but missing"))
        elif path.stat().st_size != line["size"] or sha256_file(path) != line["sha256"]:
            problems.append(Problem(line["path"], "content differs from its manifest line"))
        elif role_of(line["path"]) != line["role"]:
            problems.append(Problem(line["path"], "role differs from its place"))
    return len(lines), problems


def roles_digest(entries: Iterable[dict[str, str]]) -> str:
    """Identity of what a step reads: SHA-256 over the sorted entries (exam, image, annotation, split)."""
    return sha256_json(sorted(entries, key=lambda entry: sorted(entry.items())))


def _files(data: Path) -> list[Path]:
    found = [p for p in data.rglob("*") if p.is_file() and p.name != MANIFEST and not p.name.startswith(".partial-")]
    return sorted(found, key=lambda p: p.relative_to(data).as_posix())


def _load_cache(cache: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(cache.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}  # a cache: without it every file is hashed again
    return content if isinstance(content, dict) else {}
