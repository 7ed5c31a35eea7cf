"""Intervals from a bias-corrected and accelerated (BCa) bootstrap that respects clusters.

A resample is a vector of counts, one per unit (an exam): how often it was drawn. A statistic takes a matrix of such
counts (R, n) and returns R values, so that means, weighted means and differences of two arms share one code.

Three ways to draw (`Design`), chosen by what the next sample would look like:

- clusters with replacement, all units of a drawn cluster kept (subjects with several exams);
- clusters with replacement, then units within each drawn cluster with replacement (reader, then exam);
- clusters with replacement within fixed strata (subjects within each arm of a comparison, when readers are too few to
  stand for others); a cluster with units in two strata counts as one cluster in each.

Source: Efron, J Am Stat Assoc 82 (1987) 171; Davison & Hinkley, Bootstrap Methods (1997) §3.8 and §5.3.2.
Few clusters make any bootstrap interval too narrow. With `expand` (the default) the levels are widened by Hesterberg's
rule, to the normal level that Student's t asks for. Measured on normal data the 95 % interval then covers 93 % with six
clusters and 95 % from ten on, where the plain one covers 84 % and 89 %. With three it still covers only 75 %.

What cannot be estimated is said so: `lo` and `hi` are None and `method` is `not_estimable`, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from redraft.errors import UsageError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
NORMAL = NormalDist()
# A statistic may not exist in a resample (an arm that was not drawn). A few are dropped; more means no interval.
MAX_LOST_SHARE = 0.1
MIN_READERS = 5
THESE_READERS_ONLY = "these readers only"
BLOCK = 4_000_000


class Interval(BaseModel):
    """An estimate with its interval.

    Attributes
    ----------
    mean : the statistic of the data; None when there are no data.
    lo, hi : bounds at `confidence`; None when not estimable.
    n, clusters : units and clusters that entered.
    p_negative : share of resamples below zero.
    method : how it was made, or `not_estimable`; `reason` then says why.
    label : what the interval does not reach beyond, e.g. "these readers only".
    excluded : units left out before (say so beside a mean).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float | None
    lo: float | None
    hi: float | None
    n: int
    clusters: int
    p_negative: float | None
    resamples: int
    confidence: float
    method: str
    reason: str | None = None
    label: str | None = None
    excluded: int = 0


@dataclass(frozen=True)
class Design:
    """How units hang together: `clusters[i]` and `strata[i]` of unit i."""

    clusters: tuple[Hashable, ...]
    strata: tuple[Hashable, ...] | None = None
    within: bool = False

    @property
    def method(self) -> str:
        if self.within:
            return "bca_clusters_then_units"
        return "bca_clusters_within_strata" if self.strata is not None else "bca_clusters"


def bca_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    strata: Sequence[Hashable] | None = None,
    within: bool = False,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    statistic: Statistic | None = None,
    expand: bool = True,
) -> Interval:
    """BCa interval of the mean of `values` (n,), or of another statistic of resampling counts.

    Parameters
    ----------
    clusters : what each value belongs to (subject, reader); every value its own cluster when omitted.
    strata : clusters are resampled within these and never across (readers at hand).
    within : resample units within drawn clusters too (reader, then exam).
    statistic : counts (R, n) to R values; the mean of `values` when omitted.
    expand : widen the levels for few clusters.

    The result depends on values, clusters and seed only, not on the order in which they are given.
    """
    data = np.asarray(values, dtype=np.float64)
    names = tuple(clusters) if clusters is not None else tuple(range(data.size))
    if data.ndim != 1 or len(names) != data.size or not np.isfinite(data).all():
        raise UsageError(
            f"An interval takes finite numbers with one cluster each; got shape {data.shape}, {len(names)} clusters.",
            "Leave missing values out and count them.",
        )
    levels = tuple(strata) if strata is not None else (None,) * data.size
    if len(levels) != data.size:
        raise UsageError(f"{len(levels)} strata for {data.size} values.")
    if statistic is None:
        order = sorted(range(data.size), key=lambda i: (repr(levels[i]), repr(names[i]), data[i]))
        data = data[order]
        names, levels = tuple(names[i] for i in order), tuple(levels[i] for i in order)
    design = Design(names, levels if strata is not None else None, within)
    return bca(
        statistic or (lambda counts: counts @ data / counts.sum(axis=1)),
        design,
        constant=data.size > 0 and bool((data == data[0]).all()) and statistic is None,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        expand=expand,
    )


