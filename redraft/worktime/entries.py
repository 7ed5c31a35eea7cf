"""Which recorded minutes count. A time entry is never changed: an import puts others in its place, and says which.

The chain's event `time.imported` names, per annotation, the entries that were added and those that they replace. All
entries stay in the ledger; whoever adds minutes up takes `counted`.
"""

from __future__ import annotations

from typing import Any

from redraft.ledger import Ledger

IMPORTED = "time.imported"


def counted(ledger: Ledger) -> list[dict[str, Any]]:
    """Time entries that no later import replaced, in primary-key order."""
    gone = replaced(ledger)
    return [row for row in ledger.rows("time_entry") if row["time_entry_id"] not in gone]


def replaced(ledger: Ledger) -> set[str]:
    """Ids of time entries that an import replaced."""
    return {
        entry
        for event in ledger.rows("audit_event", kind=IMPORTED)
        for line in event["payload"]["annotations"]
        for entry in line["replaced"]
    }
