"""Unfinished work: autosaves of masks, which tab may save, and work that is kept beside them until a reader decides.

A mask is a file below the desk's folder; its row in desk.db makes it count. The file is flushed to disk before the row
is written, and rows go before their files: a crash leaves a file too many, never a row without its file. What a reader
has sent is acknowledged when it is on disk, or it is refused; what cannot become the next autosave is kept as an offer.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from redraft.desk.mask import Mask
from redraft.desk.store import Desk, autosave, offer, tab, viewing
from redraft.errors import ConflictError, StateError, StorageError
from redraft.files import write_bytes
from redraft.ledger.values import plain

KEEP_LAST = 20
KEEP_HOURS = 72
# Without a sign of life for this long a tab has let go of the pen: its computer sleeps, or it was closed.
PEN_SECONDS = 90.0
_ORPHAN_SECONDS = 3600.0

Closed = Literal["submitted", "lease_expired"]
_REFUSALS: dict[str, tuple[str, str]] = {
    "stale": ("Somebody saved this exam after you had opened it.", "Reload the page; your drawing is offered there."),
    "tab": ("Another tab or computer is working on this exam.", "Take over here, or go on there; nothing is lost."),
    "lease_expired": ("The time for this exam was over before this drawing arrived.", "Extend it, or ask who plans."),
    "submitted": ("This exam was handed in already.", "Look at it in the work list; a reviewer can send it back."),
}


@dataclass(frozen=True)
class Saved:
    """An autosave that is on disk."""

    number: int
    sha256: str
    at: str
    path: Path
    verdict: str | None
    voxels: int


@dataclass(frozen=True)
class Offer:
    """Work that is kept beside the autosaves."""

    offer_id: int
    from_assignment: str
    why: str
    at: str
    voxels: int
    path: Path


class WorkStore:
    """Autosaves, pens and offers of all assignments.

    Parameters
    ----------
    folder : Path
        `<project>/.redraft/desk`; one folder per assignment below it.
    """

    def __init__(self, desk: Desk, folder: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self.desk, self.folder, self.clock = desk, folder, clock

    # -- autosaves ----------------------------------------------------------------------------------------------------
    def save(
        self, assignment: str, mask: Mask, *, base: int, sitting: str, account: str, verdict: str | None = None,
        closed: Closed | None = None,
    ) -> Saved:  # fmt: skip
        """Keep a mask as the autosave after number `base`; the same sent again is the same autosave.

        Parameters
        ----------
        closed
            Why the assignment takes no more autosaves; the mask is then kept as an offer all the same.

        Raises
        ------
        ConflictError, StateError
            `work.stale`, `work.tab`, `work.submitted`, `work.lease_expired`: it was kept as an offer.
        StorageError
            `storage.full` and others: it was not kept.
        """
        known = self._known(assignment, mask, base, sitting)
        if known is not None:
            return known
        path = self.folder / assignment / f"{uuid.uuid4().hex}.gz"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_bytes(path, mask.packed, mode=0o600)
        gone: list[str] = []
        with self._write() as connection:
            latest = self._latest_number(connection, assignment)
            why: str | None = closed
            if why is None and not self._may_write(connection, assignment, sitting):
                why = "tab"
            if why is None and base != latest:
                why = "stale"
            facts = {
                "sitting": sitting, "path": self._relative(path), "sha256": mask.sha256, "bytes": len(mask.packed),
                "voxels": float(mask.voxels), "at": self._now(),
            }  # fmt: skip
            if why is None:
                row = {"assignment_id": assignment, "number": latest + 1, "verdict": verdict, **facts}
                connection.execute(insert(autosave).values(row))
                self._hold(connection, assignment, sitting, account)
                gone = self._prune(connection, assignment)
            else:
                gone = self._offer(connection, assignment, assignment, why, facts)
        self._unlink(gone)
        if why is not None:
            raise _refusal(why)
        return Saved(latest + 1, mask.sha256, str(facts["at"]), path, verdict, mask.voxels)

    def latest(self, assignment: str, number: int | None = None) -> Saved | None:
        """The newest autosave, or number `number`; None where there is none (any more)."""
        query = select(autosave).where(autosave.c.assignment_id == assignment)
        if number is not None:
            query = query.where(autosave.c.number == number)
        with self.desk.read() as connection:
            row = connection.execute(query.order_by(autosave.c.number.desc()).limit(1)).first()
        return None if row is None else self._saved(row)

    def numbers(self, assignment: str) -> list[int]:
        """Numbers of the autosaves that are kept."""
        query = select(autosave.c.number).where(autosave.c.assignment_id == assignment).order_by(autosave.c.number)
        with self.desk.read() as connection:
            return list(connection.scalars(query))

    # -- the pen ------------------------------------------------------------------------------------------------------
    def take_pen(self, assignment: str, sitting: str, account: str, *, take: bool) -> bool:
        """Whether this tab may save from now on; `take` takes the pen from another one that is at work."""
        with self._write() as connection:
            if not take and not self._may_write(connection, assignment, sitting):
                return False
            self._hold(connection, assignment, sitting, account)
        return True

    def pen(self, assignment: str, sitting: str | None) -> tuple[bool, bool]:
        """Whether the pen is this tab's, and whether another tab at work holds it."""
        with self.desk.read() as connection:
            row = connection.execute(select(tab).where(tab.c.assignment_id == assignment)).first()
            mine = row is not None and row.sitting == sitting
            return mine, not mine and not self._may_write(connection, assignment, sitting or "")

    def holder(self, assignment: str, account: str) -> str | None:
        """The tab of this account that holds the pen."""
        query = select(tab.c.sitting).where(tab.c.assignment_id == assignment, tab.c.account_id == account)
        with self.desk.read() as connection:
            return connection.scalar(query)

    # -- kept work ----------------------------------------------------------------------------------------------------
    def offers(self, assignment: str, left_by: Sequence[str] = ()) -> list[Offer]:
        """Open offers, oldest first. `left_by`: assignments whose place this one took; their work is offered too."""
        if left_by:
            with self._write() as connection:
                for former in left_by:
                    self._take_in(connection, assignment, former)
        query = select(offer).where(offer.c.assignment_id == assignment, offer.c.state == "open")
        with self.desk.read() as connection:
            return [self._as_offer(row) for row in connection.execute(query.order_by(offer.c.offer_id))]

    def offer(self, assignment: str, number: int) -> Offer | None:
        """One open offer of this assignment."""
        query = select(offer).where(
            offer.c.assignment_id == assignment, offer.c.offer_id == number, offer.c.state == "open"
        )
        with self.desk.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else self._as_offer(row)

    def settle(self, assignment: str, number: int, state: Literal["merged", "dropped"]) -> None:
        """The reader has decided; the file goes unless an autosave is made of it."""
        with self._write() as connection:
            row = connection.execute(
                select(offer).where(offer.c.assignment_id == assignment, offer.c.offer_id == number)
            ).first()
            if row is None:
                return
            connection.execute(update(offer).where(offer.c.offer_id == number).values(state=state))
            gone = self._unused(connection, [row.path])
        self._unlink(gone)

    # -- looking ------------------------------------------------------------------------------------------------------
    def first_look(self, assignment: str, account: str, sitting: str, tell: Callable[[], None]) -> None:
        """Call `tell` (which writes the audit event) unless this sitting was told of before."""
        key = {"assignment_id": assignment, "account_id": account, "sitting": sitting}
        same = [viewing.c[name] == value for name, value in key.items()]
        with self.desk.read() as connection:
            if connection.execute(select(viewing.c.sitting).where(*same)).first() is not None:
                return
        tell()  # first: an event too many is better than a look that nobody knows of
        with self._write() as connection:
            connection.execute(insert(viewing).prefix_with("OR IGNORE").values(key))

    @contextmanager
    def alone(self, assignment: str) -> Iterator[None]:
        """One process and thread at a time for an assignment; ends with the process that holds it."""
        folder = self.folder / assignment
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def forget(self, assignment: str, *, keep: int) -> bool:
        """Clear work that is over, but for its newest `keep` autosaves and offers that are open; whether any went."""
        query = select(autosave.c.number, autosave.c.path).where(autosave.c.assignment_id == assignment)
        settled = (offer.c.assignment_id == assignment, offer.c.state != "open")
        with self._write() as connection:
            out = connection.execute(query.order_by(autosave.c.number.desc())).all()[keep:]
            numbers = [row.number for row in out]
            done = connection.execute(
                delete(autosave).where(autosave.c.assignment_id == assignment, autosave.c.number.in_(numbers))
            ).rowcount
            done += connection.execute(delete(offer).where(*settled)).rowcount
            for table in (tab, viewing):
                done += connection.execute(delete(table).where(table.c.assignment_id == assignment)).rowcount
            gone = self._unused(connection, [row.path for row in out])
        self._unlink(gone)
        self.sweep(assignment)
        return done > 0

    def sweep(self, assignment: str) -> int:
        """Remove files that no row names, left by a crash; returns how many went."""
        folder = self.folder / assignment
        old = self.clock().timestamp() - _ORPHAN_SECONDS
        found = [
            path for pattern in ("*.gz", ".partial-*") for path in folder.glob(pattern) if path.stat().st_mtime < old
        ]
        with self.desk.read() as connection:
            gone = self._unused(connection, [self._relative(path) for path in found])
        self._unlink(gone)
        return len(gone)

    # -- inside -------------------------------------------------------------------------------------------------------
    def _known(self, assignment: str, mask: Mask, base: int, sitting: str) -> Saved | None:
        """The autosave that this very request made before: its answer was lost on the way, or it was sent twice."""
        saved = self.latest(assignment, base + 1)
        if saved is None or saved.sha256 != mask.sha256:
            return None
        with self.desk.read() as connection:
            key = (autosave.c.assignment_id == assignment, autosave.c.number == base + 1)
            same = connection.scalar(select(autosave.c.sitting).where(*key)) == sitting
        return saved if same else None

    def _may_write(self, connection: Connection, assignment: str, sitting: str) -> bool:
        row = connection.execute(select(tab).where(tab.c.assignment_id == assignment)).first()
        if row is None or row.sitting == sitting:
            return True
        return bool(datetime.fromisoformat(row.seen_at) < self.clock() - timedelta(seconds=PEN_SECONDS))

    def _hold(self, connection: Connection, assignment: str, sitting: str, account: str) -> None:
        now = self._now()
        held = update(tab).where(tab.c.assignment_id == assignment, tab.c.sitting == sitting).values(seen_at=now)
        if connection.execute(held).rowcount:
            return
        row = {"assignment_id": assignment, "sitting": sitting, "account_id": account, "since": now, "seen_at": now}
        connection.execute(insert(tab).prefix_with("OR REPLACE").values(row))

    def _latest_number(self, connection: Connection, assignment: str) -> int:
        query = select(func.max(autosave.c.number)).where(autosave.c.assignment_id == assignment)
        return connection.scalar(query) or 0

    def _prune(self, connection: Connection, assignment: str) -> list[str]:
        """Keep the newest autosaves and the last one of each hour before; returns files that nobody needs any more."""
        query = select(autosave.c.number, autosave.c.at, autosave.c.path).where(autosave.c.assignment_id == assignment)
        rows = connection.execute(query.order_by(autosave.c.number.desc())).all()
        hours: dict[str, int] = {}
        for row in rows[KEEP_LAST:]:
            hours.setdefault(row.at[:13], row.number)
        keep = {row.number for row in rows[:KEEP_LAST]} | set(list(hours.values())[:KEEP_HOURS])
        out = [row for row in rows if row.number not in keep]
        if not out:
            return []
        numbers = [row.number for row in out]
        connection.execute(
            delete(autosave).where(autosave.c.assignment_id == assignment, autosave.c.number.in_(numbers))
        )
        return self._unused(connection, [row.path for row in out])

    def _offer(
        self, connection: Connection, assignment: str, former: str, why: str, facts: dict[str, Any]
    ) -> list[str]:
        """Keep work beside the autosaves. A tab's later drawing takes the place of its earlier one."""
        same = (
            offer.c.assignment_id == assignment, offer.c.from_assignment == former,
            offer.c.sitting == facts["sitting"], offer.c.state == "open",
        )  # fmt: skip
        rows = connection.execute(select(offer.c.offer_id, offer.c.path).where(*same)).all()
        connection.execute(delete(offer).where(offer.c.offer_id.in_([row.offer_id for row in rows])))
        row = {"assignment_id": assignment, "from_assignment": former, "why": why, "state": "open", **facts}
        connection.execute(insert(offer).values(row))
        return self._unused(connection, [row.path for row in rows])

    def _take_in(self, connection: Connection, assignment: str, former: str) -> None:
        """Offer what another assignment left: its last autosave and its own open offers, each once."""
        last = select(autosave).where(autosave.c.assignment_id == former).order_by(autosave.c.number.desc()).limit(1)
        found = list(connection.execute(last).all())
        theirs = select(offer).where(offer.c.assignment_id == former, offer.c.state == "open")
        found += connection.execute(theirs).all()
        for row in found:
            known = select(offer.c.offer_id).where(offer.c.assignment_id == assignment, offer.c.path == row.path)
            if connection.execute(known).first() is None:
                names = ("sitting", "path", "sha256", "bytes", "voxels", "at")
                facts = {name: getattr(row, name) for name in names}
                entry = {"assignment_id": assignment, "from_assignment": former, "why": "left", "state": "open"}
                connection.execute(insert(offer).values({**entry, **facts}))

    def _unused(self, connection: Connection, paths: Sequence[str]) -> list[str]:
        saved = set(connection.scalars(select(autosave.c.path).where(autosave.c.path.in_(paths))))
        kept = select(offer.c.path).where(offer.c.path.in_(paths), offer.c.state == "open")
        return sorted(set(paths) - saved - set(connection.scalars(kept)))

    def _unlink(self, paths: Sequence[str]) -> None:
        for path in paths:
            (self.folder / path).unlink(missing_ok=True)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _saved(self, row: Any) -> Saved:
        return Saved(row.number, row.sha256, row.at, self.folder / row.path, row.verdict, int(row.voxels))

    def _as_offer(self, row: Any) -> Offer:
        path = self.folder / row.path
        return Offer(row.offer_id, row.from_assignment, row.why, row.at, int(row.voxels), path)

    def _now(self) -> str:
        return str(plain(self.clock()))

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self.desk.write() as connection:
                yield connection
        except DBAPIError as error:
            raise _desk_error(error) from error


def _refusal(why: str) -> ConflictError | StateError:
    what, do = _REFUSALS[why]
    if why == "lease_expired":
        return StateError(what, f"{do} What was drawn is kept and offered.", code="work.lease_expired")
    return ConflictError(what, do, code=f"work.{why}", retry=False)


def _desk_error(error: DBAPIError) -> ConflictError | StorageError:
    text = str(error.orig)
    if isinstance(error.orig, sqlite3.OperationalError) and ("locked" in text or "busy" in text):
        return ConflictError("The desk is busy.", "Try again in a moment.", code="work.busy")
    full = "full" in text
    return StorageError(
        f"The desk cannot be written ({text}).",
        "Free space on the server; the page keeps the drawing and tries again.",
        code="storage.full" if full else None,
    )  # fmt: skip
