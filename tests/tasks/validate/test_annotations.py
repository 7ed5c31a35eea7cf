"""Annotations are kept once, on the image's grid to the last digit, and never overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from redraft.digest import sha256_file
from redraft.volumes import Volume, read_volume, write_volume
from tasks.validate.annotations import annotation_id, store

AFFINE = np.diag([-1.1, -1.1, 3.3, 1.0])


def test_a_label_is_stored_in_the_one_form(tmp_path: Path) -> None:
    """Whatever type and rounding a tool used, the stored label is uint8 with the image's own affine."""
    image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    write_volume(image, Volume(np.zeros((5, 6, 7), np.int16), AFFINE))
    values = np.random.default_rng(0).integers(0, 4, (5, 6, 7))
    nib.save(nib.Nifti1Image(values.astype(np.float32), AFFINE + 1e-5), label)
    path, digest = store(tmp_path / "project", "ab12", "note", label, image, {"reader_id": "r"})
    stored = tmp_path / "project" / path
    assert path == "data/labels/ab/ab12/note.nii.gz" and sha256_file(stored) == digest
    volume = read_volume(stored)
    assert volume.array.dtype == np.uint8 and (volume.affine == read_volume(image).affine).all()
    np.testing.assert_array_equal(volume.array, values)
    meta = json.loads(stored.with_name("note.json").read_text())
    assert (meta["sha256"], meta["annotation_id"], meta["reader_id"]) == (digest, "note", "r")


def test_a_stored_label_is_never_overwritten(tmp_path: Path) -> None:
    """The same identity again returns what is there, whatever lies in the package by then."""
    image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
    write_volume(image, Volume(np.zeros((5, 6, 7), np.int16), AFFINE))
    write_volume(label, Volume(np.ones((5, 6, 7), np.uint8), AFFINE))
    first = store(tmp_path, "ab12", "note", label, image, {})
    write_volume(label, Volume(np.zeros((5, 6, 7), np.uint8), AFFINE))
    assert store(tmp_path, "ab12", "note", label, image, {}) == first
    assert read_volume(tmp_path / first[0]).array.all()


def test_the_same_return_is_one_annotation() -> None:
    """Assignment, revision and bytes make the identity."""
    assert annotation_id("a", 1, "h") == annotation_id("a", 1, "h")
    assert len({annotation_id("a", 1, "h"), annotation_id("a", 2, "h"), annotation_id("a", 1, "i")}) == 3
