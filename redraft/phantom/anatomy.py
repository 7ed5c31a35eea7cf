"""The body: labels and Hounsfield units of one synthetic exam, drawn from seeded generators.

No number of readers' time or of model quality enters here: what a model finds easy or hard follows from the image.
Axes: i to the patient's left, j to the back, k to the head (DICOM LPS); lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.errors import UsageError
from redraft.phantom.kidneys import KIDNEY, TUMOR, draw_kidneys
from redraft.phantom.shapes import Array, Grid
from redraft.phantom.torso import Contrast, draw_torso

__all__ = ["KIDNEY", "TUMOR", "Anatomy", "draw_anatomy"]

LEAST_EXTENT = (340.0, 250.0, 170.0)
GROWTH = 1.15  # of a tumour's radius from one exam to the next
BLUR_MM = 2.6  # the scanner's point spread in the plane


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One exam.

    Attributes
    ----------
    hu : int16, shape (I, J, K)
    labels : uint8, shape (I, J, K)
        0 background, 1 kidney (parenchyma and cysts, without renal sinus and tumour), 2 kidney tumour.
    noise_hu : float
        Standard deviation of the noise in the middle of the body.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    noise_hu: float


def draw_anatomy(
    subject: np.random.Generator,
    exam: np.random.Generator,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    *,
    tumor: bool,
    visit: int = 0,
) -> Anatomy:
    """Draw one exam of a subject.

    Parameters
    ----------
    subject : Generator
        In the same state for every exam of a subject: body, kidneys, cysts and tumour are the same each time.
    exam : Generator
        What differs between exams: position, breath, contrast medium, bowel content, noise.
    shape, spacing
        Voxels, and mm per voxel, along (i, j, k). The field of view must hold a torso.
    tumor : bool
        Whether one kidney has a tumour.
    visit : int
        0 for the first exam; tumours grow from exam to exam.

    Raises
    ------
    UsageError
        When the field of view is too small for both kidneys.
    """
    extent = [n * step for n, step in zip(shape, spacing, strict=True)]
    if any(has < least for has, least in zip(extent, LEAST_EXTENT, strict=True)):
        raise UsageError(
            f"A field of view of {' x '.join(f'{v:g}' for v in extent)} mm does not hold both kidneys.",
            f"Take at least {' x '.join(f'{v:g}' for v in LEAST_EXTENT)} mm.",
        )
    scale = float(subject.uniform(0.94, 1.06))
    x, y, z = exam.uniform(-6, 6, 3)
    breath = float(exam.uniform(0, 10))
    grid = Grid.centred(shape, spacing, (float(x), float(y), float(z)))
    contrast = Contrast.draw(exam)
    hu = draw_torso(subject, exam, grid, contrast, scale, breath)
    labels = draw_kidneys(subject, exam, hu, grid, contrast, scale, breath, tumor, GROWTH**visit)
    noise_hu = float(exam.uniform(13, 24))
    image = _scan(exam, hu, spacing, noise_hu)
    return Anatomy(np.clip(np.rint(image), -1024, 3071).astype(np.int16), labels, noise_hu)


def _scan(rng: np.random.Generator, hu: Array, spacing: tuple[float, float, float], noise_hu: float) -> Array:
    """What a scanner makes of it: blur in the plane, partial volume between slices, correlated noise."""
    width = [BLUR_MM / spacing[0], BLUR_MM / spacing[1], 0.35]
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape), [0.7, 0.7, 0.0])
    return np.asarray(ndimage.gaussian_filter(hu, width) + noise * (noise_hu / float(noise.std())))
