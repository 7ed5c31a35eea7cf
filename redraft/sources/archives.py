"""Archives of DICOM files (zip, tar, tar.gz), unpacked as if each had been made to do harm.

Members are written under a number and a pseudonym, never under their own names: no name can lead out of the folder. A
member that is refused has a rule; the others go on. What an archive may cost is bounded before and while it is read.
"""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from redraft.config.schema import Limits
from redraft.errors import StorageError
from redraft.file_names import ASIDE, NIFTI
from redraft.files import atomic_path, sweep_partials
from redraft.security.pseudonyms import Pseudonyms

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

# Rules by which something of unknown content is missing: no series of such an archive is known to be whole.
LOST = frozenset({"archive_damaged", "archive_encrypted", "archive_method", "archive_overlap", "archive_too_large"})

_CHUNK = 1024 * 1024
# One read of directory or header bytes: a zip directory of 200 000 members takes some 25 MB.
_LARGEST_READ = 32 * _CHUNK
# All that one tar header may hold: long names, and maps of sparse files that would otherwise grow as they are read.
_LARGEST_HEADER = _CHUNK
# Images seldom pack better than 1:5, an empty mask 1:1000; small archives are never bombs.
_RATIO = 200
_RATIO_FROM = 256 * _CHUNK
_DRIVE = re.compile(r"^[A-Za-z]:")
# Stored and deflated: the other methods are rare, and their decoders take what memory the member asks for.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class ArchiveLimits:
    """What one archive may cost."""

    unpacked_bytes: int
    members: int = 200_000

    @classmethod
    def of(cls, limits: Limits) -> ArchiveLimits:
        """As `ingest.limits` of project.yaml says."""
        return cls(limits.archive_mb * 1_000_000)


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes
    ----------
    number : int
        Its place in the archive from 0; -1 for the archive itself.
    path : Path, optional
        Where it was written; None when it was refused.
    rule : str, optional
        Why it was refused: archive_path (leads out, absolute, a drive letter), archive_link, archive_device,
        archive_duplicate (a name met before), archive_nested, archive_nifti (only its own name and folder would say
        what it shows), archive_encrypted, archive_method, archive_damaged, archive_overlap, archive_too_large,
        not_an_image.
    shown : str
        Its name, for the terminal of the person who called; without control characters.
    """

    number: int
    path: Path | None
    rule: str | None
    shown: str = field(repr=False, default="")


class _Damaged(Exception):
    """Bytes that are no archive, or that do not hold what the archive says of them."""


class _TooLarge(Exception):
    """More than the archive may cost."""


def is_archive(name: str) -> bool:
    """Whether a file name is that of an archive we unpack."""
    return name.lower().endswith(SUFFIXES)


def unpack(path: Path, folder: Path, limits: ArchiveLimits, pseudonyms: Pseudonyms) -> Iterator[Member]:
    """Unpack `path` into `folder` (made with mode 0700); every file in it has one Member, in the archive's order.

    Going over an archive again gives the same members under the same paths; a file appears under its name only when
    it is whole. Raises StorageError when the disk is full or the archive cannot be opened.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sweep_partials(folder)
    try:
        size, stream = path.stat().st_size, path.open("rb")
    except OSError as error:  # `from None`: the cause quotes the path
        raise StorageError(f"An archive cannot be opened ({error.strerror}).", "Check its permissions.") from None
    with ExitStack() as stack:
        stack.enter_context(stream)
        start = stream.read(4)
        stream.seek(0)
        out = _Out(folder, min(limits.unpacked_bytes, max(_RATIO_FROM, _RATIO * size)), pseudonyms)
        try:
            if start[:2] == b"PK":
                yield from _zip(stream, size, limits, out)
            else:
                source = stack.enter_context(gzip.GzipFile(fileobj=stream)) if start[:2] == b"\x1f\x8b" else stream
                yield from _tar(source, limits, out)
        except _Damaged:
            yield Member(-1, None, "archive_damaged")
        except _TooLarge:
            yield Member(-1, None, "archive_too_large")


@dataclass
class _Out:
    """Where members go, and what is left of the bytes that may be written."""

    folder: Path
    left: int
    pseudonyms: Pseudonyms
    names: set[str] = field(default_factory=set)

    def misplaced(self, name: str) -> str | None:
        """The rule that a member breaks by where its name leads."""
        parts = name.replace("\\", "/").split("/")
        if not name or parts[0] == "" or ".." in parts or "\0" in name or _DRIVE.match(name):
            return "archive_path"
        plain = "/".join(part for part in parts if part not in ("", "."))
        if not plain:
            return "archive_path"
        if plain in self.names:
            return "archive_duplicate"
        self.names.add(plain)
        return None

    def take(self, number: int, name: str, size: int, open_member: Callable[[], IO[bytes]]) -> Member:
        """Write one member of `size` bytes; whatever is wrong with it is its rule."""
        shown = printable(name)
        if size > self.left:
            return Member(number, None, "archive_too_large", shown)
        target = self.folder / f"{number:06d}-{self.pseudonyms.source_tag(name)}"
        try:
            with _reading():
                stream = open_member()
                data = stream.read(min(size, _CHUNK))
            if _packed(data):
                return Member(number, None, "archive_nested", shown)
            with atomic_path(target, mode=0o600) as partial, partial.open("wb") as file:
                done = 0
                while data:
                    done += len(data)
                    self.left -= len(data)
                    file.write(data)
                    with _reading():
                        data = stream.read(min(size - done, _CHUNK)) if done < size else b""
                with _reading():
                    # The end must be read too: there the checksum is compared, and a longer member shows.
                    if done != size or stream.read(1):
                        raise _Damaged
        except _Damaged:
            return Member(number, None, "archive_damaged", shown)
        return Member(number, target, None, shown)


