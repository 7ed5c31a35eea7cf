"""Where the voxels of a single-frame series lie: sorting, refusing, and the one conversion from LPS to RAS.

Slices are sorted by position · normal, never by InstanceNumber, SliceLocation or file name; spacing comes from the
positions, never from SliceThickness or SpacingBetweenSlices (PS3.3 C.7.6.2).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from redraft.errors import GeometryError

ORIENTATION_TOLERANCE = 1e-4
DUPLICATE_MM = 0.01
UNEVEN_SHARE = 0.01
DRIFT_SHARE = 0.1  # of a slice's distance, between a slice and its place on the even grid
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
    defects : mapping of rule to measured values
        Why no affine describes the slices as they are, where the caller allowed it: then `affine` only holds after
        resampling.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]
    defects: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def places(slices: Sequence[SliceGeometry]) -> list[int]:
    """A number for the place of each slice, counted along the normal; slices within 0.01 mm share one."""
    row, column = np.array(slices[0].orientation[:3]), np.array(slices[0].orientation[3:])
    axes = np.array([item.position for item in slices]) @ np.stack([np.cross(row, column), row, column], axis=1)
    numbers = np.zeros(len(slices), dtype=int)
    for axis in (*axes.T, *axes.T):  # a second time: what lay between two slices may have gone to another place
        order = np.lexsort((axis, numbers))
        apart = (np.diff(axis[order]) >= DUPLICATE_MM) | (np.diff(numbers[order]) > 0)
        numbers[order] = np.concatenate([[0], np.cumsum(apart)])
    return [int(number) for number in numbers]


def duplicates(slices: Sequence[SliceGeometry]) -> list[list[int]]:
    """Groups of slices (indices) that share one position within 0.01 mm."""
    groups: dict[int, list[int]] = {}
    for n, place in enumerate(places(slices)):
        groups.setdefault(place, []).append(n)
    return [group for _, group in sorted(groups.items()) if len(group) > 1]


def check_slices(slices: Sequence[SliceGeometry]) -> None:
    """Refuse slices that lack a place or do not lie on parallel planes of one kind.

    Raises
    ------
    GeometryError
        missing_position, missing_orientation, missing_spacing, mixed_size, mixed_spacing, mixed_orientation,
        non_orthonormal.
    """
    _complete(slices)
    _uniform(slices)
    row, column = np.array(slices[0].orientation[:3]), np.array(slices[0].orientation[3:])
    if abs(np.linalg.norm(row) - 1) > 1e-3 or abs(np.linalg.norm(column) - 1) > 1e-3 or abs(row @ column) > 1e-3:
        measured = {"row_norm": _short(np.linalg.norm(row)), "column_norm": _short(np.linalg.norm(column))}
        raise GeometryError("Row and column directions are not orthonormal.", rule="non_orthonormal", measured=measured)


def series_geometry(
    slices: Sequence[SliceGeometry], max_spacing_mm: float = 1e9, allow: Collection[str] = ()
) -> SeriesGeometry:
    """Check the geometry of a series and return its order and affine.

    Parameters
    ----------
    allow : collection of str
        Of gantry_tilt and uneven_spacing, those that the caller resamples: they are noted as defects, not raised.

    Raises
    ------
    GeometryError
        With rule and measured values: missing_position, missing_orientation, missing_spacing, mixed_size,
        mixed_spacing, mixed_orientation, non_orthonormal, single_slice, duplicate_positions, gantry_tilt,
        shifted_slices, missing_slices, uneven_spacing, spacing_too_large.
    """
    check_slices(slices)
    first = slices[0]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
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
    defects: dict[str, Mapping[str, object]] = {}

    def check(rule: Callable[..., None], *values: NDArray[np.float64]) -> None:
        try:
            rule(*values)
        except GeometryError as error:
            if error.rule not in allow:
                raise
            defects[error.rule] = error.measured

    check(_tilt, positions, normal)
    check(_straight, positions, normal)
    check(_even, steps)
    step = (positions[-1] - positions[0]) / (len(order) - 1)
    if defects:
        step = normal / np.linalg.norm(normal) * float(np.median(steps))
    spacing = float(steps.max()) if defects else float(np.linalg.norm(step))
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
    return SeriesGeometry(order, LPS_TO_RAS @ affine, defects)


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
            f"The gantry is tilted by {angle:.2f}°.", "project.yaml can have it resampled (ingest.gantry_tilt).",
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
        _without_drift(steps, median)
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
        "A volume needs even spacing; project.yaml can have it resampled (ingest.uneven_spacing).",
        rule="uneven_spacing",
        measured={"min_mm": _short(steps.min()), "median_mm": _short(median), "max_mm": _short(steps.max())},
    )


def _without_drift(steps: NDArray[np.float64], median: float) -> None:
    """Steps that are each even enough may still add up: no slice may lie far from where the affine will say."""
    along = np.concatenate([[0.0], np.cumsum(steps)])
    drift = float(np.abs(along - np.linspace(0, along[-1], len(along))).max())
    if drift > DRIFT_SHARE * median:
        raise GeometryError(
            f"Slices lie up to {drift:.2f} mm from their places on an even grid.",
            "A volume needs even spacing; project.yaml can have it resampled (ingest.uneven_spacing).",
            rule="uneven_spacing", measured={"drift_mm": _short(drift), "median_mm": _short(median)},
        )  # fmt: skip


def _normal(item: SliceGeometry) -> NDArray[np.float64]:
    return np.cross(np.array(item.orientation[:3]), np.array(item.orientation[3:]))


def _short(value: float | np.floating) -> float:
    return round(float(value), 5)
