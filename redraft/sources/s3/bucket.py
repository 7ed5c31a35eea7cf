"""Objects of a bucket: listed, begun, and brought to a file so that what lies there is whole and what was sent.

The three verbs of a tree of files whose files lie elsewhere: `entries`, `head`, `get`. Object keys may hold patients'
names: they are in no error, log or file name.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from redraft.config.sources import S3Source as Section
from redraft.errors import ServiceError, StorageError, TransferError
from redraft.sources.partial import PartialFile
from redraft.sources.protocol import SourceContext
from redraft.sources.retry import NotNow, gave_up, persist
from redraft.sources.s3.checksums import Expected, mismatch
from redraft.sources.s3.client import Cold, Gone, explained, open_client, what

PART = 16 * 1024 * 1024
PARTS_AT_ONCE = 4
# Storage classes whose objects their owner must restore before they can be read.
COLD = frozenset({"GLACIER", "DEEP_ARCHIVE"})

# Read at once; what of it had come is lost when the connection breaks.
_CHUNK = 64 * 1024
Answer = TypeVar("Answer")


class Entry(NamedTuple):
    """One object as it was listed.

    Attributes
    ----------
    key : str
        In clear: never stored, logged or part of an error.
    version : str
        ETag (RFC 9110 8.8.3) without quotes, or `time:` and the time of the last change where the endpoint gives none.
    size : int
        Bytes.
    cold : bool
        Whether it lies in a storage class that cannot be read at once.
    """

    key: str
    version: str
    size: int
    cold: bool = False

    @property
    def etag(self) -> str | None:
        return None if self.version.startswith("time:") else self.version


@dataclass
class _Part:
    """One part on its way: `have` bytes of it are written."""

    number: int
    first: int
    size: int
    have: int = 0
    told: Expected | None = None


class _Stopped(Exception):
    """A part that is no longer wanted, since another failed."""


class Bucket:
    """The objects below the prefix of one source of project.yaml.

    Every method raises ServiceError, in words, when the endpoint does not answer after `retry.attempts` attempts or
    refuses; the error names the source, the bucket and the endpoint's host.
    """

    def __init__(self, section: Section, context: SourceContext):
        self._section, self._context = section, context

    @cached_property
    def _client(self) -> Any:
        return open_client(self._section, self._context)

    # -- the three verbs ----------------------------------------------------------------------------------------------
    def entries(self) -> Iterator[Entry]:
        """Every object below the prefix in the endpoint's order (by key); marks of folders are left out."""
        ask: dict[str, Any] = {"Bucket": self._section.bucket, "Prefix": self._section.prefix}
        while True:
            page = self._ask(lambda: self._client.list_objects_v2(**ask))
            for item in page.get("Contents", ()):
                if item["Key"].endswith("/") and not item["Size"]:
                    continue
                version = (item.get("ETag") or "").strip('"') or f"time:{item['LastModified']}"
                yield Entry(item["Key"], version, item["Size"], item.get("StorageClass") in COLD)
            if not page.get("IsTruncated"):
                return
            if not page.get("NextContinuationToken"):
                raise ServiceError(
                    f"A listing that is not whole does not say where it goes on: {what(self._section)}.",
                    "Use an endpoint that lists objects as S3 does (ListObjectsV2).",
                )
            ask["ContinuationToken"] = page["NextContinuationToken"]

    def head(self, entry: Entry, length: int) -> tuple[bytes, Entry] | None:
        """The first `length` bytes of an object, and the object as it is now; None when it is gone meanwhile."""
        if not entry.size:
            return b"", entry

        def ask() -> tuple[bytes, Entry]:
            span = f"bytes=0-{min(length, entry.size) - 1}"
            answer = self._client.get_object(Bucket=self._section.bucket, Key=entry.key, Range=span)
            # "bytes 0-99/1234" (RFC 9110 14.4); an endpoint that does not know ranges sends all of it.
            whole = answer.get("ContentRange", "").rpartition("/")[2]
            size = int(whole) if whole.isdigit() else answer["ContentLength"]
            version = (answer.get("ETag") or "").strip('"') if entry.etag else entry.version
            with contextlib.closing(answer["Body"]) as body:
                data = b"".join(_pieces(body, min(length, size)))
            return data, Entry(entry.key, version or entry.version, size)

        try:
            return self._ask(ask)
        except Gone:
            return None
        except Cold:
            raise not_retrievable(self._section) from None

    def get(self, entry: Entry, target: Path) -> None:
        """Bring an object to `target`: whole, compared with every checksum the endpoint gives, renamed into place.

        What an interrupted call brought lies beside `target` and is not fetched again while the object's ETag is the
        same. Raises TransferError (`changed_meanwhile`, `not_retrievable`, or after a second try `checksum`) and
        StorageError.
        """
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            for _ in range(2):
                wrong = self._bring(entry, target)
                if wrong is None:
                    return
        except Gone:
            raise TransferError(
                f"An object of {what(self._section)} was replaced or removed while it was fetched.",
                "The next intake fetches what is there then.", rule="changed_meanwhile",
            ) from None  # fmt: skip
        except Cold:
            raise not_retrievable(self._section) from None
        except OSError as error:
            raise StorageError(
                f"What {what(self._section)} sends cannot be written ({error.strerror}).",
                "Free disk space, then run the command again; it goes on where it stopped.",
            ) from None
        raise TransferError(
            f"An object of {what(self._section)} arrived altered twice ({wrong} differs).",
            "Compare its checksum at the source; store it again if it is wrong there.",
            rule="checksum", measured={"bytes": entry.size, "differs": wrong},
        )  # fmt: skip

    # -- bringing -----------------------------------------------------------------------------------------------------
    def _bring(self, entry: Entry, target: Path) -> str | None:
        """Bring what is missing, compare and publish; what differs when something does (everything is dropped then)."""
        file = PartialFile(target, f"{entry.version}/{entry.size}/{PART}")
        try:
            expected = self._small(entry, file) if entry.size <= PART else self._large(entry, file)
            file.cut(entry.size)
            wrong = mismatch(file.path, expected)
            if wrong is None:
                file.publish()
            else:
                file.discard()
            return wrong
        finally:
            file.close()

    def _small(self, entry: Entry, file: PartialFile) -> Expected:
        part = _Part(0, 0, entry.size)
        self._ask(lambda: self._read(entry, file, part), lambda: part.have)
        assert part.told is not None  # a part from the first byte to the last is answered with its checksums
        if entry.etag and "-" in entry.etag:
            return self._ask(lambda: self._describe(entry))
        return part.told

    def _large(self, entry: Entry, file: PartialFile) -> Expected:
        expected = self._ask(lambda: self._describe(entry))
        stop = threading.Event()

        def bring(number: int) -> None:
            part = _Part(number, number * PART, min(PART, entry.size - number * PART))
            self._ask(lambda: self._read(entry, file, part, stop), lambda: part.have, stop.wait)
            file.done(number)

        missing = [number for number in range(-(-entry.size // PART)) if number not in file.whole]
        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            running = [pool.submit(bring, number) for number in missing]
            try:
                for one in running:
                    one.result()
            except BaseException as first:
                stop.set()
                for one in running:
                    one.cancel()
                causes = [one.exception() for one in running if not one.cancelled()]
                # What stopped because another failed says nothing.
                raise next((e for e in causes if e is not None and not isinstance(e, _Stopped)), first) from None
        return expected

    def _read(self, entry: Entry, file: PartialFile, part: _Part, stop: threading.Event | None = None) -> None:
        """Bring a part, going on behind what is here of it."""
        ask: dict[str, Any] = {"Bucket": self._section.bucket, "Key": entry.key}
        if entry.etag:
            ask["IfMatch"] = f'"{entry.etag}"'
        start = part.first + part.have
        if (whole := part.size == entry.size) and not start:
            ask["ChecksumMode"] = "ENABLED"
        else:
            ask["Range"] = f"bytes={start}-{part.first + part.size - 1}"
        if stop is not None and stop.is_set():
            raise _Stopped
        answer = self._client.get_object(**ask)
        with contextlib.closing(answer["Body"]) as body:
            if "Range" in ask and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise ServiceError(
                    f"Parts of objects are not sent by {what(self._section)}.", "Use an endpoint that knows ranges."
                )
            if whole and part.told is None:
                part.told = Expected.of(answer, entry.size, entry.etag, self._section.bucket)
            for data in _pieces(body, part.size - part.have):
                if stop is not None and stop.is_set():
                    raise _Stopped
                file.write(part.first + part.have, data)
                part.have += len(data)

    def _describe(self, entry: Entry) -> Expected:
        """What the endpoint says an object is."""
        ask: dict[str, Any] = {"Bucket": self._section.bucket, "Key": entry.key}
        same = {"IfMatch": f'"{entry.etag}"'} if entry.etag else {}
        answer = self._client.head_object(**ask, **same, ChecksumMode="ENABLED")
        part = None
        if entry.etag and "-" in entry.etag:
            try:
                first = self._client.head_object(**ask, PartNumber=1)
                part = (int(first["ContentLength"]), int(first["PartsCount"]))
            except Exception as error:
                # Not every endpoint knows parts; where it does not, the ETag of a multipart upload says nothing.
                if isinstance(reason := explained(error, self._section), NotNow):
                    raise reason from None
        return Expected.of(answer, entry.size, entry.etag, self._section.bucket, part)

    # -- asking -------------------------------------------------------------------------------------------------------
    def _ask(
        self,
        call: Callable[[], Answer],
        progress: Callable[[], int] | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> Answer:
        """Call, again while it may help; whatever goes wrong is put in our words."""

        def once() -> Answer:
            try:
                return call()
            except (OSError, _Stopped):
                raise  # our own files and threads
            except Exception as error:
                raise explained(error, self._section) from None

        try:
            return persist(once, self._section.retry, progress=progress, wait=wait)  # type: ignore[arg-type]
        except NotNow as failure:
            raise gave_up(self._section.name, failure, self._section.retry) from None


def not_retrievable(section: Section) -> TransferError:
    """Of an object in a storage class that its owner must restore it from."""
    return TransferError(
        f"An object of {what(section)} lies in an archive class.", "Restore it there first.", rule="not_retrievable"
    )


def _pieces(body: Any, size: int) -> Iterator[bytes]:
    """`size` bytes of an answer, piece by piece. Raises NotNow when they do not come."""
    while size:
        try:
            data = body.read(min(_CHUNK, size))
        except Exception:  # urllib3's, botocore's and the socket's have no common base
            raise NotNow("a transfer broke off") from None
        if not data:
            raise NotNow("a transfer broke off")
        size -= len(data)
        yield data
