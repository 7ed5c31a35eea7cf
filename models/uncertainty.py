"""Uncertainty of an ensemble. Probabilities are averaged, never logits; entropies are in nats.

Every function takes member probabilities of shape (M, C, …) that sum to 1 over C, and returns an array of shape (…),
or (C, …) for `class_entropy`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.floating]
_TINY = 1e-12
# Of a structure's probability: from here on it may be there.
POSSIBLE = 0.1
LEAST_MM2 = 100.0


def predictive_entropy(members: Array) -> Array:
    """H(p̄), p̄ the mean over members."""
    return _entropy(_mean(members))


def expected_entropy(members: Array) -> Array:
    """Mean over members of H(p_m)."""
    total = _entropy(members[0])
    for member in members[1:]:  # one after the other: memory stays at one member's
        total = total + _entropy(member)
    return np.asarray(total / len(members))


def bald(members: Array) -> Array:
    """Mutual information between the label and the member: predictive minus expected entropy, never below zero."""
    return np.asarray(np.maximum(predictive_entropy(members) - expected_entropy(members), 0))


def class_entropy(members: Array) -> Array:
    """U_c = p̄_c · H(p̄) (ClaSP PE)."""
    mean = _mean(members)
    return np.asarray(mean * _entropy(mean)[None])


def _mean(members: Array) -> Array:
    return np.asarray(members.mean(axis=0))


def _entropy(probabilities: Array) -> Array:
    """Entropy over the first axis; 0·log 0 is 0."""
    total = np.zeros(probabilities.shape[1:], dtype=probabilities.dtype)
    for channel in probabilities:
        total -= channel * np.log(np.maximum(channel, _TINY))
    return total


def summarise(
    members: Array, labels: NDArray[np.uint8], structures: dict[str, int], voxel_ml: float
) -> dict[str, object]:
    """What selection needs of one exam, small enough for a ledger row.

    Parameters
    ----------
    members : shape (M, C, I, J, K); channel n is background or the n-th structure by label value
    labels : shape (I, J, K), predicted label values

    Returns
    -------
    dict with `entropy_image` and `bald_image` (mean over the exam), `entropy_region` and `bald_region` (mean over the
    predicted foreground and two voxels around it; the exam's mean where nothing is predicted), `foreground_voxels`,
    `border_voxels`, per structure `volume_ml` and `class_entropy`, and `entropy_slices` (mean per slice of the last
    axis, which in plan spacing runs from foot to head).
    """
    mean = _mean(members)
    entropy = _entropy(mean)
    information = np.maximum(entropy - expected_entropy(members), 0)
    found = labels > 0
    region = ndimage.binary_dilation(found, iterations=2) if found.any() else np.ones(labels.shape, dtype=bool)
    by_value = sorted(structures.items(), key=lambda item: item[1])
    return {
        "entropy_image": _short(entropy.mean(dtype=np.float64)),
        "bald_image": _short(information.mean(dtype=np.float64)),
        "entropy_region": _short(entropy[region].mean(dtype=np.float64)),
        "bald_region": _short(information[region].mean(dtype=np.float64)),
        "foreground_voxels": int(found.sum()),
        "border_voxels": int((found & ~ndimage.binary_erosion(found)).sum()),
        "structures": {
            name: {
                "volume_ml": _short(float((labels == value).sum()) * voxel_ml),
                "class_entropy": _short((mean[index][region] * entropy[region]).mean(dtype=np.float64)),
            }
            for index, (name, value) in enumerate(by_value, 1)
        },
        "entropy_slices": [_short(value) for value in entropy.mean(axis=(0, 1), dtype=np.float64)],
    }


def slice_profile(
    mean: Array, labels: NDArray[np.uint8], structures: dict[str, int], voxel_mm: tuple[float, float, float], axis: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """How uncertain each slice along an axis is, as sums over a region and the region's area.

    The region of a structure is where it was drawn and two voxels around, and wherever its probability reaches
    `POSSIBLE`: a slice that was overlooked has no draft, and must stand out all the same. A mean over the whole slice
    would rank slices by how much border they hold, not by how doubtful it is.

    Parameters
    ----------
    mean : shape (C, I, J, K), probabilities averaged over members; channel n is background or the n-th by label value
    labels : shape (I, J, K), predicted label values
    voxel_mm : mm
    axis : 0, 1 or 2

    Returns
    -------
    Two dicts with the key `""` for the exam (all structures together) and a key per structure: sums of the predictive
    entropy as a share of its maximum log C, and voxels, each of shape (slices,). The voxels are at least those of
    `LEAST_MM2`, so that a single doubtful voxel does not outshine a doubtful border.
    """
    entropy = _entropy(mean) / np.log(len(mean))
    across = tuple(n for n in range(3) if n != axis)
    least = LEAST_MM2 / (voxel_mm[across[0]] * voxel_mm[across[1]])
    sums, areas = {}, {}
    everything = np.zeros(labels.shape, dtype=bool)
    for index, (name, value) in enumerate(sorted(structures.items(), key=lambda item: item[1]), 1):
        drawn = labels == value
        region = (ndimage.binary_dilation(drawn, iterations=2) if drawn.any() else drawn) | (mean[index] >= POSSIBLE)
        everything |= region
        sums[name], areas[name] = _along(entropy, region, across, least)
    sums[""], areas[""] = _along(entropy, everything, across, least)
    return sums, areas


def _along(entropy: Array, region: NDArray[np.bool_], across: tuple[int, ...], least: float) -> tuple[Array, Array]:
    total = np.where(region, entropy, 0).sum(axis=across, dtype=np.float64)
    return total, np.maximum(region.sum(axis=across), least)


def _short(value: float) -> float:
    # Six digits: below them a thread's order of summation shows.
    return float(f"{float(value):.6g}")
