"""Retrieving a series from a DICOMweb server (WADO-RS, PS3.18 10.4): instances become files as they arrive."""

from __future__ import annotations

import filecmp
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redraft.files import atomic_path
from redraft.sources.dicomweb.multipart import Malformed, boundary_of, parts
from redraft.sources.dicomweb.session import answering

if TYPE_CHECKING:
    import requests

# As stored: nothing is decoded, compressed again or changed on the way (PS3.18 8.7.3.5.2).
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
CHUNK = 1 << 16  # so much is lost at most when a connection breaks
ARRIVING = "arriving.dcm"
_INSTANCE, _SERIES = 0x00080018, 0x0020000E


class Arrival:
    """The instances of one series as they arrive in a folder.

    Attributes
    ----------
    files : dict
        Clear SOP Instance UID → path, of all that were announced.
    whole : set of str
        UIDs whose files are there.
    foreign, more : int
        Instances of another series (or no DICOM at all); instances of this one that nobody announced.
    """

    def __init__(self, folder: Path, series: str):
        self._folder, self._series = folder, series
        self.files: dict[str, Path] = {}
        self.whole: set[str] = set()
        self.foreign = self.more = self._taken = 0

    def expect(self, files: dict[str, Path]) -> None:
        """Say what was announced. What lies there beside it is of another state of the series and goes."""
        self.files = files
        there = {entry.name for entry in os.scandir(self._folder) if entry.name.endswith(".dcm")}
        for name in there - {path.name for path in files.values()}:
            (self._folder / name).unlink()
        self.whole = {uid for uid, path in files.items() if path.name in there}

    @property
    def expected(self) -> int:
        """How many were announced."""
        return len(self.files)

    @property
    def received(self) -> int:
        """How many of this series came, announced or not."""
        return len(self.whole) + self.more

    @property
    def flood(self) -> bool:
        """Whether so much arrived that reading on is of no use."""
        return self._taken > 2 * self.expected + 16

    def missing(self) -> list[str]:
        """UIDs that were announced and are not there yet."""
        return [uid for uid in self.files if uid not in self.whole]

    def take(self, body: Iterable[bytes]) -> None:
        """Write one instance; it gets its name when it is whole and known to be of this series."""
        self._taken += 1
        arriving = self._folder / ARRIVING
        with atomic_path(arriving, mode=0o600) as partial, open(partial, "wb") as stream:
            for piece in body:
                stream.write(piece)
        series, uid = uids_of(arriving)
        target = self.files.get(uid)
        if series != self._series:
            self.foreign += 1
        elif target is None:
            self.more += 1
        elif uid not in self.whole:
            os.replace(arriving, target)
            self.whole.add(uid)
            return
        elif not filecmp.cmp(arriving, target, shallow=False):
            self.more += 1  # two contents of one UID
        arriving.unlink()


def uids_of(path: Path) -> tuple[str, str]:
    """Series and SOP Instance UID of a DICOM file; empty where it has none or is none."""
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    try:
        with warnings.catch_warnings(), open(path, "rb") as stream:
            warnings.simplefilter("ignore")  # they quote values
            dataset = read_partial(
                stream, lambda tag, vr, length: tag > _SERIES, specific_tags=[Tag(_INSTANCE), Tag(_SERIES)]
            )
            return str(dataset.get("SeriesInstanceUID", "")), str(dataset.get("SOPInstanceUID", ""))
    except Exception:  # what pydicom raises for damaged bytes has no common base
        return "", ""


def bodies(response: requests.Response) -> Iterator[Iterable[bytes]]:
    """The instances in an answer, each in pieces."""
    content_type = response.headers.get("Content-Type", "")
    if content_type.split(";")[0].strip().lower() == "application/dicom":
        # A single instance, not wrapped: several servers do that. Its end must be told by HTTP then.
        if "Content-Length" not in response.headers and "Transfer-Encoding" not in response.headers:
            raise Malformed
        yield _pieces(response)
    else:
        yield from parts(_pieces(response), boundary_of(content_type))


def _pieces(response: requests.Response) -> Iterator[bytes]:
    # Failures are translated here already: requests' own are OSErrors, which a file's writer would take for the disk's.
    with answering():
        yield from response.iter_content(CHUNK)


def without_bulk(value: Any) -> Any:
    """DICOM JSON without what is only referred to by a URL."""
    if isinstance(value, dict):
        return {
            key: without_bulk(one) for key, one in value.items() if not (isinstance(one, dict) and "BulkDataURI" in one)
        }
    return [without_bulk(one) for one in value] if isinstance(value, list) else value
