"""What is remembered of a bucket's objects, folder by folder, so that unchanged ones are not read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from redraft.security.pseudonyms import Pseudonyms
from redraft.sources.index import Seen, SourceIndex
from redraft.sources.s3.bucket import Entry


def by_folder(
    entries: Iterable[Entry], where: str, pseudonyms: Pseudonyms, index: SourceIndex | None
) -> Iterator[tuple[Folder, Entry]]:
    """Objects, each with what is remembered of the folder that it lies in.

    Keys come in order, so a folder is done when a key comes that does not begin with it: what is remembered of it and
    was not met is forgotten then.

    Parameters
    ----------
    where : str
        For which bucket and selection it is remembered.
    """
    open_folders: list[Folder] = []
    for entry in entries:
        parent = entry.key.rpartition("/")[0]
        while open_folders and not open_folders[-1].holds(parent):
            open_folders.pop().forget()
        if not open_folders or open_folders[-1].path != parent:
            open_folders.append(Folder(parent, pseudonyms.place_tag(f"{where}/{parent}"), index))
        yield open_folders[-1], entry
    for folder in open_folders:
        folder.forget()


class Folder:
    """The objects of one folder as they were when their headers were last read."""

    def __init__(self, path: str, place: bytes, index: SourceIndex | None):
        self.path = path
        self._place, self._index = place, index
        self._seen = {} if index is None else index.seen(place)
        self._met: set[bytes] = set()

    def holds(self, folder: str) -> bool:
        """Whether `folder` is this one or lies in it."""
        return not self.path or f"{folder}/".startswith(f"{self.path}/")

    def known(self, tag: bytes, stamp: str) -> Seen | None:
        """What is remembered of an object that has not changed since."""
        self._met.add(tag)
        seen = self._seen.get(tag)
        return seen if seen is not None and seen.stamp == stamp else None

    def keep(self, tag: bytes, seen: Seen) -> None:
        """Remember an object."""
        if self._index is not None:
            self._index.keep(self._place, [(tag, seen)])

    def forget(self) -> None:
        """Remember no more what was not met: it is gone from the bucket."""
        gone = [tag for tag in self._seen if tag not in self._met]
        if self._index is not None and gone:
            self._index.keep(self._place, [], gone)
