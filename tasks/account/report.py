"""The cost report: what a round or project cost, what drafts saved, and how sure that is.

Money holds all times of people, whatever their origin; savings compare times of one origin (tasks.account.origins).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TypeVar

import numpy as np

from redraft.config.schema import Bootstrap, RateCard
from redraft.intervals import Interval, bca
from tasks.account.content import (
    BreakEven,
    CostReport,
    MoneyInterval,
    OriginSavings,
    OriginTotal,
    PerExam,
    Savings,
    SecondLooks,
    Total,
)
from tasks.account.cost import KINDS, CostEntry, cases, cost_entries
from tasks.account.money import to_cent
from tasks.account.origins import choose, name_of
from tasks.account.rates import check_currency
from tasks.account.rows import Case, ComputeUse, LookRow, StorageUse, TimeRow, of_kind, only_kind
from tasks.account.saving import Arms, arms, design_of, saving, weighted_mean
from tasks.account.sensitivity import Alternatives, sensitivity

Number = TypeVar("Number", float, Decimal)
ZERO = Decimal("0.00")


def cost_report(
    rows: Sequence[TimeRow],
    compute: Sequence[ComputeUse],
    storage: Sequence[StorageUse],
    card: RateCard,
    *,
    structures: Sequence[str],
    currency: str,
    site: str,
    bootstrap: Bootstrap,
    seed: int,
    simulated: bool | None = None,
    alternatives: Alternatives | None = None,
    looks: Sequence[LookRow] = (),
) -> CostReport:
    """Report on one kind of times; rows may come in any order.

    Parameters
    ----------
    structures : names, in the order of the report.
    simulated : which kind of times; needed when rows hold both.
    alternatives : minutes of measured annotations by threshold, for the sensitivity table.
    looks : second looks; they enter totals and no saving.

    Raises
    ------
    ConfigError
        A missing rate, or a card in another currency.
    UsageError
        Simulated and measured rows and no choice between them.
    """
    check_currency(card, currency)
    kind = only_kind(rows, simulated)
    times, machine, stored = of_kind(rows, kind), of_kind(compute, kind), of_kind(storage, kind)
    seen = of_kind(looks, kind)
    entries = cost_entries(times, machine, stored, card, currency=currency, site=site, looks=seen)
    found = cases(times, card, site)
    main, *others = choose([case for case in found if case.finished and case.purpose == "training"])
    both = arms(main)
    per_structure = {name: _savings(both.holding(name), name, bootstrap, seed) for name in structures}
    whole = _savings(both, None, bootstrap, seed)
    other_savings = tuple(_other(group, structures, bootstrap, seed) for group in others)
    total = _total(entries, found)
    per_exam = _per_exam(entries, found, bootstrap, seed)
    return CostReport(
        currency=currency,
        simulated=kind,
        baseline=both.baseline,
        label=whole.saving_minutes.label,
        structures=per_structure,
        exam=whole,
        per_exam=per_exam,
        total=total,
        break_even=_break_even(total, whole.saving),
        rounds=tuple(sorted({entry.round for entry in entries})),
        rate_card=card.version,
        warnings=(
            *_warnings(kind, both, per_structure, whole, [case for case in found if not case.finished]),
            *_of_origins(name_of(main), other_savings, found),
        ),
        origin=name_of(main),
        origins=_origins(times),
        other_savings=other_savings,
        sensitivity=sensitivity(times, alternatives, card, site=site, bootstrap=bootstrap, seed=seed),
        second_looks=_second_looks(seen, entries),
    )


def cost_reports(
    rows: Sequence[TimeRow],
    compute: Sequence[ComputeUse],
    storage: Sequence[StorageUse],
    card: RateCard,
    *,
    structures: Sequence[str],
    currency: str,
    site: str,
    bootstrap: Bootstrap,
    seed: int,
    alternatives: Alternatives | None = None,
    looks: Sequence[LookRow] = (),
) -> tuple[CostReport, ...]:
    """One report per kind that occurs in times or in what machines used: measured first, then simulated."""
    return tuple(
        cost_report(
            rows,
            compute,
            storage,
            card,
            structures=structures,
            currency=currency,
            site=site,
            bootstrap=bootstrap,
            seed=seed,
            simulated=kind,
            alternatives=alternatives,
            looks=looks,
        )
        for kind in sorted({item.simulated for item in (*rows, *looks, *compute, *storage)})
    )


def _savings(both: Arms, structure: str | None, bootstrap: Bootstrap, seed: int) -> Savings:
    def minutes(case: Case) -> float:
        return case.minutes[structure] if structure is not None else sum(case.minutes.values())

    def money(case: Case) -> float:
        return case.money[structure] if structure is not None else sum(case.money.values())

    def estimate(value: Callable[[Case], float], relative: bool = False) -> Interval:
        return saving(
            both,
            value,
            relative=relative,
            resamples=bootstrap.resamples,
            confidence=bootstrap.confidence,
            seed=seed,
        )

    return Savings(
        n=len(both.scratch) + len(both.assisted),
        n_from_scratch=len(both.scratch),
        n_assisted=len(both.assisted),
        baseline=both.baseline,
        minutes_from_scratch=weighted_mean(both.scratch, minutes, both.baseline),
        minutes_assisted=weighted_mean(both.assisted, minutes, both.baseline),
        saving=_in_money(estimate(money)),
        saving_minutes=estimate(minutes),
        saving_share=estimate(minutes, relative=True),
    )


def _in_money(interval: Interval, offset: Decimal = ZERO) -> MoneyInterval:
    def cents(value: float | None) -> Decimal | None:
        return None if value is None else to_cent(value) + offset

    return MoneyInterval(
        mean=cents(interval.mean),
        lo=cents(interval.lo),
        hi=cents(interval.hi),
        p_negative=interval.p_negative,
        label=interval.label,
        reason=interval.reason,
        method=interval.method,
    )


def _sums(entries: Sequence[CostEntry]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = dict.fromkeys(KINDS, Decimal(0))
    for entry in entries:
        sums[entry.kind] += entry.amount
    return sums


def _total(entries: Sequence[CostEntry], found: Sequence[Case]) -> Total:
    parts = {kind: to_cent(amount) for kind, amount in _sums(entries).items()}

    def minutes(purpose: str, rejected: bool | None = None) -> float:
        return math.fsum(sum(case.minutes.values()) for case in of(purpose, rejected))

    def exams(purpose: str, rejected: bool | None = None) -> int:
        return len({case.exam_id for case in of(purpose, rejected)})

    def of(purpose: str, rejected: bool | None) -> list[Case]:
        return [case for case in found if case.purpose == purpose and rejected in (None, case.rejected)]

    return Total(
        cost=sum(parts.values(), ZERO),
        **parts,
        minutes_training=minutes("training"),
        minutes_reference=minutes("reference"),
        exams_training=exams("training"),
        exams_reference=exams("reference"),
        minutes_quality=minutes("quality"),
        exams_quality=exams("quality"),
        minutes_rejected=minutes("training", True),
        exams_rejected=exams("training", True),
    )


def _per_exam(entries: Sequence[CostEntry], found: Sequence[Case], bootstrap: Bootstrap, seed: int) -> PerExam:
    """Every training exam bears its own expert cost and an equal share of reference, compute and storage.

    Only expert cost varies between exams; the interval is about that, shifted by the fixed share. What was spent on
    exams that are not finished is part of everybody's share.
    """
    exams: dict[str, list[Case]] = defaultdict(list)
    finished = {case.exam_id for case in found if case.purpose == "training" and case.finished}
    for case in found:
        if case.purpose == "training" and case.exam_id in finished:
            exams[case.exam_id].append(case)
    if not exams:
        nothing = MoneyInterval(mean=None, lo=None, hi=None, reason="no finished training exam", method="not_estimable")
        return PerExam(n=0, cost=nothing, expert=None, reference=None, compute=None, storage=None)
    parts = {kind: to_cent(amount / len(exams)) for kind, amount in _sums(entries).items()}
    unfinished = sum((e.amount for e in entries if e.kind == "expert" and e.exam_id not in finished), Decimal(0)) / len(
        exams
    )
    fixed = parts["reference"] + parts["compute"] + parts["storage"] + to_cent(unfinished)
    names = sorted(exams)
    spent = np.array([sum(sum(case.money.values()) for case in exams[name]) for name in names])
    design, label = design_of([exams[name][0] for name in names], [True] * len(names))
    interval = bca(
        lambda counts: counts @ spent / counts.sum(axis=1),
        design,
        constant=bool((spent == spent[0]).all()),
        resamples=bootstrap.resamples,
        confidence=bootstrap.confidence,
        seed=seed,
    ).model_copy(update={"label": label, "p_negative": None})
    whole = sum(parts.values(), ZERO)
    cost = _in_money(interval, fixed).model_copy(update={"mean": whole})
    return PerExam(n=len(exams), cost=cost, **parts)


def _break_even(total: Total, saved: MoneyInterval) -> BreakEven:
    overhead = total.reference + total.compute + total.storage

    def exams(amount: Decimal | None) -> int | None:
        return None if amount is None or amount <= 0 else math.ceil(overhead / amount)

    reason = None
    if saved.mean is None:
        reason = f"the saving is not estimable: {saved.reason}"
    elif saved.mean <= 0:
        reason = "drafts did not save on average"
    return BreakEven(overhead=overhead, exams=exams(saved.mean), exams_at_lo=exams(saved.lo), reason=reason)


def _warnings(
    kind: bool, both: Arms, per_structure: dict[str, Savings], whole: Savings, unfinished: Sequence[Case]
) -> tuple[str, ...]:
    found = []
    if kind:
        found.append("Times are simulated: they come from an effort model, not from people.")
    if both.baseline == "recorded_from_scratch":
        found.append(
            "The baseline is recorded from-scratch times, not the randomised arm: exams and dates differ between arms."
        )
    sent_back = sum(case.rejected for case in unfinished)
    if len(unfinished) > sent_back:
        count = len(unfinished) - sent_back
        found.append(f"{count} pieces of work are not accepted yet: in the totals, not in savings and means.")
    if sent_back:
        found.append(f"{sent_back} exams were sent back without a segmentation: their minutes are in the totals.")
    if whole.saving_minutes.label:
        found.append("Fewer than five readers: intervals hold for these readers only.")
    for name, result in {**per_structure, "the whole exam": whole}.items():
        if result.saving_minutes.reason:
            found.append(f"No interval of the saving for {name}: {result.saving_minutes.reason}.")
    return tuple(found)


def _other(group: Sequence[Case], structures: Sequence[str], bootstrap: Bootstrap, seed: int) -> OriginSavings:
    both = arms(group)
    return OriginSavings(
        origin=name_of(group),
        baseline=both.baseline,
        structures={name: _savings(both.holding(name), name, bootstrap, seed) for name in structures},
        exam=_savings(both, None, bootstrap, seed),
    )


def _origins(times: Sequence[TimeRow]) -> dict[str, OriginTotal]:
    result: dict[str, OriginTotal] = {}
    for origin in sorted({row.origin for row in times}):
        rows = [row for row in times if row.origin == origin]
        result[origin] = OriginTotal(
            annotations=len({row.annotation_id for row in rows}),
            exams=len({row.exam_id for row in rows}),
            minutes=math.fsum(sorted(row.active_minutes for row in rows)),
        )
    return result


def _second_looks(seen: Sequence[LookRow], entries: Sequence[CostEntry]) -> SecondLooks:
    names = {look.what for look in seen}

    def count(kind: str) -> int:
        return len({look.record_id for look in seen if look.look == kind})

    return SecondLooks(
        reviews=count("review"),
        adjudications=count("adjudication"),
        untimed=sum(look.active_minutes is None for look in seen),
        minutes=math.fsum(sorted(look.active_minutes or 0.0 for look in seen)),
        cost=to_cent(sum((e.amount for e in entries if e.what in names), Decimal(0))),
    )


def _of_origins(main: str, others: Sequence[OriginSavings], found: Sequence[Case]) -> tuple[str, ...]:
    warnings = []
    origins = sorted({origin for case in found for origin in case.origins})
    if len(origins) > 1:
        warnings.append(f"Times of several origins ({', '.join(origins)}): money holds them all, a saving never does.")
    if others:
        names = ", ".join(other.origin for other in others)
        warnings.append(f"The saving is from {main} times; {names} times are told apart (other_savings).")
    if main not in ("measured", "simulated", "none"):
        warnings.append(f"The saving is from {main} times: nobody measured them.")
    return tuple(warnings)
