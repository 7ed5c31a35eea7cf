"""Finished work is picked up, unfinished work waits, and no broken package stops anybody else's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.config.schema import Structure
from redraft.digest import sha256_file
from redraft.errors import LabelError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.nrrd_file import write_nrrd
from redraft.segmentation.origin import Origin, dicom_bytes
from redraft.segmentation.rtstruct_out import build_rtstruct
from redraft.segmentation.seg_out import build_seg
from redraft.volumes import Volume, read_volume, write_volume
from tasks.dispatch.backends import FolderBackend, Returned
from tasks.dispatch.contract import Task, TaskStructure

LABEL = np.zeros((9, 8, 7), np.uint8)
LABEL[2:5, 2:6, 1:4] = 1
GOOD: dict[str, Any] = {
    "schema_version": 1, "assignment_id": "a", "reader_id": "reader-1", "verdict": "scratch",
    "minutes": {"kidney": {"active": 6.5, "idle": 0.4}, "exam": {"active": 1.0}}, "origin": "typed",
}  # fmt: skip


def hand_in(work: Path, name: str = "a", **changes: Any) -> Path:
    """A package of this name with finished work in it; returns the folder."""
    folder = work / name
    folder.mkdir(parents=True)
    task = Task(
        assignment_id=name, exam_id="e", round=1, purpose="training", mode="from_scratch", reader_id="reader-1",
        structures=(TaskStructure(name="kidney", value=1, kind="organ"),), image_sha256="0" * 64, draft_sha256=None,
    )  # fmt: skip
    (folder / "task.json").write_text(task.model_dump_json())
    write_volume(folder / "label.nii.gz", Volume(LABEL, np.eye(4)))
    (folder / "result.json").write_text(json.dumps({**GOOD, "assignment_id": name, **changes}))
    return folder


def collect(work: Path, *names: str) -> tuple[list[Returned], dict[str, LabelError]]:
    failed: dict[str, LabelError] = {}
    return list(FolderBackend(work).collect(names, failed.__setitem__)), failed


def test_finished_work_comes_back_as_it_lies_there(tmp_path: Path) -> None:
    """The label's path and hash and what result.json says; only of assignments that are out."""
    folder = hand_in(tmp_path)
    hand_in(tmp_path, "done-before")
    items, failed = collect(tmp_path, "a")
    assert not failed and [item.assignment_id for item in items] == ["a"]
    assert items[0].label == folder / "label.nii.gz" and items[0].label_sha256 == sha256_file(folder / "label.nii.gz")
    assert items[0].result.minutes["kidney"].active == 6.5 and items[0].result.minutes["exam"].idle == 0.0


@pytest.mark.parametrize("left", [("task.json",), ("task.json", "label.nii.gz"), ()])
def test_without_result_json_the_work_is_unfinished(tmp_path: Path, left: tuple[str, ...]) -> None:
    """A package, with or without a label, waits in silence until result.json is there; a missing one does too."""
    folder = hand_in(tmp_path)
    for path in list(folder.iterdir()):
        if path.name not in left:
            path.unlink()
    assert collect(tmp_path, "a", "never-made") == ([], {})


def test_bad_work_stops_nobody_else_s(tmp_path: Path) -> None:
    """One report per broken package, in place; the good ones before and after it come back."""
    for name in ("a", "b", "c", "d"):
        hand_in(tmp_path, name)
    (tmp_path / "b" / "result.json").write_text("{")
    (tmp_path / "c" / "task.json").unlink()
    items, failed = collect(tmp_path, "d", "c", "b", "a")
    assert [item.assignment_id for item in items] == ["a", "d"]
    assert {name: error.rule for name, error in failed.items()} == {"b": "result", "c": "task"}
    assert all(name in str(error) and error.do for name, error in failed.items())
    assert (tmp_path / "b" / "label.nii.gz").exists() and (tmp_path / "b" / "result.json").read_text() == "{"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "\ufeff{}", "[" * 100_000, '{"a": ' * 100_000, json.dumps({**GOOD, "verdict": "fine"}),
        json.dumps({**GOOD, "extra": 1}), json.dumps({k: v for k, v in GOOD.items() if k != "minutes"}),
        json.dumps({**GOOD, "schema_version": 2}), json.dumps({**GOOD, "minutes": {"kidney": {"active": -1}}}),
        json.dumps({**GOOD, "minutes": {"kidney": {"active": float("nan")}}}),
        json.dumps({**GOOD, "minutes": {"kidney": {"active": float("inf")}}}),
        json.dumps({**GOOD, "minutes": {"kidney": {"active": 1, "away": float("inf")}}}),
        json.dumps({**GOOD, "minutes": {"kidny": {"active": 1}}}), json.dumps({**GOOD, "origin": "guessed"}),
    ],
)  # fmt: skip
def test_a_broken_result_is_refused(tmp_path: Path, text: str) -> None:
    """Not JSON, too deep, missing or unknown fields, minutes that are no minutes or of a structure nobody asked for."""
    folder = hand_in(tmp_path)
    (folder / "result.json").write_text(text, encoding="utf-8")
    items, failed = collect(tmp_path, "a")
    assert not items and failed["a"].rule == "result"


