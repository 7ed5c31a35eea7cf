"""Raw events become minutes: hand-computed cases, and an independent count of every millisecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from redraft.worktime.contract import MAX_EVENTS, Batch, Event
from redraft.worktime.minutes import WorkTime, by_revision, work_time
from redraft.worktime.place import UNHEARD, RawBatch, Thresholds

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LIMITS = Thresholds(idle_after_seconds=60, away_after_seconds=45)


def event(kind: str, seconds: float, structure: str | None = None) -> Event:
    return Event(kind=kind, ms=seconds * 1000, structure=structure)  # type: ignore[arg-type]


def batch(number: int, events: list[Event], *, sent: float, at: float | None = None, sitting: str = "s1") -> RawBatch:
    """A batch made up at `sent` seconds of the page's clock, received at `at` seconds after START."""
    received = START + timedelta(seconds=sent if at is None else at)
    return RawBatch(sitting, number, sent * 1000, received, tuple(events))


def one(events: list[Event], limits: Thresholds = LIMITS) -> WorkTime:
    """A sitting whose first event is heard of at once, and the rest at its end."""
    first = batch(0, events[:1], sent=events[0].ms / 1000)
    return work_time([first, batch(1, events[1:], sent=events[-1].ms / 1000)], limits)


def beating(last: int, *others: Event, step: int = 15) -> list[Event]:
    """Events with a heartbeat every `step` seconds up to `last`, in order."""
    beats = [event("heartbeat", s) for s in range(0, last + 1, step)]
    return sorted([*others, *beats], key=lambda e: e.ms)


def seconds(found: WorkTime) -> tuple[float, float, float]:
    total = found.total
    return total.active / 1e6, total.idle / 1e6, total.away / 1e6


def test_gaps_as_cvat_counts_them() -> None:
    """Inputs at 0, 30, 60, 200, 230, 400 s with a threshold of 100 s are 90 s active; the rest is idle or away."""
    inputs = [event("input", s) for s in (0, 30, 60, 200, 230, 400)]
    assert seconds(one(inputs, Thresholds(100, 45))) == (90, 0, 310)
    assert seconds(one(beating(400, *inputs), Thresholds(100, 45))) == (90, 310, 0)


def test_tail_counts_up_to_the_last_sign_of_life() -> None:
    """After the last input: whole while short, idle when long, nothing beyond the last heartbeat."""
    found = one([event("open", 0), event("input", 5), event("heartbeat", 15), event("heartbeat", 30)])
    assert seconds(found) == (30, 0, 0)
    found = one([event("open", 0), *(e for e in beating(120, event("input", 5)) if e.ms)])
    assert seconds(found) == (5, 115, 0)


def test_a_gap_at_the_threshold_is_active_and_just_beyond_is_idle() -> None:
    """Up to the threshold counts whole; a millisecond more is idle, whole too."""
    assert seconds(one(beating(60, event("input", 0), event("input", 60)))) == (60, 0, 0)
    found = one(sorted([*beating(60, event("input", 0)), event("input", 60.001)], key=lambda e: e.ms))
    assert seconds(found) == (0, 60.001, 0)


def test_hidden_page_is_away() -> None:
    """Hidden from 20 to 200 s with heartbeats going on: away; coming and going are acts."""
    events = beating(220, event("open", 0), event("hidden", 20), event("visible", 200), event("close", 220))
    assert seconds(one(events)) == (40, 0, 180)


def test_closed_laptop_is_away_from_the_last_sign_of_life() -> None:
    """No sign for longer than 45 s: away from the last one, until the page speaks again."""
    events = [
        event("open", 0),
        event("input", 10),
        event("heartbeat", 15),
        event("heartbeat", 3615),
        event("input", 3620),
    ]
    assert seconds(one(events)) == (20, 0, 3600)


def test_structures_partition_the_time() -> None:
    """Before the first structure it is the exam's; afterwards the named one's, idle and away too."""
    events = beating(
        300,
        event("open", 0), event("structure", 10, "kidney"), event("input", 50), event("structure", 70, "tumor"),
        event("input", 100), event("hidden", 200), event("visible", 290), event("structure", 295, "exam"),
        event("close", 300),
    )  # fmt: skip
    found = one(events)
    assert {name: (s.active / 1e6, s.idle / 1e6, s.away / 1e6) for name, s in found.structures.items()} == {
        "exam": (15, 0, 0),
        "kidney": (60, 0, 0),
        "tumor": (35, 100, 90),
    }
    assert found.minutes()["tumor"] == {"active": 0.5833, "idle": 1.6667, "away": 1.5}


