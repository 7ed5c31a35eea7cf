"""validate as a step: judged on arrival (and stored or refused), and once more, all together, when the round closes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from redraft.cohort import Cohort
from redraft.digest import sha256_bytes, sha256_json
from redraft.errors import IntegrityError, ReadError
from redraft.files import write_bytes
from redraft.ledger import AssignmentState, Tx, move_assignment
from redraft.project import Project
from redraft.steps import Context, Contract, Done, run_step
from tasks.validate.annotations import annotation_id, store
from tasks.validate.expectations import Finding, Verdict, validate_rows
from tasks.validate.table import ReturnedLabel, measure


class ValidateInputs(Contract):
    """Annotations to judge at closing, and the rules."""

    annotations: tuple[tuple[str, str], ...]  # annotation_id, sha256
    rules: str


class ArriveRef(Contract):
    """What was taken in."""

    valid: int
    refused: dict[str, list[str]]  # assignment_id to rules
    unreadable: dict[str, str] = Field(default_factory=dict)  # what collect could not read: assignment_id to rule


class ValidateRef(Contract):
    """Outcome at closing."""

    annotations: int
    flagged: dict[str, list[str]]  # annotation_id to soft rules
    result: str
    result_sha256: str


@task(name="arrive", cache_policy=NO_CACHE, persist_result=False)
def arrive(project_dir: str, number: int, token: int, collected: dict[str, Any]) -> ArriveRef:
    """Judge what came back. Valid labels are stored; refused ones stay in their package until they are sent back."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "validate")
    items = collected["items"]
    if not items:
        return ArriveRef(valid=0, refused={})
    cohort = Cohort(project)
    drafts = {row["draft_id"]: row for row in project.ledger.rows("draft")}
    rows, unreadable = [], {}
    for item in items:
        work = cohort.assignments[item["assignment_id"]]
        exam = cohort.exams[work["exam_id"]]
        shown = drafts[work["draft_id"]] if work["mode"] == "assisted" else None
        minutes = sum(m["active"] for m in item["result"]["minutes"].values())
        returned = ReturnedLabel(
            item["assignment_id"], work["exam_id"], work["reader_id"], project.root / item["label"],
            project.root / exam["image_path"], project.root / shown["path"] if shown else None,
            item["result"]["verdict"], minutes,
        )  # fmt: skip
        try:
            rows.append(measure(returned, project.config.structures))
        except ReadError as error:
            finding = Finding(error.rule, error.measured, "The label cannot be read.")
            unreadable[item["assignment_id"]] = Verdict(item["assignment_id"], (finding,), ())
    verdicts, outcome = validate_rows(rows, project.config.structures, project.config.validate_)
    path, digest = _keep(project, number, "arrival", outcome)
    by_assignment = {v.assignment_id: v for v in verdicts} | unreadable
    measured = {row["assignment_id"]: row for row in rows}
    plans = []
    for item in items:
        assignment = item["assignment_id"]
        earlier = project.ledger.rows("annotation", assignment_id=assignment)
        identity = annotation_id(assignment, len(earlier) + 1, item["label_sha256"])
        work, verdict = cohort.assignments[assignment], by_assignment[assignment]
        result = item["result"]
        facts = {
            "assignment_id": assignment,
            "reader_id": work["reader_id"],
            "revision": len(earlier) + 1,
            "mode": work["mode"],
            "purpose": work["purpose"],
            "verdict": result["verdict"],
            "origin": result["origin"],
            "simulated": result["simulated"],
        }
        file, sha256 = item["label"], item["label_sha256"]
        if verdict.ok:
            image = project.root / cohort.exams[work["exam_id"]]["image_path"]
            file, sha256 = store(project.root, work["exam_id"], identity, project.root / item["label"], image, facts)
        plans.append((item, identity, verdict, len(earlier) + 1, file, sha256))
    ctx.check_lease()
    now = ctx.clock()
    with ctx.ledger.tx(ctx.actor, now) as tx:
        for item, identity, verdict, revision, file, sha256 in plans:
            work, result = cohort.assignments[item["assignment_id"]], item["result"]
            move_assignment(tx, work["assignment_id"], AssignmentState.RETURNED)
            changed = measured.get(work["assignment_id"], {}).get("voxels_changed")
            tx.insert(
                "annotation",
                {
                    "annotation_id": identity,
                    "assignment_id": work["assignment_id"],
                    "exam_id": work["exam_id"],
                    "reader_id": work["reader_id"],
                    "revision": revision,
                    "verdict": result["verdict"],
                    "reason_code": result["reason_code"],
                    "remark_present": bool(result["remark"]),
                    "path": file,
                    "sha256": sha256,
                    "draft_id": work["draft_id"] if work["mode"] == "assisted" else None,
                    "voxels_changed": changed,
                    "origin": result["origin"],
                    "simulated": result["simulated"],
                    "state": "valid" if verdict.ok else "invalid",
                    "received_at": now,
                },
            )
            _insert_times(tx, identity, result)
            _insert_validation(tx, identity, number, "arrival", verdict, path, digest, now)
            after = AssignmentState.ACCEPTED if verdict.ok else AssignmentState.RETURNED_TO_READER
            move_assignment(tx, work["assignment_id"], after)
    refused = {v.assignment_id: [f.rule for f in v.hard] for v in by_assignment.values() if not v.ok}
    return ArriveRef(valid=len(items) - len(refused), refused=refused)


