"""Times of different origins: money holds all, a saving compares one, and every number says whose times it is from."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from redraft.config.schema import Bootstrap, Rate, RateCard
from tasks.account.cost import cost_entries
from tasks.account.report import CostReport, cost_report
from tasks.account.rows import TimeRow
from tasks.account.sensitivity import Alternatives

CARD = RateCard(
    version="t", currency="USD", compute_per_hour=Decimal(0), storage_per_gb_month=Decimal(0), source="test",
    rates=(Rate(role="r", site="default", valid_from=date(2026, 1, 1), per_hour=Decimal(60), source="test"),),
)  # fmt: skip


def row(exam: str, minutes: float, mode: str = "assisted", origin: str = "measured", **more) -> TimeRow:  # type: ignore[no-untyped-def]
    base = {
        "round": 2, "annotation_id": f"n-{exam}", "exam_id": exam, "subject_id": f"s{exam}", "reader_id": "r1",
        "role": "r", "purpose": "training", "mode": mode, "mode_probability": 0.5, "drafted_by": "m1",
        "structure": "kidney", "active_minutes": minutes, "simulated": origin == "simulated", "origin": origin,
        "worked_on": date(2026, 6, 1),
    }  # fmt: skip
    return TimeRow.model_validate({**base, **more})


def arm(prefix: str, mode: str, minutes: list[float], origin: str) -> list[TimeRow]:
    return [row(f"{prefix}{n}", value, mode, origin) for n, value in enumerate(minutes)]


def report(rows, **more) -> CostReport:  # type: ignore[no-untyped-def]
    return cost_report(
        rows, [], [], CARD, structures=["kidney"], currency="USD", site="default", bootstrap=Bootstrap(resamples=200),
        seed=1, **more,
    )  # fmt: skip


MEASURED = [
    *arm("ms", "from_scratch", [20, 22, 24, 26], "measured"),
    *arm("ma", "assisted", [5, 6, 7, 8], "measured"),
]
TYPED = [*arm("ts", "from_scratch", [60, 60, 60], "typed"), *arm("ta", "assisted", [30, 30, 30], "typed")]


def test_measured_times_stand_alone() -> None:
    """Measured in both arms: the saving is theirs, typed times have lines of their own, and the mixture is told."""
    found = report([*MEASURED, *TYPED])
    assert found.origin == "measured" and found.exam == report(MEASURED).exam
    (other,) = found.other_savings
    assert (other.origin, other.exam.n) == ("typed", 6) and other.exam == report(TYPED).exam
    assert any("several origins (measured, typed)" in text for text in found.warnings)
    assert {name: (o.annotations, o.minutes) for name, o in found.origins.items()} == {
        "measured": (8, 118.0), "typed": (6, 270.0),
    }  # fmt: skip
    assert found.total.expert == Decimal("388.00")


def test_typed_and_imported_stand_together_where_little_was_measured() -> None:
    """No measured time in one arm: stated times make the saving, are named so, and measured ones stand apart."""
    imported = arm("is", "from_scratch", [50, 52], "imported")
    measured = arm("ma", "assisted", [5, 6, 7], "measured")
    found = report([*TYPED, *imported, *measured])
    assert found.origin == "imported and typed" and found.exam.n == 8
    (other,) = found.other_savings
    assert other.origin == "measured" and other.exam.saving_minutes.mean is None
    assert any("nobody measured them" in text for text in found.warnings)


def test_a_baseline_that_was_typed_is_no_baseline_for_measured_work() -> None:
    """From scratch typed, assisted measured: no number at all, rather than two ways of telling time compared."""
    rows = [*arm("ts", "from_scratch", [60, 61, 62], "typed"), *arm("ma", "assisted", [5, 6, 7], "measured")]
    found = report(rows)
    assert found.exam.saving_minutes.mean is None and found.exam.saving_minutes.reason
    assert all(other.exam.saving_minutes.mean is None for other in found.other_savings)


def test_work_timed_in_two_ways_is_apart() -> None:
    """An exam whose first revision was typed and whose second was measured enters no saving of the report."""
    mixed = [row("x", 100.0, "assisted", "typed"), row("x", 1.0, "assisted", "measured", annotation_id="again")]
    found = report([*MEASURED, *mixed])
    assert found.exam == report(MEASURED).exam
    assert [other.origin for other in found.other_savings] == ["measured and typed"]
    assert report(mixed).origin == "none" and report(mixed).exam.n == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["assisted", "from_scratch"]), st.sampled_from(["measured", "typed", "imported"]),
            st.integers(1, 200),
        ),
        max_size=24,
    )
)  # fmt: skip
def test_no_saving_ever_mixes(drawn) -> None:  # type: ignore[no-untyped-def]
    """Whatever comes: each line's exams are those of its origins only, lines share none, and together they are all."""
    rows = [row(f"e{n}", float(m), mode, origin) for n, (mode, origin, m) in enumerate(drawn)]
    found = report(rows)
    lines = [(found.origin, found.exam), *((other.origin, other.exam) for other in found.other_savings)]
    for origin, exam in lines:
        names = set(origin.split(" and ")) - {"none"}
        assert names <= {"measured"} or names <= {"typed", "imported"}
        if exam.baseline == "randomised_from_scratch":
            assert exam.n == sum(row.origin in names for row in rows)
    assert found.total.expert == sum(Decimal(m) for _, _, m in drawn)