def test_two_pages_at_once_count_once() -> None:
    """Active time on two computers is the union; the moment belongs to the structure that was acted on last."""
    left = [event("open", 0), event("structure", 0, "kidney"), event("input", 30), event("close", 60)]
    right = [event("open", 0), event("structure", 0, "tumor"), event("input", 20), event("close", 40)]
    found = work_time(
        [
            batch(0, left, sent=60, sitting="left"),
            batch(0, right, sent=40, at=80, sitting="right"),  # its page's clock began at 40 s
        ],
        LIMITS,
    )
    assert seconds(found) == (80, 0, 0)
    assert found.flags == ("pages_at_once",)
    # kidney 0–40 (right opens at 40 and takes over), tumor 40–80: right acted at 40 and 60, left last at 30.
    assert {name: s.active / 1e6 for name, s in found.structures.items()} == {"kidney": 40, "tumor": 40}
    assert sum(s.spent.active for s in found.sittings) == 100e6


def test_activity_in_one_tab_beats_idling_in_another() -> None:
    """An idle or hidden page beside a busy one takes nothing away from it, and adds nothing."""
    busy = beating(120, *[event("input", s) for s in range(0, 121, 10)])
    hidden = [
        event("open", 0),
        event("hidden", 1),
        *(event("heartbeat", s) for s in range(15, 200, 15)),
        event("close", 200),
    ]
    found = work_time([batch(0, busy, sent=120), batch(0, hidden, sent=200, sitting="s2")], LIMITS)
    assert seconds(found) == (120, 0, 80)


def test_nights_between_sittings_are_not_away() -> None:
    """While no page is open nothing is counted; a page left open overnight is away."""
    day = [event("open", 0), event("input", 20), event("close", 40)]
    next_day = batch(0, day, sent=40, at=40 + 86_400, sitting="s2")
    assert seconds(work_time([batch(0, day, sent=40), next_day], LIMITS)) == (80, 0, 0)
    left_open = [*day[:2], event("hidden", 40), event("visible", 86_400), event("close", 86_420)]
    assert seconds(one(left_open)) == (60, 0, 86_360)


def test_revisions_split_at_the_submissions() -> None:
    """Minutes of a revision are those after the submission before it; nothing is lost between, the rest is nobody's."""
    events = beating(300, *[event("input", s) for s in range(0, 301, 20)])
    marks = [START + timedelta(seconds=s) for s in (100, 250)]
    first, second = by_revision([batch(0, events, sent=300)], LIMITS, marks)
    assert (seconds(first)[0], seconds(second)[0]) == (100, 150)
    after = work_time([batch(0, events, sent=300)], LIMITS, since=marks[1])
    assert seconds(after)[0] == 50


def test_offline_spans_are_told() -> None:
    """What the page said of its connection and what late arrival shows are one union of seconds; minutes stay."""
    events = beating(120, event("open", 0), *[event("input", s) for s in range(5, 121, 10)])
    said = sorted([*events, event("offline", 30), event("online", 60)], key=lambda e: e.ms)
    assert one(said).offline_seconds == 30
    early = [e for e in events if e.ms <= 40_000]
    later = [e for e in events if e.ms > 40_000]
    prompt = work_time([batch(0, early, sent=40), batch(1, later, sent=120)], LIMITS)
    late = work_time([batch(0, early, sent=40), batch(1, later, sent=120, at=4000)], LIMITS)
    assert prompt.offline_seconds == 0 and late.offline_seconds == 75
    assert prompt.structures == late.structures


def test_the_servers_clock_bounds_a_forged_page() -> None:
    """A page that says it lived for eleven days when first heard of gets the tolerance at most, and a flag."""
    days = 11 * 86_400
    forged = [event("input", s) for s in range(0, days, 30)]
    found = work_time([batch(0, forged, sent=days, at=30)], LIMITS)
    assert found.flags == ("beyond_server_time",)
    assert found.total.active <= UNHEARD and found.last_at is not None
    assert found.last_at <= START + timedelta(seconds=30)
    # A second batch cannot stretch it beyond what passed on the server either.
    more = batch(1, [event("input", days + s) for s in range(0, 90_000, 30)], sent=days + 90_000, at=90)
    found = work_time([batch(0, forged, sent=days, at=30), more], LIMITS)
    assert found.total.active <= UNHEARD + 60e6


