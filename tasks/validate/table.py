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
from redraft.volumes import Volume, grid_difference, read_volume
from tasks.validate.flags import CLOCKED, is_unchanged_accept

# A missing number in a column of numbers.
NOTHING = float("nan")


@dataclass(frozen=True)
class ReturnedLabel:
    """What validation needs of one return.

    `minutes` is active time, None where none was given; `draft` is None from scratch; `origin` is of the minutes.
    """

    assignment_id: str
    exam_id: str
    reader_id: str
    label: Path
    image: Path
    draft: Path | None
    verdict: str
    minutes: float | None
    origin: str = "typed"


def measure(item: ReturnedLabel, structures: Sequence[Structure]) -> dict[str, Any]:
    """One row of the table. Raises ReadError when the label cannot be read."""
    label, image = read_volume(item.label), read_volume(item.image)
    difference = grid_difference(image, label)
    same_grid = difference is None
    array = label.array
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
        "origin": item.origin,
        "minutes": NOTHING if item.minutes is None else float(item.minutes),
        "seconds": NOTHING if item.minutes is None else float(item.minutes) * 60.0,
        "foreground_voxels": int((array > 0).sum()) if finite else -1,
    }
    draft = _draft(item, label)
    row |= _against_draft(item, label, draft, row["seconds"])
    for structure in structures:
        mask: NDArray[np.bool_] = array == structure.value
        _, components = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        row[f"{structure.name}_ml"] = float(mask.sum()) * label.voxel_ml
        row[f"{structure.name}_components"] = int(components)
        had = int((draft == structure.value).sum()) if draft is not None else 0
        row[f"{structure.name}_lost_ml"] = 0.0 if mask.any() else had * label.voxel_ml
    return row


def _draft(item: ReturnedLabel, label: Volume) -> NDArray[Any] | None:
    if item.draft is None:
        return None
    draft = read_volume(item.draft).array
    return draft if draft.shape == label.shape else None


def _against_draft(
    item: ReturnedLabel, label: Volume, draft: NDArray[Any] | None, seconds: float
) -> dict[str, float | int | None]:
    """Columns that compare with the draft; a rule that does not apply to this return finds nothing to judge."""
    found: dict[str, float | int | None] = {
        "voxels_changed": None,
        "accept_seconds": NOTHING,
        "corrected_voxels": NOTHING,
        "changed_share": NOTHING,
        "accept_chance": NOTHING,
    }
    if draft is None:
        return found
    changed = int((draft != label.array).sum())
    found["voxels_changed"] = changed
    if item.verdict == "correct":
        found["corrected_voxels"] = float(changed)
    if item.verdict in ("accept", "correct"):
        found["changed_share"] = changed / max(int(((draft > 0) | (label.array > 0)).sum()), 1)
    if is_unchanged_accept(item.verdict, changed) and item.origin in CLOCKED:
        found["accept_seconds"] = seconds
    return found


def _flipped(image: Volume, label: Volume) -> bool:
    """Whether the label lies on the image's grid mirrored along some axes: the classic export mistake."""
    if image.shape != label.shape:
        return False
    ours, theirs = image.affine[:3, :3], label.affine[:3, :3]
    return np.allclose(np.abs(ours), np.abs(theirs), atol=1e-3) and not np.allclose(ours, theirs, atol=1e-3)
