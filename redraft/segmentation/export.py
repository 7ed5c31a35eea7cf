"""What of a project can be exported, and exporting it to files: named by pseudonyms, listed with digests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from redraft.cohort import Cohort
from redraft.digest import sha256_file
from redraft.errors import ExamError, IntegrityError, StateError, UsageError
from redraft.files import write_bytes, write_text
from redraft.project import Project
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.nrrd_file import write_nrrd
from redraft.segmentation.origin import Method, Origin, dicom_bytes, require_codes
from redraft.volumes import read_volume

Format = Literal["seg", "rtstruct", "nifti", "nrrd"]
What = Literal["annotations", "drafts"]
SUFFIX: dict[Format, str] = {"seg": ".seg.dcm", "rtstruct": ".rtstruct.dcm", "nifti": ".nii.gz", "nrrd": ".seg.nrrd"}
MANIFEST = "manifest.json"
# A draft that was accepted is still the model's; one that was rejected was drawn anew.
METHOD: dict[str, Method] = {"accept": "AUTOMATIC", "correct": "SEMIAUTOMATIC", "reject": "MANUAL", "scratch": "MANUAL"}


@dataclass(frozen=True)
class Item:
    """One label array of one exam, as the project keeps it."""

    exam_id: str
    path: Path
    origin: Origin

    def labels(self) -> NDArray[np.uint8]:
        """The label values. Raises IntegrityError where the file is not what the ledger says."""
        if not self.path.is_file() or sha256_file(self.path) != self.origin.sha256:
            raise IntegrityError(
                f"The label of exam {self.exam_id} is missing or is not what its record says.",
                "Run `redraft audit verify`; restore the file with `dvc checkout`.",
            )
        return np.rint(read_volume(self.path).array).astype(np.uint8)


@dataclass(frozen=True)
class Outcome:
    """What was written, and what could not be and why."""

    manifest: Path
    exported: list[dict[str, Any]]
    left_out: list[dict[str, Any]]


def collect(
    project: Project, what: What = "annotations", *, number: int | None = None, exams: Sequence[str] = ()
) -> list[Item]:
    """What there is to export, one item per exam, by exam id.

    Annotations: the label that counts for its exam (redraft.cohort); of several readings their consensus.
    Drafts: the champion's, or those of the champion that the round worked with.

    Raises
    ------
    UsageError
        An exam that the project does not have.
    StateError
        There is nothing to export.
    """
    known = {row["exam_id"] for row in project.ledger.rows("exam")}
    if unknown := sorted(set(exams) - known):
        raise UsageError(f"The project has no exam {', '.join(unknown)}.", "`redraft status` and exam.json name them.")
    found = _annotations(project, number) if what == "annotations" else _drafts(project, number)
    items = [found[exam] for exam in sorted(found) if not exams or exam in exams]
    if not items:
        where = f" of round {number}" if number is not None else ""
        raise StateError(f"There are no {what}{where} to export.", "See `redraft status`.", code="state.nothing")
    return items


def _annotations(project: Project, number: int | None) -> dict[str, Item]:
    cohort = Cohort(project)
    models, drafts = _models(project), {row["draft_id"]: row for row in project.ledger.rows("draft")}
    items: dict[str, Item] = {}
    for exam_id in sorted(cohort.readings):
        label = cohort.label_of(exam_id)
        if label is None:
            continue
        readings = cohort.readings[exam_id]
        together = cohort.consensus_of(exam_id) if label.of == "consensus" else None
        of_round = together["round"] if together else cohort.assignments[readings[0]["assignment_id"]]["round"]
        if number is not None and of_round != number:
            continue
        drafted = [row for row in readings if METHOD[row["verdict"]] != "MANUAL"]
        digest = drafts[max(drafted, key=_received)["draft_id"]]["model_digest"] if drafted else None
        method: Method = METHOD[readings[0]["verdict"]]
        if together is not None:  # a model took part where it drafted any of the readings
            method = "SEMIAUTOMATIC" if drafted else "MANUAL"
        at = together["at"] if together else readings[0]["received_at"]
        origin = Origin(
            label.annotation_id, label.label_sha256, method, datetime.fromisoformat(at),
            models[digest]["name"] if digest else None, digest,
        )  # fmt: skip
        items[exam_id] = Item(exam_id, label.label, origin)
    return items


def _received(row: dict[str, Any]) -> str:
    return str(row["received_at"])


def _drafts(project: Project, number: int | None) -> dict[str, Item]:
    from redraft import rounds

    if number is not None:
        digest = rounds.get(project, number)["champion"]
    else:
        champion = rounds.champion(project)
        digest = champion["model_digest"] if champion else None
    if digest is None:
        return {}
    model = _models(project)[digest]
    return {
        row["exam_id"]: Item(
            row["exam_id"], project.root / row["path"],
            Origin(row["draft_id"], row["sha256"], "AUTOMATIC", datetime.fromisoformat(model["created_at"]),
                   model["name"], digest),
        )
        for row in project.ledger.rows("draft", model_digest=digest)
    }  # fmt: skip


def _models(project: Project) -> dict[str, dict[str, Any]]:
    return {row["model_digest"]: row for row in project.ledger.rows("model")}


def geometry(project: Project, exam_id: str) -> ExamGeometry:
    """The geometry of one exam of the project. Raises ReadError (rule exam_record) where its record is not there."""
    return ExamGeometry.load(project.image(exam_id).with_name("exam.json"))


def write(
    project: Project, items: Sequence[Item], kind: Format, out: Path, say: Callable[[Item], None] = lambda _: None
) -> Outcome:
    """Write items into a folder, and manifest.json beside them; the same items give the same bytes.

    An exam that cannot be written is named with its rule, and the others go on.

    Raises
    ------
    UsageError
        The folder lies in the project's data, or (DICOM) a structure has no code.
    """
    if out.resolve().is_relative_to(project.data):
        raise UsageError(f"{out} lies in the project's data.", "Choose another folder; data/ is versioned.")
    if kind in ("seg", "rtstruct"):
        require_codes(project.config.structures)
    exported: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for item in items:
        path = out / f"{item.exam_id}{SUFFIX[kind]}"
        try:
            labels = item.labels()
            _write(project, item, kind, path, labels)
        except (ExamError, IntegrityError) as error:
            left_out.append({"exam_id": item.exam_id, "rule": error.code, "why": error.what})
            continue
        exported.append({**describe(project, item, labels), "file": path.name, "sha256": sha256_file(path)})
        say(item)
    manifest = out / MANIFEST
    content = {
        "schema_version": 1, "project": project.config.name, "format": kind, "exported": exported, "left_out": left_out,
    }  # fmt: skip
    write_text(manifest, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return Outcome(manifest, exported, left_out)


def describe(project: Project, item: Item, labels: NDArray[np.uint8]) -> dict[str, Any]:
    """A manifest's line about an item: pseudonyms, how it came about, voxels per structure."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return {
        "exam_id": item.exam_id, "source_id": item.origin.identity, "source_sha256": item.origin.sha256,
        "method": item.origin.method, "model_digest": item.origin.model_digest,
        "voxels": {s.name: int(counts[s.value]) for s in project.config.structures},
    }  # fmt: skip


def _write(project: Project, item: Item, kind: Format, path: Path, labels: NDArray[np.uint8]) -> None:
    structures = project.config.structures
    if kind == "nifti":
        write_bytes(path, item.path.read_bytes())  # as it is kept: its digest is the ledger's
        return
    exam = geometry(project, item.exam_id)
    if kind == "nrrd":
        write_nrrd(path, labels, exam, structures)
        return
    from redraft.segmentation.rtstruct_out import build_rtstruct
    from redraft.segmentation.seg_out import build_seg

    build = build_seg if kind == "seg" else build_rtstruct
    write_bytes(path, dicom_bytes(build(labels, exam, structures, item.origin)))
