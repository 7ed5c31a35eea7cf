"""What a storage SCP asks of whoever runs it: who may connect (Gate), and who keeps what arrives (Keeper)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from redraft.sources.scp.incoming import Incoming

# Statuses of C-STORE (PS3.4 B.2.3). Each but success makes the sender keep its copy.
SUCCESS, OUT_OF_RESOURCES, DOES_NOT_MATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000


class Keeper(Protocol):
    """Who keeps what arrives. Called from the associations' threads; `token` names one association, at random."""

    def begin(self, token: str, uid: str) -> Path:
        """Where to write an instance that begins to arrive: a new path, in a folder that exists."""
        ...

    def keep(self, token: str, incoming: Incoming) -> int:
        """Keep one instance whose last byte has arrived; the status of the answer. Its file is gone afterwards."""
        ...

    def ended(self, token: str, released: bool, cut: Incoming | None) -> None:
        """The association ended, by release or in any other way; `cut` is the instance that had not arrived whole."""
        ...


class Gate(Protocol):
    """Who may connect."""

    def address(self, address: str) -> bool:
        """Whether anybody at this address may connect at all."""
        ...

    def association(self, calling: str, called: str, address: str) -> str | None:
        """Why an association is refused: `calling_ae_title`, `called_ae_title` or `host`; None when it is not."""
        ...
