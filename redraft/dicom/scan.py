"""Headers of a folder tree, to be grouped into series. A file is read no further than its header."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from redraft.dicom.elements import Bounds, Elements, Short
from redraft.dicom.part10 import walk_file
from redraft.errors import ReadError

LAST = 0x0028FFFF  # what grouping and geometry need stands in groups up to 0028
FIRST_BYTES = 16_384
BOUNDS = Bounds()
FOREIGN = {
    "not_dicom", "truncated", "unreadable", "read_failed", "missing_series_uid", "malformed", "nesting",
    "elements", "inflated_size",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """One DICOM file's header up to group 0028. Identifiers stay in here.

    Values are converted from their bytes when they are asked for: wrong ones are empty, none raises.
    """

    path: Path
    size: int
    transfer_syntax: str
    elements: Elements = field(repr=False)

    def text(self, name: str) -> str:
        """A header value as text, empty where absent; several values are divided by backslashes."""
        return self.elements.text(name)

    def numbers(self, name: str) -> tuple[float, ...]:
        """A multi-valued header value as numbers; empty where absent or not numeric."""
        return self.elements.numbers(name)

    def integer(self, name: str) -> int | None:
        """A header value as an integer; None where absent or not numeric."""
        return self.elements.integer(name)


@dataclass(frozen=True)
class Foreign:
    """A file that is no readable DICOM object."""

    path: Path
    rule: str  # one of FOREIGN


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file below the given folders and files once, in a stable order; linked folders are not entered."""
    seen: set[str] = set()
    for start in paths:
        for path in sorted(path for path in start.rglob("*") if path.is_file()) if start.is_dir() else [start]:
            if (place := os.path.abspath(path)) not in seen:
                seen.add(place)
                yield path


def read_header(path: Path, bounds: Bounds = BOUNDS, *, nameless: bool = False) -> Header | Foreign:
    """Read one file's header without its pixels; with `nameless` also that of a file that names no series."""
    try:
        with open(path, "rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            start, wanted = b"", FIRST_BYTES
            while True:
                start += stream.read(wanted - len(start))
                whole = len(start) < wanted or len(start) >= size
                try:
                    file = walk_file(start, bounds, last=LAST, whole=whole)
                    break
                except Short:
                    wanted *= 8
    except ReadError as error:
        return Foreign(path, error.rule)
    except OSError:
        return Foreign(path, "read_failed")
    if not file.sop_class:
        return Foreign(path, "unreadable")
    if not nameless and not file.elements.text("SeriesInstanceUID"):
        # Files without it may be of any number of patients: no rule could tell their exams apart.
        return Foreign(path, "missing_series_uid")
    return Header(path, size, file.syntax, file.elements)
