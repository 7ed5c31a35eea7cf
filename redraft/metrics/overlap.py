"""Volumetric overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redraft.metrics.grid import as_masks


def dice(a: NDArray, b: NDArray) -> float:
    """Dice coefficient 2|a∩b| / (|a|+|b|) of two masks (I, J, K); 1 when both are empty, 0 when one is.

    Source: Dice, Ecology 26 (1945) 297.
    """
    a, b = as_masks(a, b)
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 1.0 if total == 0 else 2.0 * int(np.count_nonzero(a & b)) / total
