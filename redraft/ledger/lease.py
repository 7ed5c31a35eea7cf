"""One writer at a time: a lease with heartbeat, expiry, take-over and a fencing token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from redraft.errors import ConflictError, RedraftError
from redraft.ledger.store import Ledger
from redraft.ledger.values import plain

LOST = "conflict.lease_lost"


@dataclass(frozen=True)
class Lease:
    """A held lease. `token` grows with every holder; what publishes checks it again right before."""

    ledger: Ledger
    name: str
    holder: str
    token: int
    ttl_s: float
    clock: Callable[[], datetime]

    def check(self) -> None:
        """Raise ConflictError when another process has taken over."""
        self._require_ours(self.ledger.one("lease", name=self.name))

    def renew(self) -> None:
        """Extend the lease; raises ConflictError when it is no longer ours."""
        now = self.clock()
        with self.ledger.tx("lease", now) as tx:
            self._require_ours(tx.one("lease", name=self.name))
            tx.update("lease", {"name": self.name}, {"expires_at": now + timedelta(seconds=self.ttl_s)})

    def _require_ours(self, row: dict[str, Any] | None) -> None:
        if row is None or row["token"] != self.token or row["holder"] != self.holder:
            raise ConflictError(
                f"Another process took over the {self.name} lease.",
                "Nothing is published from here; see `redraft status`.",
                code=LOST,
                retry=False,
            )


@contextmanager
def hold_lease(
    ledger: Ledger,
    name: str,
    holder: str,
    *,
    ttl_s: float,
    clock: Callable[[], datetime],
    alive: Callable[[str], bool] = lambda holder: True,
) -> Iterator[Lease]:
    """Take a lease, keep it alive from a thread, and let it go at the end.

    Parameters
    ----------
    alive : callable
        Whether a holder's process still runs; a dead one is taken over at once, not after expiry. By default every
        holder counts as alive until its lease expires.

    Raises
    ------
    ConflictError
        While another holder's lease runs.
    """
    lease = Lease(ledger, name, holder, _take(ledger, name, holder, ttl_s, clock, alive), ttl_s, clock)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(ttl_s / 3):
            try:
                lease.renew()
            except RedraftError as error:
                # A busy ledger or a full disk may pass before the lease runs out: beat on. The check before
                # publication decides what a lost lease means, not this thread.
                if error.code == LOST:
                    return

    thread = threading.Thread(target=beat, name=f"lease-{name}", daemon=True)
    thread.start()
    try:
        yield lease
    except BaseException:
        stop.set()
        with suppress(RedraftError):  # the body's own error is what the caller must see; the lease expires by itself
            _release(lease)
        raise
    else:
        stop.set()
        _release(lease)
    finally:
        thread.join(timeout=ttl_s)


def _take(
    ledger: Ledger, name: str, holder: str, ttl_s: float, clock: Callable[[], datetime], alive: Callable[[str], bool]
) -> int:
    now = clock()
    with ledger.tx("lease", now) as tx:
        row = tx.one("lease", name=name)
        until = now + timedelta(seconds=ttl_s)
        if row is None:
            tx.insert("lease", {"name": name, "holder": holder, "token": 1, "expires_at": until})
            return 1
        if row["holder"] and row["expires_at"] > plain(now) and alive(row["holder"]):
            raise ConflictError(
                f"Another redraft process works on this project (holder {row['holder']}, until {row['expires_at']}).",
                "Wait for it, or stop it; a process that died is taken over at once on the same machine.",
            )
        token = int(row["token"]) + 1
        tx.update("lease", {"name": name}, {"holder": holder, "token": token, "expires_at": until})
        return token


def _release(lease: Lease) -> None:
    with lease.ledger.tx("lease", lease.clock()) as tx:
        row = tx.one("lease", name=lease.name)
        if row is not None and row["token"] == lease.token and row["holder"] == lease.holder:
            tx.update("lease", {"name": lease.name}, {"holder": "", "expires_at": lease.clock()})
