"""data/MANIFEST.sha256.jsonl: path, SHA-256, size, role and round of every file, one canonical JSON line each."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
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


# The places of DESIGN §3; the first two characters of an exam's id are its shard.
_PLACES = {
    "image": re.compile(r"exams/(..)/\1[^/]*/image\.nii\.gz"),
    "exam": re.compile(r"exams/(..)/\1[^/]*/exam\.json"),
    "draft": re.compile(r"drafts/(..)/\1[^/]*/[^/]+\.nii\.gz"),
    "consensus": re.compile(r"labels/(..)/\1[^/]*/consensus-[^/]+\.nii\.gz"),
    "disagreement": re.compile(r"labels/(..)/\1[^/]*/disagreement-[^/]+\.nii\.gz"),
    "label": re.compile(r"labels/(..)/\1[^/]*/[^/]+\.nii\.gz"),
    "label_meta": re.compile(r"labels/(..)/\1[^/]*/[^/]+\.json"),
}
# Written once, under a name that is theirs alone.
_NEVER_CHANGED = ("image", "label", "consensus", "disagreement")
_KEYS = {"path", "role", "round", "sha256", "size"}


def role_of(path: str) -> str | None:
    """Role of a file by its place below data/ (the keys of `_PLACES`); None for a foreign file."""
    return next((role for role, place in _PLACES.items() if place.fullmatch(path)), None)


def write_manifest(data: Path, cache: Path, round_number: int, erased: Collection[str] = ()) -> int:
    """Write the manifest of everything under `data`; returns how many files it lists.

    Files whose size, modification time and inode are known from the last time keep their hash and round: image bytes
    are read once. The cache may be deleted; `verify_manifest` never trusts it.

    Parameters
    ----------
    cache : Path
        Where the known hashes lie.
    round_number : int
        Round of files that were not listed before.
    erased : collection of str
        Paths (relative to `data`) that were erased by law and may be missing.

    Raises
    ------
    IntegrityError
        When data/ holds a file that is none of a dataset's, or lost or changed one that is never changed: such a
        snapshot would make the damage permanent.
    """
    known = _load_cache(cache)
    earlier = {line["path"]: line for line in read_manifest(data)} if (data / MANIFEST).exists() else {}
    lines, fresh = [], {}
    for path in _files(data):
        relative = path.relative_to(data).as_posix()
        role = role_of(relative)
        if role is None:
            raise IntegrityError(
                f"data/{relative} is no file of a dataset.", "Move it out of data/; everything in there is published."
            )
        stat = path.stat()
        stamp = [stat.st_size, str(stat.st_mtime_ns), str(stat.st_ino)]
        entry = known.get(relative)
        sha256 = entry[3] if entry and entry[:3] == stamp else sha256_file(path)
        fresh[relative] = [*stamp, sha256]
        before = earlier.get(relative)
        same = before is not None and before["sha256"] == sha256
        if before is not None and not same and role in _NEVER_CHANGED:
            raise IntegrityError(f"data/{relative} was changed after round {before['round']} published it.", _RESTORE)
        number = before["round"] if before is not None and same else round_number
        lines.append({"path": relative, "role": role, "round": number, "sha256": sha256, "size": stat.st_size})
    lost = sorted(earlier.keys() - fresh.keys() - set(erased))
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise IntegrityError(f"data/{lost[0]}{more} was published and is missing.", _RESTORE)
    content = b"".join(canonical(line) + b"\n" for line in lines)
    target = data / MANIFEST
    if not target.exists() or target.read_bytes() != content:
        write_bytes(target, content)
    if fresh != known:
        write_bytes(cache, canonical(fresh))
    return len(lines)


_RESTORE = "Bring it back with `dvc pull --force data.dvc` (remote) or from a backup, then run the command again."


def read_manifest(data: Path) -> list[dict[str, Any]]:
    """The manifest's lines. Raises IntegrityError where it is missing, or naming the first line that is not one."""
    do = "Restore it with `dvc checkout --force data.dvc`."
    try:
        texts = (data / MANIFEST).read_bytes().splitlines()
    except FileNotFoundError as error:
        raise IntegrityError(f"{MANIFEST} is missing.", do) from error
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        line = _line(text)
        if line is None:
            raise IntegrityError(f"Line {number} of {MANIFEST} is broken.", do)
        if lines and line["path"] <= lines[-1]["path"]:
            raise IntegrityError(f"Line {number} of {MANIFEST} is out of order or a repetition.", do)
        lines.append(line)
    return lines


def _line(text: bytes) -> dict[str, Any] | None:
    """One line of a manifest, None when it is none."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or set(line) != _KEYS:
        return None
    kinds = {"path": str, "role": str, "round": int, "sha256": str, "size": int}
    if any(type(line[key]) is not kind for key, kind in kinds.items()):
        return None
    # A path that leaves data/ would make a reader of the manifest open somebody else's file.
    inside = not line["path"].startswith("/") and ".." not in line["path"].split("/")
    return line if inside else None


def verify_manifest(
    data: Path, *, erased: Collection[str] = (), known: Mapping[str, Any] | Collection[str] | None = None
) -> tuple[int, list[Problem]]:
    """Hash every listed file again; returns how many lines were checked and what is wrong, by path.

    Parameters
    ----------
    erased : collection of str
        Paths that were erased by law (tombstones): they may be missing, and must be.
    known : collection of str, optional
        Paths that other records name (exams and labels that came after the manifest). When given, a file that
        neither the manifest nor these name is a problem too.
    """
    try:
        lines = read_manifest(data)
    except IntegrityError as error:
        return 0, [Problem(MANIFEST, error.what)]
    problems = []
    listed = set()
    for line in lines:
        name = line["path"]
        path = data / name
        listed.add(name)
        if not path.is_file():
            if name not in erased:
                problems.append(Problem(name, "listed but missing"))
        elif name in erased:
            problems.append(Problem(name, "erased by law but still there"))
        elif path.stat().st_size != line["size"] or sha256_file(path) != line["sha256"]:
            problems.append(Problem(name, "content differs from its manifest line"))
        elif role_of(name) != line["role"]:
            problems.append(Problem(name, "role differs from its place"))
    if known is not None:
        extra = {path.relative_to(data).as_posix() for path in _files(data)} - listed - set(known)
        problems += [Problem(name, "in no record") for name in extra]
    return len(lines), sorted(problems, key=lambda problem: problem.path)


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
