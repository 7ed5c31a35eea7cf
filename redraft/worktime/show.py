"""What the raw events of an assignment give, for `redraft time show`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from redraft.ledger import Ledger
from redraft.worktime.entries import replaced
from redraft.worktime.minutes import WorkTime, work_time
from redraft.worktime.store import MEASURED, Measured, batches, settings_of, thresholds


def timed(ledger: Ledger) -> list[str]:
    """Assignments with raw events or recorded minutes, sorted."""
    names = {row["assignment_id"] for row in ledger.rows("time_batch")}
    annotations = {row["annotation_id"]: row["assignment_id"] for row in ledger.rows("annotation")}
    names |= {annotations[row["annotation_id"]] for row in ledger.rows("time_entry")}
    return sorted(names)


def show(ledger: Ledger, assignment_id: str) -> dict[str, Any]:
    """JSON: minutes by reader from all events that there are, sittings, submissions, recorded entries.

    Raises StateError where there is no such assignment.
    """
    settings = settings_of(ledger, assignment_id)
    work = ledger.one("assignment", assignment_id=assignment_id)
    assert work is not None
    raw = batches(ledger, assignment_id)
    owner = {(row["sitting"], row["number"]): row["reader_id"] for row in ledger.rows(
        "time_batch", assignment_id=assignment_id)}  # fmt: skip
    readers = []
    for reader in sorted(set(owner.values())):
        own = [batch for batch in raw if owner[batch.sitting, batch.number] == reader]
        readers.append({"reader_id": reader, **_told(work_time(own, thresholds(settings)))})
    gone = replaced(ledger)
    entries = []
    for annotation in ledger.rows("annotation", assignment_id=assignment_id):
        for row in ledger.rows("time_entry", annotation_id=annotation["annotation_id"]):
            kept = {key: row[key] for key in ("structure", "active_minutes", "idle_minutes", "away_minutes", "origin")}
            entries.append({"revision": annotation["revision"], **kept, "counts": row["time_entry_id"] not in gone})
    submissions = [
        asdict(Measured(**event["payload"]))
        for event in ledger.rows("audit_event", kind=MEASURED)
        if event["payload"]["assignment_id"] == assignment_id
    ]
    return {
        "assignment_id": assignment_id,
        "exam_id": work["exam_id"],
        "round": work["round"],
        "reader_id": work["reader_id"],
        "state": work["state"],
        "idle_after_seconds": settings.idle_after_seconds,
        "away_after_seconds": settings.away_after_seconds,
        "readers": readers,
        "submissions": submissions,
        "entries": sorted(entries, key=lambda row: (row["revision"], row["structure"] or "", not row["counts"])),
    }


def _told(time: WorkTime) -> dict[str, Any]:
    return {
        "minutes": time.minutes(),
        "total": time.total.minutes(),
        "offline_seconds": time.offline_seconds,
        "first_at": None if time.first_at is None else time.first_at.isoformat(),
        "last_at": None if time.last_at is None else time.last_at.isoformat(),
        "flags": list(time.flags),
        "sittings": [
            {
                "sitting": one.sitting,
                "first_at": one.first_at.isoformat(),
                "last_at": one.last_at.isoformat(),
                "batches": one.batches,
                **one.spent.minutes(),
                "offline_seconds": one.offline_seconds,
                "flags": list(one.flags),
            }
            for one in time.sittings
        ],
    }
