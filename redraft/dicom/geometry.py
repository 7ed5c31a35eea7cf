"""Where the voxels of a single-frame series lie: sorting, refusing, and the one conversion from LPS to RAS.

Slices are sorted by position · normal, never by InstanceNumber, SliceLocation or file name; spacing comes from the
positions, never from SliceThickness or SpacingBetweenSlices (PS3.3 C.7.6.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.errors import GeometryError

ORIENTATION_TOLERANCE = 1e-4
DUPLICATE_MM = 0.01
UNEVEN_SHARE = 0.01
TILT_DEGREES = 0.05
SHIFT_MM = 0.1
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class SliceGeometry:
    """Position (3), orientation (6), spacing (row, column) in mm, and size (rows, columns) of one slice."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    size: tuple[int, int]


@dataclass(frozen=True)
class SeriesGeometry:
    """Order of the slices and the affine of the stack.

    Attributes
    ----------
    order : tuple of int
        Indices of the given slices, ascending along the normal.
    affine : ndarray, shape (4, 4)
        From (column, row, slice) to RAS+ mm.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]


def duplicates(slices: Sequence[SliceGeometry]) -> list[list[int]]:
    """Groups of slices (indices) that share one position within 0.01 mm."""
    groups: list[list[int]] = []
    by_place = sorted(range(len(slices)), key=lambda n: slices[n].position)
    normal = _normal(slices[0])
    along = {n: float(np.dot(normal, slices[n].position)) for n in by_place}
    last: list[int] = []
    for n in sorted(by_place, key=lambda n: along[n]):
        if last and _near(slices[n].position, slices[last[0]].position):
            last.append(n)
            continue
        if len(last) > 1:
            groups.append(last)
        last = [n]
    if len(last) > 1:
        groups.append(last)
    return groups


def series_geometry(slices: Sequence[SliceGeometry], max_spacing_mm: float = 1e9) -> SeriesGeometry:
    """Check the geometry of a series and return its order and affine.

    Raises
    ------
    GeometryError
        With rule and measured values: missing_position, missing_orientation, missing_spacing, mixed_size,
        mixed_spacing, mixed_orientation, non_orthonormal, single_slice, duplicate_positions, gantry_tilt,
        shifted_slices, missing_slices, uneven_spacing, spacing_too_large.
    """
    _complete(slices)
    first = slices[0]
    _uniform(slices)
    row = np.array(first.orientation[:3])
    column = np.array(first.orientation[3:])
    if abs(np.linalg.norm(row) - 1) > 1e-3 or abs(np.linalg.norm(column) - 1) > 1e-3 or abs(row @ column) > 1e-3:
        measured = {"row_norm": _short(np.linalg.norm(row)), "column_norm": _short(np.linalg.norm(column))}
        raise GeometryError("Row and column directions are not orthonormal.", rule="non_orthonormal", measured=measured)
    if len(slices) < 2:
        raise GeometryError("One slice makes no volume.", rule="single_slice", measured={"slices": 1})
    if groups := duplicates(slices):
        measured = {"positions": len(groups), "slices": sum(map(len, groups))}
        raise GeometryError("Several slices lie at one position.", rule="duplicate_positions", measured=measured)
    normal = _normal(first)
    along = np.array([normal @ np.array(item.position) for item in slices])
    order = tuple(int(n) for n in np.argsort(along, kind="stable"))
    positions = np.array([slices[n].position for n in order])
    steps = np.diff(along[list(order)])
    _tilt(positions, normal)
    _straight(positions, normal)
    _even(steps)
    step = (positions[-1] - positions[0]) / (len(order) - 1)
    spacing = float(np.linalg.norm(step))
    if spacing > max_spacing_mm:
        raise GeometryError(
            f"Slices are {spacing:.2f} mm apart.", f"project.yaml allows {max_spacing_mm} mm (ingest.max_spacing_mm).",
            rule="spacing_too_large", measured={"spacing_mm": _short(spacing)},
        )  # fmt: skip
    affine = np.eye(4)
    affine[:3, 0] = row * first.pixel_spacing[1]  # i runs along columns: the second PixelSpacing value
    affine[:3, 1] = column * first.pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return SeriesGeometry(order, LPS_TO_RAS @ affine)


def _complete(slices: Sequence[SliceGeometry]) -> None:
    for rule, name, length in (
        ("missing_position", "position", 3),
        ("missing_orientation", "orientation", 6),
        ("missing_spacing", "pixel_spacing", 2),
    ):
        lacking = sum(1 for item in slices if len(getattr(item, name)) != length)
        if lacking:
            raise GeometryError(
                f"{lacking} of {len(slices)} slices have no {name.replace('_', ' ')}.",
                rule=rule,
                measured={"slices": lacking},
            )
        values = np.array([getattr(item, name) for item in slices], dtype=float)
        if not np.isfinite(values).all() or (name == "pixel_spacing" and (values <= 0).any()):
            raise GeometryError(f"A slice's {name} is not a valid number.", rule=rule, measured={"invalid": True})


def _uniform(slices: Sequence[SliceGeometry]) -> None:
    sizes = {item.size for item in slices}
    if len(sizes) > 1:
        measured: dict[str, object] = {"sizes": sorted(list(size) for size in sizes)[:5]}
        raise GeometryError("Slices differ in rows and columns.", rule="mixed_size", measured=measured)
    spacing = np.array([item.pixel_spacing for item in slices])
    if np.ptp(spacing, axis=0).max() > 1e-4:
        measured = {"range_mm": _short(np.ptp(spacing, axis=0).max())}
        raise GeometryError("Slices differ in pixel spacing.", rule="mixed_spacing", measured=measured)
    orientation = np.array([item.orientation for item in slices])
    if np.ptp(orientation, axis=0).max() > ORIENTATION_TOLERANCE:
        measured = {"range": _short(np.ptp(orientation, axis=0).max())}
        raise GeometryError("Slices differ in orientation.", rule="mixed_orientation", measured=measured)


def _tilt(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    run = positions[-1] - positions[0]
    along = float(run @ normal)
    across = float(np.linalg.norm(run - along * normal))
    angle = float(np.degrees(np.arctan2(across, abs(along))))
    if angle > TILT_DEGREES:
        raise GeometryError(
            f"The gantry is tilted by {angle:.2f}°.", "Resample it upright before it is offered.",
            rule="gantry_tilt", measured={"degrees": _short(angle)},
        )  # fmt: skip


def _straight(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Every slice lies over the line from the first to the last one; one that was shifted in its plane does not."""
    way = positions - positions[0]
    share = (way @ normal) / float(way[-1] @ normal)
    shift = way - np.outer(share, way[-1])
    worst = float(np.linalg.norm(shift - np.outer(shift @ normal, normal), axis=1).max())
    if worst > SHIFT_MM:
        raise GeometryError(
            f"A slice lies {worst:.2f} mm beside the line of the others.", "Resample it before it is offered.",
            rule="shifted_slices", measured={"shift_mm": _short(worst)},
        )  # fmt: skip