def test_an_event_after_its_batch_was_made_is_cut() -> None:
    """A time beyond the batch's own counts up to there and is flagged."""
    found = work_time([batch(0, [event("input", 0), event("input", 50)], sent=20)], LIMITS)
    assert seconds(found) == (20, 0, 0) and found.flags == ("event_after_sending",)


def test_a_batch_that_never_came_is_flagged() -> None:
    """A hole in the numbers is named: the minutes may be too few."""
    found = work_time([batch(0, [event("open", 0)], sent=1), batch(2, [event("input", 30)], sent=30)], LIMITS)
    assert found.flags == ("batch_missing",)


def test_no_events_are_no_minutes() -> None:
    """Nothing, or batches without events: zeros for the exam, nothing that divides or fails."""
    for nothing in ([], [batch(0, [], sent=5)]):
        found = work_time(nothing, LIMITS)
        assert found.minutes() == {"exam": {"active": 0.0, "idle": 0.0, "away": 0.0}}
        assert found.first_at is None and found.sittings == ()


@pytest.mark.parametrize("ms", [float("nan"), float("inf"), -1.0, 1e13, "5", None, True])
def test_times_that_are_none_are_refused(ms: object) -> None:
    """NaN, infinite, negative, absurd or textual times never get in."""
    with pytest.raises(ValidationError):
        Event.model_validate({"kind": "input", "ms": ms})
    with pytest.raises(ValidationError):
        Batch.model_validate({"sitting": "s", "number": 0, "sent_ms": ms, "events": []})


@pytest.mark.parametrize(
    "content",
    [
        {"sitting": "", "number": 0}, {"sitting": "../x", "number": 0}, {"sitting": "s", "number": -1},
        {"sitting": "s", "number": 1.5}, {"sitting": "s", "number": 0, "more": 1},
        {"sitting": "s", "number": 0, "events": [{"kind": "paused", "ms": 1}]},
        {"sitting": "s", "number": 0, "events": [{"kind": "structure", "ms": 1}]},
        {"sitting": "s", "number": 0, "events": [{"kind": "input", "ms": 1, "structure": "kidney"}]},
        {"sitting": "s", "number": 0, "events": [{"kind": "input", "ms": 1}] * (MAX_EVENTS + 1)},
    ],
)  # fmt: skip
def test_other_forms_are_refused(content: dict) -> None:  # type: ignore[type-arg]
    """Unknown kinds, fields and names, fractions for counts and oversized batches are refused."""
    with pytest.raises(ValidationError):
        Batch.model_validate({"sent_ms": 5.0, "events": [], **content})


# -- properties ----------------------------------------------------------------------------------------------------
KINDS = [
    "input",
    "input",
    "input",
    "heartbeat",
    "heartbeat",
    "hidden",
    "visible",
    "structure",
    "close",
    "open",
    "offline",
]


@st.composite
def sittings(draw, names: tuple[str, ...] = ("a", "b")):  # type: ignore[no-untyped-def]
    """Batches of sittings; the first batch of each is on time, the others are late by anything. Whole seconds."""
    found = []
    for name in names:
        begin = draw(st.integers(0, 300))
        steps = draw(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 80)), min_size=1, max_size=25))
        events, now = [], 0
        for kind, step in steps:
            now += step
            named = draw(st.sampled_from(["kidney", "tumor", "exam"])) if kind == "structure" else None
            events.append(event(kind, now, named))
        cuts = sorted(draw(st.sets(st.integers(1, len(events)), max_size=3)) | {1, len(events)})
        low = 0
        for number, high in enumerate(cuts):
            part = events[low:high]
            low = high
            sent = part[-1].ms / 1000
            late = draw(st.integers(0, 5000)) if number else 0
            found.append(batch(number, part, sent=sent, at=begin + sent + late, sitting=name))
    return found


@settings(max_examples=150, deadline=None)
@given(sittings(), st.randoms(use_true_random=False), st.data())
def test_late_twice_and_out_of_order_give_the_same_minutes(batches, shuffle, data) -> None:  # type: ignore[no-untyped-def]
    """Exactly the same, not nearly: batches shuffled, repeated later, and delivered on time."""
    first = work_time(batches, LIMITS)
    repeats = data.draw(st.lists(st.sampled_from(batches), max_size=5))
    again = [RawBatch(b.sitting, b.number, b.sent_ms, b.received_at + timedelta(hours=3), b.events) for b in repeats]
    mixed = [*batches, *again]
    shuffle.shuffle(mixed)
    assert work_time(mixed, LIMITS) == first
    begin = {b.sitting: b.received_at - timedelta(milliseconds=b.sent_ms) for b in batches if b.number == 0}
    prompt = [
        RawBatch(b.sitting, b.number, b.sent_ms, begin[b.sitting] + timedelta(milliseconds=b.sent_ms), b.events)
        for b in batches
    ]
    assert work_time(prompt, LIMITS).structures == first.structures