def test_a_result_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a broken result, not a crash."""
    folder = hand_in(tmp_path)
    (folder / "result.json").write_bytes(json.dumps(GOOD).encode("utf-16"))
    assert collect(tmp_path, "a")[1]["a"].rule == "result"


@pytest.mark.parametrize("changes", [{"assignment_id": "b"}, {"reader_id": "reader-2"}])
def test_work_of_another_assignment_or_reader_is_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    """result.json must be the one of this package and of the reader it went to."""
    folder = hand_in(tmp_path)
    (folder / "result.json").write_text(json.dumps({**GOOD, **changes}))
    assert collect(tmp_path, "a")[1]["a"].rule == "foreign"


def test_a_result_without_a_label_is_refused(tmp_path: Path) -> None:
    """The label's absence is its own rule."""
    (hand_in(tmp_path) / "label.nii.gz").unlink()
    assert collect(tmp_path, "a")[1]["a"].rule == "no_label"


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_half_written_label_is_refused(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    """Cut anywhere, a label is unreadable."""
    work = tmp_path_factory.mktemp("cut")
    path = hand_in(work) / "label.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    items, failed = collect(work, "a")
    assert not items and failed["a"].rule == "unreadable"


@settings(max_examples=150, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_label_never_passes_for_another(
    tmp_path_factory: pytest.TempPathFactory, share: float, bit: int
) -> None:
    """Any flipped bit either makes the label unreadable or changes no voxel (it lay in the gzip header)."""
    work = tmp_path_factory.mktemp("flip")
    path = hand_in(work) / "label.nii.gz"
    label = np.kron(LABEL, np.ones((4, 4, 4), np.uint8))  # so large that readers stop before the gzip checksum
    write_volume(path, Volume(label, np.eye(4)))
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1 << bit
    path.write_bytes(bytes(content))
    items, failed = collect(work, "a")
    if items:
        np.testing.assert_array_equal(read_volume(path).array, label)
    else:
        assert failed["a"].rule == "unreadable"


@pytest.mark.parametrize("content", [b"", b"not a volume", b"\x1f\x8b\x08\x00", b"PK\x03\x04"])
def test_something_else_as_label_is_refused(tmp_path: Path, content: bytes) -> None:
    """What is no NIfTI is unreadable."""
    (hand_in(tmp_path) / "label.nii.gz").write_bytes(content)
    assert collect(tmp_path, "a")[1]["a"].rule == "unreadable"


def test_a_series_of_volumes_as_label_is_refused(tmp_path: Path) -> None:
    """Four dimensions are no label."""
    path = hand_in(tmp_path) / "label.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), np.eye(4)), path)
    assert collect(tmp_path, "a")[1]["a"].rule == "unreadable"


def _link_label(work: Path, outside: Path) -> None:
    (work / "a" / "label.nii.gz").replace(outside / "label.nii.gz")
    (work / "a" / "label.nii.gz").symlink_to(outside / "label.nii.gz")


def _link_to_the_neighbour(work: Path, outside: Path) -> None:
    hand_in(work, "b")
    (work / "a" / "label.nii.gz").unlink()
    (work / "a" / "label.nii.gz").symlink_to(Path("..") / "b" / "label.nii.gz")


def _link_result(work: Path, outside: Path) -> None:
    (work / "a" / "result.json").replace(outside / "result.json")
    (work / "a" / "result.json").symlink_to(outside / "result.json")


def _link_task(work: Path, outside: Path) -> None:
    (work / "a" / "task.json").replace(outside / "task.json")
    (work / "a" / "task.json").symlink_to(outside / "task.json")


def _link_the_package(work: Path, outside: Path) -> None:
    (work / "a").replace(outside / "a")
    (work / "a").symlink_to(outside / "a")


def _link_in_a_circle(work: Path, outside: Path) -> None:
    (work / "a" / "label.nii.gz").unlink()
    (work / "a" / "label.nii.gz").symlink_to("label.nii.gz")


def _label_is_a_folder(work: Path, outside: Path) -> None:
    (work / "a" / "label.nii.gz").unlink()
    (work / "a" / "label.nii.gz").mkdir()


def _result_is_a_pipe(work: Path, outside: Path) -> None:
    (work / "a" / "result.json").unlink()
    os.mkfifo(work / "a" / "result.json")


@pytest.mark.parametrize(
    "trick",
    [
        _link_label, _link_to_the_neighbour, _link_result, _link_task, _link_the_package, _link_in_a_circle,
        _label_is_a_folder, _result_is_a_pipe,
    ],
)  # fmt: skip
def test_links_and_other_tricks_are_refused(tmp_path: Path, trick: Callable[[Path, Path], None]) -> None:
    """Only plain files of the package itself count: no link in or out, no folder, no pipe that would block."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    outside.mkdir()
    hand_in(work)
    trick(work, outside)
    items, failed = collect(work, "a")
    assert not items and failed["a"].rule == "link"


def test_a_work_folder_that_is_itself_a_link_works(tmp_path: Path) -> None:
    """The shared folder may be mounted or linked from elsewhere: that is the operator's doing."""
    hand_in(tmp_path / "share")
    (tmp_path / "work").symlink_to(tmp_path / "share")
    items, failed = collect(tmp_path / "work", "a")
    assert len(items) == 1 and not failed


def test_packages_that_nobody_dispatched_are_named(tmp_path: Path) -> None:
    """Finished work of unknown folders is found, never taken in; other clutter is not mistaken for it."""
    for name in ("a", "stranger", ".partial-b"):
        hand_in(tmp_path, name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "result.json").write_text("{}")
    backend = FolderBackend(tmp_path)
    assert backend.strangers({"a"}) == ["stranger"]
    assert [item.assignment_id for item in collect(tmp_path, "a")[0]] == ["a"]
    assert FolderBackend(tmp_path / "absent").strangers(set()) == []


def test_work_sent_back_is_kept_and_explained(tmp_path: Path) -> None:
    """Result and label lie in returned-1, returned-2, …; the reasons are in RETURNED.txt; the package is open again."""
    folder = hand_in(tmp_path)
    before = sha256_file(folder / "label.nii.gz")
    backend = FolderBackend(tmp_path)
    backend.send_back("a", ["The label is mirrored.", "kidney is empty."])
    assert sha256_file(folder / "returned-1" / "label.nii.gz") == before
    assert {p.name for p in folder.iterdir()} == {"task.json", "returned-1", "RETURNED.txt"}
    text = (folder / "RETURNED.txt").read_text()
    assert "- The label is mirrored." in text and "- kidney is empty." in text
    assert collect(tmp_path, "a") == ([], {})
    write_volume(folder / "label.nii.gz", Volume(LABEL, np.eye(4)))
    (folder / "result.json").write_text(json.dumps(GOOD))
    assert len(collect(tmp_path, "a")[0]) == 1
    backend.send_back("a", ["Again."])
    assert sha256_file(folder / "returned-1" / "label.nii.gz") == before
    assert (folder / "returned-2" / "label.nii.gz").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "correct"},
        {"verdict": "accept"},
        {"verdict": "reject", "reason_code": "draft_unusable"},
        {"origin": "simulated"},
        {"simulated": True},
    ],
)
def test_results_that_contradict_the_task_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Work from scratch corrects no draft, and nobody hands in simulated minutes as a reader's own."""
    hand_in(tmp_path, **changes)
    items, failed = collect(tmp_path, "a")
    assert not items and failed["a"].rule == "result"


