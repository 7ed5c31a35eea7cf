"""Preprocessed arrays on disk: verified on the way in, made once, made again when damaged."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.data import PLACES, Prepared, TrainingExam, prepare
from models.plan import Plan
from models.preprocess import preprocess_image, preprocess_label
from redraft.digest import sha256_file
from redraft.errors import IntegrityError, LabelError, ReadError
from redraft.volumes import Volume, read_volume, write_volume


def test_arrays_are_the_preprocessed_exam(exams: list[TrainingExam], plan: Plan, prepared: list[Prepared]) -> None:
    """What training reads is exactly what preprocessing gives, and the places are voxels of their class."""
    for exam, ready in zip(exams, prepared, strict=True):
        np.testing.assert_array_equal(ready.image(), preprocess_image(read_volume(exam.image), plan))
        np.testing.assert_array_equal(ready.label(), preprocess_label(read_volume(exam.label), plan))
        for index, places in enumerate(ready.places, 1):
            assert (ready.label()[tuple(places.T)] == index).all()
            assert len(places) == (ready.label() == index).sum() <= PLACES


def test_large_structures_keep_a_bounded_sample(plan: Plan, tmp_path: Path) -> None:
    """An organ of more voxels than are kept is sampled over its whole extent."""
    label = np.zeros((40, 40, 40), np.uint8)
    label[2:38, 3:38, 4:38] = 1
    exam = _exam(tmp_path, np.zeros((40, 40, 40), np.int16), label)
    (places,) = prepare([exam], plan, tmp_path / "cache")[0].places
    assert len(places) == PLACES
    assert places.min(axis=0).tolist() == [2, 3, 4] and places.max(axis=0).tolist() == [37, 37, 37]


def test_a_second_run_reads_nothing(exams: list[TrainingExam], plan: Plan, tmp_path: Path) -> None:
    """Prepared exams need their sources no more, and are the same."""
    source = tmp_path / "source"
    source.mkdir()
    paths = [Path(shutil.copy(path, source)) for path in (exams[0].image, exams[0].label)]
    exam = dataclasses.replace(exams[0], image=paths[0], label=paths[1])
    (first,) = prepare([exam], plan, tmp_path / "cache")
    shutil.rmtree(source)
    (second,) = prepare([exam], plan, tmp_path / "cache")
    assert first.key == second.key and first.image_file == second.image_file


def test_a_revised_label_keeps_the_image(exams: list[TrainingExam], plan: Plan, tmp_path: Path) -> None:
    """A revision makes a new label array beside the image that is there already."""
    (first,) = prepare([exams[0]], plan, tmp_path / "cache")
    label = read_volume(exams[0].label)
    write_volume(tmp_path / "revised.nii.gz", label.like(np.where(label.array == 4, 1, label.array).astype(np.uint8)))
    revised = dataclasses.replace(
        exams[0], label=tmp_path / "revised.nii.gz", label_sha256=sha256_file(tmp_path / "revised.nii.gz")
    )
    (second,) = prepare([revised], plan, tmp_path / "cache")
    assert second.image_file == first.image_file and second.label_file != first.label_file
    assert second.key != first.key


def test_other_preprocessing_makes_other_arrays(exams: list[TrainingExam], plan: Plan, tmp_path: Path) -> None:
    """A change of the plan's spacing or intensities never meets the arrays of before; one of the network does."""
    (first,) = prepare([exams[0]], plan, tmp_path)
    for change, same in (
        ({"spacing_mm": (4.0, 4.0, 4.0)}, False),
        ({"intensity_values": (0.0, 1.0, 0.0, 1.0)}, False),
        ({"channels": (8, 16)}, True),
    ):
        (other,) = prepare([exams[0]], plan.model_copy(update=change), tmp_path)
        assert (other.image_file == first.image_file) is same


@pytest.mark.parametrize("which", ["image_file", "label_file"])
def test_damaged_arrays_are_made_again(exams: list[TrainingExam], plan: Plan, tmp_path: Path, which: str) -> None:
    """A truncated array in the cache is replaced from the verified files."""
    (first,) = prepare([exams[0]], plan, tmp_path)
    path: Path = getattr(first, which)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    prepare([exams[0]], plan, tmp_path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("which", ["image", "label"])
def test_altered_files_are_named(exams: list[TrainingExam], plan: Plan, tmp_path: Path, which: str) -> None:
    """A file that is not what its record says stops the training and names the exam."""
    altered = dataclasses.replace(exams[1], **{f"{which}_sha256": "0" * 64})
    with pytest.raises(IntegrityError, match="Exam exam1"):
        prepare([altered], plan, tmp_path)
    with pytest.raises(IntegrityError, match="missing"):
        prepare([dataclasses.replace(exams[1], **{which: tmp_path / "gone.nii.gz"})], plan, tmp_path)


def test_bad_labels_and_images_are_named(plan: Plan, tmp_path: Path) -> None:
    """Another grid, unknown values, values that are no numbers: each names the exam and the rule."""
    image = np.zeros((8, 8, 8), np.int16)
    for name, exam, rule, kind in (
        ("grid", _exam(tmp_path / "a", image, np.zeros((8, 8, 9), np.uint8)), "grid", LabelError),
        ("value", _exam(tmp_path / "b", image, np.full((8, 8, 8), 3, np.uint8)), "unknown_value", LabelError),
        ("nan", _exam(tmp_path / "c", np.full((8, 8, 8), np.nan, np.float32), image * 0), "not_finite", ReadError),
    ):
        with pytest.raises(kind, match="Exam x") as caught:
            prepare([exam], plan, tmp_path / name)
        assert caught.value.rule == rule


def _exam(folder: Path, image: np.ndarray, label: np.ndarray) -> TrainingExam:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    paths = folder / "image.nii.gz", folder / "label.nii.gz"
    write_volume(paths[0], Volume(image, affine))
    write_volume(paths[1], Volume(label, affine))
    return TrainingExam("x", "a", *paths, *(sha256_file(path) for path in paths))
