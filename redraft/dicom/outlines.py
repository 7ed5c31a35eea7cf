"""Masks to RTSTRUCT contours (PS3.3 C.8.8.6): along pixel edges, so that no voxel's centre is ever on a contour.

Every rule by which readers fill contours so gives the same mask back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Loop = NDArray[np.float64]
Corner = tuple[int, int]


def outlines(mask: NDArray[np.bool_]) -> list[Loop]:
    """Trace the pixel edges between inside and outside.

    Parameters
    ----------
    mask : bool, shape (I, J)

    Returns
    -------
    list of float64 arrays, shape (N, 2)
        Closed loops (first point not repeated), corners at half-integer pixel coordinates. A pixel is inside where its
        centre lies in an odd number of loops. Outer borders run the other way round than holes.
    """
    return [_corners(loop) for loop in _trace(mask)]


def keyholes(mask: NDArray[np.bool_]) -> list[Loop]:
    """As `outlines`, but each hole is joined to the loop on its side by a channel of no width (PS3.3 C.8.8.6.3).

    The channels run along pixel edges too, and forth and back: the mask is the same by the even-odd and by the
    non-zero rule, and for viewers that unite the contours of a slice instead of combining them.
    """
    traced = _trace(mask)
    sheets = [loop for loop in traced if _area(loop) > 0]
    owner = {corner: n for n, loop in enumerate(sheets) for corner in loop}
    # Left-most first: the loop that a hole's channel meets has its own channel by then.
    for hole in sorted((loop for loop in traced if _area(loop) < 0), key=min):
        start = hole.index(min(hole))
        i, j = hole[start]
        while (i, j) not in owner:  # ends at the border around the hole at the latest
            i -= 1
        sheet = sheets[owner[i, j]]
        place = sheet.index((i, j))
        way = [*hole[start:], *hole[: start + 1]]
        sheets[owner[i, j]] = [*sheet[: place + 1], *way, *sheet[place:]]
        for corner in hole:
            owner.setdefault(corner, owner[i, j])
    return [_corners(loop) for loop in sheets]


def _trace(mask: NDArray[np.bool_]) -> list[list[Corner]]:
    """Loops of unit steps between pixel corners; corner (i, j) is the lower corner of pixel (i, j)."""
    padded = np.pad(np.asarray(mask, dtype=np.int8), 1)
    following: dict[Corner, list[Corner]] = {}
    # Each edge is directed so that the inside lies on one hand: as many edges leave a corner as arrive there, hence
    # walking on always closes a loop.
    for axis in (0, 1):
        change = np.diff(padded, axis=axis)
        for i, j in np.argwhere(change).tolist():
            a, b = ((i, j - 1), (i, j)) if axis == 0 else ((i, j), (i - 1, j))
            if change[i, j] < 0:
                a, b = b, a
            following.setdefault(a, []).append(b)
    loops = []
    while following:
        start = here = min(following)
        loop = []
        while True:
            loop.append(here)
            nexts = following[here]
            there = nexts.pop()
            if not nexts:
                del following[here]
            if there == start:
                break
            here = there
        loops.append(loop)
    return loops


def _corners(loop: Sequence[Corner]) -> Loop:
    """A loop's turning points, as pixel coordinates."""
    points = np.array(loop, dtype=float)
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]  # a channel of no length repeats its corner
    before, after = np.roll(points, 1, axis=0), np.roll(points, -1, axis=0)
    turns = ((points - before) != (after - points)).any(axis=1)
    return np.asarray(points[turns] - 0.5)


def _area(loop: Sequence[Corner]) -> float:
    """Signed area; positive for outer borders as `_trace` directs them."""
    i, j = np.array(loop, dtype=float).T
    return float((np.roll(i, -1) * j - i * np.roll(j, -1)).sum()) / 2


def planar_contours(
    mask: NDArray[np.bool_], lps: NDArray[np.float64], *, joined: bool
) -> Iterator[tuple[int, list[str]]]:
    """Contours of a mask slice by slice: slice index and Contour Data (x, y, z, x, … in LPS mm).

    Parameters
    ----------
    mask : bool, shape (I, J, K)
    lps : float64, shape (4, 4)
        From (i, j, k) to LPS mm.
    joined : bool
        Holes as keyholes; as contours of their own (even-odd rule) otherwise.
    """
    for k in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        for loop in (keyholes if joined else outlines)(mask[:, :, k]):
            voxels = np.c_[loop, np.full(len(loop), k), np.ones(len(loop))]
            points = (voxels @ lps.T)[:, :3]
            # 0.1 µm is far below half a pixel, and 16 characters (a DS) hold it for any coordinate of a body.
            yield k, [f"{value + 0.0:.4f}" for value in points.ravel().tolist()]
