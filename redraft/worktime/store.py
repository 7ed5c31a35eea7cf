"""Raw events in the ledger, and the minutes taken from them when work is submitted.

Minutes are taken once, at the moment of submission, from what had arrived by then; that moment, the thresholds and the
digest of the events go into the chain as `time.measured`. So anybody can take them again from the same events, and
what arrives later (a laptop that was offline) is kept and shown, but changes nothing that was signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select

from redraft.config.schema import WorkTime as Settings
from redraft.digest import sha256_json
from redraft.errors import ConflictError, StateError
from redraft.ledger import AssignmentState, Ledger
from redraft.ledger.tables import metadata
from redraft.ledger.values import plain
from redraft.worktime.contract import Batch, Event
from redraft.worktime.minutes import WorkTime, active_spans, work_time
from redraft.worktime.place import SECOND, RawBatch, Thresholds, micro

MEASURED = "time.measured"
# The reader was active on another exam in the same seconds, which are counted for both.
AT_ONCE = "exams_at_once"
REFUSED = "time.refused"
# Work that nobody goes on with; what was done before its submission may still arrive.
ENDED = frozenset(
    {AssignmentState.RETURNED, AssignmentState.IN_REVIEW, AssignmentState.ACCEPTED, AssignmentState.REJECTED,
     AssignmentState.WITHDRAWN}
)  # fmt: skip

Kept = Literal["new", "again", "late"]


@dataclass(frozen=True)
class Measured:
    """Minutes of one submission and what they were taken from; `payload` of the event `time.measured`.

    `since` is the submission of the revision before, `until` this one's; events count that had arrived by then.
    """

    assignment_id: str
    reader_id: str
    since: str | None
    until: str
    idle_after_seconds: float
    away_after_seconds: float
    batches: int
    events_sha256: str
    minutes: dict[str, dict[str, float]]
    offline_seconds: float
    flags: list[str]


def append(ledger: Ledger, assignment_id: str, reader_id: str, batch: Batch, *, at: datetime, actor: str) -> Kept:
    """Keep a batch. The same one again changes nothing (`again`); of ended work it is `late` and counts nowhere new.

    Raises
    ------
    ConflictError
        `time.differs`: other events under a number that is taken (recorded in the chain);
        `time.ended`: a new sitting on work that has ended.
    """
    content = batch.model_dump(mode="json", exclude_none=True)
    known = _taken(ledger.rows("time_batch", **_name(assignment_id, batch)))
    if known is None:
        with ledger.tx(actor, at) as tx:
            known = _taken(tx.rows("time_batch", **_name(assignment_id, batch)))
            state = tx.get("assignment", assignment_id=assignment_id)["state"]
            late = state in ENDED
            if known is None:
                if late and not tx.rows("time_batch", assignment_id=assignment_id, sitting=batch.sitting):
                    _require_begun_before_the_end(ledger, assignment_id, batch, at)
                tx.insert(
                    "time_batch",
                    {
                        "batch_id": sha256_json([assignment_id, batch.sitting, batch.number])[:24],
                        "assignment_id": assignment_id,
                        "reader_id": reader_id,
                        "sitting": batch.sitting,
                        "number": batch.number,
                        "sent_ms": batch.sent_ms,
                        "received_at": at,
                        "events": content["events"],
                    },
                )
                return "late" if late else "new"
    if known == (reader_id, sha256_json([content["sent_ms"], content["events"]])):
        return "again"
    with ledger.tx(actor, at) as tx:
        tx.event(
            REFUSED,
            {
                "assignment_id": assignment_id,
                "reader_id": reader_id,
                "sitting": batch.sitting,
                "number": batch.number,
                "kept_sha256": known[1],
                "refused_sha256": sha256_json([content["sent_ms"], content["events"]]),
            },
        )
    raise ConflictError(
        f"Assignment {assignment_id}: batch {batch.number} of this sitting was received with other events.",
        "A batch is sent again unchanged, or under the next number.",
        code="time.differs",
        retry=False,
    )


def batches(
    ledger: Ledger, assignment_id: str, *, reader_id: str | None = None, received_by: datetime | None = None
) -> list[RawBatch]:
    """Raw batches of an assignment, of one reader where given, as they had arrived by a moment."""
    found = []
    for row in ledger.rows("time_batch", assignment_id=assignment_id):
        received = datetime.fromisoformat(row["received_at"])
        if (reader_id is None or row["reader_id"] == reader_id) and (received_by is None or received <= received_by):
            events = tuple(Event.model_validate(event) for event in row["events"])
            found.append(RawBatch(row["sitting"], row["number"], row["sent_ms"], received, events))
    return sorted(found, key=lambda batch: (batch.sitting, batch.number))


def events_digest(found: list[RawBatch]) -> str:
    """SHA-256 over raw batches: which events minutes were taken from."""
    rows = [
        [
            batch.sitting,
            batch.number,
            batch.sent_ms,
            batch.received_at.isoformat(timespec="microseconds"),
            [[event.kind, event.ms, event.structure] for event in batch.events],
        ]
        for batch in sorted(found, key=lambda batch: (batch.sitting, batch.number))
    ]
    return sha256_json(rows)


def settings_of(ledger: Ledger, assignment_id: str) -> Settings:
    """The thresholds that the assignment's round recorded when it opened."""
    work = ledger.one("assignment", assignment_id=assignment_id)
    round_ = ledger.one("round", number=work["round"]) if work is not None else None
    if round_ is None:
        raise StateError(f"The ledger has no assignment {assignment_id}.")
    return Settings.model_validate(round_["config"].get("time", {}))


