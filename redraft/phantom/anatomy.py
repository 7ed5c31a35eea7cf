"""The body: labels and Hounsfield units of one synthetic exam, drawn from a seeded generator.

The kidney is easy because it is bright, large and of one shape; the tumour is hard because it differs from its kidney
by less than the noise, is irregular, varies in size a hundredfold in volume, and has benign look-alikes (cysts, lobes).
No number of readers' time or of model quality enters here.

Axes: i to the patient's left, j to the back, k to the head (DICOM LPS); lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

KIDNEY, TUMOR = 1, 2
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Anatomy:
    """One exam.

    Attributes
    ----------
    hu : int16, shape (I, J, K)
    labels : uint8, shape (I, J, K)
        0 background, 1 kidney (without tumour), 2 kidney tumour.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]


def draw_anatomy(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float], tumor: bool
) -> Anatomy:
    """Draw one exam."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", copy=False)
    hu = np.full(shape, -1000.0)
    labels = np.zeros(shape, dtype=np.uint8)
    scale = rng.uniform(0.92, 1.08)
    wobble = _field(rng, shape, spacing, 40.0)
    body = _ellipsoid(x, y, z, (0, 0, 0), (152 * scale, 112 * scale, 4000)) + 0.03 * wobble
    hu[body < 1] = rng.uniform(-110, -90)
    muscle = _ellipsoid(x, y, z, (0, 0, 0), (138 * scale, 98 * scale, 4000)) + 0.03 * wobble
    hu[muscle < 1] = 55
    cavity = _ellipsoid(x, y, z, (0, -10, 0), (122 * scale, 76 * scale, 4000)) + 0.04 * wobble
    hu[cavity < 1] = -95
    _bowel(rng, hu, x, y, z, scale)
    liver = _ellipsoid(x, y, z, (-72 * scale, -22, 55), (62 * scale, 58 * scale, 78)) + 0.15 * wobble
    hu[liver < 1] = rng.uniform(100, 120)
    spleen = _ellipsoid(x, y, z, (88 * scale, 12, 62), (28, 42, 46)) + 0.15 * wobble
    hu[spleen < 1] = rng.uniform(115, 130)
    spine = _ellipsoid(x, y, z, (0, 52 * scale, 0), (22, 19, 4000))
    hu[spine < 1] = 190 + 60 * np.cos(z[spine < 1] / 5.5)
    hu[_ellipsoid(x, y, z, (0, 76 * scale, 0), (9, 9, 4000)) < 1] = 40
    hu[_ellipsoid(x, y, z, (12, 24 * scale, 0), (11, 11, 4000)) < 1] = rng.uniform(150, 190)
    hu[_ellipsoid(x, y, z, (-16, 25 * scale, 0), (12, 10, 4000)) < 1] = rng.uniform(120, 150)
    enhancement = rng.uniform(150, 185)
    sides = [-1, 1]
    ill = int(rng.choice(sides)) if tumor else 0
    for side in sides:
        kidney, centre, radii = _kidney(rng, x, y, z, side, scale, wobble)
        hu[kidney] = enhancement
        sinus = _ellipsoid(x, y, z, (centre[0] - side * 9, centre[1] - 3, centre[2]), (8, 8, 15)) + 0.3 * wobble < 1
        hu[sinus & kidney] = -40
        labels[kidney & ~sinus] = KIDNEY
        if rng.random() < 0.35:
            _cyst(rng, hu, labels, kidney, (x, y, z), centre, radii, wobble)
        if side == ill:
            _tumor(rng, hu, labels, kidney, (x, y, z), centre, radii, shape, spacing, enhancement)
    blurred = ndimage.gaussian_filter(hu, [0.7, 0.7, 0.35])
    sigma = rng.uniform(14, 24)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), [0.7, 0.7, 0])
    result = blurred + sigma * noise / noise.std()
    return Anatomy(np.clip(np.rint(result), -1024, 3071).astype(np.int16), labels)


def _ellipsoid(
    x: Array, y: Array, z: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> Array:
    """Below 1 inside."""
    (cx, cy, cz), (rx, ry, rz) = centre, radii
    return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)


def _field(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float], mm: float
) -> Array:
    """Smooth random field of unit deviation and a correlation length in mm."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), [mm / 2 / s for s in spacing], mode="wrap")
    return np.asarray(noise / noise.std())


