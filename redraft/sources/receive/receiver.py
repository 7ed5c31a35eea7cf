"""The storage receiver: takes what allowed senders store and keeps it in the inbox, by pseudonyms, until an intake.

The inbox holds one folder per series, ``<series pseudonym>/<instance pseudonym>.dcm``. What arrives lies in
``.incoming`` first; a success is only answered when the file is on disk under its name. Files are as they were sent:
not de-identified, so the inbox is readable by its owner alone and never lies inside the project.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from redraft.config.sources import Peer, ReceiveSource
from redraft.digest import sha256_file
from redraft.errors import ConfigError, ConflictError, StorageError
from redraft.files import sync_directory
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources import scp
from redraft.sources.receive.inbox import INCOMING
from redraft.sources.receive.transfers import Transfers

if TYPE_CHECKING:
    from redraft.sources.scp import Incoming, StorageScp

log = logging.getLogger(__name__)


@contextmanager
def receiving(
    section: ReceiveSource, inbox: Path, project: Path, pseudonyms: Pseudonyms, resolve: Callable[[str | Path], Path]
) -> Iterator[StorageScp]:
    """Run the receiver of one source until the block is left.

    Parameters
    ----------
    inbox : Path
        Its folder (see `redraft.sources.receive.inbox.inbox_folder`); made where it is absent, mode 0700.
    project : Path
        The project's directory, which must not hold the inbox.

    Raises
    ------
    ConfigError
        The inbox lies inside the project, or TLS or the address cannot be used.
    ConflictError
        Another receiver has this inbox or port.
    """
    if inbox.resolve().is_relative_to(project.resolve()):
        raise ConfigError("The inbox lies inside the project, which gets published.", "Choose a folder outside of it.")
    tls = scp.server_tls(section.tls, resolve)
    try:
        inbox.mkdir(parents=True, exist_ok=True, mode=0o700)
        inbox.chmod(0o700)
    except OSError as error:
        raise StorageError(f"The inbox cannot be made ({error.strerror}).", "Check the folder above it.") from None
    with _alone(inbox):
        keeper = InboxKeeper(inbox, pseudonyms)
        gate = AllowList(section.ae_title, section.allow)
        with scp.storage_scp(section.bind, section.port, section.ae_title, keeper, gate, tls) as running:
            yield running


@contextmanager
def _alone(inbox: Path) -> Iterator[None]:
    # The kernel lets go of the lock when its holder is killed.
    with open(inbox / ".receiver", "a") as stream:
        os.chmod(stream.name, 0o600)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError("Another receiver has this inbox.", "End it first.") from None
        yield


class AllowList:
    """Who may store: AE title and, where the source says one, host. Host names are looked up at each request."""

    def __init__(self, ae_title: str, allow: Sequence[Peer]):
        self._title, self._allow = ae_title.strip(), allow

    def address(self, address: str) -> bool:
        return any(peer.host is None or address in scp.addresses_of(peer.host) for peer in self._allow)

    def association(self, calling: str, called: str, address: str) -> str | None:
        if called != self._title:
            return "called_ae_title"
        known = [peer for peer in self._allow if peer.ae_title.strip() == calling]
        if not known:
            return "calling_ae_title"
        if not any(peer.host is None or address in scp.addresses_of(peer.host) for peer in known):
            return "host"
        return None


class InboxKeeper:
    """Puts instances into the inbox and keeps account of which series are whole; see redraft.sources.scp.Keeper."""

    def __init__(self, inbox: Path, pseudonyms: Pseudonyms):
        self._inbox, self._pseudonyms = inbox, pseudonyms
        self._incoming = inbox / INCOMING
        self._incoming.mkdir(exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._count = 0
        self._transfers = Transfers(inbox)
        self._recover()

    def begin(self, token: str, uid: str) -> Path:
        name = self._pseudonyms.uid(uid)
        with self._lock:
            self._transfers.begin(token, name)
            self._count += 1
            return self._incoming / f"{token}-{name}-{self._count}.part"

    def keep(self, token: str, incoming: Incoming) -> int:
        """Move a whole instance to its series; the status of the answer (PS3.4 B.2.3)."""
        name = self._pseudonyms.uid(incoming.uid)
        identity = incoming.identity()
        series = None if identity is None else self._pseudonyms.series_id(identity[2])
        status = scp.SUCCESS
        if incoming.failure is not None:
            log.error("An instance could not be written (%s).", incoming.failure.strerror)
            status = scp.OUT_OF_RESOURCES
        elif identity is None:
            log.warning("An instance was refused: it names no SOP class, instance or series.")
            status = scp.NOT_UNDERSTOOD
        elif identity[:2] != (incoming.sop_class, incoming.uid):
            log.warning("An instance was refused: its data set is not what the request says.")
            status = scp.DOES_NOT_MATCH
        with self._lock:
            if status == scp.SUCCESS and series is not None:
                try:
                    self._transfers.sends_to(token, series)
                    self._place(incoming.path, self._inbox / series, name)
                    self._transfers.kept(token, name, series)
                    return scp.SUCCESS
                except (OSError, StorageError) as error:
                    log.error("An instance could not be put into the inbox (%s).", type(error).__name__)
                    status = scp.OUT_OF_RESOURCES
            incoming.drop()  # before the record of it is written: the disk may be full
            self._transfers.failed(token, name, series)
        return status

    def ended(self, token: str, released: bool, cut: Incoming | None) -> None:
        identity = None if cut is None else cut.identity()
        series = None if identity is None else self._pseudonyms.series_id(identity[2])
        if cut is not None:
            cut.drop()
        with self._lock:
            self._transfers.ended(token, released, series)

    def _place(self, path: Path, folder: Path, name: str) -> None:
        """Give a file its name. The same content twice is one file; other content under one UID lies beside it."""
        target = folder / f"{name}.dcm"
        for _ in range(100):
            try:
                if folder.exists() or _make(folder):
                    if not target.exists():
                        os.replace(path, target)
                    elif not filecmp.cmp(path, target, shallow=False):
                        # Neither may win: readers refuse a series in which one instance has two contents.
                        os.replace(path, folder / f"{name}.{sha256_file(path)[:16]}.dcm")
                    sync_directory(folder)
                    return
            except FileNotFoundError:
                continue  # an intake has just taken the folder's last file away
        raise OSError(errno.EBUSY, "the folder keeps vanishing")

    def _recover(self) -> None:
        """What a killed receiver left: instances cut off are removed, their series held until they are sent again."""
        cut: dict[str, dict[str, str]] = {}
        for path in self._incoming.glob("*.part"):
            token, name = path.name.split("-")[:2]
            identity = scp.identity_of(path)
            cut.setdefault(token, {})[name] = "" if identity is None else self._pseudonyms.series_id(identity[2])
        unfinished = self._transfers.recover(cut)
        for path in self._incoming.glob("*.part"):
            path.unlink(missing_ok=True)
        if unfinished:
            log.warning("%d series wait for the rest of a transfer that broke.", unfinished)


def _make(folder: Path) -> bool:
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_directory(folder.parent)
    return True
