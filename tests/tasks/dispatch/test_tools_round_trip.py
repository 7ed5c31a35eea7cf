"""Packages through desktop tools and back: labels as their libraries write them, on every grid, voxel for voxel."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from redraft.config.schema import Structure
from redraft.dicom.geometry import LPS_TO_RAS
from redraft.digest import sha256_file
from redraft.errors import LabelError
from redraft.segmentation.colours import colour
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.origin import Origin
from redraft.segmentation.read import read_segmentation
from redraft.segmentation.structures import to_code
from redraft.volumes import Volume, read_volume, write_volume
from tasks.dispatch.backends import FolderBackend
from tasks.dispatch.contract import Task, TaskStructure
from tasks.dispatch.packages import Tools, make_package

SHAPE = (9, 8, 7)
CODES = ("64033007", "Kidney"), ("108369006", "Neoplasm")
STRUCTURES = [
    Structure.model_validate(
        {"name": name, "value": value, "kind": kind, "protocol": "Without the pelvis.",
         "code": {"category": {"value": "91723000", "meaning": "x"}, "type": {"value": code[0], "meaning": code[1]}}}
    )
    for name, value, kind, code in (("kidney", 4, "organ", CODES[0]), ("kidney_tumor", 1, "tumor", CODES[1]))
]  # fmt: skip


def _turned(tilt: float, turn: float) -> np.ndarray:
    a, b, c, d = np.cos(tilt), np.sin(tilt), np.cos(turn), np.sin(turn)
    return np.array([[1, 0, 0], [0, a, -b], [0, b, a]]) @ np.array([[c, -d, 0], [d, c, 0], [0, 0, 1]])


ROTATIONS = {
    "axial": np.eye(3),
    "oblique": _turned(0.4, -0.7),
    "flipped": np.diag([1, 1, -1.0]),  # slices from head to feet: a left-handed grid
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, -1.0, 0]]),
}


def exam_of(rotation: np.ndarray) -> ExamGeometry:
    """An exam of seven slices, as its record describes it."""
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = rotation @ np.diag([0.8, 1.2, 3.0]), (-20.5, 33.25, -410.0)
    directions = (lps[:3, :2] / np.linalg.norm(lps[:3, :2], axis=0)).T.ravel()
    slices = {
        "frame_of_reference": "2.25.1", "study": "2.25.2", "series": "2.25.3",
        "sop_class": "1.2.840.10008.5.1.4.1.1.2", "orientation_lps": directions.tolist(),
        "instances": [{"uid": f"2.25.{100 + k}", "frame": None, "position_lps": (lps @ [0, 0, k, 1])[:3].tolist()}
                      for k in range(SHAPE[2])],
    }  # fmt: skip
    return ExamGeometry.of({
        "exam_id": "e", "subject_id": "subject", "modality": "CT", "shape": list(SHAPE),
        "affine_ras": (LPS_TO_RAS @ lps).tolist(), "slices": slices,
    })  # fmt: skip


@pytest.fixture(params=ROTATIONS)
def exam(request: pytest.FixtureRequest) -> ExamGeometry:
    return exam_of(ROTATIONS[request.param])


@pytest.fixture
def labels() -> np.ndarray:
    """What the reader draws: no mirroring or turn leaves it as it is."""
    drawn = np.random.default_rng(5).choice(np.array([0, 0, 4, 1], np.uint8), SHAPE)
    drawn[1, 0, 0], drawn[-1, 0, 0], drawn[1, -1, 0] = 1, 4, 4
    drawn[0], drawn[:, :, -1] = 0, 0  # what a tool may crop
    return drawn


def package(tmp_path: Path, exam: ExamGeometry, *, dicom: bool = False) -> Path:
    """An assisted package of this exam; returns its folder."""
    image, draft = tmp_path / "i.nii.gz", tmp_path / "d.nii.gz"
    write_volume(image, Volume(np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16), exam.affine))
    half = np.zeros(SHAPE, np.uint8)
    half[2:6, 3:7, 1:5], half[3:5, 4:6, 2:4] = 4, 1
    write_volume(draft, Volume(half, exam.affine))
    task = Task(
        assignment_id="a", exam_id="e", round=1, purpose="training", mode="assisted", reader_id="reader-1",
        structures=tuple(TaskStructure(name=s.name, value=s.value, kind=s.kind) for s in STRUCTURES),
        image_sha256=sha256_file(image), draft_sha256=sha256_file(draft), token="t0ken",
    )  # fmt: skip
    origin = Origin("d", task.draft_sha256 or "", "AUTOMATIC", datetime(2026, 3, 2, tzinfo=UTC), "kidney", "d" * 64)
    make_package(tmp_path / "work", task, image, draft, Tools(STRUCTURES, exam, dicom, origin))
    return tmp_path / "work" / "a"


def finish(folder: Path, **changes: Any) -> None:
    """Fill in the template as a reader would, and call it result.json."""
    content = json.loads((folder / "result.template.json").read_text())
    minutes = {"kidney": {"active": 6.5, "idle": 0.4}, "exam": {"active": 1}}
    (folder / "result.json").write_text(json.dumps(content | {"verdict": "correct", "minutes": minutes} | changes))


def back(folder: Path, exam: ExamGeometry) -> np.ndarray:
    failed: dict[str, LabelError] = {}
    (item,) = FolderBackend(folder.parent, STRUCTURES, lambda _: exam).collect(["a"], failed.__setitem__)
    assert failed == {} and item.label is not None
    assert item.result.origin == "typed" and item.result.minutes["kidney"].active == 6.5
    return read_volume(item.label).array


def _itk(array: np.ndarray, like: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.CopyInformation(like)
    return image


def _itk_snap(folder: Path, labels: np.ndarray, exam: ExamGeometry) -> None:
    """ITK-SNAP and MITK write by ITK: here on the image as ITK reads it, in 16 bit as ITK-SNAP does."""
    image = sitk.ReadImage(str(folder / "image.nii.gz"))
    sitk.WriteImage(_itk(labels.astype(np.uint16), image), str(folder / "label.nii.gz"))


def _plain_nrrd(folder: Path, labels: np.ndarray, exam: ExamGeometry) -> None:
    image = sitk.ReadImage(str(folder / "image.nii.gz"))
    sitk.WriteImage(_itk(labels, image), str(folder / "label.nrrd"), useCompression=True)


def _slicer(folder: Path, labels: np.ndarray, exam: ExamGeometry) -> None:
    """3D Slicer keeps the draft's fields, numbers segments itself and crops to what is drawn."""
    _, header = nrrd.read(str(folder / "draft.seg.nrrd"))
    mine = {k: v for k, v in header.items() if k.startswith("Segment")}
    part = np.zeros(labels.shape, np.uint8)
    for n, s in enumerate(STRUCTURES):
        part[labels == s.value] = n + 1  # Slicer numbers segments itself
        mine |= {f"Segment{n}_LabelValue": str(n + 1), f"Segment{n}_ColorAutoGenerated": "1"}
    part, origin = part[1:, :, :6], exam.lps @ [1, 0, 0, 1]
    extent = " ".join(f"0 {size - 1}" for size in part.shape)
    mine |= {"Segmentation_ReferenceImageExtentOffset": "1 0 0", "Segment0_Extent": extent}
    nrrd.write(str(folder / "label.seg.nrrd"), part, mine | {
        "type": "unsigned char", "dimension": 3, "space": "left-posterior-superior", "encoding": "gzip",
        "kinds": ["domain"] * 3, "space directions": exam.lps[:3, :3].T, "space origin": origin[:3],
    })  # fmt: skip


