"""What sources held when they were last looked through, and what became of it: an unchanged one costs no reading.

A SQLite file in the project's cache. It holds keyed tags, sizes and change stamps only: no path, no UID, no name.
Deleting it loses nothing but time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from redraft.errors import StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS file (
  place BLOB NOT NULL, tag BLOB NOT NULL, stamp TEXT NOT NULL, series TEXT, rule TEXT, PRIMARY KEY (place, tag)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcome (
  series TEXT PRIMARY KEY, version TEXT NOT NULL, rules TEXT NOT NULL, receipts TEXT NOT NULL
) WITHOUT ROWID;
"""


class Seen(NamedTuple):
    """One file or object as it was when its header was last read.

    Attributes
    ----------
    stamp : str
        Changes when the content may have: size and times of a file, ETag of an object.
    series : str, optional
        Pseudonym of its series; None where `rule` says why it has none.
    """

    stamp: str
    series: str | None
    rule: str | None


class SourceIndex:
    """Opened by one writer at a time (the project's lease). Raises StorageError when it cannot be written."""

    def __init__(self, path: Path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = _open(path)
        except sqlite3.DatabaseError:  # half written or not ours: it only remembers, so it starts anew
            path.unlink(missing_ok=True)
            self._db = _open(path)
        except OSError as error:
            raise StorageError(f"Cannot write {path}: {error.strerror}.", "Check the disk.") from error

    def seen(self, place: bytes) -> dict[bytes, Seen]:
        """Files of one place (a folder, a prefix) by tag."""
        rows = self._db.execute("SELECT tag, stamp, series, rule FROM file WHERE place = ?", (place,))
        return {tag: Seen(stamp, series, rule) for tag, stamp, series, rule in rows}

    def keep(self, place: bytes, files: Iterable[tuple[bytes, Seen]], gone: Sequence[bytes] = ()) -> None:
        """Remember files of one place, and forget those that are gone from it."""
        with _storage():
            self._db.executemany("DELETE FROM file WHERE place = ? AND tag = ?", [(place, tag) for tag in gone])
            self._db.executemany(
                "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", [(place, t, *s) for t, s in files]
            )

    def outcome(self, series: str, version: str) -> tuple[str, list[dict[str, Any]]] | None:
        """Rules by which exactly this version of a series was read last, and its receipts; None when it was not."""
        found = self._db.execute(
            "SELECT rules, receipts FROM outcome WHERE series = ? AND version = ?", (series, version)
        ).fetchone()
        return None if found is None else (found[0], json.loads(found[1]))

    def settle(self, series: str, version: str, rules: str, receipts: Sequence[dict[str, Any]]) -> None:
        """Remember what became of a series; call it once the ledger has it."""
        with _storage():
            self._db.execute(
                "INSERT OR REPLACE INTO outcome VALUES (?, ?, ?, ?)", (series, version, rules, json.dumps(receipts))
            )

    def commit(self) -> None:
        """Write what was told since the last commit."""
        with _storage():
            self._db.commit()

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.executescript(_SCHEMA)
    return db


class _storage:
    """Turn what SQLite says of a full or read-only disk into a StorageError."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise StorageError(
                f"The index of sources cannot be written ({error}).", "Free disk space and run the command again."
            ) from error
