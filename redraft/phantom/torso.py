"""Everything around the kidneys: wall, spine, vessels, liver, spleen, stomach and bowel, in Hounsfield units.

Shapes come from the subject's generator, so that two exams of one patient show one body; what changes from day to day
(bowel content, contrast medium) comes from the exam's.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from redraft.phantom.shapes import Array, Grid, cylinder, ellipsoid, paint, paint_tube, smooth_field

FAT, MUSCLE, AIR, BONE, MARROW, DISC, CANAL = -100.0, 58.0, -1000.0, 420.0, 165.0, 75.0, 25.0


@dataclass(frozen=True)
class Contrast:
    """Enhancement of one exam in HU: a portal venous phase, earlier or later."""

    aorta: float
    vein: float
    liver: float
    spleen: float
    kidney: float
    bowel: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Contrast:
        """The organs move together with the phase, and a little apart."""
        late = float(rng.uniform(-1, 1))
        low = [152.0 - 12 * late, 140 + 6 * late, 108 + 5 * late, 120 + 3 * late, 200 + 10 * late, 80.0]
        return cls(*(float(value + move) for value, move in zip(low, rng.uniform(-6, 6, 6), strict=True)))


def draw_torso(
    subject: np.random.Generator, exam: np.random.Generator, grid: Grid, contrast: Contrast, scale: float, breath: float
) -> Array:
    """Hounsfield units of the torso without kidneys.

    Parameters
    ----------
    scale : float
        Size of this body; 1 is average.
    breath : float
        How far the diaphragm pushes the upper organs down, mm.

    Returns
    -------
    float64, shape of the grid
    """
    wobble = smooth_field(subject, grid, 40.0, (0, 0, 0), (180, 140, 130))
    hu = _wall(subject, grid, wobble, scale)
    _bowel(subject, exam, hu, grid, contrast, scale)
    _upper_organs(subject, exam, hu, grid, contrast, wobble, scale, breath)
    _spine(subject, hu, grid, scale)
    paint_tube(hu, grid, (12, 26 * scale, -200), (9, 24 * scale, 200), float(subject.uniform(9, 11)), contrast.aorta)
    vein = float(subject.uniform(0.9, 1.3))
    inside = cylinder(grid, (-17, 27 * scale), (11 * vein, 9 / vein)) < 1
    np.copyto(hu, contrast.vein, where=inside)
    return hu


def _wall(rng: np.random.Generator, grid: Grid, wobble: Array, scale: float) -> Array:
    hu = np.full(grid.shape, AIR)
    fat, muscle = rng.uniform(7, 18), rng.uniform(9, 13)
    bend = 0.02 * wobble
    for inset, value in ((0.0, FAT), (fat, MUSCLE), (fat + muscle, FAT)):
        # The wall is thicker at the back, where the flanks' muscles meet the spine's.
        radii = (152 * scale - inset, 111 * scale - 0.9 * inset)
        np.copyto(hu, value, where=cylinder(grid, (0, 0), radii) + bend < 1)
    for side in (-1, 1):
        np.copyto(hu, MUSCLE, where=cylinder(grid, (side * 33, 76 * scale), (30, 19)) + bend < 1)
        psoas = cylinder(grid, (side * 40, 50 * scale), (1, 1)) < (15 - 0.09 * np.clip(grid.z, -80, 80)) ** 2
        np.copyto(hu, MUSCLE, where=psoas)
    _ribs(rng, hu, grid, scale, fat + 0.5 * muscle)
    return hu


def _ribs(rng: np.random.Generator, hu: Array, grid: Grid, scale: float, depth: float) -> None:
    """Rods inside the wall that run down and forward, the lowest ending short."""
    gap, start = rng.uniform(24, 28), rng.uniform(-25, -5)
    turns = np.linspace(0.30, 1.9, 12)  # angle from the back, radians
    for number in range(6):
        ends = turns[: 8 + 2 * number]
        for side in (-1, 1):
            points = [
                (
                    side * float(np.sin(t)) * (152 * scale - depth),
                    float(np.cos(t)) * (111 * scale - 0.9 * depth) - 2,
                    start + gap * number + 30 - 34 * float(t),
                )
                for t in ends
            ]
            for a, b in pairwise(points):
                paint_tube(hu, grid, a, b, 4.5, 330.0)


def _spine(rng: np.random.Generator, hu: Array, grid: Grid, scale: float) -> None:
    middle = 54 * scale
    height, first = rng.uniform(33, 38), rng.uniform(0, 38)
    phase = np.abs(((grid.z - first) / height) % 1 - 0.5)  # 0 in the middle of a vertebra, 0.5 in the disc
    body = cylinder(grid, (0, middle), (23, 18))
    level = np.where(phase > 0.40, DISC, np.where(phase > 0.34, 320.0, MARROW))
    np.copyto(hu, level, where=body < 1)
    rim = (body < 1) & (body > 0.75) & (phase < 0.40)
    np.copyto(hu, 280.0, where=rim)
    arch = (cylinder(grid, (0, middle + 25), (17, 13)) < 1) & (phase < 0.42)
    np.copyto(hu, BONE, where=arch)
    np.copyto(hu, CANAL, where=cylinder(grid, (0, middle + 23), (9, 8)) < 1)
    spinous = (cylinder(grid, (0, middle + 43), (3.5, 15)) < 1) & (phase < 0.28)
    np.copyto(hu, 0.8 * BONE, where=spinous)
    for z in np.arange(first - 4 * height, first + 5 * height, height):
        for side in (-1, 1):
            paint_tube(hu, grid, (side * 14, middle + 22, z), (side * 40, middle + 26, z + 3), 4.5, 300.0)


def _upper_organs(
    subject: np.random.Generator, exam: np.random.Generator, hu: Array, grid: Grid, contrast: Contrast, wobble: Array,
    scale: float, breath: float,
) -> None:  # fmt: skip
    down = -breath
    # Stomach: fluid below, air above (the patient lies on the back).
    stomach = (48 * scale, -38 * scale, 68 + down)
    radii = (float(subject.uniform(34, 44)), float(subject.uniform(24, 30)), 46.0)
    inside = ellipsoid(grid, stomach, radii) + 0.15 * wobble
    hu[inside < 1] = contrast.bowel
    lumen = ellipsoid(grid, stomach, (radii[0] - 6, radii[1] - 6, 40)) + 0.15 * wobble < 1
    hu[lumen] = exam.uniform(5, 40)
    hu[lumen & (grid.y < stomach[1] - exam.uniform(-4, 12))] = -900
    # Liver: large on the right, a left lobe that thins out before the stomach, dark vessels' opposite inside.
    tilt = float(subject.uniform(0.9, 1.15))
    right = ellipsoid(grid, (-70 * scale, -14 * scale, 62 + down), (66 * scale, 70 * scale * tilt, 84))
    left = ellipsoid(grid, (-8 * scale, -48 * scale, 78 + down), (52 * scale, 32 * scale, 44))
    cavity = cylinder(grid, (0, -2), (126 * scale, 88 * scale)) < 1
    hu[(np.minimum(right, left) + 0.14 * wobble < 1) & cavity] = contrast.liver
    for _ in range(5):
        start = (float(subject.uniform(-60, -30)), float(subject.uniform(-20, 0)), 70 + down)
        end = (
            float(subject.uniform(-115, -60)),
            float(subject.uniform(-55, 25)),
            float(subject.uniform(60, 110)) + down,
        )
        paint_tube(hu, grid, start, end, float(subject.uniform(3.5, 5)), contrast.vein + 12)
    if subject.random() < 0.8:
        paint(hu, grid, (-48 * scale, -46 * scale, 8 + down), (15, 17, 24), float(exam.uniform(2, 15)))
    spleen = ellipsoid(grid, (96 * scale, 14 * scale, 62 + down), (24, 42, float(subject.uniform(36, 48))))
    hu[(spleen + 0.14 * wobble < 1) & cavity] = contrast.spleen


def _bowel(
    subject: np.random.Generator, exam: np.random.Generator, hu: Array, grid: Grid, contrast: Contrast, scale: float
) -> None:
    """Loops of small bowel in front, the colon as a frame: up on the right, across, down on the left."""
    for _ in range(34):
        centre = (
            float(subject.uniform(-78, 78)) * scale,
            float(subject.uniform(-66, 2)) * scale,
            float(subject.uniform(-110, 30)),
        )
        radii = (float(subject.uniform(11, 26)), float(subject.uniform(9, 14)), float(subject.uniform(9, 18)))
        paint(hu, grid, centre, radii, contrast.bowel)
        inner = (radii[0] - 4, radii[1] - 4, radii[2] - 4)
        paint(hu, grid, centre, inner, float(exam.uniform(10, 45)))
        if exam.random() < 0.12:
            paint(hu, grid, (centre[0], centre[1] - 3, centre[2]), (inner[0] * 0.7, inner[1] * 0.6, inner[2]), -850.0)
    frame = [(-94, 18, -110), (-97, 20, -20), (-80, -40, 8), (0, -68, -8), (78, -50, 18), (99, 16, 30), (99, 22, -110)]
    corners = np.array(frame, dtype=float) * [scale, scale, 1.0] + subject.uniform(-6, 6, (len(frame), 3))
    for a, b in pairwise(corners):
        steps = max(2, round(float(np.linalg.norm(b - a)) / 14))
        for t in (np.arange(steps) + 0.5) / steps:
            x, y, z = (float(value) for value in a + t * (b - a))
            radius = float(subject.uniform(12, 18))
            paint(hu, grid, (x, y, z), (radius, radius, radius), contrast.bowel * 0.8)
            content = float(exam.choice([-850.0, -40.0, 25.0]))
            paint(hu, grid, (x, y - 1, z), (radius - 4, radius - 4, radius - 3), content)