def test_seeded_errors_cost_and_save_nothing() -> None:
    """Work on known-wrong drafts is money under `reference`; savings and the exam's own minutes do not know it."""
    quality = [row("q1", 30.0, purpose="quality"), row("q2", 15.0, "from_scratch", purpose="quality")]
    before, after = report(MEASURED), report([*MEASURED, *quality])
    assert after.exam == before.exam and after.structures == before.structures
    assert (after.total.reference, after.total.minutes_quality, after.total.exams_quality) == (Decimal("45.00"), 45, 2)
    assert after.total.expert == before.total.expert and after.total.minutes_reference == 0
    assert (after.per_exam.n, after.per_exam.expert) == (before.per_exam.n, before.per_exam.expert)
    assert {e.kind for e in cost_entries(quality, [], [], CARD, currency="USD", site="default")} == {"reference"}


def test_rejected_exams_cost_minutes() -> None:
    """An exam sent back without a segmentation is in the totals and named, and in no saving."""
    found = report([*MEASURED, row("bad", 12.0, finished=False, rejected=True)])
    assert found.exam == report(MEASURED).exam
    assert (found.total.minutes_rejected, found.total.exams_rejected) == (12.0, 1)
    assert found.total.expert == report(MEASURED).total.expert + 12
    assert any("1 exams were sent back" in text for text in found.warnings)
    assert not any("not accepted yet" in text for text in found.warnings)


def test_sensitivity_is_the_saving_again() -> None:
    """A row per threshold with that threshold's minutes; the recorded one is marked and equals the report."""
    half = {r.annotation_id: {r.structure: r.active_minutes / 2} for r in MEASURED}
    same = {r.annotation_id: {r.structure: r.active_minutes} for r in MEASURED}
    found = report(
        [*MEASURED, *TYPED], alternatives=Alternatives({60.0: same, 15.0: half}, frozenset({60.0}))
    ).sensitivity
    assert [(r.idle_after_seconds, r.used, r.active_minutes) for r in found.rows] == [(15, False, 59), (60, True, 118)]
    assert found.rows[1].saving_minutes == report(MEASURED).exam.saving_minutes
    assert found.rows[0].saving_minutes.mean == pytest.approx(found.rows[1].saving_minutes.mean / 2)  # type: ignore[operator]
    assert (found.annotations, found.reason) == (8, None)


def test_sensitivity_has_a_reason_where_there_is_none() -> None:
    """Nothing measured, or events that are gone: no rows and the reason, in JSON too."""
    nothing = json.loads(report(TYPED).model_dump_json())["sensitivity"]
    assert nothing["rows"] == [] and "no times were measured" in nothing["reason"]
    assert "not at hand" in str(report(MEASURED).sensitivity.reason)
    some = {60.0: {r.annotation_id: {r.structure: 1.0} for r in MEASURED[1:]}}
    assert str(report(MEASURED, alternatives=Alternatives(some, frozenset())).sensitivity.reason).startswith(
        "1 measured"
    )


def test_simulated_times_say_so_in_both_places() -> None:
    """A row cannot be simulated by one field and measured by the other."""
    with pytest.raises(ValidationError):
        row("e", 1.0, origin="measured", simulated=True)
    assert report(arm("x", "assisted", [1, 2, 3], "simulated")).origin == "simulated"