def _dicom_seg(folder: Path, labels: np.ndarray, exam: ExamGeometry) -> None:
    """A DICOM-only tool: it knows nothing but the package's series, in the order of its files."""
    images = [pydicom.dcmread(path) for path in sorted((folder / "dicom").glob("*.dcm"))]
    segments = [
        hd.seg.SegmentDescription(n, s.name, to_code(s.code.category), to_code(s.code.type), "MANUAL")  # type: ignore[union-attr]
        for n, s in enumerate(STRUCTURES, 1)
    ]
    numbers = np.zeros(labels.shape, np.uint8)
    for n, s in enumerate(STRUCTURES, 1):
        numbers[labels == s.value] = n
    seg = hd.seg.Segmentation(
        images, np.ascontiguousarray(numbers.transpose(2, 1, 0)), "BINARY", segments, hd.UID(), 9, hd.UID(), 1,
        "A tool", "A tool", "1", "1",
    )  # fmt: skip
    seg.save_as(folder / "label.dcm")


@pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent the intended person name")
@pytest.mark.parametrize("tool", [_itk_snap, _plain_nrrd, _slicer, _dicom_seg])
def test_labels_come_back_voxel_for_voxel(
    tool: Callable[[Path, np.ndarray, ExamGeometry], None], exam: ExamGeometry, labels: np.ndarray, tmp_path: Path
) -> None:
    """Whatever the tool writes, on axial, oblique, left-handed and sagittal grids; typed minutes stay typed."""
    folder = package(tmp_path, exam, dicom=tool is _dicom_seg)
    tool(folder, labels, exam)
    finish(folder)
    np.testing.assert_array_equal(back(folder, exam), labels)


