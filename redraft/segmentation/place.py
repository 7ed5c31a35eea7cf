"""Where a foreign array or frame lies on an exam's grid: the same voxels in another order, or not at all.

Nothing is resampled. What is no exact re-ordering of the exam's axes is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.errors import LabelError
from redraft.segmentation.exam import ExamGeometry

TOLERANCE = 0.1  # of a voxel, at every corner
_DO = "Export it on the grid of the exam's own image, without resampling or cropping."


@dataclass(frozen=True)
class Placement:
    """How a foreign array becomes part of the exam's label array.

    Attributes
    ----------
    where : tuple of slices
        The part of the (I, J, K) array that it covers.
    axes : tuple of int
        Foreign axis for each of the exam's axes.
    flips : tuple of int
        The exam's axes (after the re-ordering) along which it runs backwards.
    """

    where: tuple[slice, ...]
    axes: tuple[int, ...]
    flips: tuple[int, ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """The foreign array in the exam's order; shape of `where`."""
        return np.flip(np.transpose(array, self.axes), self.flips)


def place(exam: ExamGeometry, lps: NDArray[np.float64], shape: Sequence[int], *, part: Sequence[int] = ()) -> Placement:
    """Find where an array lies on an exam's grid.

    Parameters
    ----------
    lps : float64, shape (4, 4)
        Foreign index to LPS mm.
    shape : three ints
        Foreign shape.
    part : sequence of int
        Foreign axes along which it may cover a part of the grid only; all others must cover it whole.

    Raises
    ------
    LabelError
        Rule grid: other directions, spacing, origin or size.
    """
    if not np.isfinite(lps).all():
        raise LabelError("The segmentation's position is no number.", _DO, rule="grid")
    steps = np.linalg.solve(exam.lps, lps)  # foreign index to the exam's index
    whole = np.rint(steps[:3, :3])
    signed = np.abs(whole).sum(axis=0).tolist() == [1, 1, 1] and np.abs(whole).sum(axis=1).tolist() == [1, 1, 1]
    if not signed:
        measured: dict[str, object] = {"steps_in_voxels": np.round(steps[:3, :3], 3).tolist()}
        raise LabelError("The segmentation has other directions or spacing.", _DO, rule="grid", measured=measured)
    axes = tuple(int(n) for n in np.abs(whole).argmax(axis=1))
    first = steps[:3, 3].copy()
    (along,) = (n for n in range(3) if axes[n] == 2)
    if along == 2 and exam.on_grid and shape[2] == 1:
        # A frame of the exam's own slices: compared with where its image says that it lies, jitter of intake included.
        k = int(np.clip(np.rint(first[2]), 0, exam.shape[2] - 1))
        first -= np.linalg.solve(exam.lps, np.array([*exam.position(k), 1.0]))[:3] - np.array([0, 0, k])
    far = first + steps[:3, :3] @ (np.array(shape) - 1.0)
    worst = float(np.abs(np.r_[first - np.rint(first), far - np.rint(first) - whole @ (np.array(shape) - 1)]).max())
    if worst > TOLERANCE:
        measured = {"off_by_voxels": round(worst, 3)}
        raise LabelError(
            "The segmentation's voxels lie between those of the image.", _DO, rule="grid", measured=measured
        )
    low, high = (
        np.minimum(np.rint(first), np.rint(far)).astype(int),
        np.maximum(np.rint(first), np.rint(far)).astype(int),
    )
    for n in range(3):
        covers = low[n] == 0 and high[n] == exam.shape[n] - 1
        inside = low[n] >= 0 and high[n] < exam.shape[n]
        if not (inside if axes[n] in part else covers):
            measured = {"shape": [int(v) for v in shape], "expected_shape": list(exam.shape)}
            raise LabelError("The segmentation covers another part of space.", _DO, rule="grid", measured=measured)
    where = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    flips = tuple(n for n in range(3) if whole[n, axes[n]] < 0)
    return Placement(where, axes, flips)