def _kidney(
    rng: np.random.Generator, x: Array, y: Array, z: Array, side: int, scale: float, wobble: Array
) -> tuple[NDArray[np.bool_], tuple[float, float, float], tuple[float, float, float]]:
    """A bean: a tilted ellipsoid with lobulated surface, dented at the hilum towards the spine."""
    centre = (
        side * rng.uniform(58, 70) * scale,
        rng.uniform(28, 40) * scale,
        rng.uniform(-12, 8) - (8 if side < 0 else 0),
    )
    radii = (rng.uniform(25, 31), rng.uniform(24, 30), rng.uniform(46, 58))
    angle = side * rng.uniform(0.08, 0.3)
    dx, dz = x - centre[0], z - centre[2]
    u = dx * np.cos(angle) + dz * np.sin(angle) + centre[0]
    w = -dx * np.sin(angle) + dz * np.cos(angle) + centre[2]
    bean = _ellipsoid(u, y, w, centre, radii) + 0.10 * wobble
    dent = _ellipsoid(u, y, w, (centre[0] - side * radii[0], centre[1] - 4, centre[2]), (13, 14, 18))
    return (bean < 1) & (dent > 1), centre, radii


def _surface_point(
    rng: np.random.Generator, centre: tuple[float, float, float], radii: tuple[float, float, float], depth: float
) -> tuple[float, float, float]:
    side = 1 if centre[0] > 0 else -1
    theta, height = rng.uniform(-1.2, 1.2), rng.uniform(-0.75, 0.75)
    ring = np.sqrt(1 - height**2)
    return (
        centre[0] + side * radii[0] * depth * ring * float(np.cos(theta)),
        centre[1] + radii[1] * depth * ring * float(np.sin(theta)),
        centre[2] + radii[2] * depth * height,
    )


def _tumor(
    rng: np.random.Generator, hu: Array, labels: NDArray[np.uint8], kidney: NDArray[np.bool_],
    grid: tuple[Array, Array, Array], centre: tuple[float, float, float], radii: tuple[float, float, float],
    shape: tuple[int, int, int], spacing: tuple[float, float, float], enhancement: float,
) -> None:  # fmt: skip
    """An irregular mass at the kidney's surface, partly outside of it, with a contrast below the noise."""
    radius = float(np.exp(rng.uniform(np.log(10), np.log(24))))
    middle = _surface_point(rng, centre, radii, rng.uniform(0.7, 1.0))
    rough = _field(rng, shape, spacing, 12.0) + 0.6 * _field(rng, shape, spacing, 24.0)
    stretch = rng.uniform(0.75, 1.3, size=3)
    blob = _ellipsoid(*grid, middle, tuple(radius * stretch)) + 0.28 * rough < 1
    pieces, count = ndimage.label(blob)
    if count > 1:
        sizes = ndimage.sum_labels(blob, pieces, np.arange(1, count + 1))
        blob = pieces == 1 + int(np.argmax(sizes))
    contrast = rng.uniform(18, 42)
    hu[blob] = enhancement - contrast + 8 * rough[blob]
    labels[blob] = TUMOR
    if radius > 17 and rng.random() < 0.5:  # a necrotic core belongs to the tumour
        core = _ellipsoid(*grid, middle, tuple(0.4 * radius * stretch)) + 0.3 * rough < 1
        hu[core & blob] -= 50


def _cyst(
    rng: np.random.Generator, hu: Array, labels: NDArray[np.uint8], kidney: NDArray[np.bool_],
    grid: tuple[Array, Array, Array], centre: tuple[float, float, float], radii: tuple[float, float, float],
    wobble: Array,
) -> None:  # fmt: skip
    """A benign look-alike: part of the kidney, darker than it."""
    radius = rng.uniform(6, 11)
    middle = _surface_point(rng, centre, radii, 0.7)
    cyst = (_ellipsoid(*grid, middle, (radius, radius, radius)) + 0.05 * wobble < 1) & kidney
    hu[cyst] = rng.uniform(60, 120)
    labels[cyst] = KIDNEY


def _bowel(rng: np.random.Generator, hu: Array, x: Array, y: Array, z: Array, scale: float) -> None:
    for _ in range(int(rng.integers(7, 12))):
        centre = (rng.uniform(-70, 90) * scale, rng.uniform(-58, -18) * scale, rng.uniform(-90, 40))
        radii = (rng.uniform(12, 24), rng.uniform(10, 18), rng.uniform(14, 30))
        shell = _ellipsoid(x, y, z, centre, radii)
        hu[shell < 1] = rng.uniform(20, 60)
        if rng.random() < 0.5:
            gas = (centre[0], centre[1] - radii[1] * 0.35, centre[2])
            hu[_ellipsoid(x, y, z, gas, (radii[0] * 0.6, radii[1] * 0.45, radii[2] * 0.6)) < 1] = -850
