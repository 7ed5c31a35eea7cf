"""Tilted and uneven series: refused with what was measured, or put upright so that a linear field comes out exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from redraft.dicom.geometry import LPS_TO_RAS
from redraft.dicom.series import ReadRules, SeriesVolume, open_series
from redraft.errors import ExamError

REFUSE = ReadRules()
RESAMPLE = ReadRules(gantry_tilt="resample", uneven_spacing="resample")
GRADIENT, OFFSET = np.array([3.0, -2.0, 5.0]), 700.0  # of the field, per mm in LPS
SPACING = (1.5, 2.0)  # between rows, between columns


def field(points: np.ndarray) -> np.ndarray:
    return points @ GRADIENT + OFFSET


def lay(files, along: list[float], degrees: float, row=(1, 0, 0), column=(0, 1, 0)) -> None:  # type: ignore[no-untyped-def]
    """Put slices along their normal, shifted along a column by the tilt, and draw the field into them."""
    row, column = np.array(row, float), np.array(column, float)
    normal = np.cross(row, column)

    def move(dataset: Dataset, k: int) -> None:
        position = along[k] * normal + along[k] * np.tan(np.radians(degrees)) * column
        dataset.ImagePositionPatient = [f"{value:.9g}" for value in position]
        dataset.ImageOrientationPatient = [f"{value:.12g}" for value in (*row, *column)]
        dataset.PixelSpacing = list(SPACING)
        j, i = np.mgrid[: dataset.Rows, : dataset.Columns]
        points = position + i[..., None] * SPACING[1] * row + j[..., None] * SPACING[0] * column
        # 32 bits and a small slope hold the field to a hundred-thousandth.
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 32, 32, 31, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = "1e-5", "0"
        dataset.PixelData = np.rint(field(points) / 1e-5).astype("<i4").tobytes()

    files.edit(move)


def read(files, rules: ReadRules) -> SeriesVolume:  # type: ignore[no-untyped-def]
    (volume,) = open_series(files.paths, rules).volumes()
    if isinstance(volume, ExamError):
        raise volume
    return volume


def assert_linear(volume: SeriesVolume, at_least: float) -> None:
    """Every voxel holds the field's value at its own place, but those that no slice reaches."""
    array, affine = volume.volume.array, LPS_TO_RAS @ volume.volume.affine
    indices = np.stack(np.meshgrid(*map(np.arange, array.shape), indexing="ij"), axis=-1)
    expected = field(indices @ affine[:3, :3].T + affine[:3, 3])
    outside = array == np.float32(volume.measured["value_outside"])
    np.testing.assert_allclose(array[~outside], expected[~outside], atol=2e-3)
    assert array.dtype == np.float32 and (~outside).mean() >= at_least


def orthonormal(affine: np.ndarray) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() < 1e-6)


@pytest.mark.parametrize("degrees", [12.0, -20.0, 0.4])
def test_a_tilted_series_is_put_upright(series: Callable, degrees: float) -> None:
    """Refused with its angle, unless the project resamples; then every voxel is where the affine says."""
    files = series((9, 11, 8))
    lay(files, [4.0 * k for k in range(8)], degrees)
    with pytest.raises(ExamError) as caught:
        read(files, REFUSE)
    assert caught.value.rule == "gantry_tilt"
    assert caught.value.measured["degrees"] == pytest.approx(abs(degrees), abs=1e-3)
    volume = read(files, RESAMPLE)
    assert volume.measured["resampled"]["gantry_tilt"]["degrees"] == pytest.approx(abs(degrees), abs=1e-3)
    assert volume.measured["shape_before"] == [9, 11, 8]
    assert orthonormal(volume.volume.affine) and volume.volume.spacing == pytest.approx((2.0, 1.5, 4.0))
    assert len(volume.slices) == 8
    assert_linear(volume, 0.4)


