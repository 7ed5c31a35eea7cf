"""What waits for reviewers: second looks, and exams whose readers disagree. Narrow queries, no readers' names."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from redraft.ledger import Ledger
from redraft.ledger.tables import metadata

# Work on which the reader may still draw, or that may come back to be drawn on.
UNFINISHED = ("DISPATCHED", "RETURNED", "IN_REVIEW", "RETURNED_TO_READER", "CARRIED_OVER")


def being_read(ledger: Ledger, reader_id: str | None) -> set[str]:
    """Exams that a reader is not done with: whoever reads one is shown nobody else's reading of it."""
    if reader_id is None:
        return set()
    assignment = metadata.tables["assignment"]
    query = select(assignment.c.exam_id).where(
        assignment.c.reader_id == reader_id, assignment.c.state.in_(UNFINISHED)
    )  # fmt: skip
    with ledger.engine.connect() as connection:
        return set(connection.scalars(query))


def review_queue(ledger: Ledger, reader_id: str | None) -> list[dict[str, Any]]:
    """Open reviews, oldest first, without those of the reviewer's own readings and of exams they still read."""
    review, annotation, exam = (metadata.tables[name] for name in ("review", "annotation", "exam"))
    query = (
        select(
            review.c.review_id, review.c.round, review.c.why, review.c.rules, review.c.opened_at,
            annotation.c.exam_id, annotation.c.reader_id, exam.c.modality,
        )
        .join(annotation, annotation.c.annotation_id == review.c.annotation_id)
        .join(exam, exam.c.exam_id == annotation.c.exam_id)
        .where(review.c.state == "open")
        .order_by(review.c.opened_at, review.c.review_id)
    )  # fmt: skip
    with ledger.engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    reads = being_read(ledger, reader_id)
    return [
        _nameless(row)
        for row in rows
        if (reader_id is None or row["reader_id"] != reader_id) and row["exam_id"] not in reads
    ]


def adjudication_queue(ledger: Ledger, reader_id: str | None) -> list[dict[str, Any]]:
    """Exams that wait for a person because their readers disagree, oldest first, without those that the reviewer read
    or still reads."""
    consensus, annotation, exam = (metadata.tables[name] for name in ("consensus", "annotation", "exam"))
    query = (
        select(consensus, exam.c.modality)
        .join(exam, exam.c.exam_id == consensus.c.exam_id)
        .where(consensus.c.state == "to_adjudicate")
        .order_by(consensus.c.at, consensus.c.consensus_id)
    )
    with ledger.engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
        read = select(annotation.c.annotation_id).where(annotation.c.reader_id == reader_id)
        own = set(connection.scalars(read)) if rows and reader_id is not None else set()
    reads = being_read(ledger, reader_id) if rows else set()
    return [
        {
            **{key: row[key] for key in ("consensus_id", "exam_id", "round", "purpose", "modality", "at")},
            "readings": len(row["annotations"]),
            "worst": _worst(row["agreement"]["structures"]),
        }
        for row in rows
        if not own & set(row["annotations"]) and row["exam_id"] not in reads
    ]


def _worst(agreement: dict[str, Any]) -> dict[str, Any] | None:
    """The structure on which readings are farthest apart; None where no Dice is defined."""
    found = [(values["dice"], name) for name, values in agreement.items() if values.get("dice") is not None]
    return {"structure": min(found)[1], "dice": min(found)[0]} if found else None


def _nameless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "reader_id"}
