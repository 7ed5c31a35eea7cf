"""Writing files so that a reader, or a crash, sees the old content or the new one and never half of it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redraft.errors import StorageError


@contextmanager
def atomic_path(path: str | Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it into place.

    The temporary file keeps the target's suffixes (libraries choose a format by them). Raises StorageError where the
    disk is full or not writable; the target is then untouched.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-", suffix="".join(target.suffixes))
        os.close(handle)
    except OSError as error:
        raise _storage_error(target, error) from error
    partial = Path(name)
    try:
        yield partial
        with open(partial, "rb") as stream:
            os.fsync(stream.fileno())
        os.chmod(partial, mode)
        os.replace(partial, target)
        sync_directory(target.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _storage_error(target, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, data: bytes, mode: int = 0o644) -> None:
    """Write bytes atomically."""
    with atomic_path(path, mode) as partial:
        partial.write_bytes(data)


def write_text(path: str | Path, text: str, mode: int = 0o644) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"), mode)


def sync_directory(folder: Path) -> None:
    """Flush a directory entry, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_partials(folder: Path) -> int:
    """Remove what interrupted writers left under `folder`; returns how many files went."""
    count = 0
    for partial in folder.rglob(".partial-*"):
        partial.unlink(missing_ok=True)
        count += 1
    return count


def _storage_error(target: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"No space left while writing {target}.",
            "Free disk space and run the command again; it resumes where it stopped.",
            code="storage.full",
        )
    return StorageError(f"Cannot write {target}: {error.strerror}.", "Check that the folder exists and is writable.")
