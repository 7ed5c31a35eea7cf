"""Admitting exams: what an intake finds is recorded in the ledger, and new subjects are drawn into splits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from redraft.errors import StateError
from redraft.project import Project
from redraft.splits import POOL, TEST, UNDRAWN, VALIDATION, draw_splits
from tasks.ingest.intake import Intake, Known
from tasks.ingest.receipts import Receipt

# Receipts are committed in batches: a killed intake keeps what it has, and the next one goes on behind it.
BATCH = 25


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
