"""Which of a project's structures a foreign segment is: by its code, else by its name; and which wins where two meet.

A segment's name may hold a patient's: errors give its number only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure, StructureKind
from redraft.errors import LabelError

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

Unknown = Literal["refuse", "ignore"]
# What lies inside of something else is the finer statement.
RANK = {StructureKind.ORGAN: 0, StructureKind.VESSEL: 1, StructureKind.LESION: 2, StructureKind.TUMOR: 2}


@dataclass(frozen=True)
class Segment:
    """What a file says of one segment or ROI.

    Attributes
    ----------
    number : int
        Its number in the file; the only thing of it that errors name.
    name : str
        Label or ROI name. May hold an identity: never shown, logged or stored.
    type : Code or None
        Segmented property type; `regions` and `modifiers` narrow it.
    """

    number: int
    name: str = field(repr=False, default="")
    type: Code | None = None
    regions: tuple[Code, ...] = ()
    modifiers: tuple[Code, ...] = ()


def match(segment: Segment, structures: Sequence[Structure]) -> Structure | None:
    """The structure that a segment means; None for a foreign one.

    Codes decide first: type, and whatever of region, modifier and laterality the structure names, must be equal
    (SNOMED RT and CT codes of one concept are). Names and aliases are compared without case.

    Raises
    ------
    LabelError
        Rule ambiguous_segment: code and name mean different structures, or one of them means several.
    """
    by_code = [s for s in structures if _same_code(segment, s)]
    name = segment.name.strip().casefold()
    by_name = [s for s in structures if name and name in {text.strip().casefold() for text in (s.name, *s.aliases)}]
    if len(by_code) > 1:  # several structures share a code: the name decides among them
        by_code = [s for s in by_code if s in by_name] or by_code
    found = by_code or by_name
    if len(found) > 1 or (by_code and by_name and by_code[0] not in by_name):
        raise LabelError(
            f"Segment {segment.number} could be several of the project's structures.",
            "Give it the code and the name of one structure.",
            rule="ambiguous_segment", measured={"segment": segment.number},
        )  # fmt: skip
    return found[0] if found else None


def assign(
    segments: Sequence[Segment], structures: Sequence[Structure], unknown: Unknown
) -> dict[int, Structure | None]:
    """Structure of each segment number, None for what is ignored.

    Raises
    ------
    LabelError
        Rules unknown_segment (where these are refused), ambiguous_segment, no_segment (nothing of the project's).
    """
    found = {segment.number: match(segment, structures) for segment in segments}
    foreign = sorted(number for number, structure in found.items() if structure is None)
    if foreign and unknown == "refuse":
        raise LabelError(
            f"Segments {foreign[:8]} are none of the project's structures.",
            f"Name or code them as one of {[s.name for s in structures]}, or take them out.",
            rule="unknown_segment", measured={"segments": foreign[:20]},
        )  # fmt: skip
    if found and len(foreign) == len(found):
        raise LabelError("No segment is one of the project's structures.", rule="no_segment")
    return found


class LabelMap:
    """Labels put together from masks that may overlap: tumours and lesions win over vessels, these over organs; within
    one kind the structure that stands later in project.yaml wins. The order of the masks does not matter."""

    def __init__(self, shape: tuple[int, int, int], structures: Sequence[Structure]):
        self.labels: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self._contested: NDArray[np.bool_] | None = None
        self._rank = np.full(256, -1, np.int32)
        for place, structure in enumerate(structures):
            self._rank[structure.value] = RANK[structure.kind] * 1000 + place

    def add(self, value: int, where: Any, mask: NDArray[np.bool_]) -> None:
        """Add a mask at an index expression of the label array."""
        view = self.labels[where]
        others = mask & (view != 0) & (view != value)
        if others.any():
            if self._contested is None:
                self._contested = np.zeros(self.labels.shape, bool)
            self._contested[where] |= others
        view[mask & (self._rank[view] < self._rank[value])] = value

    @property
    def contested(self) -> int:
        """Voxels that more than one structure claimed."""
        return 0 if self._contested is None else int(self._contested.sum())


def _same_code(segment: Segment, structure: Structure) -> bool:
    code = structure.code
    if code is None or segment.type is None or segment.type != to_code(code.type):
        return False
    if code.region is not None and to_code(code.region) not in segment.regions:
        return False
    return all(to_code(item) in segment.modifiers for item in (code.modifier, code.laterality) if item is not None)


def to_code(item: Any) -> Code:
    """A configured code as pydicom's, which knows when a SNOMED RT code means the same."""
    from pydicom.sr.coding import Code

    return Code(item.value, item.scheme, item.meaning)


def codes_in(items: Any) -> Iterator[Code]:
    """Coded concepts of a DICOM code sequence (PS3.3 8.8); incomplete ones are passed over."""
    from pydicom.sr.coding import Code

    for item in items or ():
        value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
        if value and item.get("CodingSchemeDesignator"):
            yield Code(str(value), str(item.CodingSchemeDesignator), str(item.get("CodeMeaning", "")))
