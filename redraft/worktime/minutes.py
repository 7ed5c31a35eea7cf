"""All sittings of an assignment together: minutes per structure, each moment counted once.

A reader may have the exam open in several tabs or on several computers. Active time is the union of what the sittings
saw, never the sum; idle is presence without activity; away is time in which a page was open and nobody was at any.
While no page is open nothing is counted, be it a minute or a night: there is nothing to be away from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from redraft.worktime.contract import EXAM
from redraft.worktime.place import (
    SECOND,
    Piece,
    Placed,
    RawBatch,
    State,
    Thresholds,
    micro,
    moment,
    pieces,
    place,
    union,
)

# Activity anywhere beats presence elsewhere, and presence beats an open page that nobody is at.
RANK: dict[State, int] = {"away": 0, "idle": 1, "active": 2}
DIGITS = 4  # of a minute: 6 ms


@dataclass(frozen=True)
class Spent:
    """Whole microseconds by state."""

    active: int = 0
    idle: int = 0
    away: int = 0

    def minutes(self) -> dict[str, float]:
        """As result.json and the ledger keep them."""
        states = (("active", self.active), ("idle", self.idle), ("away", self.away))
        return {name: round(value / (60 * SECOND), DIGITS) for name, value in states}


@dataclass(frozen=True)
class Sitting:
    """One page load: its own times, which may overlap with another's."""

    sitting: str
    first_at: datetime
    last_at: datetime
    batches: int
    spent: Spent
    offline_seconds: float
    flags: tuple[str, ...]


@dataclass(frozen=True)
class WorkTime:
    """What the raw events of an assignment give.

    Attributes
    ----------
    structures : by name; `exam` holds what belongs to none. At least one.
    offline_seconds : time without a connection (as the page said, or as late arrival shows); it counts like any other.
    flags : what was cut off or missing (see `place`), and `pages_at_once` where the reader was at two at one time.
    """

    structures: dict[str, Spent]
    offline_seconds: float
    sittings: tuple[Sitting, ...]
    first_at: datetime | None
    last_at: datetime | None
    flags: tuple[str, ...]

    @property
    def total(self) -> Spent:
        parts = self.structures.values()
        return Spent(sum(p.active for p in parts), sum(p.idle for p in parts), sum(p.away for p in parts))

    def minutes(self) -> dict[str, dict[str, float]]:
        """Minutes for result.json: structure to active, idle and away."""
        return {name: spent.minutes() for name, spent in self.structures.items()}


