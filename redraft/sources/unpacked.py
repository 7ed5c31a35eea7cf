"""Archives of a source, unpacked one after the other within a budget: whose series their members are, and the files.

What an archive held is remembered by its version, so that one that did not change is neither fetched nor unpacked.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redraft.errors import TransferError
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources.archives import LOST, ArchiveLimits, unpack
from redraft.sources.index import Seen, SourceIndex
from redraft.sources.partial import PREFIX

# Rule of series in an archive of which a part is missing: nobody can tell which series it belonged to.
NOT_WHOLE = "archive_not_whole"

# Header of one file to (series pseudonym, rule): (None, rule) where it has none, both where the series is refused.
Judge = Callable[[Path], tuple[str | None, str | None]]


@dataclass(frozen=True)
class Held:
    """One member of an archive: its number, its series (None where `rule` says why), and its name where it is known."""

    number: int
    series: str | None
    rule: str | None
    shown: str = field(repr=False, default="")


class Unpacked:
    """Archives of one source in a folder outside of the project (made with mode 0700).

    Parameters
    ----------
    budget : ArchiveLimits
        What one archive may unpack to; also what lies in `folder` before the oldest is removed.
    judge : function
        Reads the header of an unpacked member.
    """

    def __init__(
        self, folder: Path, budget: ArchiveLimits, pseudonyms: Pseudonyms, index: SourceIndex | None, judge: Judge
    ):
        self._folder, self._budget, self._pseudonyms, self._index = folder, budget, pseudonyms, index
        self._judge = judge
        self._sizes: dict[str, int] = {}  # of what lies here, oldest first

    def members(self, place: str, version: str, bring: Callable[[Path], None]) -> list[Held]:
        """What the archive at `place` holds, from memory or by unpacking it; every file of it once.

        Parameters
        ----------
        bring : function
            Brings the archive to a path; what it left there when it was interrupted stays for its next call.
        """
        tag = self._pseudonyms.place_tag(place)
        known = self._index.seen(tag) if self._index else {}
        whole = known.pop(_ALL, None)
        if whole is not None and whole.stamp == version:
            return [Held(int.from_bytes(n, "big", signed=True), s.series, s.rule) for n, s in sorted(known.items())]
        found = list(self._unpack(place, version, bring))
        if any(held.rule in LOST for held in found):
            found = [Held(h.number, h.series, NOT_WHOLE, h.shown) if h.series else h for h in found]
        if self._index is not None:
            rows = [(_number(held.number), Seen(version, held.series, held.rule)) for held in found]
            gone = [number for number in known if number not in {row[0] for row in rows}]
            # The mark that all are there comes with them: they are committed together.
            self._index.keep(tag, [*rows, (_ALL, Seen(version, None, None))], gone)
        return found

    def link(
        self, place: str, version: str, numbers: Sequence[int], bring: Callable[[Path], None], folder: Path
    ) -> list[Path]:
        """Members as files in `folder`. Raises TransferError where one is not there as it was."""
        name = self._name(place, version)
        if name not in self._sizes:
            for _ in self._unpack(place, version, bring):
                pass
        files = {int(path.name.split("-")[0]): path for path in (self._folder / name).iterdir()}
        paths = []
        for number in numbers:
            if number not in files:
                raise TransferError(
                    "An archive no longer holds what it held.", "The next intake looks again.", rule="changed_meanwhile"
                )
            target = folder / f"{name}-{number:06d}"
            if not target.exists():
                try:
                    os.link(files[number], target)
                except OSError:  # another disk
                    partial = folder / f".partial-{target.name}"
                    shutil.copyfile(files[number], partial)
                    os.replace(partial, target)
            paths.append(target)
        return paths

    def clear(self, arriving: Sequence[tuple[str, str]] = ()) -> None:
        """Remove what lies unpacked; and archives that were interrupted on their way, but for those given."""
        self._sizes.clear()
        names = [self._name(place, version) for place, version in arriving]
        stay = tuple(f"{start}{name}.archive" for name in names for start in ("", PREFIX))
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif not (stay and path.name.startswith(stay)):
                    path.unlink(missing_ok=True)

    def _unpack(self, place: str, version: str, bring: Callable[[Path], None]) -> Iterator[Held]:
        name = self._name(place, version)
        archive, folder = self._folder / f"{name}.archive", self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(folder, ignore_errors=True)
        if not archive.exists():  # under this name it is whole, and of this version
            bring(archive)
        size = 0
        for member in unpack(archive, folder, self._budget, self._pseudonyms):
            if member.path is None:
                yield Held(member.number, None, member.rule, member.shown)
            else:
                size += member.path.stat().st_size
                yield Held(member.number, *self._judge(member.path), member.shown)
        archive.unlink()
        self._sizes[name] = size
        while len(self._sizes) > 1 and sum(self._sizes.values()) > self._budget.unpacked_bytes:
            oldest = next(iter(self._sizes))
            del self._sizes[oldest]
            shutil.rmtree(self._folder / oldest, ignore_errors=True)

    def _name(self, place: str, version: str) -> str:
        return self._pseudonyms.place_tag(f"{place}\0{version}").hex()


_ALL = b"all"


def _number(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)
