"""Contours that are written give back the mask, by our reader and by other rasterisers, under either fill rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from matplotlib.path import Path as Polygon
from skimage.draw import polygon2mask

from redraft.dicom.outlines import keyholes
from redraft.errors import ExamError
from redraft.segmentation.origin import dicom_bytes
from redraft.segmentation.read import read_segmentation
from redraft.segmentation.rtstruct_out import build_rtstruct

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
SHAPE = (7, 6, 5)


@given(MASKS)
@settings(max_examples=200, deadline=None)
def test_keyholes_give_back_any_mask(mask: np.ndarray) -> None:
    """Even-odd by matplotlib and scikit-image, and united by both: diagonal contacts, islands in holes, borders."""
    centres = np.argwhere(np.ones(mask.shape, bool)).astype(float)
    odd, united, other = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
    for loop in keyholes(mask):
        inside = polygon2mask(mask.shape, loop)
        odd ^= inside
        united |= inside
        other |= Polygon(np.r_[loop, loop[:1]], closed=True).contains_points(centres).reshape(mask.shape)
    for found in (odd, united, other):
        np.testing.assert_array_equal(found, mask)


def test_a_hole_makes_no_contour_of_its_own() -> None:
    """One loop for a ring: what a viewer that unites contours needs."""
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:5] = mask[6, 6] = False
    assert len(keyholes(mask)) == 1


def changed(change, make_exam, make_labels, structures, origin, path):
    dataset = build_rtstruct(make_labels(SHAPE), make_exam(SHAPE), structures, origin)
    change(dataset)
    path.write_bytes(dicom_bytes(dataset))
    return path


def moved(dataset, by, axis=2):
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence") or ():
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            points[:, axis] += by(points) if callable(by) else by
            contour.ContourData = [f"{v:.4f}" for v in points.ravel()]


def foreign(dataset):
    for roi in dataset.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "2.25.9"


def rename(dataset):
    dataset.StructureSetROISequence[0].ROIName = "Mueller^Hans"
    del dataset.RTROIObservationsSequence


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (foreign, "frame_of_reference"),
        (lambda d: moved(d, 1.25), "off_plane"),
        (lambda d: moved(d, lambda p: 0.2 * p[:, 0]), "off_plane"),
        (lambda d: moved(d, 500.0), "outside"),
        (rename, "unknown_segment"),
        (lambda d: delattr(d, "StructureSetROISequence"), "no_rois"),
        (lambda d: setattr(d.StructureSetROISequence[1], "ROINumber", 1), "no_rois"),
        (lambda d: setattr(d.ROIContourSequence[0].ContourSequence[0], "ContourGeometricType", "OPEN_PLANAR"),
         "open_contour"),
    ],
    ids=["frame", "between slices", "oblique", "outside", "unknown", "no list", "numbered alike", "open"],
)  # fmt: skip
def test_structure_sets_that_do_not_fit_are_refused(
    change, rule, make_exam, make_labels, structures, origin, tmp_path
) -> None:
    """A rule each, and no name in the message."""
    path = changed(change, make_exam, make_labels, structures, origin, tmp_path / "a.dcm")
    with pytest.raises(ExamError) as caught:
        read_segmentation(path, make_exam(SHAPE), structures)
    assert caught.value.rule == rule and "Hans" not in str(caught.value)


def test_contours_longer_than_an_explicit_ds_survive(make_exam, structures, origin, tmp_path) -> None:
    """A ragged organ's contour exceeds 64 kB of text; it is written as DS and read back whole."""
    shape = (300, 300, 1)
    exam = make_exam(shape)
    rng = np.random.default_rng(1)
    labels = np.where(rng.random(shape) < 0.55, 3, 0).astype(np.uint8)
    dataset = build_rtstruct(labels, exam, structures, origin)
    assert max(len(c.ContourData) for c in dataset.ROIContourSequence[0].ContourSequence) * 8 > 65_536
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom_bytes(dataset))
    np.testing.assert_array_equal(read_segmentation(path, exam, structures), labels)