def test_the_draft_is_the_same_in_every_form(exam: ExamGeometry, tmp_path: Path) -> None:
    """NIfTI, Slicer's NRRD and DICOM SEG of one package hold the same voxels; ITK reads the series as the image."""
    folder = package(tmp_path, exam, dicom=True)
    wanted = read_volume(folder / "draft.nii.gz").array
    for name in ("draft.seg.nrrd", "draft.dcm"):
        np.testing.assert_array_equal(read_segmentation(folder / name, exam, STRUCTURES), wanted)
    slices = [pydicom.dcmread(path) for path in sorted((folder / "dicom").glob("*.dcm"))]
    image = read_volume(folder / "image.nii.gz").array
    for k, dataset in enumerate(slices):
        np.testing.assert_array_equal(dataset.pixel_array.T, image[:, :, k])
        assert dataset.SOPInstanceUID == exam.images[k].uid


def test_tools_see_names_and_colours(exam: ExamGeometry, tmp_path: Path) -> None:
    """One colour per structure in Slicer's table and segmentation, ITK-SNAP's labels and MITK's presets."""
    folder = package(tmp_path, exam)
    kidney, tumour = colour(0), colour(1)
    table = [line.split() for line in (folder / "labels.ctbl").read_text().splitlines() if not line.startswith("#")]
    assert table == [
        ["0", "Background", "0", "0", "0", "0"], ["1", "kidney_tumor", *map(str, tumour), "255"],
        ["4", "kidney", *map(str, kidney), "255"],
    ]  # fmt: skip
    snap = [line.split() for line in (folder / "labels.label.txt").read_text().splitlines() if not line.startswith("#")]
    assert snap[1:] == [
        ["1", *map(str, tumour), "1", "1", "1", '"kidney_tumor"'], ["4", *map(str, kidney), "1", "1", "1", '"kidney"'],
    ]  # fmt: skip
    header = nrrd.read_header(str(folder / "draft.seg.nrrd"))
    assert [float(v) for v in header["Segment0_Color"].split()] == pytest.approx([v / 255 for v in kidney], abs=1e-5)
    assert (header["Segment0_Name"], header["Segment1_LabelValue"]) == ("kidney", "1")
    stack = json.loads((folder / "draft.mitklabel.json").read_text())
    (group,) = stack["groups"]
    assert (stack["type"], group["_file"]) == ("org.mitk.multilabel.segmentation.stack", "./draft.nii.gz")
    assert {label["name"]: label["value"] for label in group["labels"]} == {"kidney": 4, "kidney_tumor": 1}
    assert json.loads((folder / "labels.mitklabel.json").read_text())["type"].endswith(".preset")
    assert "Without the pelvis." in (folder / "README.txt").read_text()


def test_an_exam_without_a_dicom_form_says_so(tmp_path: Path, labels: np.ndarray) -> None:
    """Values that 16 bits do not hold: the package is NIfTI only, and its text says why."""
    exam = exam_of(np.eye(3))
    image = tmp_path / "i.nii.gz"
    write_volume(image, Volume(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), exam.affine))
    task = Task(
        assignment_id="a", exam_id="e", round=1, purpose="training", mode="from_scratch", reader_id="reader-1",
        structures=(TaskStructure(name="kidney", value=4, kind="organ"),), image_sha256=sha256_file(image),
        draft_sha256=None,
    )  # fmt: skip
    make_package(tmp_path / "work", task, image, None, Tools(STRUCTURES, exam, dicom=True))
    folder = tmp_path / "work" / "a"
    assert not (folder / "dicom").exists() and (folder / "image.nii.gz").exists()
    text = (folder / "README.txt").read_text()
    assert "There is no DICOM series in this package." in text and "16-bit" in text
