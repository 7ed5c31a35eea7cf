"""Slices that no affine describes, onto a grid that is upright and even: linear, in float32.

Between two slices the value is interpolated along the normal, in a slice along its rows and columns. Slices keep their
true places, so a field that is linear in patient space comes out exactly; where a slice has no pixel there is no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.dicom.geometry import LPS_TO_RAS, SeriesGeometry, SliceGeometry
from redraft.errors import ReadError
from redraft.volumes import Volume

EXACT = 1e-6  # of a voxel


@dataclass(frozen=True)
class _Plan:
    """Where the slices lie on the target grid.

    Attributes
    ----------
    shift : ndarray, shape (slices, 2)
        Of each slice's first pixel from the target's first one, in pixels along (column, row) index.
    along : ndarray, shape (slices,)
        In target slices, ascending from zero.
    shape : tuple
        (slices, rows, columns) of the target.
    """

    shift: NDArray[np.float64]
    along: NDArray[np.float64]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]


def resample(
    values: NDArray, slices: Sequence[SliceGeometry], geometry: SeriesGeometry, max_voxels: int
) -> tuple[Volume, dict[str, object]]:
    """Resample ordered slices onto the grid that `geometry.affine` starts.

    Parameters
    ----------
    values : ndarray, shape (columns, rows, slices)
    slices : sequence of SliceGeometry
        In slice order.

    Returns
    -------
    Volume
        float32. It spans all slices; where no slice reaches, it holds the smallest value of the series.
    measured : dict
        For the receipt: why, the shape before, and the value outside.

    Raises
    ------
    ReadError
        too_large.
    """
    plan = _plan(slices, geometry)
    if int(np.prod([float(n) for n in plan.shape])) > max_voxels:
        raise ReadError(
            "The series is too large once it is resampled.", f"project.yaml allows {max_voxels} (ingest.max_voxels).",
            rule="too_large", measured={"voxels": int(np.prod([float(n) for n in plan.shape]))},
        )  # fmt: skip
    outside = float(values.min())
    target = np.empty(plan.shape, dtype=np.float32)
    placed: dict[int, NDArray[np.float32]] = {}
    for k in range(plan.shape[0]):
        below = int(np.clip(np.searchsorted(plan.along, k + EXACT, side="right") - 1, 0, len(slices) - 2))
        share = float((k - plan.along[below]) / (plan.along[below + 1] - plan.along[below]))
        placed = {n: placed[n] if n in placed else _placed(values[:, :, n].T, plan, n) for n in (below, below + 1)}
        if share < EXACT:
            target[k] = placed[below]
        elif share > 1 - EXACT:
            target[k] = placed[below + 1]
        else:
            target[k] = (1 - share) * placed[below] + share * placed[below + 1]
    target[np.isnan(target)] = outside
    measured: dict[str, object] = {
        "resampled": {rule: dict(values) for rule, values in geometry.defects.items()},
        "shape_before": list(values.shape),
        "value_outside": outside,
    }
    return Volume(target.transpose(2, 1, 0), plan.affine), measured


def _plan(slices: Sequence[SliceGeometry], geometry: SeriesGeometry) -> _Plan:
    to_grid = np.linalg.inv(LPS_TO_RAS @ geometry.affine)
    first = np.array([[*item.position, 1.0] for item in slices]) @ to_grid.T
    low = np.floor(first[:, :2].min(axis=0) + EXACT)
    extra = np.ceil(first[:, :2].max(axis=0) - low - EXACT).astype(int)
    rows, columns = slices[0].size
    affine = geometry.affine.copy()
    affine[:3, 3] = (geometry.affine @ [*low, 0, 1])[:3]
    return _Plan(
        shift=first[:, :2] - low,
        along=first[:, 2] - first[0, 2],
        shape=(int(np.floor(first[-1, 2] - first[0, 2] + 1e-3)) + 1, rows + int(extra[1]), columns + int(extra[0])),
        affine=affine,
    )


def _placed(values: NDArray, plan: _Plan, n: int) -> NDArray[np.float32]:
    """One slice (rows, columns) on the target's rows and columns, float32, NaN where it has no pixel."""
    across, down = plan.shift[n]
    values, left = _shifted(values.astype(np.float64).T, across)
    values, top = _shifted(values.T, down)
    canvas = np.full(plan.shape[1:], np.nan, dtype=np.float32)
    canvas[top : top + values.shape[0], left : left + values.shape[1]] = values
    return canvas


def _shifted(values: NDArray[np.float64], shift: float) -> tuple[NDArray[np.float64], int]:
    """Values at whole places along the first axis when they lie `shift` behind them, and the first of these places."""
    whole = int(np.floor(shift + EXACT))
    part = shift - whole
    if part < EXACT:
        return values, whole
    return values[:-1] * part + values[1:] * (1 - part), whole + 1