def _even(steps: NDArray[np.float64]) -> None:
    median = float(np.median(steps))
    worst = float(np.abs(steps - median).max())
    if worst <= UNEVEN_SHARE * median:
        return
    ratio = steps / max(float(steps.min()), DUPLICATE_MM)
    gaps = int(np.round(ratio - 1).sum())
    if np.abs(ratio - np.round(ratio)).max() < 0.02 and float(np.mean(np.round(ratio) == 1)) > 0.5:
        raise GeometryError(
            f"{gaps} slices are missing inside the series.", "Send the series again, whole.",
            rule="missing_slices", measured={"missing": gaps, "spacing_mm": _short(steps.min())},
        )  # fmt: skip
    raise GeometryError(
        f"Slice spacing varies from {steps.min():.3f} to {steps.max():.3f} mm.",
        "A volume needs even spacing; reconstruct it evenly or leave it out.",
        rule="uneven_spacing",
        measured={"min_mm": _short(steps.min()), "median_mm": _short(median), "max_mm": _short(steps.max())},
    )


def _normal(item: SliceGeometry) -> NDArray[np.float64]:
    return np.cross(np.array(item.orientation[:3]), np.array(item.orientation[3:]))


def _near(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return float(np.linalg.norm(np.subtract(a, b))) < DUPLICATE_MM


def _short(value: float | np.floating) -> float:
    return round(float(value), 5)
