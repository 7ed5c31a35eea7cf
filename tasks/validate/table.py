"""A tidy table of returned labels: one row each, one column per measured property; judged by expectations.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.config.schema import Structure
from redraft.errors import ReadError
from redraft.volumes import Volume, grid_difference, read_volume


@dataclass(frozen=True)
class ReturnedLabel:
    """What validation needs of one return. `minutes` is active time; `draft` is None from scratch."""

    assignment_id: str
    exam_id: str
    reader_id: str
    label: Path
    image: Path
    draft: Path | None
    verdict: str
    minutes: float


def measure(item: ReturnedLabel, structures: Sequence[Structure]) -> dict[str, Any]:
    """One row of the table. Raises ReadError when the label cannot be read."""
    label, image = read_volume(item.label), read_volume(item.image)
    difference = grid_difference(image, label)
    same_grid = difference is None
    array = label.array
    if array.dtype.kind not in "biuf":
        what = f"Assignment {item.assignment_id}: the label holds {array.dtype} values, no numbers."
        raise ReadError(what, "Export one integer per voxel.", rule="unreadable", measured={"type": str(array.dtype)})
    finite = bool(np.isfinite(array).all())
    integral = finite and bool((array == np.rint(array)).all())
    allowed = {0, *(s.value for s in structures)}
    found = set(np.unique(array).tolist()) if finite else set()
    row: dict[str, Any] = {
        "assignment_id": item.assignment_id,
        "exam_id": item.exam_id,
        "reader_id": item.reader_id,
        "same_grid": same_grid,
        "flipped": not same_grid and _flipped(image, label),
        "integral": integral,
        "unknown_values": len(found - allowed) if finite else -1,
        "verdict": item.verdict,
        "minutes": float(item.minutes),
        "seconds": float(item.minutes) * 60.0,
        "foreground_voxels": int((array > 0).sum()) if finite else -1,
        "voxels_changed": _changed(item, label),
    }
    for structure in structures:
        mask: NDArray[np.bool_] = array == structure.value
        _, components = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        row[f"{structure.name}_ml"] = float(mask.sum()) * label.voxel_ml
        row[f"{structure.name}_components"] = int(components)
    return row


def _changed(item: ReturnedLabel, label: Volume) -> int | None:
    if item.draft is None:
        return None
    draft = read_volume(item.draft)
    return int((draft.array != label.array).sum()) if draft.shape == label.shape else None


def _flipped(image: Volume, label: Volume) -> bool:
    """Whether the label lies on the image's grid mirrored along some axes: the classic export mistake."""
    if image.shape != label.shape:
        return False
    ours, theirs = image.affine[:3, :3], label.affine[:3, :3]
    return np.allclose(np.abs(ours), np.abs(theirs), atol=1e-3) and not np.allclose(ours, theirs, atol=1e-3)
