"""Exams in a bucket: objects grouped into series by their headers; unchanged objects are not read again.

Of a new object only its beginning is read. Objects that a series consists of are fetched when it is its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from redraft.config.sources import S3Source as Section
from redraft.digest import sha256_json
from redraft.errors import TransferError
from redraft.file_names import ASIDE, NIFTI, is_label_file, nifti_stem
from redraft.selection import Selection
from redraft.sources.announced import not_as_announced
from redraft.sources.archives import ArchiveLimits, is_archive, printable
from redraft.sources.heads import FIRST_BYTES, MOST_BYTES, judge_bytes, judge_file
from redraft.sources.index import Seen
from redraft.sources.partial import PREFIX
from redraft.sources.protocol import Offer, SourceContext
from redraft.sources.s3.bucket import PART, Bucket, Entry
from redraft.sources.s3.remembered import Folder, by_folder
from redraft.sources.unpacked import NOT_WHOLE, Unpacked

AT_ONCE = 16
# Heads that are on their way or read and not yet settled.
_AHEAD = 256


class _Piece(NamedTuple):
    """An object of a series, or members of an archive."""

    entry: Entry
    numbers: tuple[int, ...] = ()


@dataclass
class _Group:
    """What a series consists of, and the rules that its pieces are under (None: wanted)."""

    pieces: list[tuple[Entry, int]] = field(default_factory=list)  # number -1: the object itself
    stamp: int = 0
    rules: set[str | None] = field(default_factory=set)

    def refused(self) -> str | None:
        if NOT_WHOLE in self.rules:
            return NOT_WHOLE
        return next(iter(self.rules)) if len(self.rules) == 1 else None

    def handle(self) -> tuple[_Piece, ...]:
        objects = [_Piece(entry) for entry, number in self.pieces if number < 0]
        archives: dict[Entry, list[int]] = {}
        for entry, number in self.pieces:
            if number >= 0:
                archives.setdefault(entry, []).append(number)
        return (*objects, *(_Piece(entry, tuple(numbers)) for entry, numbers in archives.items()))


class S3Source:
    """DICOM series, NIfTI images and archives below a prefix of a bucket; see redraft.sources.protocol.Source."""

    def __init__(self, section: Section, context: SourceContext):
        self.name = section.name
        self._section, self._context = section, context
        self._pseudonyms, self._index = context.pseudonyms, context.index
        self._bucket = Bucket(section, context)
        self._selection = Selection.of(section.wanted, context.resolve)
        # What is remembered of an object holds for this bucket and this selection.
        self._where = sha256_json([section.endpoint, section.bucket, self._selection.digest])
        self._unpacked = Unpacked(
            context.inbox.with_name("unpacked") / section.name, _limits(context), self._pseudonyms, self._index,
            partial(judge_file, pseudonyms=self._pseudonyms, selection=self._selection),
        )  # fmt: skip
        self._discovering = False

    # -- discover -----------------------------------------------------------------------------------------------------
    def discover(self) -> Iterator[Offer]:
        """Series, then single objects; series that share an archive follow one another. See Source."""
        series: dict[str, _Group] = {}
        single: list[Offer] = []
        archives: list[Entry] = []
        self._discovering = True
        try:
            for entry, seen in self._objects(archives, single):
                self._settle(series, single, entry, -1, seen, "")
            self._unpacked.clear([self._place(entry) for entry in archives])
            for entry in archives:
                try:
                    members = self._unpacked.members(*self._place(entry), partial(self._bucket.get, entry))
                except TransferError as error:  # one archive, not all of the bucket
                    single.append(self._single(entry, -1, error.rule, ""))
                    continue
                for held in members:
                    seen = Seen(_stamp(entry), held.series, held.rule)
                    self._settle(series, single, entry, held.number, seen, held.shown)
                self._commit()
            self._commit()
            for series_id in sorted(series, key=lambda one: (series[one].pieces[-1][1] >= 0, _first(series[one]), one)):
                group = series.pop(series_id)
                shown = tuple(dict.fromkeys(self._shown(entry) for entry, _ in group.pieces))
                yield Offer(series_id, f"{group.stamp:032x}", len(group.pieces), group.handle(), group.refused(), shown)
            yield from single
        finally:
            self._discovering = False
            self._unpacked.clear([self._place(entry) for entry in archives])

    def _objects(self, archives: list[Entry], single: list[Offer]) -> Iterator[tuple[Entry, Seen]]:
        """Every DICOM object with what its header says; the other objects go to the lists."""
        waiting: deque[tuple[Folder, Entry, Future[tuple[Seen, Entry] | None]]] = deque()
        read = 0

        def settled(all_of_them: bool) -> Iterator[tuple[Entry, Seen]]:
            nonlocal read
            while waiting and (all_of_them or len(waiting) >= _AHEAD):
                folder, listed, future = waiting.popleft()
                found = future.result()
                if found is None:
                    continue  # gone meanwhile: the bucket holds it no longer
                seen, entry = found
                folder.keep(self._pseudonyms.place_tag(listed.key), seen)
                read += 1
                if read % 1024 == 0:
                    self._commit()
                yield entry, seen

        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for folder, entry in by_folder(self._bucket.entries(), self._where, self._pseudonyms, self._index):
                    name = entry.key.rsplit("/", 1)[-1]
                    if ASIDE.match(name):
                        single.append(self._single(entry, -1, "not_an_image", ""))
                    elif name.endswith(NIFTI):
                        single.append(self._nifti(entry))
                    elif is_archive(name):
                        (single.append(self._single(entry, -1, "not_retrievable", "")) if entry.cold else
                         archives.append(entry))  # fmt: skip
                    elif (seen := folder.known(self._pseudonyms.place_tag(entry.key), _stamp(entry))) is not None:
                        yield entry, seen
                    elif entry.cold:
                        single.append(self._single(entry, -1, "not_retrievable", ""))
                    else:
                        waiting.append((folder, entry, pool.submit(self._head, entry)))
                    yield from settled(False)
                yield from settled(True)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _head(self, entry: Entry) -> tuple[Seen, Entry] | None:
        """What the header of an object says, of which no more is read than its header takes."""
        length = FIRST_BYTES
        while True:
            try:
                found = self._bucket.head(entry, length)
            except TransferError as error:
                return Seen("", None, error.rule), entry  # no stamp is empty: it is asked for again
            if found is None:
                return None
            data, entry = found
            answer = judge_bytes(data, len(data) >= entry.size, self._pseudonyms, self._selection)
            if answer is None and length >= MOST_BYTES:
                answer = (None, "header_too_large")
            if answer is not None:
                return Seen(_stamp(entry), *answer), entry
            length *= 4

    def _settle(
        self, series: dict[str, _Group], single: list[Offer], entry: Entry, number: int, seen: Seen, shown: str
    ) -> None:
        if seen.series is None:
            single.append(self._single(entry, number, seen.rule, shown))
            return
        group = series.setdefault(seen.series, _Group())
        group.pieces.append((entry, number))
        group.rules.add(seen.rule)
        tag = self._pseudonyms.place_tag(f"{entry.key}\0{number}\0{seen.stamp}")
        # A sum of keyed digests: the same for the same objects in any order.
        group.stamp = (group.stamp + int.from_bytes(tag, "big")) % (1 << 128)

    # -- fetch --------------------------------------------------------------------------------------------------------
    def fetch(self, offer: Offer, folder: Path) -> Sequence[Path]:
        """The objects as files named by pseudonyms; what is whole in `folder` is not fetched again. See Source."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        pieces: Sequence[_Piece] = offer.handle
        objects = {self._target(piece.entry, folder): piece.entry for piece in pieces if not piece.numbers}
        _remove_others(folder, objects)
        missing = {target: entry for target, entry in objects.items() if not _is_whole(target, entry)}
        small = [(target, entry) for target, entry in missing.items() if entry.size <= PART]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for _ in pool.map(lambda item: self._bucket.get(item[1], item[0]), small):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for target, entry in missing.items():
            if entry.size > PART:
                self._bucket.get(entry, target)
        paths = list(objects)
        for piece in pieces:
            if piece.numbers:
                bring = partial(self._bucket.get, piece.entry)
                paths += self._unpacked.link(*self._place(piece.entry), piece.numbers, bring, folder)
        if not self._discovering:
            self._unpacked.clear()
        if len(paths) != offer.files:
            do = "The next intake looks again."
            raise not_as_announced(self.name, offer, offer.files, len(paths), why="not every object came", do=do)
        return paths

    def acknowledge(self, offer: Offer, verdicts: Sequence[str]) -> None:
        """A bucket is left as it is."""

    # -- small things -------------------------------------------------------------------------------------------------
    def _place(self, entry: Entry) -> tuple[str, str]:
        """Of an archive: where it lies, for whom it is looked through, and its version."""
        return f"{self._where}/{entry.key}", _stamp(entry)

    def _target(self, entry: Entry, folder: Path) -> Path:
        name = entry.key.rsplit("/", 1)[-1]
        if not name.endswith(NIFTI):
            return folder / self._pseudonyms.place_tag(f"{entry.key}\0{_stamp(entry)}").hex()
        # A NIfTI image is known by its name, and read by its suffix.
        return folder / f"{self._stem(name)}{'.nii.gz' if name.endswith('.gz') else '.nii'}"

    def _stem(self, name: str) -> str:
        return self._pseudonyms.place_tag(f"nifti\0{nifti_stem(Path(name))}").hex()

    def _nifti(self, entry: Entry) -> Offer:
        if entry.cold:
            return self._single(entry, -1, "not_retrievable", "")
        if is_label_file(Path(entry.key)):
            return self._single(entry, -1, "label_not_an_image", "")
        series_id = self._pseudonyms.series_id(f"nifti/{self._stem(entry.key.rsplit('/', 1)[-1])}")
        version = self._pseudonyms.source_tag(f"{entry.key}\0{_stamp(entry)}")
        return Offer(series_id, version, 1, (_Piece(entry),), shown=(self._shown(entry),))

    def _single(self, entry: Entry, number: int, rule: str | None, shown: str) -> Offer:
        place = f"{self._where}/{entry.key}" + (f"\0{number}" if number >= 0 else "")
        tag = self._pseudonyms.source_tag
        where = self._shown(entry) + (f" › {shown or f'member {number + 1}'}" if number >= 0 else "")
        return Offer(tag(place), tag(_stamp(entry)), 1, (_Piece(entry),), rule, (where,))

    def _shown(self, entry: Entry) -> str:
        return printable(f"s3://{self._section.bucket}/{entry.key}")

    def _commit(self) -> None:
        if self._index is not None:
            self._index.commit()


def _stamp(entry: Entry) -> str:
    return f"{entry.size}/{entry.version}"


def _first(group: _Group) -> str:
    """The archive that a series lies in, if in one; series of one archive are fetched while it lies unpacked."""
    return next((entry.key for entry, number in group.pieces if number >= 0), "")


def _limits(context: SourceContext) -> ArchiveLimits:
    from redraft.config.schema import Limits

    return ArchiveLimits.of(context.limits or Limits())


def _is_whole(path: Path, entry: Entry) -> bool:
    try:
        return path.stat().st_size == entry.size
    except FileNotFoundError:
        return False


def _remove_others(folder: Path, objects: Iterable[Path]) -> None:
    """Remove what an earlier version of the series left; what is on its way stays."""
    names = {path.name for path in objects}
    for path in folder.iterdir():
        if path.name not in names and not path.name.startswith(PREFIX):
            path.unlink(missing_ok=True)
