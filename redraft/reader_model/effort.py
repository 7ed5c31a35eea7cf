"""The effort model: what segmenting one exam costs a reader, from contours alone.

    from scratch = overhead + slices·look + drawing · contour length
    assisted     = overhead + slices·look + correction · added path + erasing · false-positive contour
                   + per stray component

per structure, divided by the reader's speed, times log-normal noise. The same parameters serve every structure, and no
part of the loop that is being judged (selection, routing) may read them: they are the simulation's secret.

None of these numbers was measured by this project. They are set so that the totals fall into the ranges of the
literature named beside them; every report that rests on them says SIMULATED.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from redraft.metrics import added_path_length_mm, contour_length_mm, false_positive_contour_mm, stray_components

Labels = NDArray[np.uint8]
Spacing = tuple[float, float, float]
Form = Literal["contour", "volume"]


@dataclass(frozen=True)
class EffortParameters:
    """All parameters of the model, in seconds, mm and counts."""

    # Opening the exam, finding the anatomy, saving: assumed; below the 1.5 min/CT total of the fastest assisted
    # reading reported (13.9 → 1.5 min/CT, FIELD notes §2).
    overhead_s: float = 40.0
    # Looking at one slice for one structure: assumed, about two slices a second while scrolling to and fro.
    look_s: float = 0.6
    # Drawing: 30 to 60 min per organ per CT from scratch with careful slice-wise contouring at the upper end, 10 min
    # for liver MR at the lower; 0.045 s per mm (about 22 mm/s) puts a phantom kidney pair at roughly 10 min.
    draw_s_per_mm: float = 0.045
    # Correcting costs more per mm than drawing: the spot must be found and the stroke must fit the old border.
    # Ratio assumed; that time follows added path length best (rho .69) is from J Digit Imaging 2021.
    correct_s_per_mm: float = 0.060
    # Erasing is a coarse stroke: assumed half of correcting.
    erase_s_per_mm: float = 0.030
    # A stray component is found, clicked and removed: assumed.
    stray_s: float = 4.0
    # Scatter between readings of one reader: assumed, a factor of about 1.3 either way.
    noise_sigma: float = 0.25
    # A border closer than this to the truth is not touched: half a typical in-plane voxel of abdominal CT and more
    # than the border error between readers of one school; assumed.
    tolerance_mm: float = 1.5
    # A reader accepts untouched below this share of contour to correct, and starts over above the other: assumed.
    accept_share: float = 0.01
    reject_share: float = 0.90

    def scaled(self, factor: float) -> EffortParameters:
        """Every correction price times a factor, drawing unchanged: the sensitivity that matters for savings."""
        return replace(
            self,
            correct_s_per_mm=self.correct_s_per_mm * factor,
            erase_s_per_mm=self.erase_s_per_mm * factor,
            stray_s=self.stray_s * factor,
        )


@dataclass(frozen=True)
class Work:
    """What one structure of one draft leaves to do, in mm and counts."""

    contour_mm: float
    added_mm: float
    erased_mm: float
    stray: int

    @property
    def share(self) -> float:
        """Contour to correct relative to the structure's whole contour."""
        return (self.added_mm + self.erased_mm) / self.contour_mm if self.contour_mm else float(self.erased_mm > 0)


def work_left(target: NDArray[np.bool_], draft: NDArray[np.bool_], spacing: Spacing, tolerance_mm: float) -> Work:
    """Compare a draft with what the reader wants to see."""
    return Work(
        contour_length_mm(target, spacing),
        added_path_length_mm(target, draft, spacing, tolerance_mm),
        false_positive_contour_mm(target, draft, spacing, tolerance_mm),
        stray_components(target, draft),
    )


def scratch_seconds(target: NDArray[np.bool_], spacing: Spacing, p: EffortParameters, form: Form) -> float:
    """Seconds to draw one structure (0 mm of contour still has to be looked for)."""
    look = p.look_s * target.shape[2]
    if form == "volume":
        # The other form: time follows the number of slices that hold the structure and the cube root of its volume.
        slices = int(target.any(axis=(0, 1)).sum())
        radius = float((int(target.sum()) * np.prod(spacing)) ** (1 / 3))
        return look + slices * (4.0 + 0.15 * radius)
    return look + p.draw_s_per_mm * contour_length_mm(target, spacing)


def assisted_seconds(work: Work, target: NDArray[np.bool_], spacing: Spacing, p: EffortParameters, form: Form) -> float:
    """Seconds to review and correct one structure of a draft."""
    look = p.look_s * target.shape[2]
    if form == "volume":
        return look + min(1.5, 1.5 * work.share) * (scratch_seconds(target, spacing, p, form) - look)
    return look + p.correct_s_per_mm * work.added_mm + p.erase_s_per_mm * work.erased_mm + p.stray_s * work.stray
