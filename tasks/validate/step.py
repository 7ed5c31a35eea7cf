"""validate as a step: judged on arrival (and stored or refused), and once more, all together, when the round closes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from redraft import second_reads
from redraft.cohort import COUNTED, Cohort
from redraft.digest import sha256_bytes, sha256_file, sha256_json
from redraft.errors import IntegrityError, ReadError
from redraft.files import write_bytes
from redraft.ledger import AssignmentState, Tx, move_assignment
from redraft.project import Project
from redraft.reasons import BY_CODE
from redraft.reviews import Why, in_sample, open_review
from redraft.steps import Context, Contract, Done, run_step
from redraft.volumes import read_volume
from redraft.worktime.entries import counted
from tasks.validate.annotations import annotation_id, store
from tasks.validate.expectations import Finding, Verdict, validate_rows
from tasks.validate.flags import is_unchanged_accept, mark, streaks
from tasks.validate.noticed import corrected_share, outcome
from tasks.validate.records import annotation_row, plain, time_rows, validation_id, validation_row
from tasks.validate.table import ReturnedLabel, measure

# Work in these states may come in; anything else that lies in a package was taken in before.
EXPECTED = (AssignmentState.DISPATCHED, AssignmentState.RETURNED_TO_READER, AssignmentState.CARRIED_OVER)

REWORKED = Finding("reworked", None, "A reviewer had returned it; this is what the reader made of it.")


class ValidateInputs(Contract):
    """Annotations to judge at closing, the consensus rows, and the rules."""

    annotations: tuple[tuple[str, str], ...]  # annotation_id, sha256
    consensus: tuple[tuple[str, str], ...] = ()  # consensus_id, sha256
    rules: str


class ArriveRef(Contract):
    """What was taken in."""

    valid: int
    refused: dict[str, list[str]]  # assignment_id to rules
    unreadable: dict[str, str] = Field(default_factory=dict)  # what collect could not read: assignment_id to rule
    in_review: int = 0  # of the valid ones
    rejected: int = 0  # sent back by readers without a segmentation
    consensus: int = 0  # exams whose readings were put together


class ValidateRef(Contract):
    """Outcome at closing."""

    annotations: int
    flagged: dict[str, list[str]]  # annotation_id to soft rules
    result: str
    result_sha256: str
    to_adjudicate: int = 0


@task(name="arrive", cache_policy=NO_CACHE, persist_result=False)
def arrive(project_dir: str, number: int, token: int, collected: dict[str, Any]) -> ArriveRef:
    """Judge what came back. Valid labels are stored; refused ones stay in their package until they are sent back.

    Then the readings that are complete are put together. Stopped at any point and called again, nothing is taken twice.
    """
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "validate")
    cohort = Cohort(project)
    items = [i for i in collected["items"] if cohort.assignments[i["assignment_id"]]["state"] in EXPECTED]
    with _held(project, items) as held:
        ref = _take_in(ctx, cohort, held) if held else ArriveRef(valid=0, refused={})
    return ref.model_copy(update={"consensus": put_together(ctx, closing=False)})


@contextmanager
def _held(project: Project, items: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The items with labels of our own that nobody can save over: what is judged is what is stored.

    A label that is no longer what was collected (its reader saved it again) is left out: the next collecting has it.
    """
    with TemporaryDirectory(dir=project.state, prefix="arriving-") as made:
        found = []
        for item in items:
            if item["label"] is None:
                found.append(item)
                continue
            source = project.root / item["label"]
            copy = Path(made) / item["assignment_id"] / source.name
            copy.parent.mkdir()
            try:
                shutil.copyfile(source, copy)
            except FileNotFoundError:
                continue
            if sha256_file(copy) == item["label_sha256"]:
                found.append({**item, "label": str(copy)})
        yield found


