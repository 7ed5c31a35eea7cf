"""Time of reviewers and adjudicators: raw events, and the minutes and money taken from them.

Measured as readers' time is (redraft/worktime), by the thresholds of the round. A second look whose page sent no events
has no minutes: it is counted and named, never estimated.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from redraft.config.schema import Config
from redraft.config.schema import WorkTime as Settings
from redraft.digest import sha256_json
from redraft.ledger import Ledger
from redraft.worktime.contract import Batch, Event
from redraft.worktime.minutes import work_time
from redraft.worktime.place import RawBatch
from redraft.worktime.store import thresholds


def append(ledger: Ledger, record_id: str, account_id: str, batch: Batch, at: datetime) -> None:
    """Keep a batch of events on a review or a consensus; the same number again changes nothing."""
    where = {"record_id": record_id, "account_id": account_id, "sitting": batch.sitting, "number": batch.number}
    if ledger.one("look_batch", **where) is not None:
        return
    content = batch.model_dump(mode="json", exclude_none=True)
    with ledger.tx(account_id, at) as tx:
        if tx.one("look_batch", **where) is None:
            tx.insert(
                "look_batch",
                {
                    "batch_id": sha256_json([record_id, account_id, batch.sitting, batch.number])[:24],
                    **where,
                    "sent_ms": batch.sent_ms,
                    "received_at": at,
                    "events": content["events"],
                },
            )


def look_minutes(ledger: Ledger, settings: Settings) -> dict[tuple[str, str], dict[str, float]]:
    """Active, idle and away minutes by (review or consensus, account), of those whose pages sent events."""
    raw: dict[tuple[str, str], list[RawBatch]] = {}
    for row in ledger.rows("look_batch"):
        events = tuple(Event.model_validate(event) for event in row["events"])
        received = datetime.fromisoformat(row["received_at"])
        batch = RawBatch(row["sitting"], row["number"], row["sent_ms"], received, events)
        raw.setdefault((row["record_id"], row["account_id"]), []).append(batch)
    found = {}
    for key, batches in sorted(raw.items()):
        spent: dict[str, float] = {"active": 0.0, "idle": 0.0, "away": 0.0}
        for minutes in work_time(batches, thresholds(settings)).minutes().values():
            for state in spent:
                spent[state] += minutes[state]
        found[key] = spent
    return found


def roles(ledger: Ledger, config: Config) -> dict[str, str]:
    """Account to the role whose rate pays for its second looks: its reader's, else `dispatch.reviewer_role`."""
    readers = {row["reader_id"]: row["role"] for row in ledger.rows("reader")}
    readers |= {reader.id: reader.role for reader in config.dispatch.readers}
    return {
        row["account_id"]: readers.get(row["reader_id"], config.dispatch.reviewer_role)
        for row in ledger.rows("account")
    }


def looks(ledger: Ledger) -> list[dict[str, Any]]:
    """Decided second looks: {kind, record_id, round, account_id, exam_id, purpose, day}, reviews and adjudications."""
    annotations = {row["annotation_id"]: row for row in ledger.rows("annotation")}
    work = {row["assignment_id"]: row for row in ledger.rows("assignment")}
    found = []
    for row in ledger.rows("review"):
        if row["decided_at"] is None:
            continue
        note = annotations[row["annotation_id"]]
        found.append(
            {
                "kind": "review", "record_id": row["review_id"], "round": row["round"],
                "account_id": row["account_id"], "exam_id": note["exam_id"],
                "purpose": work[note["assignment_id"]]["purpose"], "at": row["decided_at"],
            }
        )  # fmt: skip
    for row in ledger.rows("consensus"):
        if row["method"] == "adjudicated":
            found.append(
                {
                    "kind": "adjudication", "record_id": row["agreement"]["of"], "round": row["round"],
                    "account_id": row["account_id"], "exam_id": row["exam_id"], "purpose": row["purpose"],
                    "at": row["at"],
                }
            )  # fmt: skip
    return sorted(found, key=lambda row: (row["at"], row["record_id"]))
