"""Contours give back the voxels they were traced from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.path import Path as Polygon
from pydicom.dataset import Dataset

from redraft.dicom.contours import rtstruct_masks
from redraft.dicom.geometry import LPS_TO_RAS
from redraft.phantom.rtstruct import build_rtstruct, outlines
from redraft.phantom.series import Uids
from redraft.phantom.write import STRUCTURES, draw_exam
from redraft.volumes import Volume

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))


def fill(loops: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Even-odd rule over pixel centres, by another library."""
    centres = np.argwhere(np.ones(shape, bool)).astype(float)
    inside = np.zeros(len(centres), bool)
    for loop in loops:
        inside ^= Polygon(np.r_[loop, loop[:1]], closed=True).contains_points(centres)
    return inside.reshape(shape)


def header() -> Dataset:
    dataset = Dataset()
    dataset.StudyDate, dataset.StudyTime = "20240101", "120000"
    return dataset


@given(MASKS)
@settings(max_examples=200, deadline=None)
def test_outlines_give_back_any_mask(mask):
    """Holes, diagonal contacts, islands in holes, borders of the image: the even-odd rule restores every mask."""
    assert np.array_equal(fill(outlines(mask), mask.shape), mask)


def test_outlines_of_a_chessboard_and_of_nothing():
    """The hardest case, every pixel touching its neighbours at corners only, and the empty one."""
    board = np.indices((8, 8)).sum(axis=0) % 2 == 0
    assert np.array_equal(fill(outlines(board), board.shape), board)
    assert outlines(np.zeros((4, 4), bool)) == []


def test_outlines_of_a_square_with_a_hole_are_two_loops_of_corners():
    """An outline keeps only its corners, half a pixel outside of the pixel centres."""
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    outer, inner = sorted(outlines(mask), key=lambda loop: loop.min())
    assert sorted(map(tuple, outer)) == [(0.5, 0.5), (0.5, 5.5), (5.5, 0.5), (5.5, 5.5)]
    assert sorted(map(tuple, inner)) == [(2.5, 2.5), (2.5, 3.5), (3.5, 2.5), (3.5, 3.5)]


@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(2, 7)] * 3), elements=st.integers(0, 2)),
    st.tuples(*[st.floats(0.3, 9)] * 3),
    st.tuples(*[st.floats(-2000, 2000)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_structure_set_gives_back_any_labels(labels, spacing, origin):
    """Written and read again by the project's own reader, any label map on any grid comes back to the voxel."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    dataset = build_rtstruct(header(), labels, STRUCTURES, affine, Uids.of(0, 0, labels.shape[2]))
    masks = rtstruct_masks(dataset, Volume(labels, LPS_TO_RAS @ affine), dict.fromkeys(STRUCTURES, ()))
    for name, value in STRUCTURES.items():
        assert np.array_equal(masks.get(name, np.zeros(labels.shape, bool)), labels == value)


def test_coordinates_are_valid_decimal_strings():
    """Every coordinate is a DS of at most 16 characters, far from the origin too, and never a negative zero."""
    labels = np.ones((3, 3, 2), np.uint8)
    affine = np.diag([1 / 3, 1 / 3, 2.5, 1.0])
    affine[:3, 3] = (-98765.4321, 1 / 6, 12345.6789)
    dataset = build_rtstruct(header(), labels, STRUCTURES, affine, Uids.of(0, 0, 2))
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        values = [str(value) for value in contour.ContourData]
        assert all(len(value) <= 16 and float(value) == pytest.approx(float(value)) for value in values)
        assert "-0.0000" not in values
        assert len(values) == 3 * contour.NumberOfContourPoints


def test_absent_structures_get_no_roi():
    """Labels without a tumour give a structure set without a tumour."""
    labels = np.zeros((4, 4, 2), np.uint8)
    labels[1:3, 1:3, 0] = 1
    dataset = build_rtstruct(header(), labels, STRUCTURES, np.eye(4), Uids.of(0, 0, 2))
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["kidney"]
    assert len(dataset.ROIContourSequence) == len(dataset.RTROIObservationsSequence) == 1


def test_contours_refer_to_their_slices():
    """Each contour names the image in whose plane it lies."""
    exam = draw_exam(0, 0)
    uids = Uids.of(0, 0, exam.labels.shape[2])
    dataset = build_rtstruct(header(), exam.labels, STRUCTURES, np.diag([3.6, 3.6, 6.0, 1.0]), uids)
    for roi in dataset.ROIContourSequence:
        for contour in roi.ContourSequence:
            k = uids.instances.index(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)
            assert float(contour.ContourData[2]) == pytest.approx(6.0 * k)
