"""Minutes, seconds and bytes become cost entries: one per annotation, step and stored item."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from redraft.config.schema import RateCard
from redraft.errors import UsageError
from tasks.account.money import exact, to_micro
from tasks.account.rates import check_currency, rate_for
from tasks.account.rows import Case, ComputeUse, LookRow, StorageUse, TimeRow

Kind = Literal["expert", "reference", "compute", "storage"]
KINDS: tuple[Kind, ...] = ("expert", "reference", "compute", "storage")
HOUR = Decimal(60)


class CostEntry(BaseModel):
    """One amount with what it is for and the price it was reckoned at.

    `what` names the annotation, the step or the stored item: with `round` and `kind` it identifies the entry, so that
    nothing is charged twice. `rate` is JSON (money as text).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    kind: Kind
    what: str
    exam_id: str | None
    reader_id: str | None
    minutes: float | None
    amount: Decimal
    currency: str
    rate: dict[str, str]
    simulated: bool


def cost_entries(
    rows: Sequence[TimeRow],
    compute: Sequence[ComputeUse],
    storage: Sequence[StorageUse],
    card: RateCard,
    *,
    currency: str,
    site: str,
    looks: Sequence[LookRow] = (),
) -> tuple[CostEntry, ...]:
    """All cost entries, sorted; the order of the inputs does not matter.

    Expert time on training exams is `expert`; on validation and test exams, on seeded errors (purpose `quality`) and on
    second looks at whatever work it is `reference`: what it costs to know that labels are right. Every entry keeps the
    `simulated` mark and the origin of what it was made from. Storage is charged once, for the card's `storage_months`.

    Raises
    ------
    ConfigError
        A missing rate, or a card in another currency.
    UsageError
        One annotation with two readers, purposes, days or origins of time.
    """
    check_currency(card, currency)
    entries = [_expert(group, card, site) for group in _by_annotation(rows).values()]
    entries += [_look(look, card, site) for look in looks if look.active_minutes is not None]
    for use in compute:
        amount = exact(use.seconds) / 3600 * card.compute_per_hour
        price = {"per_hour": str(card.compute_per_hour), "seconds": repr(use.seconds), "source": card.source}
        entries.append(_entry(use.round, "compute", use.step, None, amount, card, price, use.simulated))
    for item in storage:
        amount = Decimal(item.bytes) / 10**9 * card.storage_per_gb_month * card.storage_months
        price = {
            "per_gb_month": str(card.storage_per_gb_month),
            "months": str(card.storage_months),
            "bytes": str(item.bytes),
            "source": card.source,
        }
        entries.append(_entry(item.round, "storage", item.what, item.exam_id, amount, card, price, item.simulated))
    return tuple(sorted(entries, key=lambda e: (e.round, KINDS.index(e.kind), e.what, e.exam_id or "", e.amount)))


def cases(rows: Sequence[TimeRow], card: RateCard, site: str) -> tuple[Case, ...]:
    """Rows gathered to one case per round, exam, reader, purpose and mode, sorted."""
    groups: dict[tuple[int, str, str, str, str], list[TimeRow]] = defaultdict(list)
    for row in rows:
        groups[(row.round, row.exam_id, row.reader_id, row.purpose, row.mode)].append(row)
    found = []
    for key in sorted(groups):
        group = sorted(groups[key], key=_order)
        first = group[0]
        if len({(row.subject_id, row.mode_probability, row.randomised) for row in group}) > 1:
            raise UsageError(f"Time rows of exam {first.exam_id} in round {first.round} disagree on how it was chosen.")
        minutes: dict[str | None, float] = defaultdict(float)
        money: dict[str | None, float] = defaultdict(float)
        for row in group:
            per_hour = rate_for(card, row.role, site, row.worked_on).per_hour
            minutes[row.structure] += row.active_minutes
            money[row.structure] += float(exact(row.active_minutes) * per_hour / HOUR)
        found.append(
            Case(
                round=first.round,
                exam_id=first.exam_id,
                subject_id=first.subject_id,
                reader_id=first.reader_id,
                purpose=first.purpose,
                mode=first.mode,
                weight=1.0 / (first.mode_probability or 1.0),
                randomised=first.randomised,
                finished=any(row.finished for row in group),
                rejected=any(row.rejected for row in group) and not any(row.finished for row in group),
                origins=frozenset(row.origin for row in group),
                minutes=dict(minutes),
                money=dict(money),
            )
        )
    return tuple(found)


def _by_annotation(rows: Sequence[TimeRow]) -> dict[tuple[int, str], list[TimeRow]]:
    groups: dict[tuple[int, str], list[TimeRow]] = defaultdict(list)
    for row in rows:
        groups[(row.round, row.annotation_id)].append(row)
    return {key: sorted(groups[key], key=_order) for key in sorted(groups)}


def _order(row: TimeRow) -> tuple[str, str, str, float]:
    return (row.annotation_id, row.structure or "", row.worked_on.isoformat(), row.active_minutes)


def _expert(group: list[TimeRow], card: RateCard, site: str) -> CostEntry:
    first = group[0]
    same = {(r.exam_id, r.reader_id, r.role, r.purpose, r.worked_on, r.origin) for r in group}
    if len(same) > 1:
        raise UsageError(
            f"Annotation {first.annotation_id} has time rows of several readers, roles, purposes, days or origins.",
            "An annotation is one reader's work; a correction is a new annotation.",
        )
    rate = rate_for(card, first.role, site, first.worked_on)
    minutes = sum((exact(row.active_minutes) for row in group), Decimal(0))
    price = {
        "per_hour": str(rate.per_hour),
        "role": rate.role,
        "site": rate.site,
        "valid_from": rate.valid_from.isoformat(),
        "source": rate.source,
        "origin": first.origin,
    }
    kind: Kind = "expert" if first.purpose == "training" else "reference"
    entry = _entry(
        first.round,
        kind,
        first.annotation_id,
        first.exam_id,
        minutes * rate.per_hour / HOUR,
        card,
        price,
        first.simulated,
    )
    return entry.model_copy(update={"reader_id": first.reader_id, "minutes": float(minutes)})


def _look(look: LookRow, card: RateCard, site: str) -> CostEntry:
    rate = rate_for(card, look.role, site, look.worked_on)
    minutes = exact(look.active_minutes or 0.0)
    price = {
        "per_hour": str(rate.per_hour),
        "role": rate.role,
        "site": rate.site,
        "valid_from": rate.valid_from.isoformat(),
        "source": rate.source,
        "origin": "measured",
        "look": look.look,
        "day": look.worked_on.isoformat(),
    }
    amount = minutes * rate.per_hour / HOUR
    entry = _entry(look.round, "reference", look.what, look.exam_id, amount, card, price, False)
    return entry.model_copy(update={"minutes": float(minutes)})


def _entry(
    number: int,
    kind: Kind,
    what: str,
    exam_id: str | None,
    amount: Decimal,
    card: RateCard,
    price: dict[str, str],
    simulated: bool,
) -> CostEntry:
    return CostEntry(
        round=number,
        kind=kind,
        what=what,
        exam_id=exam_id,
        reader_id=None,
        minutes=None,
        amount=to_micro(amount),
        currency=card.currency,
        rate={"card": card.version, **price},
        simulated=simulated,
    )
