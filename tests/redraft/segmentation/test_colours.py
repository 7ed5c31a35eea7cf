"""Colours of structures: the same everywhere, and told apart by readers who see colours differently."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from redraft.segmentation.colours import PALETTE, colour, colours, web

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SEEN = {
    "all": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def as_seen(rgb: tuple[int, int, int], matrix: np.ndarray) -> np.ndarray:
    """CIELAB of a colour as such a reader sees it."""
    value = np.array(rgb) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(matrix) @ linear, 0, 1)
    srgb = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(srgb)


@pytest.mark.parametrize("sight", SEEN)
@pytest.mark.parametrize(("count", "least"), [(3, 20.0), (len(PALETTE), 10.0)])
def test_readers_tell_the_colours_apart(sight: str, count: int, least: float) -> None:
    """CIEDE2000 between any two of the first colours, with usual sight and with each deficiency (2.3 is just seen)."""
    seen = [as_seen(colour(place), SEEN[sight]) for place in range(count)]
    assert min(float(deltaE_ciede2000(a, b)) for a, b in combinations(seen, 2)) > least


def test_many_structures_get_colours_of_their_own() -> None:
    """Thirty-five structures, thirty-five colours; each the same wherever it is asked for."""
    names = [f"s{n}" for n in range(35)]
    listed = colours(names)
    assert len(set(listed.values())) == 35 and all(0 <= part <= 255 for rgb in listed.values() for part in rgb)
    assert [listed[name] for name in names] == [colour(place) for place in range(35)]
    assert web((86, 180, 233)) == "#56b4e9"
