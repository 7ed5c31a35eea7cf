"""From an exam to network input and back: canonical orientation, plan spacing, normalised values; and exactly back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.volumes import Volume

if TYPE_CHECKING:
    from models.plan import Plan


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
    """Resample (I, J, K) to another shape over the same extent; voxel edges are aligned, not centres."""
    if array.shape == shape:
        return np.asarray(array, dtype=np.float32)
    scale = np.array(array.shape) / np.array(shape)
    result: NDArray[np.float32] = ndimage.affine_transform(
        np.asarray(array, dtype=np.float32),
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
    """Image as network input, shape (I, J, K) in plan spacing and RAS axes."""
    canonical = to_canonical(image)
    return normalise(resample(canonical.array, plan_shape(canonical, plan), 1), plan)


def preprocess_label(label: Volume, plan: Plan) -> NDArray[np.uint8]:
    """Label as class indices (0 background, then `plan.classes`), same shape as the image's input."""
    canonical = to_canonical(label)
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
    shape = to_canonical(Volume(np.empty(reference.shape, dtype=np.bool_), reference.affine)).shape
    return np.stack([from_canonical(resample(channel, shape, 1), reference) for channel in probabilities])
