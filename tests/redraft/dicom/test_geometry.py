"""Where voxels lie: any upright series is placed as SimpleITK and highdicom place it, any other is refused by rule."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from random import Random

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from redraft.dicom.geometry import LPS_TO_RAS, SliceGeometry, duplicates, places, series_geometry
from redraft.errors import GeometryError
from redraft.volumes import Volume

AXES = [
    (np.eye(3)[a] * s, np.eye(3)[b] * t)
    for a, b in itertools.permutations(range(3), 2)
    for s in (1, -1)
    for t in (1, -1)
]


def itk_volume(paths: list) -> sitk.Image:
    """The series as SimpleITK reads it, sorted by SimpleITK."""
    return sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(paths[0].parent)))


def assert_itk_agrees(volume: Volume, paths: list) -> None:
    """Same values, and the same place for every corner."""
    image = itk_volume(paths)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), volume.array)
    for index in itertools.product(*[(0, n - 1) for n in volume.shape]):
        ras = (volume.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(list(index)), ras * [-1, -1, 1], atol=1e-3)


def stack(steps: list[float], **changes: object) -> list[SliceGeometry]:
    """Axial slices at the given heights."""
    base = SliceGeometry((0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0), (0.8, 0.8), (5, 7))
    return [replace(base, position=(0.0, 0.0, z), **changes) for z in steps]  # type: ignore[arg-type]


def rule(slices: list[SliceGeometry], max_spacing_mm: float = 1e9) -> tuple[str, dict[str, object]]:
    with pytest.raises(GeometryError) as caught:
        series_geometry(slices, max_spacing_mm)
    return caught.value.rule, caught.value.measured


# -- what is admitted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "column"), AXES)
def test_every_orientation_is_placed_as_simpleitk_places_it(series: Callable, row: np.ndarray, column: np.ndarray):
    """All 24 directions that rows and columns can have, with three different spacings and an odd origin."""
    files = series()
    files.place(row, column, (1.5, 0.75), [0, 2.5, 5, 7.5], (-120.5, 33.25, 700))
    volume = files.volume()
    np.testing.assert_array_equal(volume.array, files.hu)
    assert volume.spacing == pytest.approx((0.75, 1.5, 2.5))
    assert_itk_agrees(volume, files.paths)


@pytest.mark.parametrize("seed", range(6))
def test_oblique_series_are_placed_as_two_readers_place_them(series: Callable, seed: int) -> None:
    """Any rotation; highdicom's affine is the same after its (slice, row, column) is put in our order."""
    files = series()
    rng = np.random.default_rng(seed)
    row, column, _ = Rotation.random(random_state=seed).as_matrix()
    spacing = tuple(rng.uniform(0.3, 3, 2).round(4))
    files.place(row, column, spacing, np.arange(4) * round(rng.uniform(0.5, 9), 3), rng.uniform(-500, 500, 3))
    volume = files.volume()
    assert_itk_agrees(volume, files.paths)
    other = hd.get_volume_from_series([pydicom.dcmread(path) for path in files.paths])
    ours = LPS_TO_RAS @ volume.affine
    # highdicom sorts slices the other way; compare voxel by voxel instead of relying on its order.
    for index in itertools.product(*[(0, n - 1) for n in volume.shape]):
        point = (ours @ [*index, 1])[:3]
        theirs = np.linalg.solve(other.affine, [*point, 1])[:3]
        np.testing.assert_allclose(theirs, np.rint(theirs), atol=1e-3)
        assert other.array[tuple(np.rint(theirs).astype(int))] == volume.array[index]


@given(
    st.integers(0, 10**6), st.integers(2, 30), st.floats(0.3, 15), st.tuples(*[st.floats(-999, 999)] * 3), st.randoms()
)
@settings(max_examples=80, deadline=None)
def test_the_order_of_files_plays_no_part(seed: int, count: int, step: float, origin: tuple[float, ...], chance):
    """However the slices are shuffled, they come out ascending along the normal and on the same affine."""
    row, column, normal = Rotation.random(random_state=seed).as_matrix()
    places = [tuple(np.asarray(origin) + k * step * normal) for k in range(count)]
    slices = [SliceGeometry(place, (*row, *column), (0.7, 0.9), (5, 7)) for place in places]
    order = list(range(count))
    chance.shuffle(order)
    found = series_geometry([slices[n] for n in order])
    assert [order[n] for n in found.order] == list(range(count))
    lps = LPS_TO_RAS @ found.affine
    np.testing.assert_allclose(lps[:3, :3], np.c_[row * 0.9, column * 0.7, normal * step], atol=1e-6)
    np.testing.assert_allclose(lps[:3, 3], origin, atol=1e-9)


def test_instance_number_slice_location_and_thickness_are_not_believed(series: Callable) -> None:
    """Only positions place slices; every other header that pretends to is wrong here."""
    files = series()
    chance = random.Random(1)

    def lie(dataset: pydicom.Dataset, k: int) -> None:
        dataset.InstanceNumber = chance.randrange(1000)
        dataset.SliceLocation = str(-5 * k)
        dataset.SliceThickness = "11"
        dataset.SpacingBetweenSlices = "-7"

    files.edit(lie)
    volume = files.volume()
    np.testing.assert_array_equal(volume.array, files.hu)
    assert volume.spacing == pytest.approx((2, 1.5, 3))


