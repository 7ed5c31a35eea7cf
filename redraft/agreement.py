"""How far two readers of one exam agree: Dice and surface Dice per structure, at the structure's tolerance.

Conventions are those of redraft.metrics, with one addition: a structure that neither reader drew is an agreement about
its absence and no measurement of contours. Its Dice and surface Dice are None here (redraft.metrics calls it `absent`
and leaves it out of means), and it never calls for adjudication. Drawn by one reader only: both are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.metrics import dice
from redraft.metrics.grid import crop_to_union
from redraft.metrics.surface import surface_distances


@dataclass(frozen=True)
class PairAgreement:
    """Two readings (by annotation id, the smaller first) and one structure; None where neither drew it."""

    first_id: str
    second_id: str
    structure: str
    dice: float | None
    surface_dice: float | None


def pairwise(
    readings: Mapping[str, NDArray[np.uint8]], spacing: Sequence[float], structures: Sequence[Structure]
) -> list[PairAgreement]:
    """Agreement of every pair of readings, structure by structure.

    Parameters
    ----------
    readings : annotation id to label array (I, J, K), all on one grid with this spacing in mm
    """
    found = []
    for first, second in combinations(sorted(readings), 2):
        for structure in structures:
            a, b = crop_to_union(readings[first] == structure.value, readings[second] == structure.value)
            if not a.size:
                found.append(PairAgreement(first, second, structure.name, None, None))
                continue
            near = surface_distances(a, b, spacing).dice(structure.tolerance_mm)
            found.append(PairAgreement(first, second, structure.name, dice(a, b), near))
    return found


def lowest(pairs: Sequence[PairAgreement]) -> dict[str, dict[str, float | None]]:
    """Per structure the lowest Dice and surface Dice of any pair; None where nobody drew it."""
    result: dict[str, dict[str, float | None]] = {}
    for name in dict.fromkeys(pair.structure for pair in pairs):
        of = [pair for pair in pairs if pair.structure == name]
        result[name] = {
            "dice": min((p.dice for p in of if p.dice is not None), default=None),
            "surface_dice": min((p.surface_dice for p in of if p.surface_dice is not None), default=None),
        }
    return result


def disputed(pairs: Sequence[PairAgreement], below: float) -> list[str]:
    """Structures in which some pair agrees less than `below` (Dice); what one reader alone drew counts as 0."""
    return [name for name, low in lowest(pairs).items() if low["dice"] is not None and low["dice"] < below]
