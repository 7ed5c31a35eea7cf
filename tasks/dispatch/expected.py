"""How many minutes an exam takes a reader: measured history where there is enough of it, else the configured prior."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# Annotations from which a mean says more than the prior.
ENOUGH = 5
# Minutes of different origins are never pooled; the better known ones come first.
ORIGINS = ("measured", "imported", "typed")


@dataclass(frozen=True)
class Worked:
    """Active minutes of one annotation on one structure, or on the exam as a whole (None)."""

    annotation_id: str
    structure: str | None
    mode: str
    origin: str
    minutes: float


def expected_minutes(
    history: Iterable[Worked], structures: Sequence[str], prior: float, *, simulated: bool
) -> dict[str, float]:
    """Expected minutes of one exam by mode.

    Of the first origin with enough annotations of a mode: the mean minutes of each structure added up, where the
    minutes of all structures were kept apart often enough; else the mean of the annotations' totals.

    Parameters
    ----------
    simulated : bool
        Whether the readers are; simulated minutes are expected of simulated readers and of nobody else.
    """
    rows = list(history)
    found = {}
    for mode in ("assisted", "from_scratch"):
        guesses = (
            _mean([row for row in rows if row.mode == mode and row.origin == origin], structures)
            for origin in (("simulated",) if simulated else ORIGINS)
        )
        found[mode] = next((guess for guess in guesses if guess is not None), float(prior))
    return found


def _mean(rows: Sequence[Worked], structures: Sequence[str]) -> float | None:
    per: dict[str, dict[str | None, float]] = {}
    for row in rows:
        of = per.setdefault(row.annotation_id, {})
        of[row.structure] = of.get(row.structure, 0.0) + row.minutes
    apart = [of for _, of in sorted(per.items()) if set(of) - {None}]
    each = {name: [of[name] for of in apart if name in of] for name in structures}
    if each and all(len(minutes) >= ENOUGH for minutes in each.values()):
        common = float(np.mean([of.get(None, 0.0) for of in apart]))
        return round(sum(float(np.mean(minutes)) for minutes in each.values()) + common, 4)
    if len(per) >= ENOUGH:
        return round(float(np.mean([sum(of.values()) for _, of in sorted(per.items())])), 4)
    return None
