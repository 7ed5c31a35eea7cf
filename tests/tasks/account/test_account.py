"""Minutes become money: prices picked by date, sums to the cent, savings with honest intervals."""

from __future__ import annotations

import json
import random
from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.config.schema import Bootstrap, Rate, RateCard
from redraft.errors import ConfigError, UsageError
from tasks.account.cost import cases, cost_entries
from tasks.account.money import to_cent
from tasks.account.rates import rate_for
from tasks.account.report import CostReport, cost_report, cost_reports
from tasks.account.rows import ComputeUse, StorageUse, TimeRow

DAY = date(2026, 6, 1)
FAST = Bootstrap(resamples=200)


def rate(role: str, start: date, per_hour: str, site: str = "default") -> Rate:
    return Rate(role=role, site=site, valid_from=start, per_hour=Decimal(per_hour), source="test")


CARD = RateCard(
    version="t",
    currency="USD",
    rates=(
        rate("radiologist", date(2026, 1, 1), "200.00"),
        rate("radiologist", date(2026, 7, 1), "240.00"),
        rate("radiologist", date(2026, 1, 1), "90.00", "elsewhere"),
    ),
    compute_per_hour=Decimal("0.50"),
    storage_per_gb_month=Decimal("0.023"),
    source="test",
)


def row(exam: int, minutes: float, mode: str = "assisted", **more) -> TimeRow:  # type: ignore[no-untyped-def]
    base = {
        "round": 2,
        "annotation_id": f"a{exam}-{mode}",
        "exam_id": f"e{exam}",
        "subject_id": f"s{exam}",
        "reader_id": "r1",
        "role": "radiologist",
        "purpose": "training",
        "mode": mode,
        "mode_probability": 0.75 if mode == "assisted" else 0.25,
        "drafted_by": "m1",
        "structure": "kidney",
        "active_minutes": minutes,
        "simulated": False,
        "worked_on": DAY,
    }
    base["origin"] = "simulated" if more.get("simulated") else "measured"
    return TimeRow.model_validate({**base, **more})


def report(rows, compute=(), storage=(), **more) -> CostReport:  # type: ignore[no-untyped-def]
    known = {"structures": ["kidney"], "currency": "USD", "site": "default", "bootstrap": FAST, "seed": 1}
    return cost_report(rows, compute, storage, CARD, **{**known, **more})


def two_arms(scratch: int = 6, assisted: int = 12, seed: int = 0, **more) -> list[TimeRow]:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    rows = [row(i, float(20 + rng.normal(0, 2)), "from_scratch", **more) for i in range(scratch)]
    return rows + [row(100 + i, float(5 + rng.normal(0, 1)), **more) for i in range(assisted)]


def test_the_latest_valid_price_applies() -> None:
    """Role, site and day decide; the day a price starts counts."""
    assert rate_for(CARD, "radiologist", "default", date(2026, 6, 30)).per_hour == 200
    assert rate_for(CARD, "radiologist", "default", date(2026, 7, 1)).per_hour == 240
    assert rate_for(CARD, "radiologist", "elsewhere", DAY).per_hour == 90


@pytest.mark.parametrize(
    ("role", "site", "day", "named"),
    [
        ("nurse", "default", DAY, "nurse"),
        ("radiologist", "moon", DAY, "moon"),
        ("radiologist", "default", date(2025, 12, 31), "2025-12-31"),
    ],
)
def test_missing_price_is_named(role: str, site: str, day: date, named: str) -> None:
    """No price, no guess: the error names role, site and day and lists what the card has."""
    with pytest.raises(ConfigError, match=named) as caught:
        rate_for(CARD, role, site, day)
    assert "radiologist at default" in caught.value.do


def test_two_prices_of_one_day_are_refused() -> None:
    """An ambiguous card is an error."""
    twice = CARD.model_copy(update={"rates": (CARD.rates[0], CARD.rates[0])})
    with pytest.raises(ConfigError, match="2 rates"):
        rate_for(twice, "radiologist", "default", DAY)


def test_currencies_are_never_mixed() -> None:
    """A card in another currency is refused before anything is reckoned."""
    with pytest.raises(ConfigError, match=r"USD.*EUR"):
        report([row(1, 5)], currency="EUR")
    with pytest.raises(ConfigError):
        cost_entries([], [], [], CARD, currency="EUR", site="default")


