"""What a PACS sends on C-MOVE: who may bring it, and which instances of the series lie here whole."""

from __future__ import annotations

import errno
import filecmp
import os
import threading
from pathlib import Path

from redraft.config.sources import DimseSource as Section
from redraft.errors import StorageError
from redraft.files import sync_directory
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources import scp


def whole_in(folder: Path) -> set[Path]:
    """Instances that lie whole in a series' folder: those that have their names, pseudonymous UIDs."""
    return set(folder.glob("2.*.dcm"))


class FromPacs:
    """Lets the PACS in: by its AE title, or from its address where it sends under another one."""

    def __init__(self, section: Section):
        self._section = section

    def address(self, address: str) -> bool:
        return True  # archives often send from other machines than they answer on

    def association(self, calling: str, called: str, address: str) -> str | None:
        if called != self._section.ae_title.strip():
            return "called_ae_title"
        if calling == self._section.pacs_title.strip() or address in scp.addresses_of(self._section.host):
            return None
        return "calling_ae_title"


class SeriesKeeper:
    """Keeps instances of one series; see redraft.sources.scp.Keeper."""

    def __init__(self, folder: Path, series: str, pseudonyms: Pseudonyms):
        self._folder, self._series, self._pseudonyms = folder, series, pseudonyms
        self._lock = threading.Lock()
        self._count = 0
        self.restart()

    def restart(self) -> None:
        """A C-MOVE begins: it brings every instance, so what earlier ones brought is confirmed or replaced."""
        with self._lock:
            self.arrived: set[str] = set()
            self.foreign = 0
            self.conflicting = 0
            self._failure: OSError | None = None

    def raise_failure(self, source: str) -> None:
        """Raise StorageError when an instance could not be written here."""
        failure = self._failure
        if failure is not None:
            full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
            raise StorageError(
                f"What {source} sent could not be written ({failure.strerror}).",
                "Free disk space and run the command again; it resumes where it stopped.",
                code="storage.full" if full else None,
            )

    def begin(self, token: str, uid: str) -> Path:
        with self._lock:
            self._count += 1
            return self._folder / f".partial-{token}-{self._count}"

    def keep(self, token: str, incoming: scp.Incoming) -> int:
        identity = incoming.identity()
        with self._lock:
            if incoming.failure is not None:
                self._failure = incoming.failure
                return scp.OUT_OF_RESOURCES
            if identity is None:
                return scp.NOT_UNDERSTOOD
            if identity[:2] != (incoming.sop_class, incoming.uid):
                return scp.DOES_NOT_MATCH
            if identity[2] != self._series:
                self.foreign += 1
                return scp.NOT_UNDERSTOOD
            name = self._pseudonyms.uid(incoming.uid)
            target = self._folder / f"{name}.dcm"
            try:
                if name in self.arrived:
                    if not filecmp.cmp(incoming.path, target, shallow=False):
                        self.conflicting += 1
                    return scp.SUCCESS
                os.replace(incoming.path, target)
                sync_directory(self._folder)
            except OSError as error:
                self._failure = error
                return scp.OUT_OF_RESOURCES
            self.arrived.add(name)
            return scp.SUCCESS

    def ended(self, token: str, released: bool, cut: scp.Incoming | None) -> None:
        """What an association leaves behind is judged by the answer to C-MOVE."""
