"""Ellipsoids, slanted tubes and smooth random fields on a voxel grid, all in millimetres of the body.

Because shapes and fields live in millimetres, the same anatomy comes out at any voxel size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres in body millimetres; i to the patient's left, j to the back, k to the head (LPS).

    Attributes
    ----------
    x, y, z : float64, shapes (I, 1, 1), (1, J, 1), (1, 1, K)
    """

    x: Array
    y: Array
    z: Array

    @classmethod
    def centred(cls, shape: tuple[int, int, int], spacing: Point, shift: Point = (0.0, 0.0, 0.0)) -> Grid:
        """A grid whose middle lies at `shift` in the body."""
        x, y, z = (
            np.asarray((np.arange(n) - (n - 1) / 2) * step + move, np.float64)
            for n, step, move in zip(shape, spacing, shift, strict=True)
        )
        return cls(x.reshape(-1, 1, 1), y.reshape(1, -1, 1), z.reshape(1, 1, -1))

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.x.shape[0], self.y.shape[1], self.z.shape[2])

    def near(self, centre: Point, reach: Point) -> tuple[Box, Grid]:
        """The part of the grid within `reach` of a point: its place in whole arrays, and itself. May be empty."""
        spans = []
        for axis, middle, far in zip((self.x, self.y, self.z), centre, reach, strict=True):
            inside = np.flatnonzero(np.abs(axis.ravel() - middle) <= far)
            spans.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        i, j, k = spans
        return (i, j, k), Grid(self.x[i], self.y[:, j], self.z[:, :, k])


def ellipsoid(grid: Grid, centre: Point, radii: Point) -> Array:
    """Squared distance in units of the radii: below 1 inside. Shape of the grid."""
    return np.asarray(
        ((grid.x - centre[0]) / radii[0]) ** 2
        + ((grid.y - centre[1]) / radii[1]) ** 2
        + ((grid.z - centre[2]) / radii[2]) ** 2
    )


def cylinder(grid: Grid, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
    """Squared distance to an axis along z in units of the radii. Shape (I, J, 1)."""
    return np.asarray(((grid.x - centre[0]) / radii[0]) ** 2 + ((grid.y - centre[1]) / radii[1]) ** 2)


def paint(hu: NDArray[Any], grid: Grid, centre: Point, radii: Point, value: float) -> None:
    """Fill an ellipsoid, looking only at its bounding box."""
    box, part = grid.near(centre, radii)
    hu[box][ellipsoid(part, centre, radii) < 1] = value


def paint_tube(hu: Array, grid: Grid, start: Point, end: Point, radius: float, value: float) -> None:
    """Fill a straight tube with round ends."""
    a, b = np.array(start), np.array(end)
    middle, reach = (a + b) / 2, np.abs(b - a) / 2 + radius
    box, part = grid.near(_point(middle), _point(reach))
    way = b - a
    length = float(way @ way)
    dx, dy, dz = part.x - a[0], part.y - a[1], part.z - a[2]
    along = np.clip((dx * way[0] + dy * way[1] + dz * way[2]) / length, 0, 1)
    distance = (dx - along * way[0]) ** 2 + (dy - along * way[1]) ** 2 + (dz - along * way[2]) ** 2
    hu[box][distance < radius**2] = value


def smooth_field(rng: np.random.Generator, grid: Grid, mm: float, centre: Point, reach: Point) -> Array:
    """Smooth random field of zero mean and unit deviation within `reach` of a point, with a correlation length in mm.

    A lattice of normal numbers, `mm` apart, is blended by Gaussians. The lattice is fixed to the point in the body: how
    many numbers are drawn, and what they mean, depends neither on the voxels nor on where the patient lies.

    Returns
    -------
    float64, shape of the grid
    """
    weights = []
    for axis, middle, far in zip((grid.x, grid.y, grid.z), centre, reach, strict=True):
        count = int(np.ceil(far / mm)) + 2
        nodes = np.arange(-count, count + 1)
        weights.append(np.exp(-0.5 * ((axis.ravel()[:, None] - middle) / mm - nodes) ** 2))
    a, b, c = weights
    lattice = rng.standard_normal((a.shape[1], b.shape[1], c.shape[1]))
    # Plain loops, no BLAS: its sums, and so the last bits, depend on the number of threads.
    field = np.einsum("kc,abc->abk", c, lattice)
    field = np.einsum("jb,abk->ajk", b, field)
    field = np.einsum("ia,ajk->ijk", a, field)
    # On each axis the squares of Gaussians one node apart add up to √π.
    return np.asarray(field / np.pi**0.75)


def _point(values: Array) -> Point:
    return (float(values[0]), float(values[1]), float(values[2]))