@given(st.lists(st.floats(-0.004, 0.004), min_size=12, max_size=12))
@settings(max_examples=40, deadline=None)
def test_rounded_positions_are_even(noise: list[float]) -> None:
    """Positions written with two decimals deviate by far less than a hundredth of the spacing."""
    found = series_geometry(stack([k * 3 + n for k, n in enumerate(noise)]))
    assert found.order == tuple(range(12))


# -- what is refused ---------------------------------------------------------------------------------------------------


@given(st.integers(5, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_missing_slices_are_counted(count: int, data: st.DataObject) -> None:
    """However few slices are absent inside the series, it is refused; single gaps are named and counted."""
    gone = data.draw(st.sets(st.integers(1, count - 2), min_size=1, max_size=max(1, count // 8)))
    slices = stack([2.5 * k for k in range(count) if k not in gone])
    found, measured = rule(slices)
    if found == "missing_slices":
        assert measured == {"missing": len(gone), "spacing_mm": 2.5}
    else:
        assert found == "uneven_spacing" and len(slices) < 6  # too few left to tell which distance is the rule


@given(st.integers(0, 8), st.floats(0.02, 0.45))
@settings(max_examples=60, deadline=None)
def test_a_slice_out_of_step_is_uneven(place: int, share: float) -> None:
    """One slice that lies 2 % to 45 % of the spacing too high is found at any place."""
    heights = [4.0 * k for k in range(10)]
    heights[place + 1 if place < 8 else 0] += 4.0 * share
    assert rule(stack(heights))[0] == "uneven_spacing"


def test_two_spacings_in_one_series_are_uneven() -> None:
    """A series of thin and thick slices is no even volume; both distances are in the receipt."""
    found, measured = rule(stack([0, 1.5, 3, 4.5, 6, 8.5, 11, 13.5, 16]))
    assert found == "uneven_spacing" and (measured["min_mm"], measured["max_mm"]) == (1.5, 2.5)


@given(st.floats(-0.009, 0.009), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_slices_at_one_position_are_duplicates(offset: float, place: int) -> None:
    """Closer than 0.01 mm is the same place, wherever in the series."""
    heights = [2.0 * k for k in range(6)]
    slices = stack([*heights, heights[place] + offset])
    assert duplicates(slices) in ([[place, 6]], [[6, place]])
    assert rule(slices)[0] == "duplicate_positions"


def test_a_series_given_twice_is_duplicates_throughout() -> None:
    """Every position counts once, every slice is counted."""
    found, measured = rule(stack([0, 2, 4, 0, 2, 4]))
    assert found == "duplicate_positions" and measured == {"positions": 3, "slices": 6}
    assert duplicates(stack([0, 2, 4])) == []


@given(st.floats(0.1, 40) | st.floats(-40, -0.1))
@settings(max_examples=60, deadline=None)
def test_gantry_tilt_is_refused_with_its_angle(degrees: float) -> None:
    """The angle between table and slice normal, to a hundredth of a degree."""
    slices = [
        replace(item, position=(0.0, item.position[2] * math.tan(math.radians(degrees)), item.position[2]))
        for item in stack([3.0 * k for k in range(9)])
    ]
    found, measured = rule(slices)
    assert found == "gantry_tilt" and measured["degrees"] == pytest.approx(abs(degrees), abs=0.01)


def test_a_tilt_that_only_a_header_claims_is_none(series: Callable) -> None:
    """Scanners that were upright write a tilt, and resampled series keep it: positions decide."""
    files = series()
    files.edit(lambda dataset, k: setattr(dataset, "GantryDetectorTilt", "15"))
    np.testing.assert_array_equal(files.volume().array, files.hu)


@given(st.integers(1, 7), st.floats(0.3, 50), st.floats(0, 2 * math.pi))
@settings(max_examples=40, deadline=None)
def test_a_slice_shifted_in_its_plane_is_refused(place: int, shift: float, angle: float) -> None:
    """A slice of another table position inside an even stack would be put beside its place."""
    slices = stack([3.0 * k for k in range(9)])
    moved = (shift * math.cos(angle), shift * math.sin(angle), slices[place].position[2])
    slices[place] = replace(slices[place], position=moved)
    found, measured = rule(slices)
    assert found == "shifted_slices" and measured["shift_mm"] == pytest.approx(shift, abs=1e-3)


def test_two_slices_side_by_side_are_refused() -> None:
    """Two slices of one plane at different places are no stack: nothing is divided by zero."""
    for other in (0.05, 5.0, 300.0):
        slices = stack([0.0, 2.0, 4.0, 6.0])
        slices.append(replace(slices[2], position=(other, 0.0, 4.0)))
        assert rule(slices)[0] in ("shifted_slices", "uneven_spacing")


@given(st.floats(2e-4, 0.5), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_mixed_orientation_is_refused(angle: float, place: int) -> None:
    """One slice turned by more than a ten thousandth stands for a localizer, or a second plane, in the series."""
    slices = stack([3.0 * k for k in range(5)])
    turn = Rotation.from_rotvec([0, 0, angle]).as_matrix()
    slices[place] = replace(slices[place], orientation=(*turn[:, 0], *turn[:, 1]))
    assert rule(slices)[0] == "mixed_orientation"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("position", (), "missing_position"),
        ("position", (0.0, 0.0), "missing_position"),
        ("position", (0.0, 0.0, math.nan), "missing_position"),
        ("orientation", (), "missing_orientation"),
        ("orientation", (1.0, 0, 0, 0, math.inf, 0), "missing_orientation"),
        ("pixel_spacing", (), "missing_spacing"),
        ("pixel_spacing", (0.0, 0.8), "missing_spacing"),
        ("pixel_spacing", (-0.8, 0.8), "missing_spacing"),
        ("pixel_spacing", (0.8, 0.9), "mixed_spacing"),
        ("size", (7, 5), "mixed_size"),
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_bad_slice_refuses_the_series(name: str, value: tuple, expected: str, place: int) -> None:
    """Whichever slice it is, the rule is the same."""
    slices = stack([3.0 * k for k in range(5)])
    slices[place] = replace(slices[place], **{name: value})
    found, measured = rule(slices)
    assert found == expected
    assert measured


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0.1, 1, 0), (2, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 0), (1, 0, 0, 1, 0, 0)]
)
def test_directions_that_span_no_plane_are_refused(orientation: tuple[float, ...]) -> None:
    """Skewed, scaled, empty and parallel directions."""
    assert rule(stack([0, 1, 2], orientation=orientation))[0] == "non_orthonormal"


def test_one_slice_is_no_volume() -> None:
    """Its thickness is not known."""
    assert rule(stack([0.0]))[0] == "single_slice"


def test_the_largest_spacing_is_the_project_s_rule() -> None:
    """Just within is taken, just beyond is refused with the distance."""
    assert series_geometry(stack([0, 5, 10]), 5.0)
    assert rule(stack([0, 5, 10]), max_spacing_mm=4.9) == ("spacing_too_large", {"spacing_mm": 5.0})


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(-100, 100) | st.just(math.nan), min_size=0, max_size=4),
            st.sampled_from([(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0), ()]),
            st.sampled_from([(1.0, 1.0), (0.0, 1.0), ()]),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_headers_give_an_affine_or_a_rule(drawn: list) -> None:
    """Nonsense never ends in another error, and never in an affine that is singular or not finite."""
    slices = [SliceGeometry(tuple(p), o, s, (4, 4)) for p, o, s in drawn]
    try:
        found = series_geometry(slices)
    except GeometryError as error:
        assert error.rule
    else:
        assert np.isfinite(found.affine).all() and abs(np.linalg.det(found.affine[:3, :3])) > 1e-9
        assert sorted(found.order) == list(range(len(slices)))


def test_altered_files_are_refused_with_the_same_rules(series: Callable) -> None:
    """The rules hold from headers on disk on: an absent attribute, a comma for a point, a file that is gone."""

    def spoil(name: str, value: object) -> Callable:
        def change(dataset: pydicom.Dataset, k: int) -> None:
            if value is None:
                del dataset[name]
            else:
                tag = pydicom.datadict.tag_for_keyword(name)
                assert isinstance(value, bytes)
                dataset[name] = pydicom.dataelem.RawDataElement(
                    pydicom.tag.Tag(tag), "DS", len(value), value, 0, False, True
                )  # type: ignore[arg-type]

        return change

    for name, value, expected in (
        ("ImagePositionPatient", None, "missing_position"),
        ("ImageOrientationPatient", None, "missing_orientation"),
        ("PixelSpacing", None, "missing_spacing"),
        ("PixelSpacing", b"1,5\\2,0 ", "missing_spacing"),
        ("ImagePositionPatient", b"0\\zero\\0", "missing_position"),
    ):
        files = series()
        files.edit(spoil(name, value), 2)
        with pytest.raises(GeometryError) as caught:
            files.volume()
        assert caught.value.rule == expected
    files = series((7, 5, 6))
    files.paths.pop(2).unlink()
    with pytest.raises(GeometryError) as caught:
        files.volume()
    assert caught.value.rule == "missing_slices" and caught.value.measured["missing"] == 1


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-2, 2), st.integers(-1, 1)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_slices_share_a_place_where_they_lie_within_a_hundredth_of_a_millimetre(
    points: list[tuple[int, int, int]], random: Random
) -> None:
    """Places agree with the distances of all pairs, whatever the order; they are counted along the normal."""
    tilted = (0.8, 0.6, 0, 0, 0, 1)
    near = [tuple(value + random.uniform(-2e-3, 2e-3) for value in point) for point in points]
    slices = [SliceGeometry(point, tilted, (1, 1), (5, 7)) for point in near]
    found = places(slices)
    for a, first in enumerate(points):
        for b, second in enumerate(points):
            assert (found[a] == found[b]) == (first == second)