def test_hand_computed_entries() -> None:
    """30 minutes at 200/h, 90 s at 0.50/h, 2 GB for a year, and reference work apart."""
    rows = [row(1, 10.0), row(1, 20.0, structure="tumor"), row(2, 6.0, "from_scratch", purpose="reference")]
    entries = cost_entries(
        rows,
        [ComputeUse(round=2, step="retrain", seconds=90.0, simulated=False)],
        [StorageUse(round=2, what="e1", exam_id="e1", bytes=2 * 10**9, simulated=False)],
        CARD,
        currency="USD",
        site="default",
    )
    assert [(e.kind, e.amount) for e in entries] == [
        ("expert", Decimal("100.000000")),
        ("reference", Decimal("20.000000")),
        ("compute", Decimal("0.012500")),
        ("storage", Decimal("0.552000")),
    ]
    assert entries[0].minutes == 30 and entries[0].rate["per_hour"] == "200.00" and entries[0].rate["card"] == "t"
    total = report(rows, *_uses(entries_seconds=90.0, stored=2 * 10**9)).total
    assert (total.cost, total.expert, total.reference) == (Decimal("120.56"), Decimal("100.00"), Decimal("20.00"))


def _uses(entries_seconds: float, stored: int) -> tuple[list[ComputeUse], list[StorageUse]]:
    return (
        [ComputeUse(round=2, step="retrain", seconds=entries_seconds, simulated=False)],
        [StorageUse(round=2, what="e1", bytes=stored, simulated=False)],
    )


def test_halves_round_to_even() -> None:
    """Rounding is half to even, as written down."""
    assert [to_cent(Decimal(v)) for v in ("0.005", "0.015", "0.025")] == [
        Decimal("0.00"),
        Decimal("0.02"),
        Decimal("0.02"),
    ]


times = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.sampled_from(["assisted", "from_scratch"]),
        st.sampled_from(["training", "reference"]),
        st.sampled_from(["kidney", "tumor"]),
        st.floats(0, 240, allow_nan=False).map(lambda v: round(v, 3)),
    ),
    min_size=1,
    max_size=25,
)


def _rows(drawn) -> list[TimeRow]:  # type: ignore[no-untyped-def]
    return [row(e, t, m, purpose=p, structure=s, annotation_id=f"a{e}{m}{p}") for e, m, p, s, t in drawn]


@settings(max_examples=60, deadline=None)
@given(times, st.floats(0, 1e5), st.integers(0, 10**11), st.randoms(use_true_random=False))
def test_totals_add_up_and_order_does_not_matter(drawn, seconds, stored, shuffle) -> None:  # type: ignore[no-untyped-def]
    """Parts add up to totals to the cent, per exam too, and rows in another order give the same report."""
    rows = _rows(drawn)
    first = report(rows, *_uses(seconds, stored))
    t, p = first.total, first.per_exam
    assert t.cost == t.expert + t.reference + t.compute + t.storage
    if p.n:
        assert p.cost.mean == p.expert + p.reference + p.compute + p.storage  # type: ignore[operator]
    exact = sum(Decimal(repr(r.active_minutes)) for r in rows) * 200 / 60
    assert abs(t.expert + t.reference - exact) <= Decimal("0.0101")
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    assert report(shuffled, *_uses(seconds, stored)) == first


def test_saving_comes_from_the_randomised_arms() -> None:
    """Fifteen minutes saved at 200/h are about 50; the interval is above zero and the baseline is named."""
    found = report(two_arms())
    kidney = found.structures["kidney"]
    assert found.baseline == kidney.baseline == "randomised_from_scratch"
    assert (kidney.n, kidney.n_from_scratch, kidney.n_assisted) == (18, 6, 12)
    assert kidney.saving_minutes.mean == pytest.approx(15, abs=2)
    assert float(kidney.saving.mean) == pytest.approx(kidney.saving_minutes.mean * 200 / 60, abs=0.01)  # type: ignore[arg-type,operator]
    assert kidney.saving_minutes.lo is not None and kidney.saving_minutes.lo > 0
    assert kidney.saving.p_negative == 0
    assert kidney.saving_share.mean == pytest.approx(0.75, abs=0.1)