def test_uneven_slices_are_put_on_an_even_grid(series: Callable) -> None:
    """4, 7 and 1 mm: refused with what was measured; resampled at the median."""
    files = series((6, 5, 5))
    lay(files, [0, 4, 11, 12, 16], 0)
    with pytest.raises(ExamError) as caught:
        read(files, REFUSE)
    assert caught.value.rule == "uneven_spacing" and caught.value.measured == {
        "min_mm": 1.0, "median_mm": 4.0, "max_mm": 7.0,
    }  # fmt: skip
    volume = read(files, RESAMPLE)
    assert volume.volume.shape == (6, 5, 5) and volume.volume.spacing == pytest.approx((2.0, 1.5, 4.0))
    assert volume.measured["resampled"]["uneven_spacing"] == caught.value.measured
    assert_linear(volume, 0.99)


def test_each_rule_is_resampled_only_where_it_is_named(series: Callable) -> None:
    """A series that is tilted and uneven needs both."""
    files = series((6, 7, 5))
    lay(files, [0, 4, 11, 12, 16], 10)
    for rules, rule in (
        (replace(RESAMPLE, gantry_tilt="refuse"), "gantry_tilt"),
        (replace(RESAMPLE, uneven_spacing="refuse"), "uneven_spacing"),
    ):
        with pytest.raises(ExamError) as caught:
            read(files, rules)
        assert caught.value.rule == rule
    volume = read(files, RESAMPLE)
    assert set(volume.measured["resampled"]) == {"gantry_tilt", "uneven_spacing"}
    assert_linear(volume, 0.4)


@given(st.lists(st.floats(0.5, 9), min_size=3, max_size=7), st.floats(-25, 25), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_linear_field_is_kept_for_every_orientation(
    series: Callable, steps: list[float], degrees: float, a: float, b: float
) -> None:
    """Any spacing, tilt and oblique plane: interpolation that is linear in patient space is exact on what is linear."""
    row = np.array([np.cos(a), np.sin(a), 0])
    column = np.cos(b) * np.array([-np.sin(a), np.cos(a), 0]) + np.sin(b) * np.array([0, 0, 1])
    files = series((6, 7, len(steps) + 1))
    along = [0.0, *np.cumsum(steps)]
    lay(files, along, degrees, row, column)
    try:
        volume = read(files, RESAMPLE)
    except ExamError as error:
        assert error.rule == "missing_slices"
        return
    if "resampled" in volume.measured:
        assert orthonormal(volume.volume.affine)
        assert_linear(volume, 0.0)


def test_missing_slices_are_never_filled(series: Callable) -> None:
    """A gap in an even series is data that did not arrive, not a spacing."""
    files = series((6, 5, 6))
    lay(files, [0, 3, 6, 12, 15, 18], 0)
    with pytest.raises(ExamError) as caught:
        read(files, RESAMPLE)
    assert caught.value.rule == "missing_slices" and caught.value.measured["missing"] == 1


def test_gaps_and_sizes_stay_within_the_project_s_limits(series: Callable) -> None:
    """A gap of 30 mm is not bridged; a grid that grows beyond max_voxels is not allocated."""
    files = series((6, 5, 5))
    lay(files, [0, 4, 34, 37, 41], 0)
    with pytest.raises(ExamError) as caught:
        read(files, RESAMPLE)
    assert caught.value.rule == "spacing_too_large" and caught.value.measured == {"spacing_mm": 30.0}
    lay(files, [0, 4, 8, 12, 16], 60)
    with pytest.raises(ExamError) as caught:
        read(files, replace(RESAMPLE, max_voxels=200))
    assert caught.value.rule == "too_large"


def test_regular_series_are_left_alone(series: Callable) -> None:
    """Where nothing is wrong nothing is resampled: values stay what they are."""
    files = series()
    volume = read(files, RESAMPLE)
    np.testing.assert_array_equal(volume.volume.array, files.hu)
    assert volume.volume.array.dtype == np.int16 and volume.measured == {}