class _reading:
    """Turn whatever the standard library raises for damaged bytes (a dozen unrelated types) into _Damaged."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # `from None`: these messages quote member names.
        if isinstance(error, Exception) and not isinstance(error, _Damaged | _TooLarge):
            raise _Damaged from None


class _Bounded:
    """A file for zipfile and tarfile that never reads more at once, nor further, than allowed.

    Attributes
    ----------
    left : int, optional
        Bytes that may still be read.
    """

    def __init__(self, stream: Any, largest: int, end: int | None = None):
        self._stream, self._largest, self._end = stream, largest, end
        self.left: int | None = None

    def read(self, count: int | None = -1) -> bytes:
        if count is None or count < 0:
            count = self._largest
        if count > self._largest or (self._end is not None and self._stream.tell() + count > self._end):
            raise _TooLarge
        if self.left is not None:
            self.left -= count
            if self.left < 0:
                raise _TooLarge
        return self._stream.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        # A seek in packed bytes unpacks everything before it.
        if self._end is not None and whence == 0 and offset > self._end:
            raise _TooLarge
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True


# -- zip ---------------------------------------------------------------------------------------------------------------
def _zip(stream: IO[bytes], size: int, limits: ArchiveLimits, out: _Out) -> Iterator[Member]:
    with _reading():
        archive = zipfile.ZipFile(_Bounded(stream, _LARGEST_READ))  # type: ignore[arg-type]
        members = archive.infolist()
        if len(members) > limits.members:
            raise _TooLarge
        overlapping = _overlapping(members, archive.start_dir)
    for number, info in enumerate(members):
        name = info.orig_filename  # `filename` is cut at a zero byte
        if info.filename.endswith("/") or (name.endswith("\\") and not info.file_size):
            continue
        rule = out.misplaced(name) or _zip_kind(info, number in overlapping) or _unfit(name)
        if rule is not None:
            yield Member(number, None, rule, printable(name))
        else:
            yield out.take(number, name, info.file_size, lambda info=info: archive.open(info))  # type: ignore[misc]


def _zip_kind(info: zipfile.ZipInfo, overlaps: bool) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "archive_link"
    if kind not in (0, stat.S_IFREG):
        return "archive_device"
    if info.flag_bits & 0x2041:  # encrypted, strongly encrypted, directory encrypted (APPNOTE 4.4.4)
        return "archive_encrypted"
    if info.compress_type not in _METHODS:
        return "archive_method"
    return "archive_overlap" if overlaps else None


def _overlapping(members: list[zipfile.ZipInfo], directory: int) -> set[int]:
    """Members whose packed bytes run into the next one's: a few bytes could so be unpacked any number of times."""
    order = sorted(range(len(members)), key=lambda n: members[n].header_offset)
    found = set()
    for n, after in zip(order, [*order[1:], None], strict=True):
        end = directory if after is None else members[after].header_offset
        # 30 bytes and the name are the least that a local header takes (APPNOTE 4.3.7).
        if members[n].header_offset + 30 + members[n].compress_size > end:
            found |= {n} if after is None else {n, after}
    return found


# -- tar ---------------------------------------------------------------------------------------------------------------
def _tar(source: Any, limits: ArchiveLimits, out: _Out) -> Iterator[Member]:
    # Headers and padding come on top; of members that are small they are the larger part.
    bounded = _Bounded(source, _CHUNK, 2 * out.left + _LARGEST_HEADER)
    bounded.left = _LARGEST_HEADER
    with _reading():
        archive = tarfile.TarFile(fileobj=bounded, mode="r")  # type: ignore[arg-type]
    number, offset = 0, 0
    while True:
        bounded.left = _LARGEST_HEADER
        with _reading():
            info = archive.next()
        if info is None:
            break
        bounded.left = None
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header
        if archive.offset <= offset:  # a negative size leads back, and round and round
            raise _Damaged
        offset = archive.offset
        if number >= limits.members:
            raise _TooLarge
        if not info.isdir():
            yield _tar_member(archive, info, number, out)
            number += 1
    bounded.left = None
    with _reading():
        # tarfile takes a damaged header for the end; the real end is a block of zeros (POSIX, ustar), with nothing but
        # zeros behind it. Reading on to the end also compares gzip's checksum.
        bounded.seek(archive.offset)
        tail = bounded.read(512)
        if len(tail) < 512:
            raise _Damaged
        while tail:
            if tail.count(0) != len(tail):
                raise _Damaged
            tail = bounded.read(_CHUNK)


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo, number: int, out: _Out) -> Member:
    rule = out.misplaced(info.name) or _tar_kind(info) or _unfit(info.name)
    if rule is not None:
        return Member(number, None, rule, printable(info.name))
    return out.take(number, info.name, info.size, lambda: archive.extractfile(info))  # type: ignore[arg-type,return-value]


def _tar_kind(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "archive_link"
    return None if info.isreg() and not info.issparse() else "archive_device"


# -- small things ------------------------------------------------------------------------------------------------------
def _packed(data: bytes) -> bool:
    """Whether bytes begin like an archive. A DICOM file may begin like anything: 128 bytes of preamble are its own."""
    if data[128:132] == b"DICM":
        return False
    return data[:4] in (b"PK\x03\x04", b"PK\x05\x06") or data[:2] == b"\x1f\x8b" or data[257:262] == b"ustar"


def _unfit(name: str) -> str | None:
    """The rule by which a member is not opened, by what its name says it is."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    if ASIDE.match(base):
        return "not_an_image"
    if base.lower().endswith(NIFTI):
        return "archive_nifti"
    return "archive_nested" if is_archive(base) else None


def printable(name: str) -> str:
    """A name that can do nothing to a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)
