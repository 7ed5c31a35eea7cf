"""Kidneys, their cysts, and tumours.

A kidney is easy to find: bright, large, always of one kind. A tumour is hard for reasons that lie in the image: it
differs from its kidney by about as much as the noise, its border is irregular, its size varies thirtyfold in volume, it
may sit inside or grow out into the fat, and cysts and lobes look like it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.phantom.shapes import Array, Grid, Mask, Point, ellipsoid, paint, paint_tube, smooth_field
from redraft.phantom.torso import Contrast

KIDNEY, TUMOR = 1, 2
Labels = NDArray[np.uint8]
SINUS_FAT, URINE = -55.0, 25.0
KIDNEY_REACH = (58.0, 58.0, 80.0)
TUMOR_REACH = (70.0, 70.0, 70.0)
TUMOR_RADIUS = (11.0, 30.0)  # mm, even in the logarithm: 5 to 110 ml
TUMOR_CONTRAST = (22.0, 55.0)  # HU below the kidney; the noise's deviation is 13 to 24


@dataclass(frozen=True, eq=False)
class Kidney:
    """One kidney's frame of reference; `side` is −1 for the right kidney and 1 for the left one.

    The local axes are u (away from the spine), v (to the back) and w (to the upper pole).
    """

    side: int
    centre: Point
    radii: Point
    turn: NDArray[np.float64]
    bend: float

    @classmethod
    def draw(cls, rng: np.random.Generator, side: int, scale: float, breath: float) -> Kidney:
        """Position, size, tilt and curvature as they vary between people (mm; right kidney lower)."""
        centre = (
            side * float(rng.uniform(61, 71)) * scale,
            float(rng.uniform(29, 39)) * scale,
            float(rng.uniform(-10, 10)) - (9 if side < 0 else 0) - 0.6 * breath,
        )
        radii = (float(rng.uniform(25, 31)), float(rng.uniform(24, 29)), float(rng.uniform(46, 57)))
        # Upper poles lean to the spine and to the back; the hilum looks to the spine and somewhat forward.
        lean, back, face = rng.uniform(0.08, 0.32), rng.uniform(0.0, 0.22), rng.uniform(0.1, 0.6)
        cos, sin = np.cos, np.sin
        about_z = np.array([[cos(face), -sin(face), 0], [sin(face), cos(face), 0], [0, 0, 1]])
        about_y = np.array([[cos(lean), 0, sin(lean)], [0, 1, 0], [-sin(lean), 0, cos(lean)]])
        about_x = np.array([[1, 0, 0], [0, cos(back), -sin(back)], [0, sin(back), cos(back)]])
        return cls(side, centre, radii, about_z @ about_y @ about_x, float(rng.uniform(5, 11)))

    def local(self, grid: Grid) -> tuple[Array, Array, Array]:
        """u, v, w of every voxel, straightened along the kidney's curve."""
        x, y, z = (grid.x - self.centre[0]) * self.side, grid.y - self.centre[1], grid.z - self.centre[2]
        u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in self.turn)
        return u + self.bend * ((w / self.radii[2]) ** 2 - 0.4), v, w

    def place(self, u: float, v: float, w: float) -> Point:
        """A point given in local axes, in the body."""
        u -= self.bend * ((w / self.radii[2]) ** 2 - 0.4)
        x, y, z = self.turn.T @ np.array([u, v, w])
        return (self.centre[0] + self.side * float(x), self.centre[1] + float(y), self.centre[2] + float(z))

    def surface_point(self, rng: np.random.Generator, depth: float) -> Point:
        """A point at a share `depth` of the way to the surface, never at the hilum."""
        angle, height = float(rng.uniform(-1.5, 1.5)), float(rng.uniform(-0.8, 0.8))
        ring = depth * float(np.sqrt(1 - height**2))
        u, v, w = self.radii
        return self.place(u * ring * float(np.cos(angle)), v * ring * float(np.sin(angle)), w * depth * height)


def draw_kidneys(
    subject: np.random.Generator, exam: np.random.Generator, hu: Array, grid: Grid, contrast: Contrast, scale: float,
    breath: float, tumor: bool, growth: float,
) -> Labels:  # fmt: skip
    """Draw both kidneys into `hu` and return the labels.

    Parameters
    ----------
    tumor : bool
        Whether one of the kidneys has a tumour.
    growth : float
        Factor on the tumour's radius; above 1 in a later exam.

    Returns
    -------
    uint8, shape of the grid
        0 background, 1 kidney (parenchyma and cysts, without renal sinus and tumour), 2 tumour.
    """
    labels = np.zeros(grid.shape, dtype=np.uint8)
    # Generators of their own: with and without tumour the rest of the body is the same.
    lesion, phase = subject.spawn(1)[0], exam.spawn(1)[0]
    ill = int(lesion.choice([-1, 1]))
    for side in (-1, 1):
        kidney = Kidney.draw(subject, side, scale, breath)
        vessel = kidney.place(-kidney.radii[0] * 0.5, 0, 0)
        paint_tube(hu, grid, vessel, (side * 14 - 3, 27 * scale, vessel[2] + 8), 5.0, contrast.vein)
        paint_tube(hu, grid, vessel, (side * 8 + 10, 26 * scale, vessel[2] + 14), 3.5, contrast.aorta)
        _parenchyma(subject, hu, labels, grid, kidney, contrast)
        for _ in range(int(subject.choice([0, 1, 2], p=[0.55, 0.3, 0.15]))):
            _cyst(subject, hu, labels, grid, kidney, contrast)
        if tumor and side == ill:
            _tumor(lesion, phase, hu, labels, grid, kidney, contrast, growth)
    return labels