def _take_in(ctx: Context, cohort: Cohort, items: list[dict[str, Any]]) -> ArriveRef:
    project, number = ctx.project, ctx.number
    labels = [item for item in items if item["label"] is not None]
    rows, verdicts = _judged(ctx, cohort, labels)
    path, digest = _keep(project, number, "arrival", verdicts[1])
    notes = {item["assignment_id"]: [] for item in items}  # type: dict[str, list[dict[str, Any]]]
    returned = {row["annotation_id"] for row in project.ledger.rows("review", state="returned")}
    for row in project.ledger.rows("annotation"):
        if row["assignment_id"] in notes:
            notes[row["assignment_id"]].append(row)
    plans = []
    for item in items:
        work, verdict = cohort.assignments[item["assignment_id"]], verdicts[0].get(item["assignment_id"])
        revision = len(notes[item["assignment_id"]]) + 1
        identity = annotation_id(item["assignment_id"], revision, item["label_sha256"] or "")
        file, sha256 = item["label"] or "", item["label_sha256"] or ""
        if verdict is not None and verdict.ok:
            image = project.root / cohort.exams[work["exam_id"]]["image_path"]
            facts = _facts(work, item["result"], revision)
            file, sha256 = store(project.root, work["exam_id"], identity, project.root / item["label"], image, facts)
        reworked = any(row["annotation_id"] in returned for row in notes[item["assignment_id"]])
        plans.append((item, work, verdict, identity, revision, file, sha256, reworked))
    seeded = _seeded(project, cohort, [(p[0], p[1], p[2]) for p in plans])
    ctx.check_lease()
    now = ctx.clock()
    in_review = 0
    with ctx.ledger.tx(ctx.actor, now) as tx:
        for item, work, verdict, identity, revision, file, sha256, reworked in plans:
            result, assignment = item["result"], work["assignment_id"]
            move_assignment(tx, assignment, AssignmentState.RETURNED)
            state = "rejected" if verdict is None else ("valid" if verdict.ok else "invalid")
            changed = rows.get(assignment, {}).get("voxels_changed")
            tx.insert("annotation", annotation_row(identity, work, result, revision, file, sha256, changed, state, now))
            tx.insert_many("time_entry", time_rows(identity, result))
            if verdict is not None:
                tx.insert("validation", validation_row(identity, number, "arrival", verdict, path, digest, now))
            if assignment in seeded:
                tx.update("seeded_error", {"assignment_id": assignment}, seeded[assignment])
            if verdict is None:
                _reject(tx, work, result, identity, number, now)
                continue
            if not verdict.ok:
                move_assignment(tx, assignment, AssignmentState.RETURNED_TO_READER)
                continue
            look = _second_look(project, work, verdict, reworked)
            if look is None:
                move_assignment(tx, assignment, AssignmentState.ACCEPTED)
            else:
                move_assignment(tx, assignment, AssignmentState.IN_REVIEW)
                open_review(tx, identity, number, *look, now)
                in_review += 1
    refused = {v.assignment_id: [f.rule for f in v.hard] for v in verdicts[0].values() if not v.ok}
    return ArriveRef(
        valid=len(labels) - len(refused), refused=refused, in_review=in_review, rejected=len(items) - len(labels)
    )


def _judged(
    ctx: Context, cohort: Cohort, labels: list[dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], tuple[dict[str, Verdict], dict[str, Any]]]:
    """Measured rows by assignment; verdicts by assignment with the kept result."""
    project = ctx.project
    drafts = {row["draft_id"]: row for row in project.ledger.rows("draft")}
    rows, verdicts = [], {}
    for item in labels:
        work = cohort.assignments[item["assignment_id"]]
        exam = cohort.exams[work["exam_id"]]
        shown = drafts[work["draft_id"]] if work["mode"] == "assisted" else None
        times = item["result"]["minutes"]
        returned = ReturnedLabel(
            item["assignment_id"], work["exam_id"], work["reader_id"], project.root / item["label"],
            project.root / exam["image_path"], project.root / shown["path"] if shown else None,
            item["result"]["verdict"], sum(m["active"] for m in times.values()) if times else None,
            item["result"]["origin"],
        )  # fmt: skip
        try:
            rows.append(measure(returned, project.config.structures))
        except ReadError as error:
            finding = Finding(error.rule, error.measured, "The label cannot be read.")
            verdicts[item["assignment_id"]] = Verdict(item["assignment_id"], (finding,), ())
    of_training = [row for row in rows if cohort.assignments[row["assignment_id"]]["purpose"] == "training"]
    mark(of_training, _streaks(ctx, cohort, of_training))
    found, result = validate_rows(rows, project.config.structures, project.config.validate_)
    return {row["assignment_id"]: row for row in rows}, ({v.assignment_id: v for v in found} | verdicts, result)


