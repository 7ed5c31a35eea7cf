"""Truth for simulated readers: found by pseudonym alone, given back voxel by voxel, refused when it does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from redraft.dicom.contours import open_rtstruct, referenced_series
from redraft.dicom.geometry import LPS_TO_RAS
from redraft.dicom.oracle import TruthIndex, is_label_file, is_nifti, nifti_stem, read_labels
from redraft.errors import LabelError, ReadError
from redraft.phantom.write import STRUCTURES, _affine, _rng, draw_exam, write_phantom
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms
from redraft.volumes import Volume

SHAPE, SPACING = (48, 40, 16), (7.2, 7.2, 12.0)
WANTED = {name: (value, ()) for name, value in STRUCTURES.items()}


@pytest.fixture(scope="module")
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(KeyRing.published_demo())


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, 4, 2, shape=SHAPE, spacing=SPACING)
    return folder


def reference(number: int) -> Volume:
    """The grid of a phantom exam, from its recipe."""
    affine = LPS_TO_RAS @ _affine(_rng(2, "table", number), SHAPE, SPACING)
    return Volume(np.zeros(SHAPE, np.int16), affine)


def series_uid(phantom: Path, number: int) -> str:
    (uid,) = referenced_series(open_rtstruct(phantom / "truth" / f"exam_{number:04d}.dcm"))
    return uid


def label_file(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, np.diag([1, 2, 3, 1.0]) if affine is None else affine).to_filename(path)
    return path


def test_structure_sets_give_back_the_drawn_labels(phantom: Path, pseudonyms: Pseudonyms) -> None:
    """Every exam's truth, by its series' pseudonym; values are the project's, whatever the ROI numbers."""
    index = TruthIndex.scan(phantom, pseudonyms, WANTED)
    swapped = TruthIndex.scan(phantom, pseudonyms, {"kidney": (7, ()), "kidney_tumor": (3, ())})
    for number in range(4):
        drawn = draw_exam(2, number, SHAPE, SPACING).labels
        series = pseudonyms.series_id(series_uid(phantom, number))
        assert series in index
        np.testing.assert_array_equal(index.labels(series, reference(number)), drawn)
        np.testing.assert_array_equal(swapped.labels(series, reference(number)), np.array([0, 7, 3])[drawn])


def test_an_exam_without_truth_is_named_by_its_pseudonym(phantom: Path, pseudonyms: Pseudonyms) -> None:
    """The original UID finds nothing: the index knows pseudonyms only."""
    index = TruthIndex.scan(phantom / "truth", pseudonyms, WANTED)
    assert series_uid(phantom, 0) not in index
    with pytest.raises(LabelError) as caught:
        index.labels("0" * 20, reference(0))
    assert caught.value.rule == "no_truth"


def test_truth_on_another_grid_is_refused(phantom: Path, pseudonyms: Pseudonyms) -> None:
    """Contours of one exam on the grid of another lie outside of it, and no identifier is in the message."""
    index = TruthIndex.scan(phantom / "truth", pseudonyms, WANTED)
    moved = reference(0)
    moved.affine[2, 3] += 500 * SPACING[2]
    with pytest.raises(LabelError) as caught:
        index.labels(pseudonyms.series_id(series_uid(phantom, 0)), moved)
    assert caught.value.rule == "label.outside"
    planted = json.loads((phantom / "planted_identifiers.json").read_text())
    assert not any(text in str(caught.value) for text in planted)


def test_a_missing_folder_is_refused(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    """A misspelt path is not an empty truth."""
    with pytest.raises(ReadError) as caught:
        TruthIndex.scan(tmp_path / "no", pseudonyms, WANTED)
    assert caught.value.rule == "no_oracle"


def test_label_folders_of_the_msd_layout_are_found(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    """labelsTr, labelsTs and labels hold truth; images, and labels elsewhere, do not."""
    array = np.zeros((4, 3, 2), np.uint8)
    array[1, 1, 1] = 2
    for folder, name in (("labelsTr", "a"), ("labelsTs", "b"), ("labels", "c"), ("imagesTr", "d_0000"), ("other", "e")):
        label_file(tmp_path / folder / f"{name}.nii.gz", array)
    (tmp_path / "labelsTr" / "notes.txt").write_text("x")
    index = TruthIndex.scan(tmp_path, pseudonyms, WANTED)
    found = [name for name in "abcde" if pseudonyms.series_id(f"nifti/{name}") in index]
    assert found == ["a", "b", "c"]
    grid = Volume(array, np.diag([1, 2, 3, 1.0]))
    labels = index.labels(pseudonyms.series_id("nifti/a"), grid)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, array)


@pytest.mark.parametrize(
    ("array", "affine", "rule"),
    [
        (np.zeros((4, 3, 3), np.uint8), None, "grid"),
        (np.zeros((4, 3, 2), np.uint8), np.diag([-1, 2, 3, 1.0]), "grid"),
        (np.full((4, 3, 2), 0.5, np.float32), None, "not_integer"),
        (np.full((4, 3, 2), np.nan, np.float32), None, "not_integer"),
        (np.full((4, 3, 2), 3, np.uint8), None, "unknown_values"),
        (np.full((4, 3, 2), -1, np.int16), None, "unknown_values"),
        (np.full((4, 3, 2), 257, np.int16), None, "unknown_values"),
    ],
    ids=["shape", "flipped", "fraction", "nan", "unknown", "negative", "wraps"],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, array: np.ndarray, affine, rule: str) -> None:
    """Another grid, fractions, and values that the project does not know (257 is not 1)."""
    path = label_file(tmp_path / "labels" / "a.nii.gz", array, affine)
    grid = Volume(np.zeros((4, 3, 2)), np.diag([1, 2, 3, 1.0]))
    with pytest.raises(LabelError) as caught:
        read_labels(path, grid, {1, 2}, "exam")
    assert caught.value.rule == rule


def test_whole_numbers_of_any_type_are_labels(tmp_path: Path) -> None:
    """Tools write labels as float; 2.0 is 2."""
    array = np.arange(24).reshape(4, 3, 2) % 3
    grid = Volume(np.zeros((4, 3, 2)), np.diag([1, 2, 3, 1.0]))
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        path = label_file(tmp_path / "labels" / "a.nii.gz", array.astype(dtype))
        labels = read_labels(path, grid, {1, 2}, "exam")
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, array)


@pytest.mark.parametrize(
    ("name", "stem", "nifti"),
    [
        ("a.nii.gz", "a", True), ("a.nii", "a", True), ("a_0000.nii.gz", "a", True), ("a.b.nii.gz", "a.b", True),
        ("a_0001.nii.gz", "a_0001", True), ("a.nii.gz.txt", "a.nii.gz.txt", False), ("a.gz", "a.gz", False),
    ],
)  # fmt: skip
def test_names_of_nifti_files(name: str, stem: str, nifti: bool) -> None:
    """One exam's image and label have one stem; only MSD's first channel is dropped from it."""
    assert is_nifti(Path(name)) is nifti and nifti_stem(Path(name)) == stem
    assert is_label_file(Path("labelsTr") / name) and not is_label_file(Path("imagesTr") / name)
