"""One instance on its way into a file, and the clear UIDs by which what arrived is told from what was announced."""

from __future__ import annotations

import os
import re
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import uid as uids
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.filewriter import write_file_meta_info

UID = re.compile(r"[0-9.]{1,64}")
_HEAD = 1 << 20  # of a deflated data set: identifiers lie in front
_IDENTITY = (0x00080016, 0x00080018, 0x0020000E)  # SOP class, SOP instance, series


class Incoming:
    """One instance on its way into a file of DICOM's format (PS3.10). Its UIDs are clear: never shown or logged."""

    def __init__(self, path: Path, sop_class: str, uid: str, syntax: str):
        self.path, self.sop_class, self.uid, self.syntax = path, sop_class, uid, syntax
        self.failure: OSError | None = None
        self._stream: BinaryIO | None = None
        self.start = 0
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
        meta.TransferSyntaxUID = syntax
        meta.ImplementationClassUID = uids.PYDICOM_IMPLEMENTATION_UID
        meta.FileMetaInformationVersion = b"\x00\x01"
        head = BytesIO(b"")
        head.write(b"\x00" * 128 + b"DICM")
        write_file_meta_info(head, meta, enforce_standard=True)
        self.start = head.tell()
        self.write(head.getvalue())

    def write(self, data: bytes) -> None:
        """Append; what the disk refuses is kept in `failure`, and the answer to the sender says so."""
        if self.failure is not None:
            return
        try:
            if self._stream is None:
                handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self._stream = os.fdopen(handle, "wb")
            self._stream.write(data)
        except OSError as error:
            self._fail(error)

    def finish(self) -> None:
        """Flush to disk and close."""
        if self._stream is None or self.failure is not None:
            return
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        if self._stream is not None:
            with suppress(OSError):  # closing flushes again
                self._stream.close()

    def drop(self) -> None:
        """Close and remove the file."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
        self.path.unlink(missing_ok=True)

    def identity(self) -> tuple[str, str, str] | None:
        """SOP class, SOP instance and series UID as the data set itself says; None where it does not."""
        if self._stream is not None and not self._stream.closed:
            with suppress(OSError):
                self._stream.flush()
        return _identity(self.path, self.start, self.syntax)


def identity_of(path: Path) -> tuple[str, str, str] | None:
    """SOP class, instance and series UID of a file that `Incoming` left behind, whole or not; None where unreadable."""
    try:
        meta = read_file_meta_info(path)
        start = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
        syntax = str(meta.TransferSyntaxUID)
    except Exception:  # pydicom raises a dozen unrelated types for half a file
        return None
    return _identity(path, start, syntax)


def _identity(path: Path, start: int, syntax: str) -> tuple[str, str, str] | None:
    try:
        with open(path, "rb") as stream:
            stream.seek(start)
            source: Any = stream
            if syntax == uids.DeflatedExplicitVRLittleEndian:
                source = BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream.read(_HEAD), _HEAD))
            dataset = read_dataset(
                source, syntax == uids.ImplicitVRLittleEndian, syntax != uids.ExplicitVRBigEndian,
                stop_when=lambda tag, vr, length: tag > _IDENTITY[-1], specific_tags=list(_IDENTITY),
            )  # fmt: skip
        # Raw bytes: converting them would raise and warn, quoting values.
        values = [bytes(dataset.get_item(tag).value).decode("ascii").strip(" \x00") for tag in _IDENTITY]
    except Exception:  # pydicom raises a dozen unrelated types for what is no data set
        return None
    return (values[0], values[1], values[2]) if all(map(UID.fullmatch, values)) else None