@task(name="validate", cache_policy=NO_CACHE, persist_result=False)
def validate(project_dir: str, number: int, token: int) -> ValidateRef:
    """Judge all annotations of the round together. One that was valid and no longer is was altered: IntegrityError."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "validate")
    cohort = Cohort(project)
    annotations = [
        row
        for row in project.ledger.rows("annotation", state="valid")
        if cohort.assignments[row["assignment_id"]]["round"] == number
    ]
    rules = sha256_json(
        [
            [s.model_dump(mode="json") for s in project.config.structures],
            project.config.validate_.model_dump(mode="json"),
        ]
    )
    inputs = ValidateInputs(
        annotations=tuple(sorted((row["annotation_id"], row["sha256"]) for row in annotations)), rules=rules
    )

    def body() -> Done:
        minutes: dict[str, float] = {}
        for row in project.ledger.rows("time_entry"):
            minutes[row["annotation_id"]] = minutes.get(row["annotation_id"], 0.0) + row["active_minutes"]
        drafts = {row["draft_id"]: row["path"] for row in project.ledger.rows("draft")}
        with ctx.timings.part("core"):
            rows = []
            for row in annotations:
                image = project.root / cohort.exams[row["exam_id"]]["image_path"]
                draft = project.root / drafts[row["draft_id"]] if row["draft_id"] else None
                item = ReturnedLabel(
                    row["annotation_id"], row["exam_id"], row["reader_id"], project.root / row["path"], image, draft,
                    row["verdict"], minutes.get(row["annotation_id"], 0.0),
                )  # fmt: skip
                rows.append(measure(item, project.config.structures))
            verdicts, outcome = validate_rows(rows, project.config.structures, project.config.validate_)
        broken = [v for v in verdicts if not v.ok]
        if broken:
            raise IntegrityError(
                f"Annotation {broken[0].assignment_id} was valid when it arrived and is not now "
                f"({broken[0].hard[0].rule}).",
                "Run `redraft audit verify`; restore the file with `dvc checkout`.",
            )
        path, digest = _keep(project, number, "close", outcome)

        def record(tx: Tx) -> None:
            now = ctx.clock()
            for verdict in verdicts:
                if tx.one("validation", validation_id=_validation_id(verdict.assignment_id, number, "close")) is None:
                    _insert_validation(tx, verdict.assignment_id, number, "close", verdict, path, digest, now)

        flagged = {v.assignment_id: [f.rule for f in v.soft] for v in verdicts if v.soft}
        ref = ValidateRef(annotations=len(rows), flagged=flagged, result=path, result_sha256=digest)
        return Done(ref, record)

    return run_step(ctx, "validate", inputs, ValidateRef, body)


def _keep(project: Project, number: int, stage: str, outcome: dict[str, Any]) -> tuple[str, str]:
    """Keep Great Expectations' result as JSON under its own digest; returns path and SHA-256."""
    content = (json.dumps(outcome, indent=1, sort_keys=True) + "\n").encode()
    digest = sha256_bytes(content)
    path: Path = project.round_dir(number) / f"validation-{stage}-{digest[:12]}.json"
    write_bytes(path, content)
    return path.relative_to(project.root).as_posix(), digest


def _insert_times(tx: Tx, identity: str, result: dict[str, Any]) -> None:
    tx.insert_many(
        "time_entry",
        [
            {
                "time_entry_id": sha256_json([identity, name])[:24],
                "annotation_id": identity,
                "structure": None if name == "exam" else name,
                "active_minutes": float(minutes["active"]),
                "idle_minutes": float(minutes["idle"]),
                "away_minutes": float(minutes["away"]),
                "origin": result["origin"],
                "simulated": result["simulated"],
            }
            for name, minutes in sorted(result["minutes"].items())
        ],
    )


def _validation_id(identity: str, number: int, stage: str) -> str:
    return sha256_json([identity, number, stage])[:24]


def _insert_validation(
    tx: Tx, identity: str, number: int, stage: str, verdict: Verdict, path: str, digest: str, now: Any
) -> None:
    def plain(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
        return [{"rule": f.rule, "measured": f.measured, "message": f.message} for f in findings]

    tx.insert(
        "validation",
        {
            "validation_id": _validation_id(identity, number, stage),
            "annotation_id": identity,
            "round": number,
            "stage": stage,
            "ok": verdict.ok,
            "hard": plain(verdict.hard),
            "soft": plain(verdict.soft),
            "result_path": path,
            "result_sha256": digest,
            "at": now,
        },
    )
