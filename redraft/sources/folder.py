"""Folder trees: files grouped into series by their headers, wherever they lie; unchanged files are not opened again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redraft.errors import ServiceError
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources.index import Seen, SourceIndex
from redraft.sources.protocol import Offer

# What lies beside images in every archive, and is no image.
ASIDE = re.compile(r"^(DICOMDIR|SHA256SUMS|SOURCE\.md|\..*)$")
NIFTI = (".nii", ".nii.gz")
# Headers are read in batches of this many files: large enough to cost no time, small enough to be read again singly.
BATCH = 64

# Reads headers: paths of one batch to (series pseudonym, None) or (None, rule), in order.
Scan = Callable[[Iterable[list[str]]], Iterator[list[tuple[str | None, str | None]]]]


@dataclass
class _Group:
    """The files of one series, kept small: names by folder, and a sum over all that may change."""

    names: dict[str, list[str]] = field(default_factory=dict)
    files: int = 0
    stamp: int = 0

    def add(self, folder: str, name: str, stamp: int) -> None:
        self.names.setdefault(folder, []).append(name)
        self.files += 1
        # A sum of keyed digests: the same for the same files in any order, and no list of them to keep.
        self.stamp = (self.stamp + stamp) % (1 << 128)

    def paths(self) -> list[Path]:
        return [Path(folder, name) for folder, names in self.names.items() for name in names]


class FolderSource:
    """DICOM series and NIfTI files below some folders; see redraft.sources.protocol.Source.

    Parameters
    ----------
    scan : function
        Reads the headers of new and changed files.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], pseudonyms: Pseudonyms, index: SourceIndex, scan: Scan
    ) -> None:
        self.name = name
        self._paths, self._pseudonyms, self._index, self._scan = paths, pseudonyms, index, scan

    def discover(self) -> Iterator[Offer]:
        """Series in the order of their pseudonyms, then single files; see Source."""
        series: dict[str, _Group] = {}
        single: list[Offer] = []
        waiting: list[tuple[str, str, bytes, str]] = []  # folder, name, tag, stamp of files to read

        def settle(folder: str, name: str, tag: bytes, seen: Seen) -> None:
            if seen.series is not None:
                series.setdefault(seen.series, _Group()).add(folder, name, self._number(tag, seen.stamp))
            else:
                single.append(self._stray(folder, name, seen))

        for folder, names in _walk(self._paths):
            place = self._pseudonyms.place_tag(folder)
            known = self._index.seen(place)
            gone = set(known)
            for name, stamp in names:
                tag = self._pseudonyms.place_tag(name)
                gone.discard(tag)
                if ASIDE.match(name):
                    single.append(self._stray(folder, name, Seen(stamp, None, "not_an_image")))
                elif name.endswith(NIFTI):
                    single.append(self._file(folder, name, stamp))
                elif (seen := known.get(tag)) is not None and seen.stamp == stamp:
                    settle(folder, name, tag, seen)
                else:
                    waiting.append((folder, name, tag, stamp))
            if gone:
                self._index.keep(place, [], sorted(gone))
        for folder, name, tag, seen in self._read(waiting):
            settle(folder, name, tag, seen)
        self._index.commit()
        for series_id in sorted(series):
            group = series.pop(series_id)
            paths = group.paths()
            yield Offer(series_id, f"{group.stamp:032x}", group.files, paths, shown=tuple(map(str, paths)))
        yield from single

    def fetch(self, offer: Offer, folder: Path) -> Sequence[Path]:
        """The files where they lie."""
        return list(offer.handle)

    def acknowledge(self, offer: Offer, verdicts: Sequence[str]) -> None:
        """A folder is left as it is."""

    def _read(self, waiting: list[tuple[str, str, bytes, str]]) -> Iterator[tuple[str, str, bytes, Seen]]:
        batches = [waiting[n : n + BATCH] for n in range(0, len(waiting), BATCH)]
        found = self._scan([os.path.join(folder, name) for folder, name, *_ in batch] for batch in batches)
        for batch, answers in zip(batches, found, strict=True):
            for (folder, name, tag, stamp), (series, rule) in zip(batch, answers, strict=True):
                seen = Seen(stamp, series, rule)
                self._index.keep(self._pseudonyms.place_tag(folder), [(tag, seen)])
                yield folder, name, tag, seen

    def _stray(self, folder: str, name: str, seen: Seen) -> Offer:
        path = os.path.join(folder, name)
        return Offer(
            self._pseudonyms.source_tag(path), self._pseudonyms.source_tag(seen.stamp), 1, [Path(path)],
            refused=seen.rule, shown=(path,),
        )  # fmt: skip

    def _file(self, folder: str, name: str, stamp: str) -> Offer:
        path = os.path.join(folder, name)
        return Offer(
            self._pseudonyms.source_tag(path), self._pseudonyms.source_tag(stamp), 1, [Path(path)], shown=(path,)
        )

    def _number(self, tag: bytes, stamp: str) -> int:
        return int.from_bytes(self._pseudonyms.place_tag(f"{tag.hex()}/{stamp}"), "big")


def _walk(paths: Sequence[Path]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Every folder below `paths` with its files and their stamps, each file once, in a stable order.

    Links to folders are not entered unless they are named; links to files are.
    """
    done: set[str] = set()
    single: dict[str, list[str]] = {}
    for start in paths:
        place = os.path.abspath(start)
        if os.path.isdir(place):
            todo = [place]
            while todo:
                folder = todo.pop()
                if folder in done:
                    continue
                done.add(folder)
                files, folders = _list(folder)
                todo += sorted(folders, reverse=True)
                yield folder, files
        else:
            single.setdefault(os.path.dirname(place), []).append(os.path.basename(place))
    for folder, names in single.items():
        if folder not in done:
            wanted = set(names)
            yield folder, [item for item in _list(folder)[0] if item[0] in wanted]


def _list(folder: str) -> tuple[list[tuple[str, str]], list[str]]:
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file():
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