def bca(
    statistic: Statistic,
    design: Design,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    constant: bool = False,
    expand: bool = True,
) -> Interval:
    """BCa interval of a statistic of resampling counts; see the module's text for the design.

    Parameters
    ----------
    statistic : counts (R, n) to R values; NaN where it does not exist.
    constant : the caller knows that all values are equal: nothing to estimate a spread from.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise UsageError(f"{resamples} resamples at confidence {confidence} give no interval.")
    n = len(design.clusters)
    groups = _groups(design)
    count = sum(len(stratum) for stratum in groups)

    def result(mean: float | None, why: str | None, **known: float) -> Interval:
        return Interval(
            mean=mean,
            lo=known.get("lo"),
            hi=known.get("hi"),
            n=n,
            clusters=count,
            p_negative=known.get("p_negative"),
            resamples=resamples,
            confidence=confidence,
            method=design.method + ("_expanded" if expand else "") if why is None else "not_estimable",
            reason=why,
        )

    if n == 0:
        return result(None, "no values")
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = float(statistic(np.ones((1, n)))[0])
        if not np.isfinite(estimate):
            return result(None, "the statistic does not exist for these values")
        if n < 2 or count < 2:
            return result(estimate, "fewer than two independent clusters")
        if constant:
            return result(estimate, "all values are equal")
        if all(len(stratum) < 2 for stratum in groups) and not design.within:
            return result(estimate, "every stratum holds one cluster")
        drawn = _resample(statistic, groups, n, design.within, resamples, seed)
        lost = int(np.count_nonzero(~np.isfinite(drawn)))
        if lost > MAX_LOST_SHARE * resamples:
            return result(estimate, f"the statistic does not exist in {lost} of {resamples} resamples")
        drawn = np.sort(drawn[np.isfinite(drawn)])
        slack = 1e-12 * max(1.0, abs(estimate))
        if drawn[-1] - drawn[0] <= slack:
            return result(estimate, "all resamples are equal")
        jackknife = _jackknife(statistic, groups, n)
    normal = -NORMAL.inv_cdf((1 - confidence) / 2)
    if expand:
        normal = _expanded((1 + confidence) / 2, jackknife)
    lo, hi = _bounds(drawn, estimate, jackknife.acceleration, normal, slack)
    return result(estimate, None, lo=lo, hi=hi, p_negative=float(np.mean(drawn < -slack)))


def _groups(design: Design) -> list[list[NDArray[np.intp]]]:
    """Unit indices per cluster per stratum, both sorted by name so that the order of rows does not matter."""
    strata = design.strata or (None,) * len(design.clusters)
    if len(strata) != len(design.clusters):
        raise UsageError(f"{len(strata)} strata for {len(design.clusters)} units.")
    found: dict[str, dict[str, list[int]]] = {}
    for index, (stratum, cluster) in enumerate(zip(strata, design.clusters, strict=True)):
        # Names may be text, numbers or tuples of both; their repr sorts them all alike.
        found.setdefault(repr(stratum), {}).setdefault(repr(cluster), []).append(index)
    return [[np.array(units, dtype=np.intp) for _, units in sorted(found[s].items())] for s in sorted(found)]


def _resample(
    statistic: Statistic, groups: list[list[NDArray[np.intp]]], n: int, within: bool, resamples: int, seed: int
) -> Floats:
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, BLOCK // max(1, n)))  # memory stays flat in the number of resamples
    values = []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        counts = np.zeros((rows, n))
        for clusters in groups:
            size = len(clusters)
            times = rng.multinomial(size, np.full(size, 1.0 / size), size=rows)
            for column, units in enumerate(clusters):
                drawn = times[:, column]
                if within and units.size > 1:
                    # m times over, `size` units out of `size`: together a multinomial draw of m·size.
                    counts[:, units] = rng.multinomial(drawn * units.size, np.full(units.size, 1.0 / units.size))
                else:
                    counts[:, units] = drawn[:, None]
        values.append(statistic(counts))
    return np.concatenate(values)


@dataclass(frozen=True)
class Jackknife:
    """What leaving each cluster out once tells: skewness for BCa, and how far few clusters shrink the bootstrap.

    Attributes
    ----------
    acceleration : BCa's a (Davison & Hinkley eq. 5.23, pooled over strata as in §5.6).
    inflation : unbiased standard error over the bootstrap's; sqrt(n / (n − 1)) for one stratum of n clusters.
    freedom : degrees of freedom (Welch & Satterthwaite over strata; n − 1 for one stratum).
    """

    acceleration: float
    inflation: float
    freedom: float


def _jackknife(statistic: Statistic, groups: list[list[NDArray[np.intp]]], n: int) -> Jackknife:
    cubes = squares = unbiased = doubt = 0.0
    for clusters in groups:
        size = len(clusters)
        if size < 2:
            continue
        counts = np.ones((size, n))
        for row, units in enumerate(clusters):
            counts[row, units] = 0.0
        left = statistic(counts)
        left = left[np.isfinite(left)]
        if left.size < 2:
            continue
        influence = (size - 1) * (left.mean() - left)
        variance = float((influence**2).sum()) / size**2
        cubes += float((influence**3).sum()) / size**3
        squares += variance
        unbiased += variance * size / (size - 1)
        doubt += (variance * size / (size - 1)) ** 2 / (size - 1)
    if squares <= 0 or doubt <= 0:
        return Jackknife(0.0, 1.0, 1.0)
    return Jackknife(cubes / (6 * squares**1.5), float(np.sqrt(unbiased / squares)), unbiased**2 / doubt)


def _expanded(level: float, jackknife: Jackknife) -> float:
    """Normal quantile at which the bootstrap, whose variance is too small, reaches Student's t quantile.

    Source: Hesterberg, Am Stat 69 (2015) 371, §4.1, with Welch's degrees of freedom where there are strata.
    """
    from scipy.special import stdtrit

    return float(jackknife.inflation * stdtrit(max(1.0, jackknife.freedom), level))


def _bounds(drawn: Floats, estimate: float, acceleration: float, normal: float, slack: float) -> tuple[float, float]:
    size = drawn.size
    below = np.count_nonzero(drawn < estimate - slack) + 0.5 * np.count_nonzero(np.abs(drawn - estimate) <= slack)
    share = min(max(below / size, 0.5 / size), 1 - 0.5 / size)
    bias = NORMAL.inv_cdf(share)
    bounds = []
    for quantile in (-normal, normal):
        z = bias + quantile
        shrink = 1 - acceleration * z
        # Beyond the pole of the BCa map the bound is the end of the distribution.
        level = NORMAL.cdf(bias + z / shrink) if shrink > 0 else float(z > 0)
        bounds.append(float(np.quantile(drawn, level)))
    return bounds[0], bounds[1]
