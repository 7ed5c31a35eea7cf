"""Which series a project wants of a source: asked before they are fetched, and again of their headers."""

from redraft.selection.selection import NOT_SELECTED, Selection
from redraft.selection.wanted import KEYWORDS, read_accessions, unwanted

__all__ = ["KEYWORDS", "NOT_SELECTED", "Selection", "read_accessions", "unwanted"]
