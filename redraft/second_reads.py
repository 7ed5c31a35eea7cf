"""Several readings of one exam: when they are complete, what they make together, and how a person decides.

Files lie beside the readings, `data/labels/<xx>/<exam>/consensus-<id>.nii.gz` and `disagreement-<id>.nii.gz`, and are
never overwritten; a consensus that is made anew (a reading was reworked, one more came in) gets an id of its own, and
the row before it is superseded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from redraft.agreement import disputed, lowest, pairwise
from redraft.cohort import COUNTED, Cohort
from redraft.consensus import Method, consensus, disagreement
from redraft.digest import sha256_file, sha256_json
from redraft.errors import ConflictError, IntegrityError, LabelError, UsageError
from redraft.files import write_text
from redraft.ledger import Ledger, Tx
from redraft.project import Project
from redraft.reviews import reviewer
from redraft.volumes import read_volume, write_volume

Choice = Literal["reading", "staple", "majority", "own"]


@dataclass(frozen=True)
class Formed:
    """What several readings make together: rows for the ledger; their files are written."""

    consensus: dict[str, Any]
    agreement: list[dict[str, Any]]


def due(cohort: Cohort, needed: int | None, *, closing: bool) -> list[str]:
    """Exams whose accepted readings have no consensus yet and are enough for one.

    Enough are all that were planned, or `needed` of them (dispatch.completion.readings); at closing two are enough, for
    a round does not wait for the rest. Withdrawn and rejected work is planned no more. Nothing is due while a reading
    of the exam is in review.
    """
    planned: dict[str, list[str]] = {}
    for row in cohort.assignments.values():
        if row["purpose"] in COUNTED and row["state"] not in ("WITHDRAWN", "REJECTED"):
            planned.setdefault(row["exam_id"], []).append(row["state"])
    found = []
    for exam_id, readings in sorted(cohort.readings.items()):
        states = planned[exam_id]
        if len(readings) < 2 or "IN_REVIEW" in states or cohort.consensus_of(exam_id) or cohort.excluded(exam_id):
            continue
        if closing or len(readings) == len(states) or (needed is not None and len(readings) >= needed):
            found.append(exam_id)
    return found


def form(project: Project, cohort: Cohort, exam_id: str, number: int, now: datetime) -> Formed:
    """Make the consensus of an exam's accepted readings and write its files.

    Raises IntegrityError where a reading's file is not what the ledger says.
    """
    config = project.config
    rows = {row["annotation_id"]: row for row in cohort.readings[exam_id]}
    arrays = {identity: reading_array(project, rows[identity]) for identity in sorted(rows)}
    image = read_volume(project.root / cohort.exams[exam_id]["image_path"])
    pairs = pairwise(arrays, image.spacing, config.structures)
    argued = disputed(pairs, config.consensus.adjudicate_below)
    method = config.consensus.method
    identity = sha256_json([exam_id, sorted(rows), method])[:24]
    values = [s.value for s in config.structures]
    readings = list(arrays.values())
    path, sha256 = _keep(project, exam_id, f"consensus-{identity}", consensus(readings, values, method))
    map_path, map_sha256 = _keep(project, exam_id, f"disagreement-{identity}", disagreement(readings))
    _describe(project, path, {"consensus_id": identity, "exam_id": exam_id, "annotations": sorted(rows),
                              "method": method, "sha256": sha256, "disagreement_sha256": map_sha256})  # fmt: skip
    purposes = {cohort.assignments[row["assignment_id"]]["purpose"] for row in rows.values()}
    row = {
        "consensus_id": identity,
        "exam_id": exam_id,
        "round": number,
        "purpose": "reference" if "reference" in purposes else "training",
        "method": method,
        "annotations": sorted(rows),
        "path": path,
        "sha256": sha256,
        "disagreement_path": map_path,
        "disagreement_sha256": map_sha256,
        "agreement": {"structures": lowest(pairs), "disputed": argued},
        "state": "to_adjudicate" if argued else "agreed",
        "account_id": None,
        "at": now,
    }
    agreement = [
        {
            "agreement_id": sha256_json([pair.first_id, pair.second_id, pair.structure])[:24],
            "round": number,
            "exam_id": exam_id,
            **asdict(pair),
            "at": now,
        }
        for pair in pairs
    ]
    return Formed(row, agreement)


def record(tx: Tx, formed: Formed) -> None:
    """Write a consensus; the one before it is superseded. Doing it again changes nothing."""
    row = formed.consensus
    for earlier in tx.rows("consensus", exam_id=row["exam_id"]):
        if earlier["consensus_id"] != row["consensus_id"] and earlier["state"] != "superseded":
            tx.update("consensus", {"consensus_id": earlier["consensus_id"]}, {"state": "superseded"})
    known = tx.one("consensus", consensus_id=row["consensus_id"])
    if known is None:
        tx.insert("consensus", row)
    elif known["state"] == "superseded":  # a reading that had been opened again is accepted as it was
        tx.update("consensus", {"consensus_id": row["consensus_id"]}, {"state": row["state"]})
    for pair in formed.agreement:
        if tx.one("agreement", agreement_id=pair["agreement_id"]) is None:
            tx.insert("agreement", pair)


def readings_of(project: Project, consensus_row: dict[str, Any]) -> list[dict[str, Any]]:
    """The annotations of a consensus as pages number them from 1: by id, which says nothing of whom."""
    rows = {row["annotation_id"]: row for row in project.ledger.rows("annotation", exam_id=consensus_row["exam_id"])}
    return [rows[identity] for identity in sorted(consensus_row["annotations"])]


def reading_array(project: Project, row: dict[str, Any]) -> NDArray[np.uint8]:
    """A stored label (annotation or consensus row) as uint8 (I, J, K). IntegrityError where its file was altered."""
    path = project.root / row["path"]
    if not path.is_file() or sha256_file(path) != row["sha256"]:
        raise IntegrityError(
            f"A label of exam {row['exam_id']} is missing or is not what its record says.",
            "Run `redraft audit verify`; restore the file with `dvc checkout`.",
        )
    return np.rint(read_volume(path).array).astype(np.uint8)


@dataclass(frozen=True)
class Settled:
    """An adjudicator's choice with its label in its file: all that takes time is done, nothing is recorded yet."""

    consensus_id: str
    account_id: str
    chosen: dict[str, Any]
    identity: str
    path: str
    sha256: str


