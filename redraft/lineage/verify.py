"""`audit verify`: replay the ledger's chain, then hold every file, manifest line, lock, tag and package against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from redraft.digest import sha256_bytes, sha256_file
from redraft.errors import ConfigError, ModelPackageError, VersioningError
from redraft.ledger import Broken, RoundState, VerifyReport, verify_checkpoints, verify_ledger
from redraft.project import Project


@dataclass
class Verification(VerifyReport):
    """Outcome of a verification; `ok` only when nothing at all is broken."""

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
    result = Verification()
    trusted = trusted_keys(project)
    witnessed = _tagged_checkpoints(project, result)
    for report in (verify_ledger(project.ledger), verify_checkpoints(project.ledger, trusted, witnessed)):
        for kind, count in report.checked.items():
            result.count(kind, count)
        result.broken += report.broken
    _minutes(project, result)
    _files(project, result)
    _manifest(project, result)
    _locks(project, result)
    _decisions(project, result, trusted)
    _packages(project, result, verify_package)
    return result


def _minutes(project: Project, result: Verification) -> None:
    """Measured minutes, taken again from the raw events."""
    from redraft.worktime.recheck import recheck

    for annotation, wrong in recheck(project.ledger):
        result.count("measured_minutes")
        result.broken += [Broken("time_entry", annotation, None, why) for why in wrong]


def trusted_keys(project: Project) -> list[str]:
    """Public keys that verification trusts: the configured file's lines, else the key file's own."""
    chosen = project.config.security.trusted_keys
    if chosen is not None:
        try:
            lines = project.resolve(chosen).read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"security.trusted_keys: {chosen} cannot be read.", "It holds one public key (hexadecimal) per line."
            ) from error
        return [line.strip() for line in lines if line.strip()]
    return [project.keys.public_key]


def _recorded_files(project: Project) -> Iterator[tuple[str, str, str, str]]:
    """(kind, record, path relative to the project, sha256) of every file a ledger row names."""
    ledger = project.ledger
    for row in ledger.rows("exam"):
        yield "image", row["exam_id"], row["image_path"], row["image_sha256"]
    for row in ledger.rows("draft"):
        yield "draft", row["draft_id"], row["path"], row["sha256"]
    for row in ledger.rows("annotation"):
        if row["path"]:  # an exam sent back without a segmentation has none
            yield "label", row["annotation_id"], row["path"], row["sha256"]
    seen_maps = set()
    for row in ledger.rows("consensus"):
        yield "consensus", row["consensus_id"], row["path"], row["sha256"]
        if row["disagreement_path"] not in seen_maps:  # an adjudicated consensus keeps the map of what it decided
            seen_maps.add(row["disagreement_path"])
            yield "disagreement", row["consensus_id"], row["disagreement_path"], row["disagreement_sha256"]
    seen = set()
    for row in ledger.rows("validation"):
        if row["result_path"] and row["result_path"] not in seen:
            seen.add(row["result_path"])
            yield "validation", row["validation_id"], row["result_path"], row["result_sha256"]


def _sent_back(path: Path, sha256: str) -> Path:
    """Where a refused label lies: in its package, or aside there since it was sent back to its reader."""
    places = [path, *sorted(path.parent.glob(f"returned-*/{path.name}"))]
    there = [place for place in places if place.is_file()]
    return next((place for place in there if sha256_file(place) == sha256), there[-1] if there else path)


def _files(project: Project, result: Verification) -> None:
    refused = {row["annotation_id"] for row in project.ledger.rows("annotation", state="invalid")}
    for kind, record, path, sha256 in _recorded_files(project):
        result.count(kind)
        file = _sent_back(project.root / path, sha256) if record in refused else project.root / path
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
    entries, problems = verify_manifest(project.data, known=_known(project))
    result.count("manifest_line", entries)
    for problem in problems:
        result.broken.append(Broken("manifest_line", problem.path, f"data/{problem.path}", problem.why))


def _known(project: Project) -> set[str]:
    """Files below data/ that rows name, with the description beside each: they may be newer than the manifest."""
    names = set()
    for kind, _, path, _ in _recorded_files(project):
        relative = PurePosixPath(path)
        if relative.parts[0] != "data":
            continue
        names.add(relative)
        if kind == "image":
            names.add(relative.with_name("exam.json"))
        elif kind in ("label", "consensus"):
            names.add(relative.with_name(relative.name.removesuffix(".nii.gz") + ".json"))
    return {name.relative_to("data").as_posix() for name in names}


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


def _tagged_checkpoints(project: Project, result: Verification) -> list[dict[str, Any]]:
    """The checkpoints that git's round tags carry; a closed round without its tag is broken."""
    from redraft.dataset import git

    states = {row["number"]: row["state"] for row in project.ledger.rows("round")}
    closed = (RoundState.AWAITING_APPROVAL, RoundState.PROMOTED, RoundState.HELD)
    tags = set(git.tags(project.root, "round-*"))
    # A round that the ledger does not know any more still has its tag: that is how a cut ledger shows.
    names = tags | {f"round-{number:04d}" for number, state in states.items() if state in closed}
    witnessed = []
    for name in sorted(names):
        result.count("tag")
        try:
            content = json.loads(git.tag_message(project.root, name).strip().splitlines()[-1])
        except VersioningError as error:
            result.broken.append(Broken("tag", name, None, error.what))
        except (json.JSONDecodeError, IndexError):
            result.broken.append(Broken("tag", name, None, "it carries no checkpoint"))
        else:
            if not isinstance(content, dict) or f"round-{content.get('round', 0):04d}" != name:
                result.broken.append(Broken("tag", name, None, "its checkpoint is of another round"))
            else:
                witnessed.append(content)
    return witnessed


def _decisions(project: Project, result: Verification, trusted: Sequence[str]) -> None:
    """Every decision that was carried out has a signed tag that says the same as its row, and no tag is without row."""
    from redraft.dataset import git
    from redraft.lineage.publish import decision_tag, decision_text
    from redraft.security.keys import verify_signature

    states = {row["number"]: row["state"] for row in project.ledger.rows("round")}
    rows = {decision_tag(row): row for row in project.ledger.rows("decision")}
    carried_out = {name for name, row in rows.items() if states[row["round"]] in (RoundState.PROMOTED, RoundState.HELD)}
    for name in sorted(carried_out | set(git.tags(project.root, "decision-*"))):
        result.count("decision_tag")
        try:
            message = git.tag_message(project.root, name)
        except VersioningError as error:
            result.broken.append(Broken("decision_tag", name, None, error.what))
            continue
        if name not in rows:
            result.broken.append(Broken("decision_tag", name, None, "the ledger has no such decision"))
            continue
        text, _, signature = message.strip().rpartition("\nsignature: ")
        signed = text.rpartition("\n")[2]
        if signed != decision_text(rows[name]):
            result.broken.append(Broken("decision_tag", name, None, "it says something else than the ledger"))
        elif not any(verify_signature(key, signed.encode(), signature) for key in trusted):
            result.broken.append(Broken("decision_tag", name, None, "no trusted key signed it"))


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
