"""Structure sets become masks by the even-odd rule on any grid; contours that fit no slice are refused, never moved."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from scipy.spatial.transform import Rotation

from redraft.dicom.contours import open_rtstruct, referenced_series, rtstruct_masks
from redraft.dicom.geometry import LPS_TO_RAS
from redraft.errors import LabelError, ReadError
from redraft.phantom.series import save
from redraft.phantom.write import write_phantom
from redraft.volumes import Volume

SHAPE = (40, 30, 5)
# Coordinates as contours have them: to a tenth of a micrometre, so that the counting rule's divisions stay finite.
MM = {end: st.floats(-6, end).map(lambda value: round(value, 4)) for end in (46, 36)}
Loop = np.ndarray


def grid(seed: int | None = None, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """An empty volume; turned and displaced at random with a seed, plain without."""
    affine = np.diag([-0.9, -1.3, 2.5, 1.0])
    if seed is not None:
        rng = np.random.default_rng(seed)
        affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * rng.uniform(0.4, 4, 3)
        affine[:3, 3] = rng.uniform(-600, 600, 3)
    return Volume(np.zeros(shape, np.int16), affine)


def contour(volume: Volume, loop: Loop, k: float | np.ndarray, kind: str = "CLOSED_PLANAR") -> Dataset:
    """A loop of voxel coordinates (i, j) in slice k as a contour in patient coordinates."""
    voxels = np.c_[loop, np.broadcast_to(k, len(loop)), np.ones(len(loop))]
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(loop)
    points = (voxels @ (LPS_TO_RAS @ volume.affine).T)[:, :3]
    item.ContourData = [f"{value:.6f}" for value in points.ravel()]
    return item


def structure_set(rois: list[tuple[str, list[Dataset]]]) -> Dataset:
    """A structure set with the given ROIs; numbers run against the order on purpose."""
    dataset = Dataset()
    names, items = [], []
    for n, (name, contours) in enumerate(rois):
        roi, item = Dataset(), Dataset()
        roi.ROINumber = item.ReferencedROINumber = len(rois) - n
        roi.ROIName, item.ContourSequence = name, Sequence(contours)
        names.append(roi)
        items.append(item)
    dataset.StructureSetROISequence, dataset.ROIContourSequence = Sequence(names), Sequence(items[::-1])
    return dataset


def ring(radius: float, centre: tuple[float, float] = (20.3, 15.2), points: int = 720) -> Loop:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.c_[centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)]


def disc(radius: float, centre: tuple[float, float] = (20.3, 15.2)) -> np.ndarray:
    i, j = np.indices(SHAPE[:2])
    return np.hypot(i - centre[0], j - centre[1]) < radius


def mask(volume: Volume, contours: list[Dataset]) -> np.ndarray:
    return rtstruct_masks(structure_set([("organ", contours)]), volume, {"organ": ()})["organ"]


def refused(volume: Volume, item: Dataset) -> str:
    with pytest.raises(LabelError) as caught:
        mask(volume, [item])
    return caught.value.rule


# -- filling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, *range(8)])
def test_a_disc_covers_the_voxels_whose_centres_it_holds(seed: int | None) -> None:
    """Compared with the formula of a circle, on plain and on turned grids, in the right slice only."""
    volume = grid(seed)
    found = mask(volume, [contour(volume, ring(9.37), 3)])
    np.testing.assert_array_equal(found[:, :, 3], disc(9.37))
    assert not found[:, :, [0, 1, 2, 4]].any()


@pytest.mark.parametrize("turn", [1, -1])
def test_a_contour_in_a_contour_is_a_hole(turn: int) -> None:
    """Ring, island in the hole, and a second island beside, whichever way the loops run."""
    volume = grid(3)
    loops = [ring(12.41), ring(8.23)[::turn], ring(3.61), ring(1.77, (35.1, 4.2))]
    found = mask(volume, [contour(volume, loop, 2) for loop in loops])
    expected = disc(12.41) & ~disc(8.23) | disc(3.61) | disc(1.77, (35.1, 4.2))
    np.testing.assert_array_equal(found[:, :, 2], expected)


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR"])
def test_holes_are_the_same_in_every_notation(kind: str) -> None:
    """PS3.3 C.8.8.6.3: a hole by exclusive or, under each spelling in use."""
    volume = grid()
    found = mask(volume, [contour(volume, ring(radius), 1, kind) for radius in (9.37, 4.19)])
    np.testing.assert_array_equal(found[:, :, 1], disc(9.37) & ~disc(4.19))


def test_a_keyhole_is_a_hole() -> None:
    """One loop that runs in through a channel of no width, round the hole, and out again."""
    volume = grid(5)
    outer, inner = ring(10.41), ring(5.23)[::-1]
    loop = np.r_[outer, outer[:1], inner[-1:], inner, outer[:1]]
    np.testing.assert_array_equal(mask(volume, [contour(volume, loop, 0)])[:, :, 0], disc(10.41) & ~disc(5.23))


@given(
    st.lists(st.lists(st.tuples(MM[46], MM[36]), min_size=3, max_size=9), min_size=1, max_size=4),
    st.integers(0, 50),
)
@settings(max_examples=80, deadline=None)
def test_any_loops_are_filled_as_another_library_fills_them(drawn: list[list[tuple[float, float]]], seed: int) -> None:
    """Crossing, overlapping and partly outside loops; voxels on an edge itself may fall either way."""
    volume = grid(seed)
    centres = np.argwhere(np.ones(SHAPE[:2], bool)).astype(float)
    expected, edge = np.zeros(len(centres), bool), np.zeros(len(centres), bool)
    for loop in drawn:
        closed = np.array([*loop, loop[0]])
        # One loop at a time: a non-zero rule and the even-odd rule differ where a loop crosses itself.
        expected ^= crossings(closed, centres)
        edge |= distance(closed, centres) < 1e-3
    try:
        found = mask(volume, [contour(volume, np.array(loop), 2) for loop in drawn])
    except LabelError as error:
        assert error.rule == "outside"
        return
    differs = (found[:, :, 2].ravel() != expected) & ~edge
    assert not differs.any()


def crossings(closed: Loop, points: np.ndarray) -> np.ndarray:
    """Even-odd rule by counting edges to the right of each point."""
    inside = np.zeros(len(points), bool)
    for (x1, y1), (x2, y2) in itertools.pairwise(closed):
        spans = (y1 > points[:, 1]) != (y2 > points[:, 1])
        with np.errstate(all="ignore"):
            x = x1 + (points[:, 1] - y1) * (x2 - x1) / (y2 - y1)
        inside ^= spans & (points[:, 0] < x)
    return inside


def distance(closed: Loop, points: np.ndarray) -> np.ndarray:
    """Distance of points to a loop."""
    best = np.full(len(points), np.inf)
    for a, b in itertools.pairwise(closed):
        way = b - a
        share = np.clip(((points - a) @ way) / max(float(way @ way), 1e-12), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - share[:, None] * way, axis=1))
    return best


def test_the_other_rule_agrees_on_simple_loops() -> None:
    """The counting above is itself checked: a star without crossings, by matplotlib."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    radius = np.where(np.arange(10) % 2, 4.3, 11.7)
    loop = np.c_[20.2 + radius * np.cos(angle), 15.4 + radius * np.sin(angle)]
    closed = np.r_[loop, loop[:1]]
    centres = np.argwhere(np.ones(SHAPE[:2], bool)).astype(float)
    np.testing.assert_array_equal(crossings(closed, centres), Polygon(closed, closed=True).contains_points(centres))


