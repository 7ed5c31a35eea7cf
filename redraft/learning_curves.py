"""Comparing learning curves: area under the curve, who wins against whom, and what expert effort buys.

Source: Settles & Craven, EMNLP 2008 (area under the learning curve); Ash et al., ICLR 2020 (pairwise penalty matrix);
nnActive, TMLR 2025 (foreground efficiency).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from redraft.errors import UsageError

SIGNIFICANCE = 0.05
DIRECTION = (
    "row is significantly better than column, as a share of budgets; a column's mean is its penalty (lower wins)"
)


class PairwisePenalty(BaseModel):
    """`matrix[i][j]`: share of budgets at which method i is significantly better than method j (paired by seed)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    penalty: tuple[float, ...]
    budgets: int
    seeds: int
    direction: str = DIRECTION


class EfficiencyFit(BaseModel):
    """y = c − a·exp(−beta·(x − x0)): plateau `c`, what was left to gain at x0 `a`, rate per unit of x `beta`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    c: float
    a: float
    beta: float
    x0: float
    rmse: float
    n: int


def aubc(x: ArrayLike, y: ArrayLike) -> float:
    """Area under the budget curve: trapezoid of y over x, divided by the range of x (a constant returns its value).

    Parameters
    ----------
    x : (n,), strictly increasing (exams, expert minutes or money)
    y : (n,), e.g. mean Dice

    Raises
    ------
    UsageError
        Fewer than two points, or x not strictly increasing.
    """
    xs, ys = _curve(x, y, 2)
    return float(np.sum((ys[1:] + ys[:-1]) / 2 * np.diff(xs)) / (xs[-1] - xs[0]))


def pairwise_penalty(curves: Mapping[str, ArrayLike], significance: float = SIGNIFICANCE) -> PairwisePenalty:
    """Pairwise penalty matrix over methods.

    Parameters
    ----------
    curves : method to values (seeds, budgets); seeds in the same order for every method, because tests are paired.
    """
    from scipy.stats import ttest_rel

    methods = tuple(curves)
    arrays = [np.asarray(curves[name], dtype=np.float64) for name in methods]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 2 or arrays[0].shape[0] < 2 or arrays[0].shape[1] < 1:
        raise UsageError(
            f"Curves of shapes {sorted(shapes)} cannot be compared.",
            "Every method needs the same seeds (at least two) and the same budgets.",
        )
    seeds, budgets = arrays[0].shape
    matrix = np.zeros((len(methods), len(methods)))
    for i, better in enumerate(arrays):
        for j, worse in enumerate(arrays):
            if i == j:
                continue
            for b in range(budgets):
                difference = better[:, b] - worse[:, b]
                if difference.mean() <= 0:
                    continue
                # A difference without spread has no t value; it is a win when it is one with every seed.
                certain = float(np.ptp(difference)) < 1e-12
                if certain or float(ttest_rel(better[:, b], worse[:, b]).pvalue) < significance:
                    matrix[i, j] += 1.0 / budgets
    penalty = matrix.sum(axis=0) / max(1, len(methods) - 1)
    return PairwisePenalty(
        methods=methods,
        matrix=tuple(tuple(float(v) for v in row) for row in matrix),
        penalty=tuple(float(v) for v in penalty),
        budgets=budgets,
        seeds=seeds,
    )


def foreground_efficiency(x: ArrayLike, y: ArrayLike) -> EfficiencyFit:
    """Least-squares fit of y = c − a·exp(−beta·(x − x0)) with x0 the first x; c and a are linear once beta is known.

    Needs four points, because three parameters are fitted. `beta` is searched on a logarithmic grid and refined.
    """
    xs, ys = _curve(x, y, 4)
    span = xs[-1] - xs[0]
    grid = np.geomspace(1e-3, 1e3, 241)
    losses = [_linear(xs, ys, beta / span)[2] for beta in grid]
    best = int(np.argmin(losses))
    low, high = np.log(grid[max(0, best - 1)]), np.log(grid[min(grid.size - 1, best + 1)])
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if _linear(xs, ys, np.exp(left) / span)[2] <= _linear(xs, ys, np.exp(right) / span)[2]:
            high = right
        else:
            low = left
    beta = float(np.exp((low + high) / 2) / span)
    c, a, loss = _linear(xs, ys, beta)
    return EfficiencyFit(c=c, a=a, beta=beta, x0=float(xs[0]), rmse=float(np.sqrt(loss / xs.size)), n=xs.size)


def _linear(xs: NDArray[np.float64], ys: NDArray[np.float64], beta: float) -> tuple[float, float, float]:
    basis = np.stack([np.ones_like(xs), -np.exp(-beta * (xs - xs[0]))], axis=1)
    (c, a), *_ = np.linalg.lstsq(basis, ys, rcond=None)
    return float(c), float(a), float(((basis @ np.array([c, a]) - ys) ** 2).sum())


def _curve(x: ArrayLike, y: ArrayLike, least: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.ndim != 1 or xs.shape != ys.shape or xs.size < least or not (np.diff(xs) > 0).all():
        raise UsageError(
            f"A learning curve needs {least} points or more with increasing budgets; got {xs.shape} and {ys.shape}.",
            "Sort by budget, and merge points of equal budget.",
        )
    return xs, ys
