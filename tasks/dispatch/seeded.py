"""Drafts that are wrong on purpose: how often do readers notice? What is wrong is known to the voxel.

Readers are told that there are some (DISCLOSURE) and not which. Their annotations never train a model and never enter
savings; the work stands beside the round's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Dispatch, Structure

DISCLOSURE = (
    "A small share of drafts is wrong on purpose, to learn how often such errors are noticed. "
    "Look at every draft as if it were one of them."
)
# Fewer wrong voxels than this are no error that anybody could be expected to notice, nor is less than this share.
FEWEST_VOXELS, SMALLEST_SHARE = 12, 0.02
# More than this share of a structure is a draft of nothing: no test of attention.
LARGEST_SHARE = 0.9

Mask = NDArray[np.bool_]
Triple = tuple[float, float, float]


def notes(rules: Dispatch) -> list[str]:
    """Sentences that readers are shown with their work."""
    return [DISCLOSURE] if rules.seeded_errors.share > 0 else []


def how_many(assisted: int, share: float, rng: np.random.Generator) -> int:
    """How many wrong drafts go out beside `assisted` exams; the expectation is `share * assisted`, exactly."""
    wanted = share * assisted
    return int(wanted) + int(rng.random() < wanted - int(wanted))


@dataclass(frozen=True)
class Wrong:
    """A truth made wrong.

    Attributes
    ----------
    labels : uint8, shape (I, J, K)
    structure : name of the structure that is wrong; all others are as they were.
    kind : removed, displaced, added, grown or shrunk.
    wrong_voxels : voxels that differ from the truth.
    """

    labels: NDArray[np.uint8]
    structure: str
    kind: str
    wrong_voxels: int


def make_wrong(
    truth: NDArray[np.uint8], structures: Sequence[Structure], spacing: Triple, rng: np.random.Generator
) -> Wrong | None:
    """Make a segmentation wrong in one way and one structure, both drawn at random; None where it holds none.

    An error is as large as it must be to matter (beyond the structure's tolerance) and small enough to be overlooked.
    Where a drawn kind cannot be made in a structure (it fills its place, or is tiny), the next one is tried.

    Parameters
    ----------
    spacing : mm along (i, j, k)
    """
    present = [s for s in structures if np.count_nonzero(truth == s.value) >= FEWEST_VOXELS]
    for n in rng.permutation(len(present)):
        structure = present[int(n)]
        for name in rng.permutation(sorted(KINDS)):
            mask = truth == structure.value
            others = (truth != 0) & ~mask
            changed = KINDS[str(name)](mask, structure.tolerance_mm, spacing, rng) & ~others
            wrong = int(np.count_nonzero(changed != mask))
            if max(FEWEST_VOXELS, SMALLEST_SHARE * mask.sum()) <= wrong <= LARGEST_SHARE * mask.sum():
                labels = truth.copy()
                labels[mask] = 0
                labels[changed] = structure.value
                return Wrong(labels, structure.name, str(name), wrong)
    return None


def _removed(mask: Mask, tolerance: float, spacing: Triple, rng: np.random.Generator) -> Mask:
    """Without what lies on one side of a plane: 15 to 45 % of the structure, as where a network stopped short."""
    direction = _direction(rng)
    places = np.argwhere(mask) * np.asarray(spacing) @ direction
    cut = np.quantile(places, 1 - rng.uniform(0.15, 0.45))
    kept = mask.copy()
    kept[tuple(np.argwhere(mask)[places > cut].T)] = False
    return kept


def _displaced(mask: Mask, tolerance: float, spacing: Triple, rng: np.random.Generator) -> Mask:
    """Moved by twice the tolerance to 6 mm beyond that, by a voxel at least: as on a scan of another breath."""
    shift = _direction(rng) * (2 * tolerance + rng.uniform(0, 6.0))
    steps = np.rint(shift / np.asarray(spacing)).astype(int)
    if not steps.any():
        axis = int(np.argmax(np.abs(shift)))
        steps[axis] = 1 if shift[axis] >= 0 else -1
    moved = np.zeros_like(mask)
    places = np.argwhere(mask) + steps
    inside = ((places >= 0) & (places < mask.shape)).all(axis=1)
    moved[tuple(places[inside].T)] = True
    return moved


def _added(mask: Mask, tolerance: float, spacing: Triple, rng: np.random.Generator) -> Mask:
    """With a ball at its surface, of 0.4 to 0.6 of its own radius: as where a neighbour was taken for it."""
    from scipy.ndimage import binary_erosion

    surface = np.argwhere(mask & ~binary_erosion(mask))
    centre = surface[int(rng.integers(len(surface)))]
    own = (3 * mask.sum() * float(np.prod(spacing)) / (4 * np.pi)) ** (1 / 3)
    radius = max(own * rng.uniform(0.4, 0.6), 2 * tolerance)
    grid = np.ogrid[tuple(slice(0, n) for n in mask.shape)]
    far = sum(((g - c) * s / radius) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True))
    return mask | np.asarray(far <= 1)


def _grown(mask: Mask, tolerance: float, spacing: Triple, rng: np.random.Generator) -> Mask:
    """Its border further out by more than the tolerance."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask, sampling=spacing) <= _beyond(tolerance, spacing, rng))


def _shrunk(mask: Mask, tolerance: float, spacing: Triple, rng: np.random.Generator) -> Mask:
    """Its border further in by more than the tolerance."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(mask, sampling=spacing) > _beyond(tolerance, spacing, rng))


KINDS: Mapping[str, Callable[[Mask, float, Triple, np.random.Generator], Mask]] = {
    "removed": _removed, "displaced": _displaced, "added": _added, "grown": _grown, "shrunk": _shrunk,
}  # fmt: skip


def _beyond(tolerance: float, spacing: Triple, rng: np.random.Generator) -> float:
    """A distance in mm beyond the tolerance, and of one voxel at least."""
    return max(tolerance * rng.uniform(1.2, 2.0), min(spacing) * 1.01)


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))
