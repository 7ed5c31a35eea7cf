"""A file that comes in parts: what came of it survives interruptions, and it gets its name only when it is whole."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from redraft.files import sync_directory

PREFIX = ".coming-"


class PartialFile:
    """The bytes of one version of a file, beside its place, and a journal of the parts that are on disk.

    Parameters
    ----------
    version : str
        Parts that were left by another version are not taken over.
    """

    def __init__(self, target: Path, version: str):
        self.target = target
        name = f"{PREFIX}{target.name}-{hashlib.sha256(version.encode()).hexdigest()[:16]}"
        self.path = target.with_name(name)
        self._journal = target.with_name(f"{name}.parts")
        self._lock = threading.Lock()
        for other in target.parent.glob(f"{PREFIX}{target.name}-*"):
            if other not in (self.path, self._journal):
                other.unlink(missing_ok=True)
        if not self.path.exists():
            self._journal.unlink(missing_ok=True)
        self.whole = self._written()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes at their place; any thread may."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._file, view, offset)
            view, offset = view[count:], offset + count

    def done(self, number: int) -> None:
        """Part `number` is written: from now on it counts as here, also after a power cut."""
        os.fdatasync(self._file)
        with self._lock:
            with self._journal.open("a", encoding="ascii") as journal:
                journal.write(f"{number}\n")
                journal.flush()
                os.fsync(journal.fileno())
            self.whole.add(number)

    def cut(self, size: int) -> None:
        """The file is `size` bytes long, whatever lay there before."""
        os.ftruncate(self._file, size)

    def publish(self) -> None:
        """Give the file its name."""
        os.fsync(self._file)
        os.replace(self.path, self.target)
        self._journal.unlink(missing_ok=True)
        sync_directory(self.target.parent)

    def discard(self) -> None:
        """Forget everything that came."""
        self.path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._file)

    def _written(self) -> set[int]:
        try:
            lines = self._journal.read_text(encoding="ascii").splitlines(keepends=True)
        except (FileNotFoundError, UnicodeDecodeError):
            return set()
        return {int(line) for line in lines if line.endswith("\n") and line.strip().isdigit()}
