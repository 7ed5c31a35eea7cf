"""What waits for one reader, in the order in which to do it, and what this round has had from them already.

Reads the ledger and the desk by narrow queries: a reader opens this page many times a day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, select

from redraft.desk.offers import open_offers
from redraft.desk.store import Desk, autosave
from redraft.ledger import Ledger
from redraft.ledger.tables import metadata
from redraft.project import Project
from redraft.reviews import RETURN_REASONS
from redraft.work_leases import view
from redraft.worktime.entries import replaced

# What was left over when a round closed can be finished before the next one hands it out again.
WAITING = ("DISPATCHED", "RETURNED_TO_READER", "CARRIED_OVER")
DONE = ("RETURNED", "IN_REVIEW", "ACCEPTED", "REJECTED")

Minutes = Callable[[Sequence[str]], Mapping[str, float]]


def waiting_work(project: Project, desk: Desk, reader_id: str, minutes: Minutes, now: datetime) -> list[dict[str, Any]]:
    """Open assignments of a reader: returned work first, then by deadline.

    Parameters
    ----------
    minutes : active minutes so far by assignment id; what is not in it counts as 0

    Drafts that are wrong on purpose must not be told from others here: their purpose reads `training`.
    """
    rows = _assignments(project.ledger, reader_id, WAITING)
    if not rows:
        return []
    ids = [row["assignment_id"] for row in rows]
    leases = _leases(project.ledger, ids)
    saved = _last_saves(desk, ids)
    offers = open_offers(desk, ids)
    reasons = return_reasons(project.ledger, [r["assignment_id"] for r in rows if r["state"] == "RETURNED_TO_READER"])
    active = minutes(ids)
    rules = project.config.dispatch.lease
    items = []
    for row in rows:
        name = row["assignment_id"]
        lease = leases.get(name)
        items.append(
            {
                "assignment_id": name,
                "exam_id": row["exam_id"],
                "round": row["round"],
                "purpose": "training" if row["purpose"] == "quality" else row["purpose"],
                "mode": row["mode"],
                "modality": row["modality"],
                "backend": row["backend"],
                "structures": [structure.name for structure in project.config.structures],
                "due_at": row["due_at"],
                "expected_minutes": row["expected_minutes"],
                "state": row["state"],
                "opened": name in saved or active.get(name, 0.0) > 0,
                "autosaved_at": saved.get(name),
                "active_minutes": round(float(active.get(name, 0.0)), 2),
                "lease": None if lease is None else view(lease, rules, now),
                "returned": reasons.get(name) if row["state"] == "RETURNED_TO_READER" else None,
                "offers": name in offers,
            }
        )  # fmt: skip
    return sorted(items, key=lambda item: (item["returned"] is None, item["due_at"], item["assignment_id"]))


def finished_work(ledger: Ledger, reader_id: str, number: int) -> list[dict[str, Any]]:
    """What this reader finished in round `number`, latest first: exam, mode, verdict, when, minutes, state."""
    rows = _assignments(ledger, reader_id, DONE, number)
    annotation, entry = metadata.tables["annotation"], metadata.tables["time_entry"]
    ids = [row["assignment_id"] for row in rows]
    # One row per annotation: minutes of its structures together.
    query = (
        select(
            annotation.c.assignment_id, annotation.c.revision, annotation.c.verdict, annotation.c.received_at,
            annotation.c.origin, func.sum(entry.c.active_minutes).label("active_minutes"),
        )
        .outerjoin(
            entry,
            and_(
                entry.c.annotation_id == annotation.c.annotation_id,
                entry.c.time_entry_id.not_in(replaced(ledger)),
            ),
        )
        .where(annotation.c.assignment_id.in_(ids))
        .group_by(annotation.c.annotation_id)
        .order_by(annotation.c.revision)
    )  # fmt: skip
    latest: dict[str, Any] = {}
    with ledger.engine.connect() as connection:
        for found in connection.execute(query):
            latest[found.assignment_id] = found
    items = []
    for row in rows:
        last = latest.get(row["assignment_id"])
        items.append(
            {
                "assignment_id": row["assignment_id"],
                "exam_id": row["exam_id"],
                "purpose": "training" if row["purpose"] == "quality" else row["purpose"],
                "mode": row["mode"],
                "state": row["state"],
                "verdict": last.verdict if last else None,
                "received_at": last.received_at if last else None,
                "active_minutes": None if last is None or last.active_minutes is None else float(last.active_minutes),
                "origin": last.origin if last else None,
            }
        )
    return sorted(items, key=lambda item: item["received_at"] or "9", reverse=True)


def return_reasons(ledger: Ledger, assignments: Sequence[str]) -> dict[str, list[str]]:
    """Why work came back, by assignment: the broken rules' messages, or the reviewer's reason."""
    if not assignments:
        return {}
    tables = metadata.tables
    annotation, validation, review = tables["annotation"], tables["validation"], tables["review"]
    broken = (
        select(annotation.c.assignment_id, annotation.c.revision, validation.c.hard, validation.c.at)
        .join(validation, validation.c.annotation_id == annotation.c.annotation_id)
        .where(annotation.c.assignment_id.in_(assignments), validation.c.ok.is_(False))
    )
    returned = (
        select(annotation.c.assignment_id, annotation.c.revision, review.c.reason_code, review.c.remark_present)
        .join(review, review.c.annotation_id == annotation.c.annotation_id)
        .where(annotation.c.assignment_id.in_(assignments), review.c.state == "returned")
    )
    found: dict[str, tuple[int, list[str]]] = {}
    with ledger.engine.connect() as connection:
        for row in connection.execute(broken):
            reasons = [str(item["message"]) for item in row.hard]
            if row.revision >= found.get(row.assignment_id, (0, []))[0]:
                found[row.assignment_id] = (row.revision, reasons)
        for row in connection.execute(returned):
            words = _in_words(row.reason_code)
            if row.remark_present:
                words += " The reviewer left a remark: it stands beside the image."
            if row.revision >= found.get(row.assignment_id, (0, []))[0]:
                found[row.assignment_id] = (row.revision, [words])
    return {name: reasons for name, (_, reasons) in found.items()}


def _in_words(code: str | None) -> str:
    return RETURN_REASONS.get(code or "", "A reviewer sent it back.")


def _assignments(
    ledger: Ledger, reader_id: str, states: Sequence[str], number: int | None = None
) -> list[dict[str, Any]]:
    assignment, exam = metadata.tables["assignment"], metadata.tables["exam"]
    query = (
        select(assignment, exam.c.modality)
        .join(exam, exam.c.exam_id == assignment.c.exam_id)
        .where(assignment.c.reader_id == reader_id, assignment.c.state.in_(states))
    )
    if number is not None:
        query = query.where(assignment.c.round == number)
    with ledger.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def _leases(ledger: Ledger, assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    lease = metadata.tables["work_lease"]
    query = select(lease).where(lease.c.assignment_id.in_(assignments))
    with ledger.engine.connect() as connection:
        return {row.assignment_id: dict(row._mapping) for row in connection.execute(query)}


def _last_saves(desk: Desk, assignments: Sequence[str]) -> dict[str, str]:
    query = (
        select(autosave.c.assignment_id, func.max(autosave.c.at))
        .where(autosave.c.assignment_id.in_(assignments))
        .group_by(autosave.c.assignment_id)
    )
    with desk.read() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}