def test_interval_of_the_saving_covers_what_is_true() -> None:
    """Five exams from scratch, fifteen assisted, two readers, skewed times: the 95 % interval covers near 95 %."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(150):
        factor = np.exp(0.3 * rng.standard_normal(20) - 0.045)
        rows = [row(i, float(20 * factor[i]), "from_scratch", reader_id=f"r{i % 2}") for i in range(5)]
        rows += [row(i, float(8 * factor[i]), reader_id=f"r{i % 2}") for i in range(5, 20)]
        found = report(rows, structures=[]).exam.saving_minutes
        assert found.lo is not None and found.hi is not None
        hits += found.lo <= 12 <= found.hi
    assert hits / 150 > 0.85


def test_saving_that_is_a_loss_is_reported_as_one() -> None:
    """Drafts that cost time: negative saving, all resamples below zero, no break-even."""
    rows = [row(i, 10.0 + i % 3, "from_scratch") for i in range(5)] + [row(50 + i, 20.0 + i % 4) for i in range(8)]
    found = report(rows)
    assert found.exam.saving_minutes.mean is not None and found.exam.saving_minutes.mean < 0
    assert found.exam.saving.p_negative == 1
    assert found.break_even.exams is None and found.break_even.reason


def test_unequal_probabilities_are_weighted() -> None:
    """Two rounds of different difficulty and different odds: weighting finds the true saving, pooling would not."""
    rows = []
    for number, base, probability, counts in ((2, 10.0, 0.2, (2, 8)), (3, 30.0, 0.8, (8, 2))):
        for mode, share, count in (
            ("from_scratch", probability, counts[0]),
            ("assisted", 1 - probability, counts[1]),
        ):
            for i in range(count):
                minutes = base if mode == "from_scratch" else base - 5
                rows.append(
                    row(1000 * number + i + 100 * (mode == "assisted"), minutes, mode, round=number,
                        mode_probability=share)
                )  # fmt: skip
    found = report(rows).exam
    assert found.saving_minutes.mean == pytest.approx(5.0)
    pooled = (2 * 10 + 8 * 30) / 10 - (8 * 5 + 2 * 25) / 10
    assert pooled == pytest.approx(17.0)  # what an unweighted comparison would have claimed


def test_cold_start_times_are_a_named_second_choice() -> None:
    """Too few randomised from-scratch exams: recorded ones stand in, under their own name and with a warning."""
    cold = [row(i, 20.0 + i, "from_scratch", round=1, drafted_by=None, mode_probability=1.0) for i in range(5)]
    found = report([*cold, *[row(50 + i, 5.0 + i) for i in range(6)], row(90, 22.0, "from_scratch")])
    assert found.baseline == "recorded_from_scratch"
    assert found.exam.n_from_scratch == 6 and found.exam.saving.mean is not None
    assert any("recorded" in w for w in found.warnings)


def test_reference_work_is_no_baseline() -> None:
    """Validation and test exams are costed, and never enter a saving."""
    reference = [row(i, 20.0, "from_scratch", purpose="reference", mode_probability=None) for i in range(9)]
    found = report([*reference, *[row(50 + i, 5.0 + i) for i in range(6)]])
    assert found.baseline == "none" and found.exam.n_from_scratch == 0
    assert found.total.exams_reference == 9 and found.total.reference == Decimal("600.00")


def test_saving_that_cannot_be_estimated_has_a_reason() -> None:
    """No from-scratch work: nulls and the reason, in JSON too."""
    found = json.loads(report([row(i, 5.0 + i) for i in range(4)]).model_dump_json())
    saving = found["structures"]["kidney"]["saving"]
    assert (saving["mean"], saving["lo"], saving["hi"], saving["method"]) == (None, None, None, "not_estimable")
    assert "0 exams from scratch" in saving["reason"] and found["structures"]["kidney"]["minutes_from_scratch"] is None
    assert found["break_even"]["exams"] is None


def test_fewer_than_five_readers_are_labelled() -> None:
    """Few readers: subjects within readers and the label; five or more: readers, then exams, and no label."""
    few = report(two_arms())
    assert few.label == few.structures["kidney"].saving.label == "these readers only"
    assert few.exam.saving_minutes.method == "bca_clusters_within_strata_expanded"
    rows = [r.model_copy(update={"reader_id": f"r{i % 6}"}) for i, r in enumerate(two_arms(12, 24))]
    many = report(rows)
    assert many.label is None and many.exam.saving_minutes.method == "bca_clusters_then_units_expanded"


def test_simulated_and_measured_times_are_never_pooled() -> None:
    """Mixed rows are refused, chosen kinds are apart, and compute of one kind stays with it."""
    both = [*two_arms(), *two_arms(seed=5, simulated=True)]
    both = [r.model_copy(update={"annotation_id": f"{r.annotation_id}{r.simulated}"}) for r in both]
    with pytest.raises(UsageError, match="never pooled"):
        report(both)
    uses = [ComputeUse(round=2, step="infer", seconds=3600.0, simulated=True)]
    known = {"structures": ["kidney"], "currency": "USD", "site": "default", "bootstrap": FAST, "seed": 1}
    measured, simulated = cost_reports(both, uses, [], CARD, **known)
    assert (measured.simulated, simulated.simulated) == (False, True)
    assert measured.total == report(two_arms()).total and measured.exam == report(two_arms()).exam
    assert measured.total.compute == 0 and simulated.total.compute == Decimal("0.50")
    assert any("simulated" in w for w in simulated.warnings)


def test_json_is_the_published_contract() -> None:
    """The keys that other tools build on, with money as text."""
    found = json.loads(report(two_arms(), *_uses(7200.0, 10**9)).model_dump_json())
    assert {"currency", "simulated", "baseline", "structures", "per_exam", "total"} <= set(found)
    kidney = found["structures"]["kidney"]
    assert {"n", "minutes_from_scratch", "minutes_assisted", "saving", "saving_minutes"} <= set(kidney)
    assert {"mean", "lo", "hi", "p_negative"} <= set(kidney["saving"]) & set(kidney["saving_minutes"])
    assert {"n", "cost", "expert", "reference", "compute", "storage"} <= set(found["per_exam"])
    assert {"mean", "lo", "hi"} <= set(found["per_exam"]["cost"])
    for money in (kidney["saving"]["mean"], found["total"]["cost"], found["per_exam"]["compute"]):
        assert isinstance(money, str) and len(money.rpartition(".")[2]) == 2


def test_break_even_counts_exams_that_pay_the_overhead() -> None:
    """Overhead over mean saving, rounded up; at the lower bound more exams are needed."""
    found = report(two_arms(), *_uses(3600.0 * 1000, 0))
    assert found.break_even.overhead == Decimal("500.00")
    exams, mean = found.break_even.exams, found.exam.saving.mean
    assert exams is not None and mean is not None and (exams - 1) * mean < Decimal("500.00") <= exams * mean
    assert found.break_even.exams_at_lo is not None and found.break_even.exams_at_lo >= exams


def test_revisions_belong_to_one_case() -> None:
    """Work sent back and done again is more time on the same exam, not another exam."""
    rows = [row(1, 5.0), row(1, 3.0, annotation_id="again"), row(2, 4.0)]
    found = cases(rows, CARD, "default")
    assert [sum(c.minutes.values()) for c in found] == [8.0, 4.0]
    assert report(rows).per_exam.n == 2


def test_minutes_kept_per_exam_only_still_count() -> None:
    """Rows without structure enter the exam's saving and cost; the structure has none of its own."""
    rows = [r.model_copy(update={"structure": None}) for r in two_arms()]
    found = report(rows)
    assert found.exam.saving.mean is not None
    assert found.structures["kidney"].n == 0 and found.structures["kidney"].saving.mean is None


