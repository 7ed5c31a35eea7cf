"""What whoever runs the rounds must see: work by reader, leases, escalations, failures. Narrow queries only."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from redraft.ledger import Ledger
from redraft.ledger.tables import metadata
from redraft.ledger.values import plain
from redraft.project import Project
from redraft.work_leases import openings

SOON = timedelta(hours=12)
OUT = ("DISPATCHED", "RETURNED_TO_READER")


def operations(project: Project, now: datetime) -> dict[str, Any]:
    """The live round, its work by reader, leases that end soon, exams that wait for a person, failures."""
    ledger = project.ledger
    live = live_round(ledger)
    number = live["number"] if live else None
    return {
        "project": project.config.name,
        "backend": project.config.dispatch.backend,
        "round": live,
        "readers": work_by_reader(ledger, number) if number is not None else [],
        "leases": leases_ending(ledger, now + SOON),
        "escalations": escalations(project, number) if number is not None else [],
        "sweep": {"every_minutes": project.config.web.sweep_minutes},
        "failures": failures(ledger, number) if number is not None else [],
    }


def live_round(ledger: Ledger) -> dict[str, Any] | None:
    """Number, state and times of the round that is not over; None between rounds."""
    table = metadata.tables["round"]
    columns = (table.c.number, table.c.state, table.c.failed_in, table.c.opened_at, table.c.due_at)
    query = select(*columns).where(table.c.state.not_in(("PROMOTED", "HELD", "ABORTED")))
    with ledger.engine.connect() as connection:
        row = connection.execute(query.order_by(table.c.number.desc()).limit(1)).first()
    return dict(row._mapping) if row else None


def names(ledger: Ledger) -> dict[str, str]:
    """Display name by reader id, for readers with an account."""
    account, identity = metadata.tables["account"], metadata.tables["reader_identity"]
    query = (
        select(account.c.reader_id, identity.c.display_name)
        .join(identity, identity.c.reader_id == account.c.account_id)
        .where(account.c.reader_id.is_not(None), account.c.state == "active")
    )
    with ledger.engine.connect() as connection:
        return {row.reader_id: row.display_name for row in connection.execute(query)}


def work_by_reader(ledger: Ledger, number: int) -> list[dict[str, Any]]:
    """One row per reader of a round: assignments by state, expected minutes still out, the nearest deadline."""
    table = metadata.tables["assignment"]
    query = (
        select(
            table.c.reader_id, table.c.state, func.count().label("n"),
            func.sum(table.c.expected_minutes).label("minutes"), func.min(table.c.due_at).label("due_at"),
        )
        .where(table.c.round == number)
        .group_by(table.c.reader_id, table.c.state)
    )  # fmt: skip
    called = names(ledger)
    readers: dict[str, dict[str, Any]] = {}
    with ledger.engine.connect() as connection:
        for row in connection.execute(query):
            blank = {"reader_id": row.reader_id, "name": called.get(row.reader_id), "states": {}}
            reader = readers.setdefault(row.reader_id, {**blank, "minutes_out": 0.0, "due_at": None})
            reader["states"][row.state] = row.n
            if row.state in OUT:
                reader["minutes_out"] += float(row.minutes or 0.0)
                reader["due_at"] = min(filter(None, (reader["due_at"], row.due_at)))
    for reader in readers.values():
        states = reader["states"]
        reader["out"] = sum(states.get(state, 0) for state in OUT)
        reader["done"] = sum(states.get(state, 0) for state in ("ACCEPTED", "REJECTED"))
        reader["total"] = sum(n for state, n in states.items() if state != "WITHDRAWN")
        reader["minutes_out"] = round(reader["minutes_out"], 1)
    return [readers[name] for name in sorted(readers)]


def leases_ending(ledger: Ledger, until: datetime) -> list[dict[str, Any]]:
    """Leases of open work that end before `until`, and those that have run out; soonest first."""
    lease, assignment = metadata.tables["work_lease"], metadata.tables["assignment"]
    query = (
        select(
            lease.c.assignment_id, lease.c.expires_at, lease.c.extensions, lease.c.state,
            assignment.c.exam_id, assignment.c.reader_id,
        )
        .join(assignment, assignment.c.assignment_id == lease.c.assignment_id)
        .where(lease.c.state == "held", lease.c.expires_at < plain(until), assignment.c.state.in_(OUT))
        .order_by(lease.c.expires_at)
    )  # fmt: skip
    with ledger.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def escalations(project: Project, number: int) -> list[dict[str, Any]]:
    """Readings that nobody has and that are not given away by themselves any more: a person must decide."""
    lease, assignment = metadata.tables["work_lease"], metadata.tables["assignment"]
    work = select(assignment).where(assignment.c.round == number)
    kept = select(lease).join(assignment, assignment.c.assignment_id == lease.c.assignment_id)
    with project.ledger.engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(work)]
        leases = {
            r.assignment_id: dict(r._mapping) for r in connection.execute(kept.where(assignment.c.round == number))
        }
    found = openings(rows, leases, project.config.dispatch.lease.escalate_after)
    keys = ("exam_id", "reader_id", "purpose")
    return [{**{key: o.last[key] for key in keys}, "expired": o.expired} for o in found if o.escalated]


def failures(ledger: Ledger, number: int) -> list[dict[str, Any]]:
    """Steps of a round that failed and were not done since, by their error codes."""
    table = metadata.tables["step_run"]
    query = select(table.c.step, table.c.state, table.c.error, table.c.started_at).where(table.c.round == number)
    last: dict[str, dict[str, Any]] = {}
    with ledger.engine.connect() as connection:
        for row in connection.execute(query.order_by(table.c.started_at)):
            last[row.step] = dict(row._mapping)
    return [row for row in last.values() if row["state"] == "failed"]
