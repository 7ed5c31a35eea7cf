"""What a reader's hand does to a border: a smooth displacement, and leaving alone what is close enough."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.config.schema import Structure
from redraft.metrics.grid import bounding_box, grow

# Along how many mm one swing of the hand goes; assumption, about a fingertip's movement on a screen.
SMOOTH_MM = 8.0


def signed_distance(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance in mm to the mask's border (I, J, K): negative inside, positive outside, ±half a voxel at the border."""
    if mask.all() or not mask.any():  # no border: everything is infinitely deep inside or far outside
        return np.full(mask.shape, -np.inf if mask.any() else np.inf)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    return outside - inside - 0.5 * min(spacing) * np.sign(outside - inside)


def perturb(
    labels: NDArray[np.uint8],
    spacing: Sequence[float],
    structures: Sequence[Structure],
    sloppiness_mm: float,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Labels (I, J, K) whose borders are displaced by a smooth random field of N(0, sloppiness_mm).

    The outer border and the borders between structures move independently; no gap opens between touching structures,
    and a structure that would vanish keeps its place. With a sloppiness of 0 the labels come back unchanged.
    """
    present = [s.value for s in structures if (labels == s.value).any()]
    if sloppiness_mm == 0 or not present:
        return labels.copy()
    foreground = np.isin(labels, present)
    box = bounding_box(foreground)
    assert box is not None  # something is present
    box = grow(box, [int(np.ceil(4 * sloppiness_mm / s)) + 1 for s in spacing], labels.shape)
    part, inside = labels[box], foreground[box]
    outer = signed_distance(inside, spacing) < _field(part.shape, spacing, sloppiness_mm, rng)
    moved = np.stack(
        [signed_distance(part == v, spacing) - _field(part.shape, spacing, sloppiness_mm, rng) for v in present]
    )
    nearest = np.asarray(present, dtype=np.uint8)[moved.argmin(axis=0)]
    drawn = np.where(outer, nearest, 0).astype(np.uint8)
    for value in present:
        if not (drawn == value).any():
            drawn[part == value] = value
    result = labels.copy()
    result[box] = drawn
    return result


def correct(
    draft: NDArray[np.uint8], target: NDArray[np.uint8], spacing: Sequence[float], structures: Sequence[Structure]
) -> NDArray[np.uint8]:
    """The draft (I, J, K), redrawn where it leaves the target by more than the structure's tolerance.

    A voxel is wrong when it differs and lies farther than the tolerance from the target's border; around wrong voxels
    (within the tolerance) the reader draws the border anew, elsewhere the draft stays as it is.
    """
    differs = draft != target
    box = bounding_box(differs)
    if box is None:
        return draft.copy()
    reach = max(s.tolerance_mm for s in structures)
    box = grow(box, [int(np.ceil(reach / s)) + 1 for s in spacing], draft.shape)
    proposed, wanted, differs = draft[box], target[box], differs[box]
    fix = np.zeros(differs.shape, dtype=bool)
    for structure in structures:
        mine, theirs = proposed == structure.value, wanted == structure.value
        off = mine ^ theirs
        if not off.any():
            continue
        drafted = bool((draft == structure.value).any())
        # Where nothing was drafted all of it is drawn.
        wrong = off & (np.abs(signed_distance(theirs, spacing)) > structure.tolerance_mm) if drafted else off
        if wrong.any():
            near = ndimage.distance_transform_edt(~wrong, sampling=spacing) <= structure.tolerance_mm + max(spacing[:2])
            fix |= off & near
    result = draft.copy()
    result[box] = np.where(fix, wanted, proposed)
    return result


def _field(
    shape: tuple[int, ...], spacing: Sequence[float], amplitude_mm: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A Gaussian field of correlation SMOOTH_MM; scaled by its theoretical deviation, so that small exams vary too."""
    sigma = [SMOOTH_MM / s for s in spacing]
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    spread = float(np.prod([_kernel_norm(s, n) for s, n in zip(sigma, shape, strict=True)]))
    return noise / spread * amplitude_mm


def _kernel_norm(sigma: float, size: int) -> float:
    """Standard deviation of unit white noise after one wrapped Gaussian filter along an axis of `size`."""
    impulse = np.zeros(size)
    impulse[0] = 1.0
    return float(np.sqrt((ndimage.gaussian_filter1d(impulse, sigma, mode="wrap") ** 2).sum()))
