"""Training batches. The batch of step t depends only on (seed, member, t): resuming needs no loader state beyond t."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.plan import Plan
from models.preprocess import preprocess_image, preprocess_label
from redraft.digest import sha256_file, sha256_json
from redraft.errors import IntegrityError, LabelError
from redraft.files import atomic_path
from redraft.volumes import grid_difference, read_volume


@dataclass(frozen=True)
class TrainingExam:
    """A labelled exam by files and their SHA-256."""

    exam_id: str
    annotation_id: str
    image: Path
    label: Path
    image_sha256: str
    label_sha256: str


@dataclass(frozen=True)
class Prepared:
    """Network-ready arrays of one exam, memory-mapped: (I, J, K) float32 and uint8 class indices."""

    exam_id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    voxels: tuple[NDArray[np.int32], ...]  # per foreground class that is present: (N, 3) voxel indices


def prepare(exams: Sequence[TrainingExam], plan: Plan, cache: Path) -> list[Prepared]:
    """Preprocess exams, keeping the arrays in `cache` keyed by image, label and plan.

    Raises
    ------
    IntegrityError
        When a file is not what its record says.
    LabelError
        When a label is not on its image's grid.
    """
    return [_prepare(exam, plan, cache) for exam in exams]


def _prepare(exam: TrainingExam, plan: Plan, cache: Path) -> Prepared:
    key = sha256_json([exam.image_sha256, exam.label_sha256, plan.digest])[:32]
    image_file, label_file = cache / f"{key}.image.npy", cache / f"{key}.label.npy"
    if not (image_file.exists() and label_file.exists()):
        for path, wanted in ((exam.image, exam.image_sha256), (exam.label, exam.label_sha256)):
            if not path.is_file() or sha256_file(path) != wanted:
                raise IntegrityError(
                    f"Exam {exam.exam_id}: {path.name} is missing or not what its record says.",
                    "Run `redraft audit verify`; restore the file with `dvc checkout`.",
                )
        image, label = read_volume(exam.image), read_volume(exam.label)
        difference = grid_difference(image, label)
        if difference is not None:
            raise LabelError(f"Exam {exam.exam_id}: the label is on another grid.", rule="grid", measured=difference)
        for file, array in ((image_file, preprocess_image(image, plan)), (label_file, preprocess_label(label, plan))):
            with atomic_path(file) as partial, open(partial, "wb") as stream:
                np.save(stream, array, allow_pickle=False)
    label_array = np.load(label_file, mmap_mode="r")
    classes = [np.argwhere(label_array == index).astype(np.int32) for index in range(1, len(plan.classes))]
    present = tuple(voxels for voxels in classes if len(voxels))
    return Prepared(exam.exam_id, np.load(image_file, mmap_mode="r"), label_array, present)


@dataclass(frozen=True)
class Sampler:
    """Draws augmented patches; all randomness comes from (seed, member, step).

    Augmentation: rotation in the last-axis plane and scaling (bilinear), gain, offset and noise of intensities. No
    flips: left and right differ in anatomy.
    """

    exams: Sequence[Prepared]
    patch: tuple[int, int, int]
    batch_size: int
    foreground_share: float
    seed: int
    member: int

    def batch(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Images (B, 1, I, J, K) and class indices (B, 1, I, J, K) of one step."""
        rng = np.random.Generator(np.random.Philox(key=[(self.seed << 16) + self.member, step]))
        pairs = [self._patch(rng) for _ in range(self.batch_size)]
        return np.stack([a for a, _ in pairs])[:, None], np.stack([b for _, b in pairs])[:, None]

    def _patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        exam = self.exams[int(rng.integers(len(self.exams)))]
        shape = np.array(exam.image.shape)
        if exam.voxels and rng.random() < self.foreground_share:
            # A class first, then a voxel of it: small tumours are seen as often as large organs.
            voxels = exam.voxels[int(rng.integers(len(exam.voxels)))]
            centre = voxels[int(rng.integers(len(voxels)))].astype(float)
            centre += rng.uniform(-0.25, 0.25, 3) * self.patch
        else:
            centre = rng.uniform(0, 1, 3) * (shape - 1)
        half = np.array(self.patch) / 2
        centre = np.where(shape > self.patch, np.clip(centre, half - 0.5, shape - half - 0.5), (shape - 1) / 2)
        angle = rng.uniform(-0.26, 0.26) if rng.random() < 0.4 else 0.0
        zoom = rng.uniform(0.85, 1.2) if rng.random() < 0.4 else 1.0
        gain, offset = rng.uniform(0.9, 1.1), rng.uniform(-0.1, 0.1)
        noise = rng.uniform(0, 0.1) if rng.random() < 0.3 else 0.0
        image, label = self._cut(exam, centre, angle, zoom)
        image = image * np.float32(gain) + np.float32(offset)
        if noise:
            image = image + (noise * rng.standard_normal(image.shape)).astype(np.float32)
        return image.astype(np.float32), label

    def _cut(
        self, exam: Prepared, centre: NDArray[np.float64], angle: float, zoom: float
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        half = (np.array(self.patch) - 1) / 2
        if angle == 0.0 and zoom == 1.0:
            start = np.rint(centre - half).astype(int)
            return _crop(exam.image, start, self.patch, "edge"), _crop(exam.label, start, self.patch, "zero")
        c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
        matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1 / zoom]])
        # Only the box that the turned patch touches is read from disk.
        reach = np.abs(matrix) @ half + 2
        start = np.floor(centre - reach).astype(int)
        size = tuple(int(n) for n in np.ceil(2 * reach).astype(int) + 1)
        image = _crop(exam.image, start, size, "edge")
        label = _crop(exam.label, start, size, "zero")
        offset = (centre - start) - matrix @ half
        return (
            ndimage.affine_transform(image, matrix, offset, self.patch, order=1, mode="nearest"),
            ndimage.affine_transform(label, matrix, offset, self.patch, order=0, mode="constant"),
        )


def _crop(array: NDArray, start: NDArray[np.int_], size: Sequence[int], outside: str) -> NDArray:
    """Cut a box that may reach over the array's edge; outside is the edge's value or zero."""
    low = np.maximum(start, 0)
    high = np.minimum(start + size, array.shape)
    high = np.maximum(high, low)
    inside = np.asarray(array[low[0] : high[0], low[1] : high[1], low[2] : high[2]])
    pad = [(int(low[n] - start[n]), int(start[n] + size[n] - high[n])) for n in range(3)]
    if any(a or b for a, b in pad):
        inside = np.pad(inside, pad, mode="edge") if outside == "edge" else np.pad(inside, pad)
    return np.ascontiguousarray(inside)


def default_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