def _streaks(ctx: Context, cohort: Cohort, arriving: list[dict[str, Any]]) -> dict[str, float]:
    """Chances of the round's unchanged accepts by reader, with the work that is just arriving."""
    latest: dict[str, tuple[str, bool]] = {}
    for row in sorted(ctx.ledger.rows("annotation", state="valid"), key=lambda r: r["revision"]):
        work = cohort.assignments[row["assignment_id"]]
        if (work["round"], work["purpose"], work["mode"]) == (ctx.number, "training", "assisted"):
            unchanged = is_unchanged_accept(row["verdict"], row["voxels_changed"])
            latest[row["assignment_id"]] = (row["reader_id"], unchanged)
    for row in arriving:
        work = cohort.assignments.get(row["assignment_id"], {})
        if work.get("mode") == "assisted":
            unchanged = is_unchanged_accept(row["verdict"], row["voxels_changed"])
            latest[row["assignment_id"]] = (row["reader_id"], unchanged)
    return streaks(latest.values())


def _second_look(
    project: Project, work: dict[str, Any], verdict: Verdict, reworked: bool
) -> tuple[Why, list[dict[str, Any]]] | None:
    """Why a reviewer looks at valid work, and the flags; None when nobody needs to."""
    rules = plain(verdict.soft)
    if work["purpose"] not in COUNTED:
        return None
    if reworked:
        return "soft", plain((REWORKED, *verdict.soft))
    config = project.config.validate_
    if rules and config.review_flagged:
        return "soft", rules
    if in_sample(project.config.seed, work["assignment_id"], config.review_share):
        return "sample", rules
    return None


def _reject(tx: Tx, work: dict[str, Any], result: dict[str, Any], identity: str, number: int, now: datetime) -> None:
    """A reader sent an exam back without a segmentation. A seeded error's exam is not judged by what was done to it."""
    move_assignment(tx, work["assignment_id"], AssignmentState.REJECTED)
    if work["purpose"] not in COUNTED:
        return
    reason = BY_CODE.get(result["reason_code"])
    tx.insert(
        "rejection",
        {
            "rejection_id": sha256_json([identity, "rejection"])[:24],
            "assignment_id": work["assignment_id"],
            "exam_id": work["exam_id"],
            "reader_id": work["reader_id"],
            "round": number,
            "reason_code": result["reason_code"] or "none",
            # A reason that this version does not know gives the exam out again: that loses nothing.
            "consequence": (reason.consequence if reason else None) or "redo",
            "at": now,
        },
    )


def _seeded(
    project: Project, cohort: Cohort, plans: list[tuple[dict[str, Any], dict[str, Any], Verdict | None]]
) -> dict[str, dict[str, Any]]:
    """What readers made of drafts that were wrong on purpose, by assignment; nothing while work goes back to them."""
    errors = {row["assignment_id"]: row for row in project.ledger.rows("seeded_error")}
    found = {}
    for item, work, verdict in plans:
        error = errors.get(work["assignment_id"])
        if error is None or (verdict is not None and not verdict.ok):
            continue
        corrected = None
        if item["label"] is not None:
            draft = project.ledger.one("draft", draft_id=work["draft_id"])
            if draft is None:
                raise IntegrityError(f"Assignment {work['assignment_id']}: its seeded draft is not on record.")
            returned = np.rint(read_volume(project.root / item["label"]).array).astype(np.uint8)
            wrong = second_reads.reading_array(project, draft)
            corrected = corrected_share(wrong, _truth(project, error), returned)
        judged = outcome(corrected, item["result"]["verdict"], project.config.dispatch.seeded_errors.noticed_from)
        found[work["assignment_id"]] = {"corrected": corrected, "outcome": judged}
    return found


def _truth(project: Project, error: dict[str, Any]) -> NDArray[np.uint8]:
    identity = error["truth_annotation_id"]
    for table in ("annotation", "consensus"):
        row = project.ledger.one(table, **{f"{table}_id": identity})
        if row is not None:
            return second_reads.reading_array(project, row)
    raise IntegrityError(f"Assignment {error['assignment_id']}: the truth of its seeded error is not on record.")