def minutes_of(
    ledger: Ledger, assignment_id: str, config: Settings | None = None, *, until: datetime | None = None
) -> WorkTime:
    """Minutes since the last revision that was taken in: what a submission at this moment would be given.

    `config` is the round's own when omitted. Reads only; `measure` records.
    """
    work = _assignment(ledger, assignment_id)
    settings = config or settings_of(ledger, assignment_id)
    found = batches(ledger, assignment_id, reader_id=work["reader_id"], received_by=until)
    since = _last_submission(ledger, assignment_id)
    return work_time(found, thresholds(settings), since=since, until=until)


def measure(ledger: Ledger, assignment_id: str, *, at: datetime, actor: str) -> Measured:
    """Take the minutes of a submission made at `at` and record what they come from (event `time.measured`).

    The minutes go into result.json as they are. Submitting again before the work is taken in measures again.
    """
    work = _assignment(ledger, assignment_id)
    settings = settings_of(ledger, assignment_id)
    since = _last_submission(ledger, assignment_id)
    found = batches(ledger, assignment_id, reader_id=work["reader_id"], received_by=at)
    time = work_time(found, thresholds(settings), since=since, until=at)
    record = Measured(
        assignment_id=assignment_id,
        reader_id=work["reader_id"],
        since=None if since is None else _text(since),
        until=_text(at),
        idle_after_seconds=settings.idle_after_seconds,
        away_after_seconds=settings.away_after_seconds,
        batches=len(found),
        events_sha256=events_digest(found),
        minutes=time.minutes(),
        offline_seconds=time.offline_seconds,
        flags=sorted({*time.flags, *_at_once(ledger, work, found, thresholds(settings), since, at)}),
    )
    with ledger.tx(actor, at) as tx:
        tx.event(MEASURED, asdict(record))
    return record


def measured(ledger: Ledger) -> dict[str, Measured]:
    """The measurement behind each annotation of origin `measured`; one without is left out.

    It is the last before the annotation was taken in, and after the revision before it.
    """
    by_assignment: dict[str, list[Measured]] = {}
    for event in ledger.rows("audit_event", kind=MEASURED):
        record = Measured(**event["payload"])
        by_assignment.setdefault(record.assignment_id, []).append(record)
    result = {}
    before: dict[str, str] = {}
    for row in sorted(ledger.rows("annotation"), key=lambda row: (row["assignment_id"], row["revision"])):
        work = row["assignment_id"]
        of_it = [
            record
            for record in by_assignment.get(work, [])
            if before.get(work, "") < record.until <= row["received_at"] and record.reader_id == row["reader_id"]
        ]
        if of_it and row["origin"] == "measured":
            result[row["annotation_id"]] = max(of_it, key=lambda record: record.until)
        before[work] = row["received_at"]
    return result


def again(ledger: Ledger, record: Measured) -> tuple[WorkTime, str]:
    """Take a measurement's minutes once more from the raw events; also the events' digest as they stand now."""
    until = datetime.fromisoformat(record.until)
    since = None if record.since is None else datetime.fromisoformat(record.since)
    found = batches(ledger, record.assignment_id, reader_id=record.reader_id, received_by=until)
    limits = Thresholds(record.idle_after_seconds, record.away_after_seconds)
    return work_time(found, limits, since=since, until=until), events_digest(found)


