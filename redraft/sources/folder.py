"""Folder trees: files grouped into series by their headers, wherever they lie; unchanged files are not opened again."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from redraft.errors import ServiceError
from redraft.file_names import ASIDE, NIFTI, is_label_file, nifti_stem
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources.archives import is_archive
from redraft.sources.index import Seen, SourceIndex
from redraft.sources.protocol import Offer
from redraft.sources.unpacked import Held, Unpacked

# Headers are read in batches of this many files: large enough to cost no time, small enough to be read again singly.
BATCH = 64

# Whether this is refused the project decides, and it may have changed its mind: such files are read again.
NAMELESS = "missing_series_uid"
# Files that the machine did not give or could not read this time: they are read again.
UNREAD = frozenset({"read_failed", "reader_died", "reader_failed", "time_limit", "memory_limit"})
# Files that are or may be DICOM, and do not say of which series: it could be any that lies beside them. Its last slice
# missing, a series looks whole, so no series with files in such a folder is known to be.
DOUBTFUL = UNREAD | {"truncated", "malformed", "unreadable", "nesting", "elements", "inflated_size"}
NOT_WHOLE = "folder_not_whole"

# Reads headers: paths of one batch to (series pseudonym, None) or (None, rule), in order.
Scan = Callable[[Iterable[list[str]]], Iterator[list[tuple[str | None, str | None]]]]


class _Archive(NamedTuple):
    path: str
    stamp: str


@dataclass
class _Group:
    """The files of one series, kept small: names by folder, and a sum over all that may change."""

    names: dict[str, list[str]] = field(default_factory=dict)
    members: dict[_Archive, list[int]] = field(default_factory=dict)
    files: int = 0
    stamp: int = 0
    refused: str | None = None

    def add(self, folder: str, name: str, stamp: int) -> None:
        self.names.setdefault(folder, []).append(name)
        self.files += 1
        # A sum of keyed digests: the same for the same files in any order, and no list of them to keep.
        self.stamp = (self.stamp + stamp) % (1 << 128)

    def add_member(self, archive: _Archive, number: int, rule: str | None, stamp: int) -> None:
        self.members.setdefault(archive, []).append(number)
        self.files += 1
        self.refused = self.refused or rule
        self.stamp = (self.stamp + stamp) % (1 << 128)

    def paths(self) -> list[Path]:
        return [Path(folder, name) for folder, names in self.names.items() for name in names]


class _New(NamedTuple):
    folder: str
    name: str
    place: bytes
    tag: bytes
    stamp: str


class FolderSource:
    """DICOM series and NIfTI files below some folders; see redraft.sources.protocol.Source.

    Parameters
    ----------
    scan : function
        Reads the headers of new and changed files.
    unpacked : Unpacked, optional
        Where archives are unpacked; without it they are refused.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], pseudonyms: Pseudonyms, index: SourceIndex, scan: Scan,
        unpacked: Unpacked | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self._paths, self._pseudonyms, self._index, self._scan = paths, pseudonyms, index, scan
        self._unpacked = unpacked

    def discover(self) -> Iterator[Offer]:
        """Series in the order of their pseudonyms, then single files; see Source."""
        series: dict[str, _Group] = {}
        single: list[Offer] = []
        archives: list[_Archive] = []
        pending: deque[list[_New]] = deque()
        doubtful: set[str] = set()

        def settle(folder: str, name: str, tag: bytes, seen: Seen) -> None:
            if seen.rule in DOUBTFUL:
                doubtful.add(folder)
            if seen.series is not None:
                series.setdefault(seen.series, _Group()).add(folder, name, self._number(tag, seen.stamp))
            else:
                single.append(self._single(folder, name, seen.stamp, seen.rule))

        def unread() -> Iterator[list[str]]:
            """Walk; settle what is known; hand out the rest in batches, which are read while the walk goes on."""
            batch: list[_New] = []
            for folder, names, whole in _walk(self._paths):
                place = self._pseudonyms.place_tag(folder)
                known = self._index.seen(place)
                gone = set(known)
                for name, stamp in names:
                    tag = self._pseudonyms.place_tag(name)
                    gone.discard(tag)
                    if ASIDE.match(name):
                        single.append(self._single(folder, name, stamp, "not_an_image"))
                    elif name.endswith(NIFTI):
                        single.append(self._single(folder, name, stamp, None))
                    elif self._unpacked is not None and is_archive(name):
                        archives.append(_Archive(os.path.join(folder, name), stamp))
                    elif (seen := known.get(tag)) is not None and seen.stamp == stamp and seen.rule != NAMELESS:
                        settle(folder, name, tag, seen)
                    else:
                        batch.append(_New(folder, name, place, tag, stamp))
                    if len(batch) == BATCH:
                        pending.append(batch)
                        yield [os.path.join(new.folder, new.name) for new in batch]
                        batch = []
                if whole and gone:
                    self._index.keep(place, [], sorted(gone))
            if batch:
                pending.append(batch)
                yield [os.path.join(new.folder, new.name) for new in batch]

        for answers in self._scan(unread()):
            for new, (found, rule) in zip(pending.popleft(), answers, strict=True):
                seen = Seen(new.stamp, found, rule)
                if rule not in UNREAD:
                    self._index.keep(new.place, [(new.tag, seen)])
                settle(new.folder, new.name, new.tag, seen)
        for archive in archives:
            single += self._members(archive, series)
        self._index.commit()
        for series_id in sorted(series):
            group = series.pop(series_id)
            paths = group.paths()
            shown = (*map(str, paths), *(archive.path for archive in group.members))
            handle = (paths, group.members)
            doubt = None if doubtful.isdisjoint(group.names) else NOT_WHOLE
            yield Offer(series_id, f"{group.stamp:032x}", group.files, handle, group.refused, shown, doubt)
        yield from single

    def fetch(self, offer: Offer, folder: Path) -> Sequence[Path]:
        """The files where they lie; members of archives unpacked into `folder`."""
        paths, members = offer.handle
        found = list(paths)
        if members:
            assert self._unpacked is not None
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for archive, numbers in members.items():
                found += self._unpacked.link(archive.path, archive.stamp, numbers, _linked(archive), folder)
        return found

    def _members(self, archive: _Archive, series: dict[str, _Group]) -> Iterator[Offer]:
        """Put an archive's members to their series; what belongs to none is an offer of its own."""
        assert self._unpacked is not None
        folder, name = os.path.split(archive.path)
        for held in self._unpacked.members(archive.path, archive.stamp, _linked(archive)):
            number = self._number(self._pseudonyms.place_tag(f"{name}\0{held.number}"), archive.stamp)
            if held.series is not None:
                series.setdefault(held.series, _Group()).add_member(archive, held.number, held.rule, number)
            else:
                yield self._single(folder, name, archive.stamp, held.rule, held)

    def acknowledge(self, offer: Offer, verdicts: Sequence[str]) -> None:
        """A folder is left as it is."""

    def _single(self, folder: str, name: str, stamp: str, rule: str | None, held: Held | None = None) -> Offer:
        path = os.path.join(folder, name)
        tag = self._pseudonyms.source_tag
        # A NIfTI image is known by its name, so that two of one name are two offers of one series.
        image = rule is None and not is_label_file(Path(path))
        series_id = self._pseudonyms.series_id(f"nifti/{nifti_stem(Path(name))}") if image else tag(path)
        shown = path
        if held is not None and held.number >= 0:
            series_id = tag(f"{path}\0{held.number}")
            shown = f"{path} › {held.shown or f'member {held.number + 1}'}"
        return Offer(series_id, tag(stamp), 1, ([Path(path)], {}), refused=rule, shown=(shown,))

    def _number(self, tag: bytes, stamp: str) -> int:
        return int.from_bytes(self._pseudonyms.place_tag(f"{tag.hex()}/{stamp}"), "big")


