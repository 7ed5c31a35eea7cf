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


def predictive_entropy(members: Array) -> Array:
    """H(p̄), p̄ the mean over members."""
    return _entropy(members.mean(axis=0), axis=0)


def expected_entropy(members: Array) -> Array:
    """Mean over members of H(p_m)."""
    return np.asarray(_entropy(members, axis=1).mean(axis=0))


def bald(members: Array) -> Array:
    """Mutual information between the label and the member: predictive minus expected entropy."""
    return np.asarray(predictive_entropy(members) - expected_entropy(members))


def class_entropy(members: Array) -> Array:
    """U_c = p̄_c · H(p̄) (ClaSP PE)."""
    mean = members.mean(axis=0)
    return np.asarray(mean * _entropy(mean, axis=0)[None])


def _entropy(probabilities: Array, axis: int) -> Array:
    return np.asarray(-(probabilities * np.log(np.maximum(probabilities, _TINY))).sum(axis=axis))


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
    `border_voxels`, and per structure `volume_ml` and `class_entropy`.
    """
    entropy, information = predictive_entropy(members), bald(members)
    found = labels > 0
    region = ndimage.binary_dilation(found, iterations=2) if found.any() else np.ones(labels.shape, dtype=bool)
    per_class = class_entropy(members)
    by_value = sorted(structures.items(), key=lambda item: item[1])
    return {
        "entropy_image": _short(entropy.mean()),
        "bald_image": _short(information.mean()),
        "entropy_region": _short(entropy[region].mean()),
        "bald_region": _short(information[region].mean()),
        "foreground_voxels": int(found.sum()),
        "border_voxels": int((found & ~ndimage.binary_erosion(found)).sum()),
        "structures": {
            name: {
                "volume_ml": _short(float((labels == value).sum()) * voxel_ml),
                "class_entropy": _short(per_class[index][region].mean()),
            }
            for index, (name, value) in enumerate(by_value, 1)
        },
    }


def _short(value: float) -> float:
    # Six digits: below them a thread's order of summation shows.
    return float(f"{float(value):.6g}")