def test_contradicting_rows_are_refused() -> None:
    """One annotation of two readers, or one case with two probabilities, is a broken record."""
    with pytest.raises(UsageError):
        cost_entries([row(1, 5), row(1, 5, reader_id="r2")], [], [], CARD, currency="USD", site="default")
    with pytest.raises(UsageError):
        cases([row(1, 5), row(1, 5, annotation_id="b", mode_probability=0.5)], CARD, "default")


def test_nothing_yet_is_a_report_too() -> None:
    """Before any work: zeros, nulls and reasons, no division by zero."""
    found = report([])
    assert found.total.cost == 0 and found.per_exam.n == 0 and found.per_exam.cost.mean is None
    assert found.baseline == "none"


def test_same_seed_same_report() -> None:
    """Intervals reproduce, whatever Python's global random state is."""
    random.seed(1)
    one = report(two_arms())
    random.seed(2)
    assert report(two_arms()) == one


def test_unfinished_work_is_paid_for_and_tells_no_saving() -> None:
    """Refused work that is not mended yet is in the totals; savings and the number of exams leave it out."""
    rows = two_arms()
    open_work = row(99, 500.0, "from_scratch", finished=False)
    before, after = report(rows), report([*rows, open_work])
    assert after.exam == before.exam
    assert after.per_exam.n == before.per_exam.n
    assert after.total.expert > before.total.expert
    assert after.per_exam.expert is not None
    assert after.per_exam.cost.mean == sum(
        (getattr(after.per_exam, kind) for kind in ("expert", "reference", "compute", "storage")), Decimal(0)
    )
    assert any("not accepted yet" in text for text in after.warnings)