def test_a_contour_partly_outside_is_cut_at_the_border() -> None:
    """What lies inside of the image counts, at every border."""
    volume = grid()
    for centre in ((0.2, 15.1), (39.3, 15.1), (20.1, 0.3), (20.1, 29.2), (-3.2, -2.1)):
        found = mask(volume, [contour(volume, ring(7.31, centre), 4)])
        np.testing.assert_array_equal(found[:, :, 4], disc(7.31, centre))


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_and_aliases_are_compared_without_case_and_blanks() -> None:
    """Several ROIs of one structure are united; unknown ROIs and absent structures give nothing."""
    volume = grid()
    dataset = structure_set(
        [
            ("Kidney_LEFT ", [contour(volume, ring(3.3, (10.2, 15.2)), 1)]),
            ("kidney_right", [contour(volume, ring(4.3, (30.2, 15.2)), 1)]),
            ("BODY", [contour(volume, ring(14.1), 1)]),
            (" Tumour", [contour(volume, ring(2.2), 2)]),
        ]
    )
    found = rtstruct_masks(
        dataset, volume, {"kidney": ("kidney_left", "KIDNEY_RIGHT"), "tumour": (), "vessel": ("aorta",)}
    )
    assert set(found) == {"kidney", "tumour"}
    np.testing.assert_array_equal(found["kidney"][:, :, 1], disc(3.3, (10.2, 15.2)) | disc(4.3, (30.2, 15.2)))
    np.testing.assert_array_equal(found["tumour"][:, :, 2], disc(2.2))


def test_an_roi_without_contours_is_empty() -> None:
    """Drawn as empty is not the same as absent; points are markers without area."""
    volume = grid()
    empty = Dataset()
    dataset = structure_set([("organ", []), ("point", [contour(volume, np.array([[3.0, 4.0]]), 1, "POINT")])])
    del dataset.ROIContourSequence[1].ContourSequence
    dataset.ROIContourSequence.append(empty)
    empty.ReferencedROINumber = 77  # of no ROI
    found = rtstruct_masks(dataset, volume, {"organ": (), "point": ()})
    assert set(found) == {"organ", "point"} and not any(item.any() for item in found.values())


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.5, 1.2, 2.89, -0.4])
def test_a_contour_between_slices_is_refused(place: float) -> None:
    """More than a tenth of the slice distance beside a slice: it was drawn on another series."""
    assert refused(grid(2), contour(grid(2), ring(5), place)) == "off_plane"