def put_together(ctx: Context, *, closing: bool) -> int:
    """Form the consensus of every exam whose readings are complete; returns how many. Once each, whenever called."""
    project, cohort = ctx.project, Cohort(ctx.project)
    exams = second_reads.due(cohort, project.config.dispatch.completion.readings, closing=closing)
    for exam_id in exams:
        formed = second_reads.form(project, cohort, exam_id, ctx.number, ctx.clock())
        ctx.check_lease()
        with ctx.ledger.tx(ctx.actor, ctx.clock()) as tx:
            second_reads.record(tx, formed)
    return len(exams)


@task(name="validate", cache_policy=NO_CACHE, persist_result=False)
def validate(project_dir: str, number: int, token: int) -> ValidateRef:
    """Judge all annotations of the round together. One that was valid and no longer is was altered: IntegrityError.

    Annotations of earlier rounds that were accepted after their round had closed are judged with them.
    """
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "validate")
    put_together(ctx, closing=True)
    cohort = Cohort(project)
    closed = {row["annotation_id"] for row in project.ledger.rows("validation", stage="close") if row["round"] < number}
    annotations = [
        row
        for row in project.ledger.rows("annotation", state="valid")
        if cohort.assignments[row["assignment_id"]]["round"] == number or row["annotation_id"] not in closed
    ]
    together = [row for row in project.ledger.rows("consensus") if row["state"] != "superseded"]
    rules = sha256_json(
        [
            [s.model_dump(mode="json") for s in project.config.structures],
            project.config.validate_.model_dump(mode="json"),
        ]
    )
    inputs = ValidateInputs(
        annotations=tuple(sorted((row["annotation_id"], row["sha256"]) for row in annotations)),
        consensus=tuple(sorted((row["consensus_id"], row["sha256"]) for row in together)),
        rules=rules,
    )

    def body() -> Done:
        minutes: dict[str, float] = {}
        for row in counted(project.ledger):
            minutes[row["annotation_id"]] = minutes.get(row["annotation_id"], 0.0) + row["active_minutes"]
        drafts = {row["draft_id"]: row["path"] for row in project.ledger.rows("draft")}
        with ctx.timings.part("core"):
            rows = []
            for row in annotations:
                image = project.root / cohort.exams[row["exam_id"]]["image_path"]
                draft = project.root / drafts[row["draft_id"]] if row["draft_id"] else None
                item = ReturnedLabel(
                    row["annotation_id"], row["exam_id"], row["reader_id"], project.root / row["path"], image, draft,
                    row["verdict"], minutes.get(row["annotation_id"]), row["origin"],
                )  # fmt: skip
                rows.append(measure(item, project.config.structures))
            purpose = {r["annotation_id"]: cohort.assignments[r["assignment_id"]]["purpose"] for r in annotations}
            mark((r for r in rows if purpose[r["assignment_id"]] == "training"), _streaks(ctx, cohort, []))
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
                identity = verdict.assignment_id
                if tx.one("validation", validation_id=validation_id(identity, number, "close")) is None:
                    tx.insert("validation", validation_row(identity, number, "close", verdict, path, digest, now))

        flagged = {v.assignment_id: [f.rule for f in v.soft] for v in verdicts if v.soft}
        ref = ValidateRef(
            annotations=len(rows), flagged=flagged, result=path, result_sha256=digest,
            to_adjudicate=sum(row["state"] == "to_adjudicate" for row in together),
        )  # fmt: skip
        return Done(ref, record)

    return run_step(ctx, "validate", inputs, ValidateRef, body)


def _keep(project: Project, number: int, stage: str, outcome: dict[str, Any]) -> tuple[str, str]:
    """Keep Great Expectations' result as JSON under its own digest; returns path and SHA-256."""
    content = (json.dumps(outcome, indent=1, sort_keys=True) + "\n").encode()
    digest = sha256_bytes(content)
    path: Path = project.round_dir(number) / f"validation-{stage}-{digest[:12]}.json"
    write_bytes(path, content)
    return path.relative_to(project.root).as_posix(), digest


def _facts(work: dict[str, Any], result: dict[str, Any], revision: int) -> dict[str, Any]:
    """What stands beside a stored label."""
    return {
        "assignment_id": work["assignment_id"],
        "reader_id": work["reader_id"],
        "revision": revision,
        "mode": work["mode"],
        "purpose": work["purpose"],
        "verdict": result["verdict"],
        "origin": result["origin"],
        "simulated": result["simulated"],
    }