def _linked(archive: _Archive) -> Callable[[Path], None]:
    """Archives of a folder need not be brought: a link does."""
    return lambda target: target.symlink_to(archive.path)


def _walk(paths: Sequence[Path]) -> Iterator[tuple[str, list[tuple[str, str]], bool]]:
    """Every folder below `paths`: its files with their stamps, and whether those are all of its files.

    Each file once, in a stable order. Links to folders are not entered unless they are named; links to files are.
    """
    done: set[str] = set()
    single: dict[str, set[str]] = {}
    for start in paths:
        place = os.path.abspath(start)
        if not os.path.isdir(place):
            single.setdefault(os.path.dirname(place), set()).add(os.path.basename(place))
            continue
        todo = [place]
        while todo:
            folder = todo.pop()
            if folder not in done:
                done.add(folder)
                files, folders = _list(folder)
                todo += sorted(folders, reverse=True)
                yield folder, files, True
    for folder, names in single.items():
        if folder not in done:
            yield folder, [item for item in _list(folder)[0] if item[0] in names], False


def _list(folder: str) -> tuple[list[tuple[str, str]], list[str]]:
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif _is_file(entry):
                    state = entry.stat()
                    # ctime and inode change when a file is replaced by one of the same size and a forged mtime.
                    stamp = f"{state.st_size}/{state.st_mtime_ns}/{state.st_ctime_ns}/{state.st_ino}"
                    files.append((entry.name, stamp))
    except OSError as error:
        # `from None`: the cause quotes the clear path. Leaving the folder out silently would lose exams.
        raise ServiceError(
            f"A folder below the source cannot be read ({error.strerror}).", "Check its permissions and the disk."
        ) from None
    return sorted(files), folders


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:  # links that lead to each other lead to no file
            return False
        raise
