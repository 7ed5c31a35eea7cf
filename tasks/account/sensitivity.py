"""How far minutes and saving depend on the threshold of idleness: measured times, taken again from the events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redraft.config.schema import Bootstrap, RateCard
from tasks.account.content import Sensitivity, SensitivityRow
from tasks.account.cost import cases
from tasks.account.origins import group_of
from tasks.account.rows import Case, TimeRow
from tasks.account.saving import arms, saving, weighted_mean


@dataclass(frozen=True)
class Alternatives:
    """Minutes of measured annotations, taken with several thresholds.

    `minutes`: threshold in seconds to annotation to structure (None: the exam) to active minutes. `recorded`: the
    thresholds that the recorded minutes were taken with; several where rounds differ.
    """

    minutes: Mapping[float, Mapping[str, Mapping[str | None, float]]]
    recorded: frozenset[float]


NOTHING = "no times were measured: typed, imported and simulated times have no events behind them"


def sensitivity(
    rows: Sequence[TimeRow], alternatives: Alternatives | None, card: RateCard, *, site: str, bootstrap: Bootstrap,
    seed: int,
) -> Sensitivity:  # fmt: skip
    """A row per threshold over the same measured annotations; see SensitivityRow.

    Annotations of which some threshold has no minutes (their events are gone) are left out of every row.
    """
    measured = [row for row in rows if row.origin == "measured"]
    if not measured:
        return Sensitivity(rows=(), annotations=0, reason=NOTHING)
    by_threshold = alternatives.minutes if alternatives is not None else {}
    known = set.intersection(*(set(minutes) for minutes in by_threshold.values())) if by_threshold else set()
    kept = [row for row in measured if row.annotation_id in known]
    if alternatives is None or not kept:
        return Sensitivity(rows=(), annotations=0, reason="the raw events of the measured times are not at hand")
    missing = len({row.annotation_id for row in measured}) - len({row.annotation_id for row in kept})
    found = []
    for seconds in sorted(by_threshold):
        minutes = by_threshold[seconds]
        again = [
            row.model_copy(update={"active_minutes": minutes[row.annotation_id].get(row.structure, 0.0)})
            for row in kept
        ]
        found.append(_row(seconds, seconds in alternatives.recorded, again, card, site, bootstrap, seed))
    return Sensitivity(
        rows=tuple(found),
        annotations=len({row.annotation_id for row in kept}),
        reason=f"{missing} measured annotations have no events at hand and are left out" if missing else None,
    )


def _row(
    seconds: float, used: bool, rows: Sequence[TimeRow], card: RateCard, site: str, bootstrap: Bootstrap, seed: int
) -> SensitivityRow:
    both = arms([case for case in cases(rows, card, site) if case.finished and group_of(case) == "measured"])

    def minutes(case: Case) -> float:
        return sum(case.minutes.values())

    return SensitivityRow(
        idle_after_seconds=seconds,
        used=used,
        active_minutes=math.fsum(sorted(row.active_minutes for row in rows)),
        n_from_scratch=len(both.scratch),
        n_assisted=len(both.assisted),
        minutes_from_scratch=weighted_mean(both.scratch, minutes, both.baseline),
        minutes_assisted=weighted_mean(both.assisted, minutes, both.baseline),
        baseline=both.baseline,
        saving_minutes=saving(both, minutes, resamples=bootstrap.resamples, confidence=bootstrap.confidence, seed=seed),
    )
