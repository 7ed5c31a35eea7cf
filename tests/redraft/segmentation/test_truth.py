"""Truth for simulated readers: found by pseudonym alone, given back voxel by voxel, refused when it does not fit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from redraft.config.schema import Structure, StructureKind
from redraft.dicom.contours import open_rtstruct, referenced_series
from redraft.dicom.geometry import LPS_TO_RAS
from redraft.errors import LabelError, ReadError
from redraft.file_names import is_label_file, is_nifti, nifti_stem
from redraft.phantom.series import Uids, save
from redraft.phantom.write import STRUCTURES, _affine, _rng, draw_exam, write_phantom
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.origin import Origin
from redraft.segmentation.seg_out import build_seg
from redraft.segmentation.truth import TruthIndex, read_labels
from redraft.volumes import Volume

SHAPE, SPACING = (48, 40, 16), (7.2, 7.2, 12.0)


def wanted(**values: int) -> list[Structure]:
    """Structures with these label values."""
    return [Structure(name=name, value=value, kind=StructureKind.ORGAN) for name, value in values.items()]


WANTED = wanted(**STRUCTURES)
CATEGORY = {"value": "91723000", "meaning": "Anatomical Structure"}
CODES = ({"value": "64033007", "meaning": "Kidney"}, {"value": "108369006", "meaning": "Neoplasm"})


@pytest.fixture(scope="module")
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(KeyRing.published_demo())


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, 4, 2, shape=SHAPE, spacing=SPACING)
    return folder


def reference(number: int, pseudonyms: Pseudonyms, **changes: object) -> ExamGeometry:
    """The geometry of a phantom exam, from its recipe."""
    lps = _affine(_rng(2, "table", number), SHAPE, SPACING)
    uids = Uids.of(2, number, SHAPE[2])
    places = [(lps @ [0, 0, k, 1])[:3].tolist() for k in range(SHAPE[2])]
    content = {
        "exam_id": "exam", "subject_id": "subject", "modality": "CT", "shape": list(SHAPE),
        "affine_ras": (LPS_TO_RAS @ lps).tolist(),
        "slices": {
            "frame_of_reference": pseudonyms.uid(uids.frame), "orientation_lps": [1, 0, 0, 0, 1, 0],
            "instances": [
                {"uid": pseudonyms.uid(uid), "frame": None, "position_lps": place}
                for uid, place in zip(uids.instances, places, strict=True)
            ],
        },
    }  # fmt: skip
    return ExamGeometry.of({**content, **changes})


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
    swapped = TruthIndex.scan(phantom, pseudonyms, wanted(kidney=7, kidney_tumor=3))
    for number in range(4):
        drawn = draw_exam(2, number, SHAPE, SPACING).labels
        series = pseudonyms.series_id(series_uid(phantom, number))
        assert series in index
        np.testing.assert_array_equal(index.labels(series, reference(number, pseudonyms)), drawn)
        np.testing.assert_array_equal(swapped.labels(series, reference(number, pseudonyms)), np.array([0, 7, 3])[drawn])


def test_an_exam_without_truth_is_named_by_its_pseudonym(phantom: Path, pseudonyms: Pseudonyms) -> None:
    """The original UID finds nothing: the index knows pseudonyms only."""
    index = TruthIndex.scan(phantom / "truth", pseudonyms, WANTED)
    assert series_uid(phantom, 0) not in index
    with pytest.raises(LabelError) as caught:
        index.labels("0" * 20, reference(0, pseudonyms))
    assert caught.value.rule == "no_truth"


def test_truth_on_another_grid_is_refused(phantom: Path, pseudonyms: Pseudonyms) -> None:
    """Contours of one exam on the grid of another lie outside of it, and no identifier is in the message."""
    index = TruthIndex.scan(phantom / "truth", pseudonyms, WANTED)
    moved = reference(0, pseudonyms)
    moved.affine[2, 3] += 500 * SPACING[2]
    with pytest.raises(LabelError) as caught:
        index.labels(pseudonyms.series_id(series_uid(phantom, 0)), moved)
    assert caught.value.rule == "label.outside"
    planted = json.loads((phantom / "planted_identifiers.json").read_text())
    assert not any(text in str(caught.value) for text in planted)


def test_truth_of_another_frame_of_reference_is_refused(phantom: Path, pseudonyms: Pseudonyms, tmp_path: Path) -> None:
    """Contours that lie in the image's slices by chance, in a space that is not the image's."""
    dataset = open_rtstruct(phantom / "truth" / "exam_0000.dcm")
    for roi in dataset.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "1.2.3"
    save(tmp_path / "moved.dcm", dataset)
    index = TruthIndex.scan(tmp_path, pseudonyms, WANTED)
    with pytest.raises(LabelError) as caught:
        index.labels(pseudonyms.series_id(series_uid(phantom, 0)), reference(0, pseudonyms))
    assert caught.value.rule == "label.frame_of_reference"


def test_segmentation_objects_are_truth_by_the_series_they_refer_to(pseudonyms: Pseudonyms, tmp_path: Path) -> None:
    """A SEG of the original images, and one file per structure, give the drawn labels; code before name."""
    drawn = draw_exam(2, 1, SHAPE, SPACING).labels
    uids = Uids.of(2, 1, SHAPE[2])
    exam = reference(1, pseudonyms, study="1.1", series="1.2", sop_class="1.2.840.10008.5.1.4.1.1.2").named(
        study=uids.study, series=uids.series, sop_class="1.2.840.10008.5.1.4.1.1.2", frame_of_reference=uids.frame,
        originals=uids.instances,
    )  # fmt: skip
    coded = [
        Structure.model_validate({**s.model_dump(), "code": {"category": CATEGORY, "type": code}})
        for s, code in zip(WANTED, CODES, strict=True)
    ]
    origin = Origin("truth", "0" * 64, "MANUAL", datetime(2026, 1, 2, tzinfo=UTC))
    save(tmp_path / "whole" / "a.dcm", build_seg(drawn, exam, coded, origin))
    for n, structure in enumerate(coded):
        part = np.where(drawn == structure.value, drawn, 0).astype(np.uint8)
        save(tmp_path / "parts" / f"{n}.dcm", build_seg(part, exam, [structure], origin))
    series = pseudonyms.series_id(uids.series)
    for folder in ("whole", "parts"):
        index = TruthIndex.scan(tmp_path / folder, pseudonyms, coded)
        np.testing.assert_array_equal(index.labels(series, reference(1, pseudonyms)), drawn)


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
    exam = ExamGeometry.of_image("a", Volume(array, np.diag([1, 2, 3, 1.0])))
    labels = index.labels(pseudonyms.series_id("nifti/a"), exam)
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


def test_a_truth_that_cannot_be_read_is_not_named(tmp_path: Path, pseudonyms: Pseudonyms) -> None:
    """A file may be named after its patient; the error names the series."""
    folder = tmp_path / "labelsTr"
    folder.mkdir()
    (folder / "DOE_JANE.nii.gz").write_bytes(b"no image")
    index = TruthIndex.scan(tmp_path, pseudonyms, WANTED)
    series_id = pseudonyms.series_id("nifti/DOE_JANE")
    with pytest.raises(LabelError) as caught:
        index.labels(series_id, ExamGeometry.of_image("exam", Volume(np.zeros((2, 2, 2)), np.eye(4))))
    assert caught.value.rule == "unreadable" and series_id in str(caught.value)
    assert "DOE" not in str(caught.value) and caught.value.__cause__ is None


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
