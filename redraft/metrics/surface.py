"""Distances between the surfaces of two masks: surface Dice at a tolerance, and HD95."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.metrics.grid import SLACK, Mask, as_masks, as_spacing, crop_to_union


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances in mm from every border voxel of one mask to the nearest border voxel of the other."""

    a_to_b: NDArray[np.float64]
    b_to_a: NDArray[np.float64]
    a_empty: bool
    b_empty: bool

    def dice(self, tolerance_mm: float) -> float:
        """Surface Dice at a tolerance; see `surface_dice`."""
        if self.a_empty or self.b_empty:
            return 1.0 if self.a_empty and self.b_empty else 0.0
        limit = tolerance_mm + SLACK
        near = np.count_nonzero(self.a_to_b <= limit) + np.count_nonzero(self.b_to_a <= limit)
        return float(near / (self.a_to_b.size + self.b_to_a.size))

    def hd95(self) -> float | None:
        """HD95 in mm; see `hd95_mm`."""
        if self.a_empty or self.b_empty:
            return 0.0 if self.a_empty and self.b_empty else None
        return float(max(np.percentile(self.a_to_b, 95), np.percentile(self.b_to_a, 95)))


def border(mask: Mask) -> Mask:
    """Border voxels (I, J, K): in the mask, with a face neighbour outside it (outside the image counts as outside)."""
    return mask & ~ndimage.binary_erosion(mask, border_value=0)


def surface_distances(a: NDArray, b: NDArray, spacing: Sequence[float]) -> SurfaceDistances:
    """All surface distances of two masks (I, J, K) with spacing in mm; computed once for several metrics."""
    a, b = as_masks(a, b)
    spacing = as_spacing(spacing)
    a, b = crop_to_union(a, b)
    a_empty, b_empty = not a.any(), not b.any()
    if a_empty or b_empty:
        return SurfaceDistances(np.empty(0), np.empty(0), a_empty, b_empty)
    edge_a, edge_b = border(a), border(b)
    from_a = ndimage.distance_transform_edt(~edge_a, sampling=spacing)
    from_b = ndimage.distance_transform_edt(~edge_b, sampling=spacing)
    return SurfaceDistances(from_b[edge_a], from_a[edge_b], False, False)


def surface_dice(a: NDArray, b: NDArray, spacing: Sequence[float], tolerance_mm: float) -> float:
    """Share of both surfaces that lies within `tolerance_mm` of the other surface.

    Border voxels count once each, whatever their area. Both empty 1, one empty 0.
    Source: Nikolov et al., J Med Internet Res 23 (2021) e26151, with border voxels in place of surface elements (the
    convention of MONAI's compute_surface_dice).
    """
    return surface_distances(a, b, spacing).dice(tolerance_mm)


def hd95_mm(a: NDArray, b: NDArray, spacing: Sequence[float]) -> float | None:
    """The larger of the two directed 95th percentiles of the surface distances, in mm.

    Both empty 0; one empty None, because no distance exists (averages must say how many they left out).
    """
    return surface_distances(a, b, spacing).hd95()