def active_minutes(ledger: Ledger, record: Measured, seconds: Sequence[float]) -> dict[float, dict[str, float]]:
    """A measurement's active minutes with other thresholds of idleness: threshold to structure to minutes."""
    until = datetime.fromisoformat(record.until)
    since = None if record.since is None else datetime.fromisoformat(record.since)
    found = batches(ledger, record.assignment_id, reader_id=record.reader_id, received_by=until)
    result = {}
    for value in seconds:
        time = work_time(found, Thresholds(value, record.away_after_seconds), since=since, until=until)
        result[value] = {name: spent["active"] for name, spent in time.minutes().items()}
    return result


def thresholds(settings: Settings) -> Thresholds:
    """The two that tell active, idle and away apart."""
    return Thresholds(settings.idle_after_seconds, settings.away_after_seconds)


def _at_once(
    ledger: Ledger, work: dict[str, Any], found: list[RawBatch], limits: Thresholds, since: datetime | None,
    until: datetime,
) -> set[str]:  # fmt: skip
    """The flag AT_ONCE, where the reader was active here and on another assignment for a second or more at one time."""
    if not found:
        return set()
    table = metadata.tables["time_batch"]
    begun = min(batch.received_at for batch in found)
    query = select(table).where(
        table.c.reader_id == work["reader_id"], table.c.assignment_id != work["assignment_id"],
        table.c.received_at >= plain(begun), table.c.received_at <= plain(until),
    )  # fmt: skip
    others: dict[str, list[RawBatch]] = {}
    with ledger.engine.connect() as connection:
        for row in connection.execute(query):
            events = tuple(Event.model_validate(event) for event in row.events)
            received = datetime.fromisoformat(row.received_at)
            others.setdefault(row.assignment_id, []).append(
                RawBatch(row.sitting, row.number, row.sent_ms, received, events)
            )
    low, high = (0 if since is None else micro(since)), micro(until)
    here = active_spans(found, limits)
    for batches_there in others.values():
        both = 0
        for start, end in active_spans(batches_there, limits):
            both += sum(max(0, min(b, end, high) - max(a, start, low)) for a, b in here)
        if both >= SECOND:
            return {AT_ONCE}
    return set()


def _last_submission(ledger: Ledger, assignment_id: str) -> datetime | None:
    """When the last revision that was taken in had been submitted; None before the first."""
    annotations = ledger.rows("annotation", assignment_id=assignment_id)
    if not annotations:
        return None
    received = max(row["received_at"] for row in annotations)
    submitted = [
        event["payload"]["until"]
        for event in ledger.rows("audit_event", kind=MEASURED)
        if event["payload"]["assignment_id"] == assignment_id and event["payload"]["until"] <= received
    ]
    return datetime.fromisoformat(max(submitted) if submitted else received)


def _require_begun_before_the_end(ledger: Ledger, assignment_id: str, batch: Batch, at: datetime) -> None:
    """A sitting first heard of after the end must have begun before it, by the server's clock."""
    ends = [row["received_at"] for row in ledger.rows("annotation", assignment_id=assignment_id)]
    ends += [
        event["payload"]["until"]
        for event in ledger.rows("audit_event", kind=MEASURED)
        if event["payload"]["assignment_id"] == assignment_id
    ]
    first = min((event.ms for event in batch.events), default=batch.sent_ms)
    began = at.timestamp() - max(0.0, batch.sent_ms - first) / 1000
    if not ends or began >= datetime.fromisoformat(max(ends)).timestamp():
        raise ConflictError(
            f"Assignment {assignment_id} has ended; no new work on it is timed.",
            "Nothing is lost: what was done before its end is kept.",
            code="time.ended",
            retry=False,
        )


def _assignment(ledger: Ledger, assignment_id: str) -> dict[str, Any]:
    row = ledger.one("assignment", assignment_id=assignment_id)
    if row is None:
        raise StateError(f"The ledger has no assignment {assignment_id}.")
    return row


def _name(assignment_id: str, batch: Batch) -> dict[str, Any]:
    return {"assignment_id": assignment_id, "sitting": batch.sitting, "number": batch.number}


def _taken(rows: list[dict[str, Any]]) -> tuple[str, str] | None:
    """Reader and digest of the batch that has this number."""
    if not rows:
        return None
    return rows[0]["reader_id"], sha256_json([rows[0]["sent_ms"], rows[0]["events"]])


def _text(at: datetime) -> str:
    return str(plain(at))
