"""What all metrics share: checks of masks and spacing, and cropping to where something is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from redraft.errors import LabelError

Mask = NDArray[np.bool_]
# Distances are sums of squares of spacings in floating point; a plane shifted by exactly the tolerance is within it.
SLACK = 1e-6


def as_masks(a: NDArray, b: NDArray) -> tuple[Mask, Mask]:
    """Two arrays as boolean masks. Raises LabelError when they are not 3D or not on one grid."""
    if a.ndim != 3 or a.shape != b.shape:
        raise LabelError(
            f"Masks of shapes {a.shape} and {b.shape} cannot be compared.",
            "Both must be 3D and lie on the exam's grid.",
            rule="shape",
            measured={"shape": list(a.shape), "other": list(b.shape)},
        )
    return np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)


def as_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    """Spacing as three positive finite numbers in mm. Raises LabelError otherwise."""
    values = tuple(float(value) for value in spacing)
    if len(values) != 3 or not all(np.isfinite(value) and value > 0 for value in values):
        raise LabelError(
            f"Spacing {list(values)} is not three positive lengths.",
            "Check the exam's geometry.",
            rule="spacing",
            measured={"spacing": list(values)},
        )
    return (values[0], values[1], values[2])


def bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds every true voxel, or None for an empty mask."""
    spans = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if hit.size == 0:
            return None
        spans.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return (spans[0], spans[1], spans[2])


def grow(box: tuple[slice, slice, slice], margin: Sequence[int], shape: Sequence[int]) -> tuple[slice, slice, slice]:
    """A box widened by `margin` voxels per axis, within the array."""
    grown = [
        slice(max(0, span.start - more), min(size, span.stop + more))
        for span, more, size in zip(box, margin, shape, strict=True)
    ]
    return (grown[0], grown[1], grown[2])


def crop_to_union(a: Mask, b: Mask) -> tuple[Mask, Mask]:
    """Both masks cut to the box around their union; outside it there is nothing that any metric could see.

    Border voxels stay border voxels, because outside the array counts as outside the mask.
    """
    box = bounding_box(a | b)
    if box is None:
        return a[:0, :0, :0], b[:0, :0, :0]
    return a[box], b[box]