def settle(
    project: Project, consensus_id: str, account_id: str, choose: Choice, *, n: int | None = None,
    own: NDArray[np.uint8] | None = None,
) -> Settled:  # fmt: skip
    """Make the label that an adjudicator chose and write its file; no transaction waits for STAPLE.

    Parameters
    ----------
    choose : which label counts: reading `n` (from 1, as `readings_of` orders them), STAPLE, majority, or `own`.
    own : the adjudicator's label (I, J, K) on the exam's grid.

    Raises
    ------
    ConflictError
        It was decided already, or a reading has changed since.
    StateError
        Not a reviewer, or one of the readings is theirs.
    UsageError, LabelError
        No such reading; an own label on another grid, or with unknown values.
    """
    row, readings = _to_adjudicate(project.ledger, consensus_id, account_id)
    arrays = [reading_array(project, r) for r in readings]
    chosen: dict[str, Any] = {"choice": choose}
    if choose == "reading":
        if n is None or not 1 <= n <= len(arrays):
            raise UsageError(f"There are readings 1 to {len(arrays)}.", "Name one of them.", code="usage.reading")
        label = arrays[n - 1]
        chosen["annotation_id"] = readings[n - 1]["annotation_id"]
    elif choose == "own":
        label = _own(project, own, arrays[0].shape)
    else:
        method: Method = choose
        label = consensus(arrays, [s.value for s in project.config.structures], method)
    exam_id = row["exam_id"]
    identity = sha256_json([consensus_id, account_id, choose, n, plain_digest(label)])[:24]
    path, sha256 = _keep(project, exam_id, f"consensus-{identity}", label)
    meta = {"consensus_id": identity, "exam_id": exam_id, "annotations": row["annotations"], "method": "adjudicated",
            "sha256": sha256, "disagreement_sha256": row["disagreement_sha256"], **chosen}  # fmt: skip
    _describe(project, path, meta)
    return Settled(consensus_id, account_id, chosen, identity, path, sha256)


