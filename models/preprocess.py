"""From an exam to network input and back: canonical orientation, plan spacing, normalised values; and exactly back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.errors import LabelError, ReadError
from redraft.volumes import Volume

if TYPE_CHECKING:
    from models.plan import Plan

# Raise it when a change here gives other arrays: cached ones are then made anew.
PREPROCESSING = 2


def to_canonical(volume: Volume) -> Volume:
    """Flip and permute axes so that they run closest to R, A, S; no voxel is interpolated."""
    orientation = nib.io_orientation(volume.affine)
    array = nib.apply_orientation(volume.array, orientation)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.shape)
    return Volume(np.ascontiguousarray(array), affine)


def from_canonical(array: NDArray, reference: Volume) -> NDArray:
    """Undo `to_canonical`: an array (…, I, J, K) in canonical order back to the reference's own axes."""
    orientation = nib.io_orientation(reference.affine)
    lead = array.ndim - 3
    # orientation[n] says which canonical axis the reference's axis n became, and whether it was flipped.
    for target, sign in orientation:
        if sign < 0:
            array = np.flip(array, axis=lead + int(target))
    sources = [lead + int(target) for target in orientation[:, 0]]
    return np.ascontiguousarray(np.moveaxis(array, sources, [lead, lead + 1, lead + 2]))


def resample(array: NDArray, shape: tuple[int, int, int], order: int) -> NDArray[np.float32]:
    """Resample (I, J, K) to another shape over the same extent; voxel edges are aligned, not centres.

    Axes that get coarser are smoothed first (Gaussian, sigma = (factor - 1) / 2 voxels), so that fine structures weigh
    in instead of falling between the samples.
    """
    values = np.asarray(array, dtype=np.float32)
    if array.shape == shape:
        return values
    scale = np.array(array.shape) / np.array(shape)
    if (scale > 1).any():
        values = ndimage.gaussian_filter(values, np.maximum(scale - 1, 0) / 2, mode="nearest")
    result: NDArray[np.float32] = ndimage.affine_transform(
        values,
        scale,
        offset=(scale - 1) / 2,
        output_shape=shape,
        order=order,
        mode="nearest",
    )
    return result


def plan_shape(volume: Volume, plan: Plan) -> tuple[int, int, int]:
    """Shape of a canonical volume in the plan's spacing."""
    i, j, k = (max(1, round(n * s / t)) for n, s, t in zip(volume.shape, volume.spacing, plan.spacing_mm, strict=True))
    return (i, j, k)


def preprocess_image(image: Volume, plan: Plan) -> NDArray[np.float32]:
    """Image as network input, shape (I, J, K) in plan spacing and RAS axes.

    Raises ReadError where a voxel is not a finite number: it would spread over the whole draft.
    """
    canonical = to_canonical(image)
    if not np.isfinite(canonical.array).all():
        bad = int((~np.isfinite(canonical.array)).sum())
        raise ReadError(
            f"{bad} voxels are not finite numbers.", "Export the exam again.", rule="not_finite", measured={"bad": bad}
        )
    return normalise(resample(canonical.array, plan_shape(canonical, plan), 1), plan)


def preprocess_label(label: Volume, plan: Plan) -> NDArray[np.uint8]:
    """Label as class indices (0 background, then `plan.classes`), same shape as the image's input.

    Raises LabelError for a value the plan does not know: it would be learned as background.
    """
    canonical = to_canonical(label)
    unknown = sorted(set(np.unique(canonical.array).tolist()) - set(plan.classes))
    if unknown:
        raise LabelError(
            f"The label holds values that the training plan does not know: {unknown}.",
            f"Known are {plan.classes}.",
            rule="unknown_value",
            measured={"unknown": unknown},
        )
    shape = plan_shape(canonical, plan)
    if shape == canonical.shape:
        indices = np.zeros(shape, dtype=np.uint8)
        for index, value in enumerate(plan.classes):
            indices[canonical.array == value] = index
        return indices
    # Linear per class, then the largest: nearest neighbour would tear thin structures.
    shares = np.stack([resample(canonical.array == value, shape, 1) for value in plan.classes])
    return np.argmax(shares, axis=0).astype(np.uint8)


def normalise(array: NDArray[np.float32], plan: Plan) -> NDArray[np.float32]:
    """Intensities by the plan: CT by the training set's foreground, other modalities by the exam itself."""
    low, high, mean, deviation = plan.intensity_values
    if plan.intensity == "exam_zscore":
        inside = array[array > array.min()]
        inside = inside if inside.size else array.ravel()
        low, high = (float(v) for v in np.percentile(inside, [low, high]))
        inside = np.clip(inside, low, high)
        mean, deviation = float(inside.mean()), float(inside.std()) or 1.0
    return ((np.clip(array, low, high) - mean) / deviation).astype(np.float32)


def restore(probabilities: NDArray[np.float32], reference: Volume) -> NDArray[np.float32]:
    """Class probabilities (C, I, J, K) in plan spacing back onto the reference's own grid, (C, *reference.shape)."""
    shape = _canonical_shape(reference)
    return np.stack([from_canonical(resample(channel, shape, 1), reference) for channel in probabilities])


def restore_labels(probabilities: NDArray[np.float32], reference: Volume, plan: Plan) -> NDArray[np.uint8]:
    """Label values of the most probable class on the reference's grid: `restore`, one class in memory at a time."""
    shape = _canonical_shape(reference)
    labels = np.zeros(shape, dtype=np.uint8)
    best = resample(probabilities[0], shape, 1)
    for channel, value in zip(probabilities[1:], plan.classes[1:], strict=True):
        restored = resample(channel, shape, 1)
        better = restored > best
        labels[better] = value
        best = np.where(better, restored, best)
    return from_canonical(labels, reference)


def _canonical_shape(reference: Volume) -> tuple[int, int, int]:
    orientation = nib.io_orientation(reference.affine)
    i, j, k = (reference.shape[int(axis)] for axis in np.argsort(orientation[:, 0]))
    return (i, j, k)
