"""One sitting: where its events lie by the server's clock, and what its reader was doing between them.

A page's clock is monotonic but starts anywhere; the server's clock says where. A batch cannot arrive before it was
sent, so received − sent is never less than the true distance of both clocks, and the least of a sitting's batches is
the best estimate of it: late batches do not move it. Whole microseconds throughout: sums are exact in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from redraft.worktime.contract import EXAM, Event

SECOND = 1_000_000
# How much older than its first batch a sitting may be: a page that was cut off right after it was opened.
UNHEARD = 600 * SECOND
# What a reader does, as against what a page says by itself. Coming and going are acts too.
ACTS = frozenset({"open", "close", "visible", "hidden", "input", "structure"})
PRESENT = frozenset({"open", "visible", "input", "structure"})
GONE = frozenset({"hidden", "close"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

State = Literal["active", "idle", "away"]


@dataclass(frozen=True)
class RawBatch:
    """A batch as the ledger keeps it."""

    sitting: str
    number: int
    sent_ms: float
    received_at: datetime
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Thresholds:
    """Seconds; see `time` in project.yaml."""

    idle_after_seconds: float
    away_after_seconds: float


@dataclass(frozen=True)
class Placed:
    """Events of one sitting in order, times in microseconds of the server's clock; spans without a connection."""

    sitting: str
    events: tuple[tuple[int, str, str | None], ...]
    batches: int
    offline: tuple[tuple[int, int], ...]
    flags: frozenset[str]


@dataclass(frozen=True)
class Piece:
    """A stretch of one state; `act` is the reader's last act before it."""

    start: int
    end: int
    state: State
    structure: str
    act: int


def micro(moment: datetime) -> int:
    """Whole microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """The inverse of `micro`."""
    return _EPOCH + timedelta(microseconds=value)


def place(batches: Iterable[RawBatch], away_after_seconds: float) -> Placed:
    """Put a sitting's events on the server's clock. Batches may come in any order and any number of times.

    The server's clock bounds everything: no event lies after its batch was made up or received, and none lies more than
    `UNHEARD` before the sitting was first heard of. What a page says beyond that is cut off there and flagged:
    `event_after_sending`, `beyond_server_time`. A number that never came is flagged as `batch_missing`.
    """
    first_copy: dict[int, RawBatch] = {}
    for batch in batches:
        known = first_copy.get(batch.number)
        if known is None or batch.received_at < known.received_at:
            first_copy[batch.number] = batch
    kept = [first_copy[number] for number in sorted(first_copy)]
    flags: set[str] = set()
    if kept and len(kept) < kept[-1].number - kept[0].number + 1:
        flags.add("batch_missing")
    sent = {batch.number: round(batch.sent_ms * 1000) for batch in kept}
    got = {batch.number: micro(batch.received_at) for batch in kept}
    offset = min((got[n] - sent[n] for n in sent), default=0)
    starts = [round(event.ms * 1000) for batch in kept for event in batch.events]
    if starts and offset + min(starts) < min(got.values()) - UNHEARD:
        offset = min(got.values()) - UNHEARD - min(starts)
        flags.add("beyond_server_time")
    ordered = []
    spans = []
    for batch in kept:
        n = batch.number
        made = min(offset + sent[n], got[n])
        for index, event in enumerate(batch.events):
            own = round(event.ms * 1000)
            if own > sent[n]:
                flags.add("event_after_sending")
            ordered.append((own, n, index, min(offset + own, made), event))
        if batch.events and got[n] - made > away_after_seconds * SECOND:
            spans.append((min(offset + round(batch.events[0].ms * 1000), made), made))
    ordered.sort(key=lambda item: item[:3])
    events = []
    latest = None
    for _, _, _, at, event in ordered:
        # What was cut off may lie before what the page's clock puts ahead of it; time does not run backwards.
        latest = at if latest is None else max(latest, at)
        events.append((latest, event.kind, event.structure))
    spans += _without_connection(events)
    return Placed(kept[0].sitting if kept else "", tuple(events), len(kept), union(spans), frozenset(flags))


def pieces(placed: Placed, thresholds: Thresholds) -> list[Piece]:
    """What the reader was doing between the first and the last event, without gaps.

    Present while the page is in front and says something at least every `away_after_seconds`; away otherwise, from the
    last sign of life on. Time present is cut at every act; a stretch between two acts (or between an act and the page's
    last sign of life) counts whole as active up to `idle_after_seconds`, and whole as idle beyond.
    """
    idle_after = round(thresholds.idle_after_seconds * SECOND)
    away_after = round(thresholds.away_after_seconds * SECOND)
    found: list[Piece] = []
    structure, visible = EXAM, True
    act = placed.events[0][0] if placed.events else 0
    start: int | None = None  # of the stretch that is going on, None while away

    def end_stretch(at: int) -> None:
        if start is not None and at > start:
            state: State = "active" if at - start <= idle_after else "idle"
            found.append(Piece(start, at, state, structure, act))

    for index, (at, kind, name) in enumerate(placed.events):
        if kind in ACTS:
            end_stretch(at)
            start = None
            act = at
        if kind == "structure" and name is not None:
            structure = name
        visible = kind in PRESENT or (visible and kind not in GONE)
        if index + 1 == len(placed.events):
            end_stretch(at)
            break
        following = placed.events[index + 1][0]
        if visible and following - at <= away_after:
            start = at if start is None else start
            continue
        end_stretch(at)
        start = None
        if following > at:
            found.append(Piece(at, following, "away", structure, act))
    return found


def _without_connection(events: Sequence[tuple[int, str, str | None]]) -> list[tuple[int, int]]:
    """From each `offline` to the next `online`, or to the last event."""
    found = []
    since: int | None = None
    for at, kind, _ in events:
        if kind == "offline" and since is None:
            since = at
        elif kind == "online" and since is not None:
            found.append((since, at))
            since = None
    if since is not None:
        found.append((since, events[-1][0]))
    return found


def union(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Overlapping spans as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if end <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
