"""What the beginning of a DICOM file says: its series, and whether the source wants it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from redraft.config.sources import Wanted
from redraft.dicom.elements import Bounds, Short, walk_file
from redraft.dicom.scan import LAST, Foreign, read_header
from redraft.digest import sha256_json
from redraft.errors import ConfigError, ReadError
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources.wanted import KEYWORDS, read_accessions, unwanted

FIRST_BYTES = 64 * 1024
# Beyond this a header is no header any more.
MOST_BYTES = 256 * 1024 * 1024
NOT_SELECTED = "not_selected"

_BOUNDS = Bounds()


@dataclass(frozen=True)
class Selection:
    """Which series a source gives, with the list of accession numbers read."""

    wanted: Wanted
    accessions: frozenset[str]

    @classmethod
    def of(cls, wanted: Wanted, resolve: Callable[[str | Path], Path]) -> Selection:
        """Read the list that `wanted` names. Raises ConfigError where it cannot be read."""
        if wanted.accessions is None:
            return cls(wanted, frozenset())
        path = resolve(wanted.accessions)
        try:
            return cls(wanted, read_accessions(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"The list of accession numbers {path} cannot be read.", "Check the path.") from None

    @property
    def digest(self) -> str:
        """Changes when the answer to a header may change."""
        return sha256_json([self.wanted.model_dump(mode="json"), sorted(self.accessions)])

    def rule(self, text: Callable[[str], str]) -> str | None:
        """`not_selected` where a header's values (by keyword) do not meet every condition."""
        if not self.wanted.model_fields_set:
            return None
        description = {keyword: text(keyword) for keyword in KEYWORDS}
        return NOT_SELECTED if unwanted(self.wanted, description, lambda: self.accessions) else None


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
