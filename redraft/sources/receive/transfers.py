"""Which series of an inbox are still arriving, or stopped arriving halfway: a record per association, on disk.

While an association is open its record holds every series that it has sent to. One that ends by release, with all
that it began kept, leaves nothing behind. Any other end (abort, lost connection, kill -9, an instance that could not be
kept) leaves a broken record, and its series stay held until a later association that ended by release has sent to them
again and every instance that had been begun has come.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from redraft.errors import StorageError
from redraft.files import sweep_partials, sync_directory, write_text

FOLDER = ".transfers"
_OPEN, _BROKEN = ".open.json", ".broken.json"


@dataclass
class Transfer:
    """What one association did, by pseudonyms.

    Attributes
    ----------
    series : list of str
        In the order in which it first sent to them.
    mixed : bool
        It went back to a series after another one: none of them was done when the next began.
    missing : dict of str
        Instances begun and not kept, and their series where it is known ("" where not).
    """

    series: list[str] = field(default_factory=list)
    mixed: bool = False
    missing: dict[str, str] = field(default_factory=dict)


def held(inbox: Path) -> dict[str, str]:
    """Series that must not be taken yet, and why: ``open`` (an association is sending) or ``unfinished``.

    Raises StorageError when a record cannot be read: nothing may be taken for complete then.
    """
    found: dict[str, str] = {}
    if not (inbox / FOLDER).is_dir():
        return found  # nothing was ever received
    with locked(inbox):  # an open record becomes a broken one under this lock: none is missed in between
        for suffix, state in ((_BROKEN, "unfinished"), (_OPEN, "open")):
            for path in _records(inbox, suffix):
                transfer = _read(path)
                if transfer is not None:  # else its association has just ended well
                    found.update(dict.fromkeys(transfer.series, state))
    return found


def release(inbox: Path, series: str) -> bool:
    """Hold a series no longer because of broken transfers: a person vouches for it. Returns whether it was."""
    found = False
    with locked(inbox):
        for path in _records(inbox, _BROKEN):
            transfer = _read(path)
            if transfer is not None and series in transfer.series:
                found = True
                transfer.series.remove(series)
                _write(path, transfer)
    return found


@contextmanager
def locked(inbox: Path) -> Iterator[None]:
    """One process at a time changes records of broken transfers."""
    folder = inbox / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / ".lock", "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class Transfers:
    """The records as the receiver keeps them. Not thread-safe: the caller locks."""

    def __init__(self, inbox: Path):
        self.inbox = inbox
        self._folder = inbox / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open: dict[str, Transfer] = {}
        self._kept: dict[str, dict[str, set[str]]] = {}
        self._last: dict[str, str] = {}
        self._written: dict[str, tuple[tuple[str, ...], bool]] = {}

    def begin(self, token: str, uid: str) -> None:
        """An instance begins to arrive."""
        self._open.setdefault(token, Transfer()).missing[uid] = ""

    def sends_to(self, token: str, series: str) -> None:
        """Hold the series, on disk, before a first instance of it is in its folder. Raises StorageError."""
        transfer = self._open.setdefault(token, Transfer())
        if series not in transfer.series:
            transfer.series.append(series)
        elif self._last.get(token) not in (None, series):
            transfer.mixed = True
        self._last[token] = series
        if self._written.get(token) != (tuple(transfer.series), transfer.mixed):
            self._save(token, transfer)

    def _save(self, token: str, transfer: Transfer) -> None:
        _write(self._folder / f"{token}{_OPEN}", transfer)
        self._written[token] = (tuple(transfer.series), transfer.mixed)

    def kept(self, token: str, uid: str, series: str) -> None:
        """An instance is in its folder."""
        self._open[token].missing.pop(uid, None)
        self._kept.setdefault(token, {}).setdefault(series, set()).add(uid)

    def failed(self, token: str, uid: str, series: str | None) -> None:
        """An instance could not be kept, and the sender was told so."""
        transfer = self._open.setdefault(token, Transfer())
        transfer.missing[uid] = series or ""
        if series and series not in transfer.series:
            transfer.series.append(series)
        # On a full disk memory still knows, and a kill leaves the earlier record as a broken one.
        with suppress(StorageError):
            self._save(token, transfer)

    def ended(self, token: str, released: bool, cut: str | None = None) -> None:
        """An association ended; `cut` is the series of the instance that did not arrive whole, where it is known."""
        transfer, kept = self._open.pop(token, None), self._kept.pop(token, {})
        self._last.pop(token, None)
        self._written.pop(token, None)
        if transfer is None:
            return
        if cut and cut not in transfer.series:
            transfer.series.append(cut)
        if released:
            self._resolve(kept)
        if released and not transfer.missing:
            (self._folder / f"{token}{_OPEN}").unlink(missing_ok=True)
            sync_directory(self._folder)
            return
        if released:
            # The sender went on to the end; what it could not leave here concerns single series.
            concerned = set(transfer.missing.values())
            if "" not in concerned:
                transfer.series = [series for series in transfer.series if series in concerned]
            transfer.mixed = True
        self._break(token, transfer)

    def recover(self, cut: dict[str, dict[str, str]]) -> int:
        """Take every open record for broken: the receiver before us was killed. How many series are held.

        Parameters
        ----------
        cut : mapping of token to mapping of instance to series
            Instances that were arriving then, with their series where it is known.
        """
        sweep_partials(self._folder)
        for path in _records(self.inbox, _OPEN):
            token = path.name.removesuffix(_OPEN)
            transfer = _read(path) or Transfer()
            self._add_cut(transfer, cut.pop(token, {}))
            self._break(token, transfer)
        for token, instances in cut.items():
            transfer = Transfer()
            self._add_cut(transfer, instances)
            self._break(token, transfer)
        return sum(state == "unfinished" for state in held(self.inbox).values())

    @staticmethod
    def _add_cut(transfer: Transfer, instances: dict[str, str]) -> None:
        transfer.missing.update(instances)
        transfer.series += [series for series in dict.fromkeys(instances.values()) if series]
        transfer.series = list(dict.fromkeys(transfer.series))

    def _break(self, token: str, transfer: Transfer) -> None:
        current = self._folder / f"{token}{_OPEN}"
        with locked(self.inbox):
            if not transfer.series:
                current.unlink(missing_ok=True)
                return
            try:
                _write(current, transfer)
            except StorageError:
                if not current.exists():
                    return  # nothing of it reached a folder
            current.rename(self._folder / f"{token}{_BROKEN}")
            sync_directory(self._folder)

    def _resolve(self, kept: dict[str, set[str]]) -> None:
        """Let go of series that an association which ended by release has completed."""
        came = set().union(*kept.values()) if kept else set()
        with locked(self.inbox):
            for path in _records(self.inbox, _BROKEN):
                transfer = _read(path)
                if transfer is None:
                    continue
                before = (list(transfer.series), dict(transfer.missing))
                for uid in list(transfer.missing):
                    if uid in came or any((self.inbox / s / f"{uid}.dcm").exists() for s in transfer.series):
                        del transfer.missing[uid]
                lacking = set(transfer.missing.values())
                whole = [s for s in transfer.series if s not in lacking and "" not in lacking]
                done = {series for series in whole if series in kept}
                if not transfer.mixed and transfer.series and transfer.series[-1] in done:
                    # It had sent one series after the other and was taken up where it stopped: those before are whole.
                    done.update(whole)
                transfer.series = [series for series in transfer.series if series not in done]
                if (transfer.series, transfer.missing) != before:
                    _write(path, transfer)


def _records(inbox: Path, suffix: str) -> list[Path]:
    # Half written ones begin with a dot, and pathlib's `*` would match them.
    return sorted(path for path in (inbox / FOLDER).glob(f"*{suffix}") if not path.name.startswith("."))


def _read(path: Path) -> Transfer | None:
    try:
        return Transfer(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(
            f"The record {path.name} of a transfer cannot be read.", "Check the inbox's disk; move the record away."
        ) from error


def _write(path: Path, transfer: Transfer) -> None:
    if transfer.series:
        write_text(path, json.dumps(asdict(transfer)), mode=0o600)
    else:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