def _parenchyma(
    rng: np.random.Generator, hu: Array, labels: Labels, grid: Grid, kidney: Kidney, contrast: Contrast
) -> None:
    """A bean with a lobulated surface, opened at the hilum to a sinus of fat and calyces."""
    box, part = grid.near(kidney.centre, KIDNEY_REACH)
    lobes, papillae, calyces = (smooth_field(rng, part, mm, kidney.centre, KIDNEY_REACH) for mm in (32.0, 9.0, 11.0))
    u, v, w = kidney.local(part)
    ru, rv, rw = kidney.radii
    solid = (u / ru) ** 2 + (v / rv) ** 2 + (w / rw) ** 2
    bean = _piece(solid + 0.09 * lobes < 1)
    opening = ((u + 0.75 * ru) / (0.75 * ru)) ** 2 + (v / (0.38 * rv)) ** 2 + (w / (0.42 * rw)) ** 2
    tissue = _piece(bean & (opening + 0.25 * calyces > 1))  # no crumbs beside it
    sinus = bean & ~tissue
    pelvis = ((u + 0.65 * ru) / (0.42 * ru)) ** 2 + (v / (0.2 * rv)) ** 2 + (w / (0.26 * rw)) ** 2 < 1
    values = contrast.kidney - np.where(solid < 0.62, np.clip(10 * papillae, 0, 18), 0.0)
    np.copyto(hu[box], values, where=bean)
    np.copyto(hu[box], SINUS_FAT, where=sinus)
    np.copyto(hu[box], URINE, where=sinus & pelvis)
    np.copyto(labels[box], KIDNEY, where=tissue)


def _cyst(rng: np.random.Generator, hu: Array, labels: Labels, grid: Grid, kidney: Kidney, contrast: Contrast) -> None:
    """A benign look-alike, labelled kidney: water, or (one in three) thick enough to pass for a tumour."""
    radius = float(np.exp(rng.uniform(np.log(5), np.log(14))))
    centre = kidney.surface_point(rng, float(rng.uniform(0.6, 1.05)))
    thick, thin = contrast.kidney - float(rng.uniform(45, 75)), float(rng.uniform(0, 20))
    value = thick if rng.random() < 0.35 else thin
    paint(hu, grid, centre, (radius, radius, radius), value)
    paint(labels, grid, centre, (radius, radius, radius), KIDNEY)


def _tumor(
    rng: np.random.Generator, phase: np.random.Generator, hu: Array, labels: Labels, grid: Grid, kidney: Kidney,
    contrast: Contrast, growth: float,
) -> None:  # fmt: skip
    """An irregular mass at the kidney's surface, somewhat darker than it, in one piece."""
    radius = float(np.exp(rng.uniform(np.log(TUMOR_RADIUS[0]), np.log(TUMOR_RADIUS[1]))))
    middle = kidney.surface_point(rng, float(rng.uniform(0.65, 1.05)))
    stretch = rng.uniform(0.8, 1.25, 3)
    necrotic = radius > 18 and bool(rng.random() < 0.5)
    box, part = grid.near(middle, TUMOR_REACH)
    fine, coarse = (smooth_field(rng, part, mm, middle, TUMOR_REACH) for mm in (9.0, 20.0))
    rough = 0.75 * fine + 0.65 * coarse
    shell = ellipsoid(part, middle, _times(stretch, radius * growth))
    blob = _piece(shell + 0.30 * rough < 1)
    washout = float(phase.uniform(*TUMOR_CONTRAST))
    np.copyto(hu[box], contrast.kidney - washout + 9 * rough, where=blob)
    np.copyto(labels[box], TUMOR, where=blob)
    if necrotic:  # a dead core belongs to the tumour
        core = ellipsoid(part, middle, _times(stretch, 0.45 * radius * growth)) + 0.3 * rough < 1
        np.subtract(hu[box], 45, out=hu[box], where=core & blob)


def _times(stretch: Array, radius: float) -> Point:
    u, v, w = (float(value) * radius for value in stretch)
    return (u, v, w)


def _piece(mask: Mask) -> Mask:
    """The largest connected piece."""
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = ndimage.sum_labels(mask, pieces, np.arange(1, count + 1))
    return np.asarray(pieces == 1 + int(np.argmax(sizes)))
