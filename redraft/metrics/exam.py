"""All metrics of one exam, structure by structure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from redraft.config.schema import Structure
from redraft.errors import LabelError
from redraft.metrics.components import stray_components
from redraft.metrics.contour import added_path_length_mm, contour_length_mm, false_positive_contour_mm
from redraft.metrics.grid import as_spacing, crop_to_union
from redraft.metrics.overlap import dice
from redraft.metrics.surface import surface_distances

# The metrics that are averaged over a test set.
METRICS = ("dice", "surface_dice", "hd95_mm", "apl_mm")


class StructureMetrics(BaseModel):
    """How one structure of one exam compares with its reference. Lengths in mm, volumes in ml.

    `absent` is true when the structure is in neither mask: the metrics then hold their conventions (Dice 1), and means
    over a test set leave the exam out and count it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: float
    surface_dice: float
    hd95_mm: float | None
    apl_mm: float
    false_positive_mm: float
    stray_components: int
    reference_contour_mm: float
    reference_ml: float
    test_ml: float
    tolerance_mm: float
    absent: bool


def structure_metrics(
    reference: NDArray, test: NDArray, spacing: Sequence[float], tolerance_mm: float
) -> StructureMetrics:
    """Metrics of one structure from its two masks (I, J, K)."""
    spacing = as_spacing(spacing)
    voxel_ml = spacing[0] * spacing[1] * spacing[2] / 1000.0
    reference, test = crop_to_union(reference, test)
    distances = surface_distances(reference, test, spacing)
    return StructureMetrics(
        dice=dice(reference, test),
        surface_dice=distances.dice(tolerance_mm),
        hd95_mm=distances.hd95(),
        apl_mm=added_path_length_mm(reference, test, spacing, tolerance_mm),
        false_positive_mm=false_positive_contour_mm(reference, test, spacing, tolerance_mm),
        stray_components=stray_components(reference, test),
        reference_contour_mm=contour_length_mm(reference, spacing),
        reference_ml=int(np.count_nonzero(reference)) * voxel_ml,
        test_ml=int(np.count_nonzero(test)) * voxel_ml,
        tolerance_mm=tolerance_mm,
        absent=distances.a_empty and distances.b_empty,
    )


def exam_metrics(
    reference_labels: NDArray, test_labels: NDArray, spacing: Sequence[float], structures: Iterable[Structure]
) -> dict[str, StructureMetrics]:
    """Metrics of every structure of one exam.

    Parameters
    ----------
    reference_labels, test_labels : ndarray of integers, shape (I, J, K)
    spacing : (i, j, k) in mm
    structures : the project's structures; each brings its label value and its tolerance.

    Raises
    ------
    LabelError
        The two arrays are not 3D or not on one grid.
    """
    if reference_labels.ndim != 3 or reference_labels.shape != test_labels.shape:
        raise LabelError(
            f"Labels of shapes {reference_labels.shape} and {test_labels.shape} cannot be compared.",
            "Both must be 3D and lie on the exam's grid.",
            rule="shape",
            measured={"shape": list(reference_labels.shape), "other": list(test_labels.shape)},
        )
    return {
        structure.name: structure_metrics(
            reference_labels == structure.value, test_labels == structure.value, spacing, structure.tolerance_mm
        )
        for structure in structures
    }
