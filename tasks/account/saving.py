"""What drafts saved: the from-scratch arm against the assisted arm, with an interval or with the reason why not.

The fair comparison is between exams that chance assigned to one arm or the other while a draft existed. Probabilities
may differ between rounds, so each exam weighs 1 / probability of its own mode (Hájek's weighted means). Where fewer
than MIN_ARM exams were drawn from scratch by chance, from-scratch times recorded in other rounds (cold start) take
their place and the baseline is named so: those exams differ in how they were chosen and when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from redraft.intervals import MIN_READERS, THESE_READERS_ONLY, Design, Floats, Interval, bca
from tasks.account.rows import Case

Baseline = Literal["randomised_from_scratch", "recorded_from_scratch", "none"]
MIN_ARM = 3


@dataclass(frozen=True)
class Arms:
    """Training cases of both arms and where the from-scratch arm comes from."""

    scratch: tuple[Case, ...]
    assisted: tuple[Case, ...]
    baseline: Baseline

    def holding(self, structure: str) -> Arms:
        """Only cases in which minutes of this structure were kept apart."""
        return Arms(
            tuple(case for case in self.scratch if structure in case.minutes),
            tuple(case for case in self.assisted if structure in case.minutes),
            self.baseline,
        )


def arms(found: Sequence[Case]) -> Arms:
    """Split training cases into arms and choose the baseline."""
    training = [case for case in found if case.purpose == "training"]
    scratch = tuple(case for case in training if case.mode == "from_scratch")
    assisted = tuple(case for case in training if case.mode == "assisted")
    drawn = tuple(case for case in scratch if case.randomised)
    if len(drawn) >= MIN_ARM:
        return Arms(drawn, tuple(case for case in assisted if case.randomised), "randomised_from_scratch")
    if len(scratch) >= MIN_ARM:
        return Arms(scratch, assisted, "recorded_from_scratch")
    return Arms(scratch, assisted, "none")


def saving(
    both: Arms,
    value: Callable[[Case], float],
    *,
    relative: bool = False,
    resamples: int,
    confidence: float,
    seed: int,
) -> Interval:
    """Mean of `value` from scratch minus mean assisted (or that as a share of from scratch), with its interval.

    Five readers or more: readers are resampled, then their exams. Fewer cannot stand for others: subjects are resampled
    within each arm among the readers at hand, and the interval is labelled "these readers only".
    """
    found = [*both.scratch, *both.assisted]
    if both.baseline == "none" or len(both.scratch) < MIN_ARM or len(both.assisted) < MIN_ARM:
        why = f"{len(both.scratch)} exams from scratch and {len(both.assisted)} assisted; {MIN_ARM} of each are needed"
        return Interval(
            mean=None,
            lo=None,
            hi=None,
            n=len(found),
            clusters=0,
            p_negative=None,
            resamples=resamples,
            confidence=confidence,
            method="not_estimable",
            reason=why,
        )
    values = np.array([value(case) for case in found])
    weights = np.array([case.weight if both.baseline == "randomised_from_scratch" else 1.0 for case in found])
    is_scratch = np.arange(len(found)) < len(both.scratch)

    def statistic(counts: Floats) -> Floats:
        scratch, assisted = weights * is_scratch, weights * ~is_scratch
        # An arm that was not drawn gives 0/0: NaN, which the bootstrap counts and drops.
        from_scratch = counts @ (scratch * values) / (counts @ scratch)
        difference = from_scratch - counts @ (assisted * values) / (counts @ assisted)
        return difference / from_scratch if relative else difference

    design, label = design_of(found, [bool(flag) for flag in is_scratch])
    interval = bca(statistic, design, resamples=resamples, confidence=confidence, seed=seed)
    return interval.model_copy(update={"label": label})


def weighted_mean(found: Sequence[Case], value: Callable[[Case], float], baseline: Baseline) -> float | None:
    """Mean of an arm, weighted as in `saving`; None for an empty arm."""
    if not found:
        return None
    weights = [case.weight if baseline == "randomised_from_scratch" else 1.0 for case in found]
    return sum(w * value(case) for w, case in zip(weights, found, strict=True)) / sum(weights)


def design_of(found: Sequence[Case], arm: Sequence[bool]) -> tuple[Design, str | None]:
    """How to resample these cases, and the label that limits what the interval says."""
    readers = tuple(case.reader_id for case in found)
    if len(set(readers)) >= MIN_READERS:
        return Design(readers, within=True), None
    # Strata by reader too would leave one or two subjects in many of them, and nothing to resample: measured with three
    # exams from scratch and two readers, such a 95 % interval covered 69 %.
    clusters = tuple(case.subject_id for case in found)
    return Design(clusters, tuple(arm)), THESE_READERS_ONLY