def work_time(
    batches: Iterable[RawBatch],
    thresholds: Thresholds,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> WorkTime:
    """Minutes of one reader on one assignment, between two moments of the server's clock where they are given.

    The same batches give the same minutes in any order and however often they came.
    """
    return split_times(batches, thresholds, [(since, until)])[0]


def by_revision(
    batches: Iterable[RawBatch], thresholds: Thresholds, submitted: Sequence[datetime]
) -> tuple[WorkTime, ...]:
    """Minutes of each revision: those after the submission before it, up to its own.

    What lies after the last submission belongs to none.
    """
    moments: list[datetime | None] = [None, *sorted(submitted)]
    return split_times(batches, thresholds, list(pairwise(moments)))


def split_times(
    batches: Iterable[RawBatch],
    thresholds: Thresholds,
    windows: Sequence[tuple[datetime | None, datetime | None]],
) -> tuple[WorkTime, ...]:
    """Minutes in each window; windows that meet share no moment and lose none."""
    by_sitting: dict[str, list[RawBatch]] = {}
    for batch in batches:
        by_sitting.setdefault(batch.sitting, []).append(batch)
    placed = [place(by_sitting[name], thresholds.away_after_seconds) for name in sorted(by_sitting)]
    placed = [one for one in placed if one.events]
    own = [pieces(one, thresholds) for one in placed]
    together = merged(own)
    return tuple(_window(placed, own, together, *_bounds(window)) for window in windows)


def active_spans(batches: Iterable[RawBatch], thresholds: Thresholds) -> tuple[tuple[int, int], ...]:
    """When the reader was active, microseconds of the server's clock, in order and apart."""
    by_sitting: dict[str, list[RawBatch]] = {}
    for batch in batches:
        by_sitting.setdefault(batch.sitting, []).append(batch)
    placed = [place(by_sitting[name], thresholds.away_after_seconds) for name in sorted(by_sitting)]
    together = merged([pieces(one, thresholds) for one in placed if one.events])
    return union((piece.start, piece.end) for piece in together if piece.state == "active")


def merged(sittings: Sequence[Sequence[Piece]]) -> list[Piece]:
    """One line of pieces from several: at each moment the most active sitting's, of these the last acted in."""
    edges = sorted({edge for line in sittings for piece in line for edge in (piece.start, piece.end)})
    at = [0] * len(sittings)
    result: list[Piece] = []
    for start, end in pairwise(edges):
        best: tuple[int, int, int] | None = None
        chosen: Piece | None = None
        for n, line in enumerate(sittings):
            while at[n] < len(line) and line[at[n]].end <= start:
                at[n] += 1
            if at[n] == len(line) or line[at[n]].start > start:
                continue
            piece = line[at[n]]
            key = (RANK[piece.state], piece.act, -n)
            if best is None or key > best:
                best, chosen = key, piece
        if chosen is not None:
            result.append(Piece(start, end, chosen.state, chosen.structure, chosen.act))
    return result


def _bounds(window: tuple[datetime | None, datetime | None]) -> tuple[int | None, int | None]:
    since, until = window
    return (None if since is None else micro(since), None if until is None else micro(until))


def _window(
    placed: Sequence[Placed], own: Sequence[Sequence[Piece]], together: Sequence[Piece], low: int | None,
    high: int | None,
) -> WorkTime:  # fmt: skip
    spent: dict[str, list[Piece]] = {}
    for piece in _clipped(together, low, high):
        spent.setdefault(piece.structure, []).append(piece)
    sittings = []
    offline: list[tuple[int, int]] = []
    flags: set[str] = set()
    for one, line in zip(placed, own, strict=True):
        times = [at for at, _, _ in one.events if (low is None or at >= low) and (high is None or at <= high)]
        inside = _clipped(line, low, high)
        if not times and not inside:
            continue
        edges = [*times, *(edge for piece in inside for edge in (piece.start, piece.end))]
        gaps = _cut(one.offline, low, high)
        offline += gaps
        flags |= one.flags
        sittings.append(
            Sitting(
                one.sitting, moment(min(edges)), moment(max(edges)), one.batches, _sum(inside), _length(gaps),
                tuple(sorted(one.flags)),
            )
        )  # fmt: skip
    apart = [_sum(_clipped(line, low, high)) for line in own]
    both = _sum(_clipped(together, low, high))
    if sum(one.active + one.idle for one in apart) > both.active + both.idle:
        flags.add("pages_at_once")
    sittings.sort(key=lambda sitting: (sitting.first_at, sitting.sitting))
    return WorkTime(
        structures={name: _sum(spent[name]) for name in sorted(spent)} or {EXAM: Spent()},
        offline_seconds=_length(union(offline)),
        sittings=tuple(sittings),
        first_at=min((s.first_at for s in sittings), default=None),
        last_at=max((s.last_at for s in sittings), default=None),
        flags=tuple(sorted(flags)),
    )


def _clipped(line: Sequence[Piece], low: int | None, high: int | None) -> list[Piece]:
    result = []
    for piece in line:
        start = piece.start if low is None else max(piece.start, low)
        end = piece.end if high is None else min(piece.end, high)
        if end > start:
            result.append(Piece(start, end, piece.state, piece.structure, piece.act))
    return result


def _cut(spans: Iterable[tuple[int, int]], low: int | None, high: int | None) -> list[tuple[int, int]]:
    found = [(a if low is None else max(a, low), b if high is None else min(b, high)) for a, b in spans]
    return [(a, b) for a, b in found if b > a]


def _sum(line: Iterable[Piece]) -> Spent:
    totals: dict[State, int] = {"active": 0, "idle": 0, "away": 0}
    for piece in line:
        totals[piece.state] += piece.end - piece.start
    return Spent(**totals)


def _length(spans: Iterable[tuple[int, int]]) -> float:
    return sum(end - start for start, end in spans) / SECOND