def adjudicate(tx: Tx, settled: Settled, now: datetime) -> str:
    """Record a choice; returns the id of the adjudicated consensus. Checked again here, for others decide too.

    Raises as `settle` does where it was decided, or a reading was opened again, in the meantime.
    """
    row, _ = _to_adjudicate(tx, settled.consensus_id, settled.account_id)
    tx.update("consensus", {"consensus_id": settled.consensus_id}, {"state": "superseded"})
    tx.insert(
        "consensus",
        {
            **row,
            "consensus_id": settled.identity,
            "method": "adjudicated",
            "path": settled.path,
            "sha256": settled.sha256,
            "agreement": {**row["agreement"], "chosen": settled.chosen, "of": settled.consensus_id},
            "state": "adjudicated",
            "account_id": settled.account_id,
            "at": now,
        },
    )
    return settled.identity


def _to_adjudicate(
    ledger: Ledger | Tx, consensus_id: str, account_id: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A consensus that waits for this account, with its readings by id."""
    row = ledger.one("consensus", consensus_id=consensus_id)
    if row is None:
        raise UsageError(f"There is no consensus {consensus_id}.", "Load the list again.", code="usage.consensus")
    rows = {r["annotation_id"]: r for r in ledger.rows("annotation", exam_id=row["exam_id"])}
    readings = [rows[identity] for identity in sorted(row["annotations"])]
    reviewer(ledger, account_id, [r["reader_id"] for r in readings])
    work = [ledger.one("assignment", assignment_id=r["assignment_id"]) for r in readings]
    if row["state"] != "to_adjudicate" or {w["state"] for w in work if w is not None} != {"ACCEPTED"}:
        raise ConflictError(
            f"Exam {row['exam_id']}: there is nothing to adjudicate (any more).", "Load the list again.",
            code="adjudication.decided", retry=False,
        )  # fmt: skip
    return row, readings


def plain_digest(label: NDArray[np.uint8]) -> str:
    """SHA-256 of an array's values in voxel order."""
    from redraft.digest import sha256_bytes

    return sha256_bytes(np.ascontiguousarray(label).tobytes())


def _own(project: Project, own: NDArray[np.uint8] | None, shape: Sequence[int]) -> NDArray[np.uint8]:
    if own is None:
        raise UsageError("There is no own label.", "Save one first.", code="usage.own_label")
    unknown = set(np.unique(own).tolist()) - {0, *(s.value for s in project.config.structures)}
    if tuple(own.shape) != tuple(shape):
        measured = {"shape": list(own.shape), "expected": list(shape)}
        raise LabelError("The own label is not on the exam's grid.", rule="grid", measured=measured)
    if unknown:
        raise LabelError(f"The own label holds unknown values {sorted(unknown)}.", rule="unknown_values")
    return own.astype(np.uint8)


def _keep(project: Project, exam_id: str, name: str, label: NDArray[np.uint8]) -> tuple[str, str]:
    """Write an array on the exam's grid, once; returns its path relative to the project, and its SHA-256."""
    relative = f"data/labels/{exam_id[:2]}/{exam_id}/{name}.nii.gz"
    target = project.root / relative
    if not target.exists():
        write_volume(target, read_volume(project.image(exam_id)).like(label))
    elif not np.array_equal(read_volume(target).array, label):
        raise IntegrityError(f"{relative} is there already and says something else.", "Run `redraft audit verify`.")
    return relative, sha256_file(target)


def _describe(project: Project, path: str, facts: dict[str, Any]) -> None:
    file = project.root / path
    meta = json.dumps({"schema_version": 1, **facts}, indent=1, sort_keys=True) + "\n"
    write_text(file.with_name(file.name.removesuffix(".nii.gz") + ".json"), meta)
