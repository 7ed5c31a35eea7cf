"""What the beginning of a DICOM file says: its series, and whether the source wants it."""

from __future__ import annotations

from pathlib import Path

from redraft.dicom.elements import Bounds, Short
from redraft.dicom.part10 import walk_file
from redraft.dicom.scan import LAST, Foreign, read_header
from redraft.errors import ReadError
from redraft.security.pseudonyms import Pseudonyms
from redraft.selection import Selection

FIRST_BYTES = 64 * 1024
# Beyond this a header is no header any more.
MOST_BYTES = 256 * 1024 * 1024

_BOUNDS = Bounds()


def judge_bytes(
    data: bytes, whole: bool, pseudonyms: Pseudonyms, selection: Selection
) -> tuple[str | None, str | None] | None:
    """Series pseudonym and rule of a file that begins with `data`; None where its header goes on behind them.

    (series, None) is wanted, (series, "not_selected") is not, (None, rule) is no DICOM object of a series.
    """
    try:
        file = walk_file(data, _BOUNDS, last=LAST, whole=whole)
    except Short:
        return None
    except ReadError as error:
        return None, error.rule
    uid = file.elements.text("SeriesInstanceUID")
    if not file.sop_class or not uid:
        return None, "unreadable"
    return pseudonyms.series_id(uid), selection.rule(file.elements.text)


def judge_file(path: Path, *, pseudonyms: Pseudonyms, selection: Selection) -> tuple[str | None, str | None]:
    """The same of a file that lies on this machine."""
    header = read_header(path)
    if isinstance(header, Foreign):
        return None, header.rule
    return pseudonyms.series_id(header.text("SeriesInstanceUID")), selection.rule(header.text)
