"""Training batches. The batch of step t depends only on (seed, member, rank, t): resuming needs no loader state but t.

Random numbers are drawn in one place (`_draw`) and applied by a pure function (`apply`), so that a batch can be made
again from its step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.data import Prepared

MAX_ANGLE = 0.26  # radians, 15 degrees
MAX_PLANE_RATIO = 1.5  # planes of voxels longer than this are not turned: it would smear slices into each other


@dataclass(frozen=True, eq=False)
class Cut:
    """One patch to be cut: where, turned and scaled how, and what happens to its values.

    Attributes
    ----------
    centre : shape (3,)
        Voxel position of the patch's middle; may be half-way between voxels.
    matrix : shape (3, 3) or None
        Offsets from the patch's middle to offsets in the exam, in voxels; None leaves the grid alone.
    """

    centre: NDArray[np.float64]
    matrix: NDArray[np.float64] | None
    gain: float
    offset: float
    noise: float


@dataclass(frozen=True)
class Sampler:
    """Draws augmented patches.

    Augmentation: rotation up to 15 degrees in a plane of near-square voxels, scaling .85 to 1.2, gain, offset and noise
    of intensities (in units of the normalised image). No flips: left and right differ in anatomy, and a project's
    structures may name a side.
    """

    exams: Sequence[Prepared]
    patch: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    batch_size: int
    foreground_share: float
    seed: int
    member: int
    rank: int = 0

    def batch(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Images (B, 1, I, J, K) and class indices (B, 1, I, J, K) of one step."""
        # Philox is counter-based: the key names the stream, the counter's last word the device.
        key = np.array([(self.seed << 16) + self.member, step], dtype=np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, self.rank]))
        pairs = []
        for _ in range(self.batch_size):
            exam = self.exams[int(rng.integers(len(self.exams)))]
            image, label = exam.image(), exam.label()
            cut = self._draw(rng, exam, image.shape)
            values = rng.standard_normal(self.patch, dtype=np.float32) if cut.noise else None
            pairs.append(apply(cut, image, label, self.patch, values))
        return np.stack([a for a, _ in pairs])[:, None], np.stack([b for _, b in pairs])[:, None]

    def _draw(self, rng: np.random.Generator, exam: Prepared, size: Sequence[int]) -> Cut:
        shape, patch = np.array(size), np.array(self.patch)
        if exam.places and rng.random() < self.foreground_share:
            # A class first, then a voxel of it: small tumours are seen as often as large organs.
            places = exam.places[int(rng.integers(len(exam.places)))]
            centre = places[int(rng.integers(len(places)))] + rng.uniform(-0.25, 0.25, 3) * patch
        else:
            centre = rng.uniform(0, 1, 3) * (shape - 1)
        # An exam smaller than the patch lies anywhere inside it, as a window's edge may fall anywhere in inference.
        low, high = np.minimum(patch, shape) / 2 - 0.5, shape - np.minimum(patch, shape) / 2 - 0.5
        slack = rng.uniform(-0.5, 0.5, 3) * np.maximum(patch - shape, 0)
        centre = np.clip(centre, low, high) + slack
        return Cut(
            centre=centre,
            matrix=self._matrix(rng),
            gain=rng.uniform(0.9, 1.1),
            offset=rng.uniform(-0.1, 0.1),
            noise=rng.uniform(0, 0.1) if rng.random() < 0.3 else 0.0,
        )

    def _matrix(self, rng: np.random.Generator) -> NDArray[np.float64] | None:
        planes = turning_planes(self.spacing_mm)
        turned, scaled = bool(planes) and rng.random() < 0.4, rng.random() < 0.4
        if not (turned or scaled):
            return None
        matrix = np.eye(3)
        if turned:
            a, b = planes[int(rng.integers(len(planes)))]
            angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
            # Turned in millimetres, then written in voxels.
            ratio = self.spacing_mm[b] / self.spacing_mm[a]
            matrix[a, a] = matrix[b, b] = np.cos(angle)
            matrix[a, b], matrix[b, a] = -np.sin(angle) * ratio, np.sin(angle) / ratio
        return matrix / rng.uniform(0.85, 1.2) if scaled else matrix


def turning_planes(spacing_mm: Sequence[float]) -> list[tuple[int, int]]:
    """Pairs of axes whose voxels are near-square, and in which an exam may therefore be turned."""
    pairs = [(0, 1), (0, 2), (1, 2)]
    return [
        (a, b)
        for a, b in pairs
        if max(spacing_mm[a], spacing_mm[b]) <= MAX_PLANE_RATIO * min(spacing_mm[a], spacing_mm[b])
    ]


def apply(
    cut: Cut, image: NDArray[np.float32], label: NDArray[np.uint8], patch: tuple[int, int, int],
    noise: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:  # fmt: skip
    """Cut and transform one patch; past the exam's edge the image repeats its border and the label is background."""
    half = (np.array(patch) - 1) / 2
    if cut.matrix is None:
        start = np.rint(cut.centre - half).astype(int)
        values, indices = _box(image, start, patch, "edge"), _box(label, start, patch, "zero")
    else:
        # Only the box that the turned patch touches is read from disk.
        reach = np.abs(cut.matrix) @ half + 2
        start = np.floor(cut.centre - reach).astype(int)
        size = tuple(int(n) for n in np.ceil(2 * reach).astype(int) + 1)
        offset = (cut.centre - start) - cut.matrix @ half
        values = ndimage.affine_transform(
            _box(image, start, size, "edge"), cut.matrix, offset, patch, order=1, mode="nearest"
        )
        indices = ndimage.affine_transform(
            _box(label, start, size, "zero"), cut.matrix, offset, patch, order=0, mode="constant"
        )
    values = values * np.float32(cut.gain) + np.float32(cut.offset)
    if noise is not None:
        values += np.float32(cut.noise) * noise
    return values, indices


def plain_patch(exam: Prepared, patch: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The patch around the middle of an exam's foreground (the exam's middle where there is none), not augmented."""
    image, label = exam.image(), exam.label()
    shape = np.array(image.shape)
    centre = np.concatenate(exam.places).mean(axis=0) if exam.places else (shape - 1) / 2
    inside = np.minimum(patch, shape)
    centre = np.clip(centre, inside / 2 - 0.5, shape - inside / 2 - 0.5)
    return apply(Cut(centre, None, gain=1.0, offset=0.0, noise=0.0), image, label, patch)


def _box(array: NDArray, start: NDArray[np.int_], size: Sequence[int], outside: str) -> NDArray:
    """Cut a box that may reach over the array's edge; outside is the nearest voxel's value or zero."""
    wanted = [np.arange(first, first + count) for first, count in zip(start, size, strict=True)]
    held = [np.clip(places, 0, length - 1) for places, length in zip(wanted, array.shape, strict=True)]
    box = np.ascontiguousarray(array[tuple(slice(int(places[0]), int(places[-1]) + 1) for places in held)])
    if all(np.array_equal(a, b) for a, b in zip(wanted, held, strict=True)):
        return box
    for axis, places in enumerate(held):
        box = box.take(places - places[0], axis=axis)
    if outside == "zero":
        for axis in range(3):
            box[(slice(None),) * axis + (wanted[axis] != held[axis],)] = 0
    return box