def by_second(batches: list[RawBatch], limits: Thresholds) -> dict[str, list[int]]:
    """An oracle that knows no intervals: asks of each second of each sitting what it is, then takes the best."""
    lines = {}
    for name in {b.sitting for b in batches}:
        own = sorted((b for b in batches if b.sitting == name), key=lambda b: b.number)
        begin = min((b.received_at - START).total_seconds() - b.sent_ms / 1000 for b in own)
        lines[name] = [(int(begin + e.ms / 1000), e.kind, e.structure) for b in own for e in b.events]
    acts = {"open", "close", "visible", "hidden", "input", "structure"}
    result: dict[str, list[int]] = {}
    first = min(line[0][0] for line in lines.values())
    last = max(line[-1][0] for line in lines.values())
    for second in range(first, last):
        best = None
        for name in sorted(lines, reverse=True):
            line = lines[name]
            if not line[0][0] <= second < line[-1][0]:
                continue
            here = max(i for i, e in enumerate(line) if e[0] <= second)

            def seen(i: int, line=line) -> bool:  # type: ignore[no-untyped-def]
                """Whether the time from event i to the next is present."""
                told = [e[1] for e in line[: i + 1] if e[1] in acts]
                front = not told or told[-1] not in ("hidden", "close")
                return front and line[i + 1][0] - line[i][0] <= limits.away_after_seconds

            structure = next((e[2] for e in reversed(line[: here + 1]) if e[1] == "structure"), "exam")
            act = max((e[0] for e in line[: here + 1] if e[1] in acts), default=line[0][0])
            if not seen(here):
                key = (0, act)
            else:
                low = here
                while line[low][1] not in acts and low > 0 and seen(low - 1):
                    low -= 1
                high = here + 1
                while line[high][1] not in acts and high + 1 < len(line) and seen(high):
                    high += 1
                key = (2 if line[high][0] - line[low][0] <= limits.idle_after_seconds else 1, act)
            if best is None or key >= best[0]:
                best = (key, structure)
        if best is not None:
            result.setdefault(best[1], [0, 0, 0])[2 - best[0][0]] += 1
    return result


@settings(max_examples=150, deadline=None)
@given(sittings())
def test_an_independent_count_of_seconds_agrees(batches) -> None:  # type: ignore[no-untyped-def]
    """Counting second by second what each is gives the same, per structure and state, for two pages at once."""
    found = work_time(batches, LIMITS)
    counted = by_second(batches, LIMITS) if found.total.active + found.total.idle + found.total.away else {}
    assert {
        name: [s.active // 10**6, s.idle // 10**6, s.away // 10**6]
        for name, s in found.structures.items()
        if s.active + s.idle + s.away
    } == counted


@settings(max_examples=100, deadline=None)
@given(sittings(), st.lists(st.integers(0, 3000), max_size=3))
def test_revisions_lose_nothing(batches, marks) -> None:  # type: ignore[no-untyped-def]
    """Minutes of all revisions and of what lies after them add up to the whole, exactly."""
    moments = [START + timedelta(seconds=s) for s in sorted(marks)]
    parts = [*by_revision(batches, LIMITS, moments)]
    parts.append(work_time(batches, LIMITS, since=moments[-1] if moments else None))
    whole = work_time(batches, LIMITS).total
    for state in ("active", "idle", "away"):
        assert sum(getattr(part.total, state) for part in parts) == getattr(whole, state)


@settings(max_examples=100, deadline=None)
@given(sittings(names=("a",)))
def test_a_larger_threshold_never_takes_active_time_away(batches) -> None:  # type: ignore[no-untyped-def]
    """Active time grows with the threshold, presence and the whole stay the same."""
    found = [work_time(batches, Thresholds(s, 45)).total for s in (5, 15, 60, 180)]
    assert [t.active for t in found] == sorted(t.active for t in found)
    assert len({(t.active + t.idle, t.away) for t in found}) == 1
