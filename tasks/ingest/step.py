"""ingest as a step: sources of project.yaml → exams, receipts, splits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.cohort import Cohort
from redraft.digest import sha256_json
from redraft.errors import StateError
from redraft.project import Project
from redraft.splits import POOL, TEST, UNDRAWN, VALIDATION, draw_splits
from redraft.steps import Context, Contract, Done, run_step
from tasks.ingest.intake import Intake, Known
from tasks.ingest.receipts import Receipt

# Receipts are committed in batches: a killed intake keeps what it has, and the next one goes on behind it.
BATCH = 25


class IngestInputs(Contract):
    """What decides an intake."""

    rules: str
    key_fingerprint: str


class IngestRef(Contract):
    """The exams that are in now."""

    exams: int
    subjects: int
    exams_sha256: str
    splits_sha256: str


@task(name="ingest", cache_policy=NO_CACHE, persist_result=False)
def ingest(project_dir: str, number: int, token: int) -> IngestRef:
    """Take in the project's sources and draw splits for new subjects."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "ingest")
    config = project.config
    rules = sha256_json(
        [config.ingest.model_dump(mode="json", exclude={"sources"}), config.splits.model_dump(mode="json")]
    )
    inputs = IngestInputs(rules=rules, key_fingerprint=project.checked_keys.fingerprint)

    def body() -> Done:
        with ctx.timings.part("core"):
            take_in(project, [project.resolve(path) for path in config.ingest.sources], ctx.clock(), "ingest")
        cohort = Cohort(project)
        if UNDRAWN in cohort.split.values() or not cohort.exams_in(POOL):
            raise StateError(
                f"{len(cohort.split)} subjects are in: too few for a round.",
                f"Validation and test sets need {config.splits.min_validation} and {config.splits.min_test} subjects, "
                "the pool at least one. Ingest more exams (`redraft ingest PATH`).",
                code="state.too_few_subjects",
            )
        exams = sorted([row["exam_id"], row["image_sha256"]] for row in cohort.exams.values())
        return Done(
            IngestRef(
                exams=len(exams),
                subjects=len(cohort.split),
                exams_sha256=sha256_json(exams),
                splits_sha256=sha256_json(sorted(cohort.split.items())),
            )
        )

    return run_step(ctx, "ingest", inputs, IngestRef, body, always=True)


def take_in(project: Project, paths: Sequence[Path], now: datetime, actor: str) -> list[Receipt]:
    """Take in everything below `paths`, record it, and draw splits for subjects that have none.

    Splits are drawn once all exams are in, over all undrawn subjects together: the draw does not depend on where an
    earlier intake was interrupted.
    """
    ledger = project.ledger
    intake = Intake(
        project.config.ingest,
        project.config.structures,
        project.config.splits.external,
        project.pseudonyms,
        {row["series_id"]: Known(row["exam_id"], row["header_digest"]) for row in ledger.rows("exam")},
        project.data,
        project.vault,
    )
    receipts: list[Receipt] = []
    batch: list[Receipt] = []
    try:
        for receipt in intake.run(paths):
            receipts.append(receipt)
            batch.append(receipt)
            if len(batch) >= BATCH:
                _record(project, batch, now, actor)
                batch = []
    finally:
        _record(project, batch, now, actor)
    _draw(project, now, actor)
    return receipts


def _record(project: Project, batch: Sequence[Receipt], now: datetime, actor: str) -> None:
    fresh = [receipt for receipt in batch if receipt.verdict != "duplicate"]
    if not fresh:
        return
    with project.ledger.tx(actor, now) as tx:
        for receipt in fresh:
            exam = receipt.exam
            if exam is not None:
                if tx.one("subject", subject_id=exam.subject_id) is None:
                    split = exam.external or UNDRAWN
                    drawn = now if exam.external else None
                    row = {"subject_id": exam.subject_id, "split": split, "stratum": exam.modality, "drawn_at": drawn}
                    tx.insert("subject", row)
                columns = {k: v for k, v in vars(exam).items() if k != "external"}
                tx.insert("exam", {**columns, "admitted_at": now})
            identity = receipt.receipt_id("")
            if tx.one("receipt", receipt_id=identity) is None:  # the same refusal again is nothing new
                record = receipt.record()
                tx.insert(
                    "receipt",
                    {
                        "receipt_id": identity,
                        "intake_id": actor,
                        "series_id": record["series"],
                        "exam_id": record["exam_id"],
                        "verdict": record["verdict"],
                        "rule": record["rule"],
                        "measured": record["measured"],
                        "files": record["files"],
                        "at": now,
                    },
                )


def _draw(project: Project, now: datetime, actor: str) -> None:
    rows = project.ledger.rows("subject")
    inner = [row for row in rows if row["split"] in (POOL, VALIDATION, TEST, UNDRAWN)]
    drawn = {row["subject_id"]: row["split"] for row in inner if row["split"] != UNDRAWN}
    if len(drawn) == len(inner):
        return
    try:
        new = draw_splits(
            {row["subject_id"]: row["stratum"] for row in inner}, drawn, project.config.splits, project.config.seed
        )
    except StateError as error:
        if error.code != "state.too_few_subjects":
            raise
        return  # they wait, undrawn, until enough subjects are in; a round cannot open before
    with project.ledger.tx(actor, now) as tx:
        for subject, split in sorted(new.items()):
            tx.update("subject", {"subject_id": subject}, {"split": split, "drawn_at": now})
