"""One colour per structure, the same on every screen: pages, colour tables of desktop tools, DICOM and NRRD files.

The palette is that of Okabe and Ito (Color Universal Design, 2008), which readers with any of the common colour-vision
deficiencies tell apart; its black is left out, for it cannot be seen on an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Rgb = tuple[int, int, int]

# In the order in which the first three, four, … differ most for every reader (CIEDE2000, all sights).
PALETTE: tuple[Rgb, ...] = (
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
    (204, 121, 167),  # reddish purple
    (0, 158, 115),  # bluish green
    (230, 159, 0),  # orange
)
# What later turns of the palette are mixed with, and how much of it.
_TURNS = ((255, 0.55), (0, 0.45), (255, 0.75), (0, 0.65))


def colour(place: int) -> Rgb:
    """Colour (red, green, blue; 0 to 255) of the structure at a place of project.yaml, counted from 0.

    From the eighth on the palette comes again, paler and then darker; after five turns it begins anew.
    """
    turn, index = divmod(place, len(PALETTE))
    base = PALETTE[index]
    if turn % (len(_TURNS) + 1) == 0:
        return base
    towards, share = _TURNS[turn % (len(_TURNS) + 1) - 1]
    red, green, blue = (round(value + share * (towards - value)) for value in base)
    return (red, green, blue)


def colours(names: Sequence[str]) -> dict[str, Rgb]:
    """Colour of each structure, by name, in the order of project.yaml."""
    return {name: colour(place) for place, name in enumerate(names)}


def web(value: Iterable[int]) -> str:
    """A colour as CSS writes it, `#rrggbb`."""
    return "#" + "".join(f"{part:02x}" for part in value)
