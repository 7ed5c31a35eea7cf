"""Which series a source gives: what project.yaml wants of it, with its list of accession numbers read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redraft.config.sources import Wanted
from redraft.digest import sha256_json
from redraft.errors import ConfigError
from redraft.selection.wanted import KEYWORDS, read_accessions, unwanted

NOT_SELECTED = "not_selected"


@dataclass(frozen=True)
class Selection:
    """Which series a source gives, with the list of accession numbers read."""

    wanted: Wanted = field(default_factory=Wanted)
    accessions: frozenset[str] = frozenset()

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
        return NOT_SELECTED if self.unmet({keyword: text(keyword) for keyword in KEYWORDS}) else None

    def unmet(self, description: Mapping[str, str]) -> str | None:
        """The first condition that a series does not meet (its name in project.yaml); None when it meets all."""
        return unwanted(self.wanted, description, lambda: self.accessions)
