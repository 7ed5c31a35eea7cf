"""What the pages need from one request to the next and nobody needs for ever: beside the ledger, never in its chain."""

from redraft.desk.store import Desk

__all__ = ["Desk"]
