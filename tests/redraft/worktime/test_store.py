"""Raw events in the ledger: kept once, refused when they contradict, and good for taking the minutes again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from redraft.errors import ConflictError, StateError
from redraft.ledger import Ledger, verify_ledger
from redraft.worktime import store
from redraft.worktime.contract import Batch

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def batch(number: int, *seconds: float, sent: float | None = None, sitting: str = "tab", kind: str = "input") -> Batch:
    """Events of one kind at these seconds of the page's clock."""
    events = [{"kind": kind, "ms": s * 1000.0} for s in seconds]
    last = max(seconds) if sent is None else sent
    return Batch.model_validate({"sitting": sitting, "number": number, "sent_ms": last * 1000.0, "events": events})


def give(ledger: Ledger, what: Batch, seconds: float, reader: str = "r1") -> str:
    return store.append(ledger, "a1", reader, what, at=at(seconds), actor="test")


def annotate(ledger: Ledger, revision: int, seconds: float, minutes: dict[str, Any], **changes: Any) -> str:
    """Take work in, as validate does on arrival."""
    identity = f"n{revision}"
    row = {
        "annotation_id": identity, "assignment_id": "a1", "exam_id": "e1", "reader_id": "r1", "revision": revision,
        "verdict": "scratch", "reason_code": None, "remark_present": False, "path": "l", "sha256": "z",
        "draft_id": None, "voxels_changed": None, "origin": "measured", "simulated": False, "state": "valid",
        "received_at": at(seconds), **changes,
    }  # fmt: skip
    with ledger.tx("test", at(seconds)) as tx:
        tx.insert("annotation", row)
        for name, spent in minutes.items():
            tx.insert(
                "time_entry",
                {
                    "time_entry_id": f"{identity}-{name}", "annotation_id": identity,
                    "structure": None if name == "exam" else name, "active_minutes": spent["active"],
                    "idle_minutes": spent["idle"], "away_minutes": spent["away"], "origin": row["origin"],
                    "simulated": row["simulated"],
                },
            )  # fmt: skip
    return identity


def test_a_batch_is_kept_once(ledger: Ledger) -> None:
    """The same batch again changes nothing, though it arrives later; the ledger's chain holds."""
    first = batch(0, 0, 10, 20)
    assert [give(ledger, first, 20), give(ledger, first, 500)] == ["new", "again"]
    (row,) = ledger.rows("time_batch")
    assert row["received_at"].startswith("2026-03-02T09:00:20") and len(row["events"]) == 3
    assert not verify_ledger(ledger).broken


def test_a_contradicting_repeat_is_refused_and_on_record(ledger: Ledger) -> None:
    """Other events under a number that is taken: refused, what was kept stays, and the chain names both digests."""
    give(ledger, batch(0, 0, 10), 10)
    with pytest.raises(ConflictError) as caught:
        give(ledger, batch(0, 0, 11), 12)
    assert caught.value.code == "time.differs" and not caught.value.retry
    (event,) = ledger.rows("audit_event", kind=store.REFUSED)
    assert event["payload"]["kept_sha256"] != event["payload"]["refused_sha256"]
    assert [e["ms"] for e in ledger.rows("time_batch")[0]["events"]] == [0, 10_000]


def test_many_at_once_lose_nothing(ledger: Ledger) -> None:
    """Batches sent by several threads, each twice, are all kept, once."""
    work = [batch(n, n, n + 0.5, sitting=f"t{n % 5}") for n in range(30)] * 2
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda item: give(ledger, item, 100), work))
    assert sorted(outcomes) == ["again"] * 30 + ["new"] * 30
    assert len(ledger.rows("time_batch")) == 30


def test_minutes_are_taken_at_submission_and_can_be_taken_again(ledger: Ledger) -> None:
    """What was recorded comes out again from the raw events, with the same digest; a later batch changes nothing."""
    give(ledger, batch(0, 0, 30, 60), 60)
    give(ledger, batch(1, 90, 120), 120)
    record = store.measure(ledger, "a1", at=at(121), actor="test")
    assert record.minutes == {"exam": {"active": 2.0, "idle": 0.0, "away": 0.0}} and record.batches == 2
    give(ledger, batch(2, 130, 150), 150)
    time, digest = store.again(ledger, record)
    assert (time.minutes(), digest) == (record.minutes, record.events_sha256)
    assert store.active_minutes(ledger, record, [15, 30]) == {15: {"exam": 0.0}, 30: {"exam": 2.0}}


def test_each_revision_has_its_own_minutes(ledger: Ledger) -> None:
    """The second revision counts from the first one's submission; submitting again before arrival measures again."""
    give(ledger, batch(0, *range(0, 101, 20)), 100)
    first = store.measure(ledger, "a1", at=at(60), actor="test")
    again = store.measure(ledger, "a1", at=at(100), actor="test")
    assert (first.minutes, again.since) == ({"exam": {"active": 0.0, "idle": 0.0, "away": 0.0}}, None)
    assert again.minutes["exam"]["active"] == pytest.approx(100 / 60, abs=1e-4)
    annotate(ledger, 1, 110, again.minutes)
    give(ledger, batch(1, *range(120, 181, 20)), 180)
    assert store.minutes_of(ledger, "a1").total.active == 80e6
    second = store.measure(ledger, "a1", at=at(185), actor="test")
    assert (second.since, second.minutes["exam"]["active"]) == (again.until, round(80 / 60, 4))
    annotate(ledger, 2, 200, second.minutes)
    found = store.measured(ledger)
    assert {name: record.until for name, record in found.items()} == {"n1": again.until, "n2": second.until}


def test_another_reader_s_time_is_not_this_one_s(ledger: Ledger) -> None:
    """Work that was given to another reader starts from nothing for them."""
    give(ledger, batch(0, 0, 30), 30)
    give(ledger, batch(0, 0, 20, sitting="other"), 60, reader="r2")
    assert store.minutes_of(ledger, "a1").total.active == 30e6
    with pytest.raises(ConflictError):
        give(ledger, batch(0, 0, 30), 90, reader="r2")


def test_ended_work_takes_what_belongs_before_its_end(ledger: Ledger) -> None:
    """A known sitting's late batches and a sitting that began before the submission are kept; a new one is refused."""
    give(ledger, batch(0, 0, 10), 10)
    record = store.measure(ledger, "a1", at=at(60), actor="test")
    annotate(ledger, 1, 70, record.minutes)
    with ledger.tx("test", at(70)) as tx:
        tx.update("assignment", {"assignment_id": "a1"}, {"state": "RETURNED"})
    assert give(ledger, batch(1, 20, 30), 5000) == "late"
    assert give(ledger, batch(0, 0, 40, sitting="offline", sent=90), 100) == "late"
    with pytest.raises(ConflictError) as caught:
        give(ledger, batch(0, 0, 10, sitting="after"), 100)
    assert caught.value.code == "time.ended"
    assert store.again(ledger, record)[0].minutes() == record.minutes


def test_no_such_assignment(ledger: Ledger) -> None:
    """An assignment that is not there is an error by name, not a zero."""
    with pytest.raises(StateError, match="a9"):
        store.minutes_of(ledger, "a9")