def test_a_rejected_draft_needs_its_reason(tmp_path: Path) -> None:
    """Without a reason code a rejection teaches nothing."""
    for name, reason in (("a", None), ("b", "draft_unusable")):
        folder = hand_in(tmp_path, name, verdict="reject", reason_code=reason)
        task = json.loads((folder / "task.json").read_text())
        (folder / "task.json").write_text(json.dumps({**task, "mode": "assisted", "draft_sha256": "1" * 64}))
    items, failed = collect(tmp_path, "a", "b")
    assert [item.assignment_id for item in items] == ["b"] and failed["a"].rule == "result"


# -- other formats -----------------------------------------------------------------------------------------------------
EXAM = {
    "exam_id": "e", "subject_id": "s", "modality": "CT", "shape": [9, 8, 7],
    "affine_ras": np.diag([2.0, 2.0, 3.0, 1.0]).tolist(), "slices": {},
}  # fmt: skip
CODE = {"category": {"value": "91723000", "meaning": "x"}, "type": {"value": "64033007", "meaning": "Kidney"}}
STRUCTURES = [Structure.model_validate({"name": "kidney", "value": 1, "kind": "organ", "code": CODE})]


def write_label(path: Path, labels: np.ndarray, **changes: Any) -> None:
    """The label in the format that its name says."""
    exam = ExamGeometry.of({**EXAM, **changes})
    if path.suffix == ".nrrd":
        write_nrrd(path, labels, exam, STRUCTURES)
        return
    build = build_rtstruct if path.name == "label.dcm" and changes.get("modality") == "MR" else build_seg
    origin = Origin("a", "0" * 64, "MANUAL", datetime(2026, 1, 2, tzinfo=UTC))
    path.write_bytes(dicom_bytes(build(labels, exam, STRUCTURES, origin)))


