"""Pieces of a draft that have nothing to do with the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.metrics.grid import as_masks, crop_to_union

TOUCHING = np.ones((3, 3, 3), dtype=bool)


def stray_components(reference: NDArray, test: NDArray) -> int:
    """Number of connected components of `test` (I, J, K) that share no voxel with `reference`.

    Voxels that touch by a face, an edge or a corner are connected (26-neighbourhood).
    """
    reference, test = as_masks(reference, test)
    reference, test = crop_to_union(reference, test)
    labels, count = ndimage.label(test, structure=TOUCHING)
    return int(count - np.setdiff1d(np.unique(labels[reference]), [0]).size)