def test_a_tenth_of_a_slice_is_tolerated() -> None:
    """Rounded coordinates."""
    volume = grid(2)
    np.testing.assert_array_equal(mask(volume, [contour(volume, ring(9.37), 2.09)])[:, :, 2], disc(9.37))


def test_a_contour_across_slices_is_refused() -> None:
    """An oblique loop lies in no slice, although its middle does."""
    loop = ring(5)
    assert refused(grid(2), contour(grid(2), loop, 2 + np.linspace(-0.3, 0.3, len(loop)))) == "off_plane"


@pytest.mark.parametrize("place", [-1, 5, 400])
def test_a_contour_above_or_below_the_image_is_refused(place: int) -> None:
    """It belongs to another series."""
    assert refused(grid(2), contour(grid(2), ring(5), place)) == "outside"


@pytest.mark.parametrize("centre", [(-30, 15), (90, 15), (20, -40), (20, 80)])
def test_a_contour_beside_the_image_is_refused(centre: tuple[float, float]) -> None:
    """Nothing of it lies in the image."""
    assert refused(grid(2), contour(grid(2), ring(5, centre), 2)) == "outside"


@pytest.mark.parametrize("kind", ["OPEN_PLANAR", "OPEN_NONPLANAR", "NONSENSE"])
def test_open_contours_are_refused(kind: str) -> None:
    """A line has no inside."""
    assert refused(grid(), contour(grid(), ring(5), 1, kind)) == "open_contour"


@pytest.mark.parametrize("data", [["1", "2", "3", "4"], ["1", "2", "nan"] * 3, ["1"]])
def test_coordinates_that_are_no_points_are_refused(data: list[str]) -> None:
    """Numbers that do not come in threes, or are none."""
    item = contour(grid(), ring(5), 1)
    item.ContourData = data
    assert refused(grid(), item) == "bad_contour"


@pytest.mark.parametrize("stated", ["2.25.8", ""])
def test_another_frame_of_reference_is_refused(stated: str) -> None:
    """Of the wanted ROIs, or none stated; what the structure set says as a whole stands in for an ROI that does not."""
    volume = grid(2)
    dataset = structure_set([("organ", [contour(volume, ring(5), 1)]), ("BODY", [])])
    if stated:
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = stated
    with pytest.raises(LabelError) as caught:
        rtstruct_masks(dataset, volume, {"organ": ()}, "2.25.7")
    assert caught.value.rule == "frame_of_reference"
    dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "2.25.7"
    assert rtstruct_masks(dataset, volume, {"organ": ()}, "2.25.7")["organ"].any()
    del dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID
    dataset.FrameOfReferenceUID = "2.25.7"
    assert rtstruct_masks(dataset, volume, {"organ": ()}, "2.25.7")["organ"].any()


# -- files -------------------------------------------------------------------------------------------------------------


def test_only_structure_sets_are_opened(tmp_path: Path) -> None:
    """Other DICOM objects, other files and damaged ones are read errors with a rule."""
    write_phantom(tmp_path, 1, 1, shape=(48, 40, 16), spacing=(7.2, 7.2, 12.0))
    image, truth = next(tmp_path.rglob("IM0001.dcm")), next((tmp_path / "truth").iterdir())
    assert referenced_series(open_rtstruct(truth)) == [str(open_header(image).SeriesInstanceUID)]
    (tmp_path / "text.dcm").write_text("no DICOM")
    (tmp_path / "cut.dcm").write_bytes(truth.read_bytes()[:2000])
    for path, rule in ((image, "not_rtstruct"), (tmp_path / "text.dcm", "unreadable"), (tmp_path / "no", "unreadable")):
        with pytest.raises(ReadError) as caught:
            open_rtstruct(path)
        assert caught.value.rule == rule
    try:
        open_rtstruct(tmp_path / "cut.dcm")
    except ReadError as error:
        assert error.rule in ("unreadable", "not_rtstruct")


def open_header(path: Path) -> Dataset:
    import pydicom

    return pydicom.dcmread(path, stop_before_pixels=True)


def test_a_structure_set_on_disk_is_the_one_in_memory(tmp_path: Path) -> None:
    """Written and read again, coordinates give the same mask."""
    volume = grid(4)
    dataset = structure_set([("organ", [contour(volume, ring(9.37), 1), contour(volume, ring(4.21), 1)])])
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "2.25.1"
    dataset.Modality = "RTSTRUCT"
    save(tmp_path / "a.dcm", dataset)
    found = rtstruct_masks(open_rtstruct(tmp_path / "a.dcm"), volume, {"organ": ()})["organ"]
    np.testing.assert_array_equal(found[:, :, 1], disc(9.37) & ~disc(4.21))