def gather(work: Path) -> tuple[list[Returned], dict[str, LabelError]]:
    failed: dict[str, LabelError] = {}
    backend = FolderBackend(work, STRUCTURES, lambda exam_id: ExamGeometry.of(EXAM))
    return list(backend.collect(["a"], failed.__setitem__)), failed


@pytest.mark.parametrize("modality", ["CT", "MR"], ids=["seg", "rtstruct"])
@pytest.mark.parametrize("name", ["label.dcm", "label.nrrd", "label.seg.nrrd"])
def test_other_formats_become_nifti_and_stay_as_they_are(tmp_path: Path, name: str, modality: str) -> None:
    """SEG, RTSTRUCT and NRRD on the exam's frame of reference: the same voxels, and the same bytes each time."""
    folder = hand_in(tmp_path)
    (folder / "label.nii.gz").unlink()
    write_label(folder / name, LABEL, modality=modality)
    handed_in = (folder / name).read_bytes()
    (item,), failed = gather(tmp_path)
    assert not failed and item.label_sha256 == sha256_file(item.label)
    np.testing.assert_array_equal(read_volume(item.label).array, LABEL)
    (again,), _ = gather(tmp_path)
    assert again.label_sha256 == item.label_sha256 and (folder / name).read_bytes() == handed_in
    backend = FolderBackend(tmp_path)
    assert backend.label_of("a") == item.label
    backend.send_back("a", ["no"])
    assert (folder / "returned-1" / name).read_bytes() == handed_in and backend.label_of("a") is None


def test_a_label_of_another_exam_is_refused(tmp_path: Path) -> None:
    """Another frame of reference, another grid; and a DICOM label where the exam's record is not at hand."""
    folder = hand_in(tmp_path)
    (folder / "label.nii.gz").unlink()
    write_label(folder / "label.dcm", LABEL, exam_id="other")
    assert gather(tmp_path)[1]["a"].rule == "frame_of_reference"
    (folder / "label.dcm").unlink()
    write_label(folder / "label.nrrd", LABEL, affine_ras=np.diag([2.0, 2.0, 4.0, 1.0]).tolist())
    assert gather(tmp_path)[1]["a"].rule == "grid"
    (folder / "label.nrrd").unlink()
    write_label(folder / "label.dcm", LABEL)
    assert collect(tmp_path, "a")[1]["a"].rule == "exam_record"


def test_several_labels_in_one_package_are_refused(tmp_path: Path) -> None:
    """Nobody can say which of them counts; a link in another format's name is refused as ever."""
    folder = hand_in(tmp_path)
    write_label(folder / "label.nrrd", LABEL)
    assert gather(tmp_path)[1]["a"].rule == "several_labels"
    (folder / "label.nrrd").unlink()
    (folder / "label.dcm").symlink_to(folder / "label.nii.gz")
    assert gather(tmp_path)[1]["a"].rule == "link"
