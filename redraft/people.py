"""A reader's own page: what their work looked like. Private to the reader; nobody else is named or ranked on it."""

from __future__ import annotations

from statistics import median
from typing import Any

from sqlalchemy import or_, select

from redraft.ledger import Ledger
from redraft.ledger.tables import metadata
from redraft.worktime.entries import replaced

# Flags in words that are fair: what was seen, and what it may mean.
FAIR = {
    "very_fast": "Finished very quickly. This may be right for an easy exam; reviewers look at such work twice.",
    "fast_accept": "The draft was accepted within seconds and unchanged. It may have been right; it is easy to trust "
    "a draft too much, so reviewers look at such work twice.",
    "accept_streak": "You accept drafts as they are more often than others do. They may be good ones; now and "
    "then, look as if there were none.",
    "unchanged_correction": "It was handed in as a correction and equals the draft. Perhaps a change was not saved.",
    "mostly_redrawn": "So much was changed that rejecting the draft would say it better.",
    "structure_removed": "A structure of the draft is gone altogether. That may be right.",
    "components": "A structure has more separate pieces than expected. Stray voxels are the usual reason.",
    "volume": "A structure's volume lies outside of what is usual.",
}


def reader_page(ledger: Ledger, reader_id: str) -> dict[str, Any]:
    """Minutes, verdicts, agreement and flags of one reader.

    Returns
    -------
    dict
        `minutes`: per structure, mode and origin the number of exams and their median active minutes (origins are
        never pooled); `verdicts`: counts on assisted exams; `agreement`: Dice and surface Dice with another reader,
        oldest first; `flags`: own soft flags, latest first; `seeded`: known-wrong drafts met and noticed in closed
        rounds.
    """
    return {
        "reader_id": reader_id,
        "minutes": _minutes(ledger, reader_id),
        "verdicts": _verdicts(ledger, reader_id),
        "agreement": _agreement(ledger, reader_id),
        "flags": _flags(ledger, reader_id),
        "seeded": _seeded(ledger, reader_id),
    }


def _minutes(ledger: Ledger, reader_id: str) -> list[dict[str, Any]]:
    annotation, entry, assignment = (metadata.tables[name] for name in ("annotation", "time_entry", "assignment"))
    query = (
        select(
            entry.c.structure, entry.c.active_minutes, entry.c.idle_minutes, entry.c.away_minutes, entry.c.origin,
            assignment.c.mode, annotation.c.assignment_id,
        )
        .join(annotation, annotation.c.annotation_id == entry.c.annotation_id)
        .join(assignment, assignment.c.assignment_id == annotation.c.assignment_id)
        .where(annotation.c.reader_id == reader_id, entry.c.time_entry_id.not_in(replaced(ledger)))
    )  # fmt: skip
    # Revisions of one assignment are one exam's time.
    sums: dict[tuple[str, str, str], dict[str, float]] = {}
    with ledger.engine.connect() as connection:
        for row in connection.execute(query):
            key = (row.structure or "", row.mode, row.origin)
            exams = sums.setdefault(key, {})
            exams[row.assignment_id] = exams.get(row.assignment_id, 0.0) + row.active_minutes
    return [
        {
            "structure": structure or None,
            "mode": mode,
            "origin": origin,
            "n": len(exams),
            "median": round(median(exams.values()), 2),
            "total": round(sum(exams.values()), 2),
        }
        for (structure, mode, origin), exams in sorted(sums.items())
    ]


def _verdicts(ledger: Ledger, reader_id: str) -> dict[str, int]:
    annotation, assignment = metadata.tables["annotation"], metadata.tables["assignment"]
    query = (
        select(annotation.c.assignment_id, annotation.c.verdict)
        .join(assignment, assignment.c.assignment_id == annotation.c.assignment_id)
        .where(annotation.c.reader_id == reader_id, assignment.c.mode == "assisted")
        .order_by(annotation.c.revision)
    )
    with ledger.engine.connect() as connection:
        latest = {row.assignment_id: row.verdict for row in connection.execute(query)}
    found = list(latest.values())
    return {verdict: found.count(verdict) for verdict in ("accept", "correct", "reject")}


def _agreement(ledger: Ledger, reader_id: str) -> list[dict[str, Any]]:
    agreement, annotation = metadata.tables["agreement"], metadata.tables["annotation"]
    own = select(annotation.c.annotation_id).where(annotation.c.reader_id == reader_id)
    query = (
        select(agreement.c.structure, agreement.c.dice, agreement.c.surface_dice, agreement.c.at, agreement.c.round)
        .where(or_(agreement.c.first_id.in_(own), agreement.c.second_id.in_(own)))
        .order_by(agreement.c.at, agreement.c.structure)
    )
    with ledger.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def _flags(ledger: Ledger, reader_id: str, most: int = 20) -> list[dict[str, Any]]:
    annotation, validation = metadata.tables["annotation"], metadata.tables["validation"]
    query = (
        select(annotation.c.exam_id, annotation.c.annotation_id, validation.c.soft, validation.c.at)
        .join(annotation, annotation.c.annotation_id == validation.c.annotation_id)
        .where(annotation.c.reader_id == reader_id)
        .order_by(validation.c.at.desc())
    )
    flags: dict[tuple[str, str], dict[str, Any]] = {}
    with ledger.engine.connect() as connection:
        for row in connection.execute(query):
            for item in row.soft:
                key = (row.annotation_id, str(item["rule"]))  # judged again at close: still one flag
                words = {"words": FAIR.get(item["rule"]), "message": item["message"]}
                flags[key] = {"exam_id": row.exam_id, "rule": item["rule"], "at": row.at, **words}
    return sorted(flags.values(), key=lambda flag: flag["at"], reverse=True)[:most]


def _seeded(ledger: Ledger, reader_id: str) -> dict[str, int]:
    """Of closed rounds: while one goes on, the count after each hand-in would tell which draft it was, and that those
    to come are right."""
    seeded, assignment, round_ = (metadata.tables[name] for name in ("seeded_error", "assignment", "round"))
    query = (
        select(seeded.c.outcome)
        .join(assignment, assignment.c.assignment_id == seeded.c.assignment_id)
        .join(round_, round_.c.number == seeded.c.round)
        .where(assignment.c.reader_id == reader_id, seeded.c.outcome != "pending", round_.c.closed_at.is_not(None))
    )
    with ledger.engine.connect() as connection:
        outcomes = [row.outcome for row in connection.execute(query)]
    return {"n": len(outcomes), "noticed": outcomes.count("detected")}
