"""What `redraft receive` was sent, as a source: series whose transfer ended well and that have grown quiet."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from redraft.config.sources import ReceiveSource
from redraft.digest import sha256_json
from redraft.errors import StorageError, TransferError
from redraft.files import sync_directory, write_text
from redraft.sources.protocol import Offer, SourceContext
from redraft.sources.receive.transfers import held

INCOMING = ".incoming"
REFUSED = "refused"
LEAVING = ".leaving"

# Name, size and change time of a file.
Listing = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Waiting:
    """A series in the inbox. `state`: `ready`, `arriving` (not quiet yet), `open`, `unfinished` or `refused`."""

    series_id: str
    files: int
    state: str


def inbox_folder(section: ReceiveSource, context: SourceContext) -> Path:
    """Where a `receive` source keeps what it was sent. Raises ConfigError for a folder inside the project.

    Two sources without a `folder` of their own have one inbox each.
    """
    return context.resolve(context.inbox / section.name if section.folder is None else section.folder)


class InboxSource:
    """Series of an inbox; see redraft.sources.protocol.Source.

    Parameters
    ----------
    folder : Path
        The inbox, see `inbox_folder`.
    now : function
        Seconds since the epoch, compared with the files' times.
    keep_days : int, optional
        How long refused instances stay; for ever when omitted.
    """

    def __init__(
        self, section: ReceiveSource, folder: Path, now: Callable[[], float] = time.time, keep_days: int | None = None
    ):
        self.name = section.name
        self._folder, self._quiet, self._now = folder, section.quiet_seconds, now
        self._keep_days = keep_days

    def discover(self) -> Iterator[Offer]:
        """Series that no association holds and in which nothing changed for `quiet_seconds`.

        Refused instances that are older than `keep_days` go first.
        """
        self.purge()
        for leaving in sorted((self._folder / LEAVING).glob("[!.]*.json")):
            self._leave(leaving)  # an earlier intake was killed
        for series in self._series():
            offer = self._offer(series)
            if offer is not None:
                yield offer

    def fetch(self, offer: Offer, folder: Path) -> Sequence[Path]:
        """The files where they lie. Raises TransferError where the series changed since it was offered."""
        now = self._offer(offer.series_id)
        if now is None or now.version != offer.version:
            raise TransferError(
                f"Series {offer.series_id} changed in the inbox of {self.name} since it was offered.",
                "Nothing: the next intake takes it when its transfer has ended.", rule="changed_meanwhile",
            )  # fmt: skip
        return [self._folder / offer.series_id / name for name, _, _ in offer.handle]

    def acknowledge(self, offer: Offer, verdicts: Sequence[str]) -> None:
        """Remove the files that were offered; of a refused series they move to ``refused/<series>`` instead.

        Files that came since stay and make a new offer. What was refused before under this name goes: this
        transmission supersedes it.
        """
        if not verdicts:
            return
        try:
            # Written down before the first file goes: half a series that a kill leaves here is never offered.
            leaving = self._folder / LEAVING / f"{offer.series_id}.json"
            leaving.parent.mkdir(mode=0o700, exist_ok=True)
            content = {"refused": "refused" in verdicts, "files": [list(entry) for entry in offer.handle]}
            write_text(leaving, json.dumps(content), mode=0o600)
            self._leave(leaving)
        except OSError as error:
            raise StorageError(
                f"Series {offer.series_id} cannot be cleared from the inbox of {self.name} ({error.strerror}).",
                "Check the inbox's disk and permissions.",
            ) from None

    def _leave(self, leaving: Path) -> None:
        """Do what was written down; a second time does no harm."""
        content = json.loads(leaving.read_text(encoding="utf-8"))
        series, refused = self._folder / leaving.stem, self._folder / REFUSED / leaving.stem
        names = {name for name, _, _ in content["files"]} if content["refused"] else set()
        if names:
            refused.mkdir(mode=0o700, parents=True, exist_ok=True)
            refused.parent.chmod(0o700)
        for name, size, changed in content["files"]:
            path = series / name
            try:
                state = path.stat()
                if (state.st_size, state.st_mtime_ns) != (size, changed):
                    continue  # sent again since, with other content
                if content["refused"]:
                    os.replace(path, refused / name)
                else:
                    path.unlink()
            except FileNotFoundError:
                continue  # an earlier call came as far as this
        if refused.is_dir():
            for path in refused.iterdir():
                if path.name not in names:
                    path.unlink(missing_ok=True)
            if not names:
                refused.rmdir()
        with contextlib.suppress(OSError):  # more has come since
            series.rmdir()
        sync_directory(self._folder)
        leaving.unlink(missing_ok=True)

    def purge(self) -> int:
        """Remove refused instances that arrived more than `keep_days` days ago; how many went."""
        if self._keep_days is None or not (self._folder / REFUSED).is_dir():
            return 0
        oldest, count = self._now() - self._keep_days * 86_400, 0
        for series in sorted((self._folder / REFUSED).iterdir()):
            for name, _, arrived in _list(series):
                if arrived / 1e9 < oldest:
                    try:
                        (series / name).unlink(missing_ok=True)
                    except OSError as error:
                        what = f"Refused instances in the inbox of {self.name} cannot be removed ({error.strerror})."
                        raise StorageError(what, "Check the inbox's permissions.") from None
                    count += 1
            with contextlib.suppress(OSError):  # younger ones are left
                series.rmdir()
        return count

    def waiting(self) -> list[Waiting]:
        """Everything in the inbox, with its state."""
        holds = held(self._folder)
        found = []
        for series in self._series():
            listing = _list(self._folder / series)
            state = holds.get(series) or ("ready" if self._is_quiet(listing) else "arriving")
            if listing:
                found.append(Waiting(series, len(listing), state))
        refused = self._folder / REFUSED
        for path in sorted(refused.iterdir()) if refused.is_dir() else []:
            found.append(Waiting(path.name, len(_list(path)), "refused"))
        return found

    def _offer(self, series: str) -> Offer | None:
        # The listing comes first: what arrives after it is in a later listing, and held before it is in a folder.
        listing = _list(self._folder / series)
        if not listing or series in held(self._folder) or not self._is_quiet(listing):
            return None
        return Offer(
            series, sha256_json([[name, size, str(changed)] for name, size, changed in listing]), len(listing), listing
        )

    def _is_quiet(self, listing: Listing) -> bool:
        return bool(listing) and self._now() - max(changed for _, _, changed in listing) / 1e9 >= self._quiet

    def _series(self) -> list[str]:
        if not self._folder.is_dir():
            return []  # nothing was ever received
        try:
            names = os.listdir(self._folder)
        except OSError as error:
            raise StorageError(
                f"The inbox of {self.name} cannot be read ({error.strerror}).", "Check its permissions."
            ) from None
        return sorted(n for n in names if n != REFUSED and not n.startswith(".") and (self._folder / n).is_dir())


def _list(folder: Path) -> Listing:
    entries = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.endswith(".dcm") and entry.is_file(follow_symlinks=False):
                    state = entry.stat(follow_symlinks=False)
                    entries.append((entry.name, state.st_size, state.st_mtime_ns))
    except FileNotFoundError:
        pass  # taken away meanwhile
    return tuple(sorted(entries))
