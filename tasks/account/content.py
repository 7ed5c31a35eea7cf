"""What a cost report says. Its JSON is a contract that other tools build on: keys are added, never renamed.

Money is text with two decimals.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from redraft.intervals import Interval
from tasks.account.saving import Baseline


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MoneyInterval(Part):
    """Money with its interval; None where not estimable, and `reason` says why."""

    mean: Decimal | None
    lo: Decimal | None
    hi: Decimal | None
    p_negative: float | None = None
    label: str | None = None
    reason: str | None = None
    method: str


class Savings(Part):
    """Saving per exam: money, minutes and as a share of from-scratch minutes.

    `n` counts the exams of both arms. Positive means that drafts saved.
    """

    n: int
    n_from_scratch: int
    n_assisted: int
    baseline: Baseline
    minutes_from_scratch: float | None
    minutes_assisted: float | None
    saving: MoneyInterval
    saving_minutes: Interval
    saving_share: Interval


class PerExam(Part):
    """Cost per training exam; the parts add up to `cost.mean` to the cent."""

    n: int
    cost: MoneyInterval
    expert: Decimal | None
    reference: Decimal | None
    compute: Decimal | None
    storage: Decimal | None


class Total(Part):
    """Everything spent; the parts add up to `cost` to the cent."""

    cost: Decimal
    expert: Decimal
    reference: Decimal
    compute: Decimal
    storage: Decimal
    minutes_training: float
    minutes_reference: float
    exams_training: int
    exams_reference: int
    # Seeded errors; their money is part of `reference`.
    minutes_quality: float
    exams_quality: int
    # Of `minutes_training`: work on exams that readers sent back without a segmentation.
    minutes_rejected: float
    exams_rejected: int


class SecondLooks(Part):
    """Reviews and adjudications that were accounted; their money is part of `total.reference`.

    `minutes` and `cost` are of those whose pages sent times, whoever looked; `untimed` were decided without.
    """

    reviews: int
    adjudications: int
    untimed: int
    minutes: float
    cost: Decimal


class BreakEven(Part):
    """Assisted exams after which their savings have paid `overhead` (reference, compute and storage)."""

    overhead: Decimal
    exams: int | None
    exams_at_lo: int | None
    reason: str | None


class OriginTotal(Part):
    """What of the minutes came from one origin; `annotations` counts revisions."""

    annotations: int
    exams: int
    minutes: float


class OriginSavings(Part):
    """Savings from the times of another origin than the report's own: a line of its own, never pooled."""

    origin: str
    baseline: Baseline
    structures: dict[str, Savings]
    exam: Savings


class SensitivityRow(Part):
    """Measured times taken again from the raw events with another threshold of idleness; whole exams.

    `active_minutes` are of all measured work, `saving_minutes` compares the arms as the report does. `used` marks
    a threshold that recorded minutes were taken with.
    """

    idle_after_seconds: float
    used: bool
    active_minutes: float
    n_from_scratch: int
    n_assisted: int
    minutes_from_scratch: float | None
    minutes_assisted: float | None
    baseline: Baseline
    saving_minutes: Interval


class Sensitivity(Part):
    """How far minutes and saving depend on the threshold; no rows where nothing was measured, and `reason` says so."""

    rows: tuple[SensitivityRow, ...]
    annotations: int
    reason: str | None


class CostReport(Part):
    """See tasks.account.report. `origin` is whose times `structures` and `exam` come from."""

    schema_version: int = 1
    currency: str
    simulated: bool
    baseline: Baseline
    label: str | None
    structures: dict[str, Savings]
    exam: Savings
    per_exam: PerExam
    total: Total
    break_even: BreakEven
    rounds: tuple[int, ...]
    rate_card: str
    warnings: tuple[str, ...]
    origin: str
    origins: dict[str, OriginTotal]
    other_savings: tuple[OriginSavings, ...]
    sensitivity: Sensitivity
    second_looks: SecondLooks
