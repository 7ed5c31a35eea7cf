"""Whether a reader noticed a draft that was wrong on purpose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redraft.errors import IntegrityError

Labels = NDArray[np.uint8]


def corrected_share(draft: Labels, truth: Labels, returned: Labels) -> float:
    """Of the voxels (I, J, K) in which the draft differs from the truth, the share that is true in what came back.

    Raises IntegrityError where the draft is not wrong at all, or the arrays are not on one grid.
    """
    if not draft.shape == truth.shape == returned.shape or not (wrong := draft != truth).any():
        raise IntegrityError("A seeded error's draft and truth do not belong together.", "Run `redraft audit verify`.")
    return float((returned[wrong] == truth[wrong]).mean())


def outcome(corrected: float | None, verdict: str, noticed_from: float) -> str:
    """`detected` or `missed`: a rejected draft was noticed; else the corrected share decides."""
    return "detected" if verdict == "reject" or (corrected is not None and corrected >= noticed_from) else "missed"
