"""Labelled exams as arrays ready for training, preprocessed once and kept on local disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.plan import Plan
from models.preprocess import PREPROCESSING, preprocess_image, preprocess_label
from redraft.digest import sha256_file, sha256_json
from redraft.errors import ExamError, IntegrityError, LabelError
from redraft.files import atomic_path
from redraft.volumes import grid_difference, read_volume

# Places kept per exam and class for foreground sampling: a large organ has millions, and thousands cover it.
PLACES = 10_000


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
    """Network-ready arrays of one exam, on disk: nothing is held open or in memory between patches.

    Attributes
    ----------
    key : str
        Names the content: image, label, plan and preprocessing.
    image_file, label_file : Path
        `.npy` of shape (I, J, K), float32 and uint8 class indices.
    places : tuple of ndarray, int32, shape (N, 3)
        Voxel indices, at most `PLACES`, of each foreground class that is present.
    """

    exam_id: str
    key: str
    image_file: Path
    label_file: Path
    places: tuple[NDArray[np.int32], ...]

    @classmethod
    def open(cls, exam_id: str, key: str, image_file: str | Path, label_file: str | Path) -> Prepared:
        """An exam that `prepare` has written."""
        label_file = Path(label_file)
        table = np.load(label_file.with_suffix(".places.npy"), allow_pickle=False)
        places = tuple(table[table[:, 0] == index, 1:] for index in np.unique(table[:, 0]))
        return cls(exam_id, key, Path(image_file), label_file, places)

    def reference(self) -> dict[str, str]:
        """What `open` needs, JSON."""
        return {
            "exam_id": self.exam_id,
            "key": self.key,
            "image_file": str(self.image_file.resolve()),
            "label_file": str(self.label_file.resolve()),
        }

    def image(self) -> NDArray[np.float32]:
        """The image, memory-mapped."""
        array: NDArray[np.float32] = np.load(self.image_file, mmap_mode="r", allow_pickle=False)
        return array

    def label(self) -> NDArray[np.uint8]:
        """The class indices, memory-mapped."""
        array: NDArray[np.uint8] = np.load(self.label_file, mmap_mode="r", allow_pickle=False)
        return array


def prepare(exams: Sequence[TrainingExam], plan: Plan, cache: Path) -> list[Prepared]:
    """Preprocess exams, keeping the arrays in `cache`; an image is kept once however often its label is revised.

    Raises
    ------
    IntegrityError
        When a file is not what its record says.
    LabelError
        When a label is not on its image's grid, or holds a value that the plan does not know.
    ReadError
        When a file is not a volume, or holds values that are no numbers.
    """
    return [_prepare(exam, plan, cache) for exam in exams]


def _prepare(exam: TrainingExam, plan: Plan, cache: Path) -> Prepared:
    image_key = _key("image", exam.image_sha256, plan.spacing_mm, plan.intensity, plan.intensity_values)
    label_key = _key("label", exam.label_sha256, plan.spacing_mm, plan.classes)
    image_file, label_file = cache / f"{image_key}.npy", cache / f"{label_key}.npy"
    places_file = cache / f"{label_key}.places.npy"
    # The places are written last, so that their file stands for a finished label.
    if not (_readable(image_file) and _readable(label_file) and _readable(places_file)):
        for path, wanted in ((exam.image, exam.image_sha256), (exam.label, exam.label_sha256)):
            if not path.is_file() or sha256_file(path) != wanted:
                raise IntegrityError(
                    f"Exam {exam.exam_id}: {path.name} is missing or not what its record says.",
                    "Run `redraft audit verify`; restore the file with `dvc checkout`.",
                )
        values, indices = _arrays(exam, plan)
        _save(image_file, values)
        _save(label_file, indices)
        _save(places_file, _places(indices, len(plan.classes)))
    return Prepared.open(exam.exam_id, sha256_json([image_key, label_key]), image_file, label_file)


def _arrays(exam: TrainingExam, plan: Plan) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    try:
        image, label = read_volume(exam.image), read_volume(exam.label)
        difference = grid_difference(image, label)
        if difference is not None:
            raise LabelError(
                "The label is on another grid.", "Have it annotated again.", rule="grid", measured=difference
            )
        return preprocess_image(image, plan), preprocess_label(label, plan)
    except ExamError as error:
        named = type(error)(f"Exam {exam.exam_id}: {error.what}", error.do, rule=error.rule, measured=error.measured)
        raise named from error


def _key(*parts: object) -> str:
    return sha256_json([PREPROCESSING, *(list(part) if isinstance(part, tuple) else part for part in parts)])[:32]


def _places(indices: NDArray[np.uint8], classes: int) -> NDArray[np.int32]:
    """Rows (class, i, j, k): evenly spaced in memory order, so that no random numbers are spent."""
    rows = []
    for index in range(1, classes):
        found = np.flatnonzero(indices == index)
        if found.size > PLACES:
            found = found[np.linspace(0, found.size - 1, PLACES).astype(np.int64)]
        voxels = np.stack(np.unravel_index(found, indices.shape), axis=1)
        rows.append(np.insert(voxels, 0, index, axis=1))
    return np.concatenate(rows).astype(np.int32)


def _save(path: Path, array: NDArray) -> None:
    with atomic_path(path) as partial, open(partial, "wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _readable(path: Path) -> bool:
    """Whether the cached array is there and whole; a damaged one is made anew from the verified files."""
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return True


def default_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
