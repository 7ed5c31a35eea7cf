"""Labels made elsewhere: on the exam's own grid and frame of reference, or refused with the rule; bombs stay small."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from redraft.config.schema import Structure
from redraft.errors import LabelError, ReadError, RedraftError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.nrrd_file import write_nrrd
from redraft.segmentation.origin import Origin, dicom_bytes
from redraft.segmentation.rtstruct_out import build_rtstruct
from redraft.segmentation.seg_out import build_seg
from tasks.dispatch.review.upload import read_upload
from tests.bombs import gzip_bomb

LABEL = np.zeros((9, 8, 7), np.uint8)
LABEL[2:5, 2:6, 1:4] = 1
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
RECORD: dict[str, Any] = {
    "exam_id": "e", "subject_id": "s", "modality": "CT", "shape": [9, 8, 7], "affine_ras": AFFINE.tolist(),
    "slices": {},
}  # fmt: skip
EXAM = ExamGeometry.of(RECORD)
CODE = {"category": {"value": "91723000", "meaning": "x"}, "type": {"value": "64033007", "meaning": "Kidney"}}
STRUCTURES = [Structure.model_validate({"name": "kidney", "value": 1, "kind": "organ", "code": CODE})]
ORIGIN = Origin("a", "0" * 64, "MANUAL", datetime(2026, 1, 2, tzinfo=UTC))


def made(form: str, tmp_path: Path, exam: ExamGeometry = EXAM) -> bytes:
    """The label in one of the formats."""
    if form == "seg":
        return dicom_bytes(build_seg(LABEL, exam, STRUCTURES, ORIGIN))
    if form == "rtstruct":
        return dicom_bytes(build_rtstruct(LABEL, exam, STRUCTURES, ORIGIN))
    if form == "nrrd":
        write_nrrd(tmp_path / "x.seg.nrrd", LABEL, exam, STRUCTURES)
        return (tmp_path / "x.seg.nrrd").read_bytes()
    raw = nib.Nifti1Image(LABEL, exam.affine).to_bytes()
    return gzip.compress(raw) if form == "nii.gz" else raw


@pytest.mark.parametrize("form", ["seg", "rtstruct", "nrrd", "nii", "nii.gz"])
def test_each_format_gives_the_same_mask(form: str, tmp_path: Path) -> None:
    """Voxel for voxel, in the wire's order; the file does not stay."""
    mask = read_upload(made(form, tmp_path), EXAM, STRUCTURES, tmp_path / "desk")
    np.testing.assert_array_equal(mask.array(EXAM.shape), LABEL)
    assert list((tmp_path / "desk").iterdir()) == []


@pytest.mark.parametrize("form", ["seg", "rtstruct", "nrrd", "nii"])
def test_another_exams_label_is_refused(form: str, tmp_path: Path) -> None:
    """Another frame of reference, or another place: by a rule, and never moved."""
    moved = {**RECORD, "affine_ras": (AFFINE + np.array([[0, 0, 0, 40.0], *[[0.0] * 4] * 3])).tolist()}
    with pytest.raises((LabelError, ReadError)):
        read_upload(made(form, tmp_path, ExamGeometry.of(moved)), EXAM, STRUCTURES, tmp_path / "desk")


def deflated() -> bytes:
    """A DICOM file whose data set is compressed as a whole."""
    dataset = pydicom.dcmread(BytesIO(dicom_bytes(build_seg(LABEL, EXAM, STRUCTURES, ORIGIN))))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def claims(shape: tuple[int, int, int]) -> bytes:
    """A NIfTI header that promises many voxels, and none behind it."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return gzip.compress(header.binaryblock + bytes(4))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "work.not_a_label"), (b"\x89PNG\r\n" + bytes(500), "work.not_a_label"), (b"\x1f\x8b", "work.not_a_label"),
        (gzip.compress(b"no image"), "work.not_a_label"), (gzip_bomb(10 << 30), "work.too_large"),
        (claims((30000, 30000, 30000)), "label.grid"), (claims((9, 8, 7)), "read.unreadable"),
        (deflated(), "work.not_a_label"), (b"NRRD0004\n" + bytes(90), "read.unreadable"),
    ],
    ids=["empty", "png", "stub", "text", "bomb", "huge", "hollow", "deflated", "nrrd"],
)  # fmt: skip
def test_what_is_no_label_is_told_so(content: bytes, code: str, tmp_path: Path) -> None:
    """Each with a code of its own, and nothing left lying about."""
    with pytest.raises(RedraftError) as caught:
        read_upload(content, EXAM, STRUCTURES, tmp_path / "desk")
    assert caught.value.code == code and caught.value.what
    assert list((tmp_path / "desk").iterdir()) == []
