"""Window presets: which part of an image's values is spread over grey, by modality and by what is looked for.

CT in Hounsfield units, level and width as in W. Kalender, Computed Tomography (2011), table of usual windows; MR and PT
have no absolute scale, so theirs are shares of the image's own values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_CT = {
    "soft tissue": (-160.0, 240.0),
    "narrow soft tissue": (-30.0, 170.0),
    "vessels": (-100.0, 500.0),
    "lung": (-1350.0, 150.0),
    "bone": (-500.0, 1300.0),
    "brain": (0.0, 80.0),
}
_FIRST = {"vessel": "vessels", "tumor": "narrow soft tissue", "lesion": "narrow soft tissue", "organ": "soft tissue"}


def windows(
    modality: str, kinds: Iterable[str], low: float, high: float, percentiles: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Presets `{name, low, high}`, the best for these structures first; the full range last.

    Parameters
    ----------
    kinds
        Kinds of the structures to segment, the most important first.
    percentiles
        Values at 0.5, 5, 50, 95 and 99.5 percent, by these names.
    """
    if modality == "CT":
        first = next((_FIRST[kind] for kind in kinds if kind in _FIRST), "soft tissue")
        names = [first, *(name for name in _CT if name != first)]
        found = [(name, *_CT[name]) for name in names]
    elif modality == "PT":
        found = [("uptake", 0.0, percentiles["99.5"]), ("low uptake", 0.0, percentiles["95.0"])]
    else:
        found = [
            ("whole", percentiles["0.5"], percentiles["99.5"]),
            ("contrast", percentiles["5.0"], percentiles["95.0"]),
            ("bright", percentiles["50.0"], percentiles["99.5"]),
        ]
    shown = [item for item in found if item[1] < item[2] and item[1] < high and item[2] > low]
    if low < high or not shown:
        shown.append(("full range", low, high if high > low else low + 1.0))
    return [{"name": name, "low": a, "high": b} for name, a, b in shown]
