"""A PACS asked by C-FIND and C-MOVE (PS3.4 C)."""

from redraft.sources.dimse.source import DimseSource

__all__ = ["DimseSource"]
