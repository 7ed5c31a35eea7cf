"""One writer at a time: holding, expiry, take-over, fencing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from redraft.errors import ConflictError
from redraft.ledger import Lease, Ledger, hold_lease, verify_ledger
from redraft.ledger import lease as module

START = datetime(2026, 3, 2, 8, tzinfo=UTC)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wait_for(predicate: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def test_a_lease_excludes_others_until_it_ends(empty: Ledger, clock: Clock) -> None:
    """A second holder is refused with the first one's name; afterwards it gets the lease and a higher token."""
    with hold_lease(empty, "writer", "a", ttl_s=60, clock=clock) as first:
        first.check()
        with (
            pytest.raises(ConflictError, match="holder a") as raised,
            hold_lease(empty, "writer", "b", ttl_s=60, clock=clock),
        ):
            pass
        assert raised.value.retry
        with hold_lease(empty, "other", "b", ttl_s=60, clock=clock) as other:
            other.check()
    with hold_lease(empty, "writer", "b", ttl_s=60, clock=clock) as second:
        assert second.token == first.token + 1
        with pytest.raises(ConflictError, match="took over"):
            first.check()
    assert verify_ledger(empty).broken == []


def test_an_expired_lease_is_taken_over_and_the_old_holder_is_fenced(empty: Ledger, clock: Clock) -> None:
    """After expiry another takes over; the first one can neither check, renew nor free the lease any more."""
    with hold_lease(empty, "writer", "a", ttl_s=60, clock=clock) as first:
        clock.now += timedelta(seconds=60)
        with hold_lease(empty, "writer", "b", ttl_s=60, clock=clock) as second:
            for act in (first.check, first.renew):
                with pytest.raises(ConflictError, match="took over") as raised:
                    act()
                assert not raised.value.retry
            module._release(first)
            second.check()
    row = empty.one("lease", name="writer")
    assert row is not None
    assert (row["holder"], row["token"]) == ("", 2)


def test_the_same_name_again_is_another_holder(empty: Ledger, clock: Clock) -> None:
    """Tokens fence even a holder that comes back under its old name."""
    with hold_lease(empty, "writer", "a", ttl_s=60, clock=clock) as first:
        clock.now += timedelta(seconds=61)
        with hold_lease(empty, "writer", "a", ttl_s=60, clock=clock), pytest.raises(ConflictError):
            first.check()


def test_a_dead_holder_is_taken_over_at_once(empty: Ledger, clock: Clock) -> None:
    """Where the holder's process is known to be gone, nobody waits for the expiry."""
    first = Lease(empty, "writer", "a", module._take(empty, "writer", "a", 600, clock, lambda h: True), 600, clock)
    asked: list[str] = []

    def dead(holder: str) -> bool:
        asked.append(holder)
        return False

    with hold_lease(empty, "writer", "b", ttl_s=600, clock=clock, alive=dead) as second:
        assert second.token == first.token + 1
        assert asked == ["a"]


def test_renewing_extends(empty: Ledger, clock: Clock) -> None:
    """A renewed lease outlives its first expiry."""
    with hold_lease(empty, "writer", "a", ttl_s=60, clock=clock) as lease:
        clock.now += timedelta(seconds=50)
        lease.renew()
        clock.now += timedelta(seconds=50)
        with pytest.raises(ConflictError), hold_lease(empty, "writer", "b", ttl_s=60, clock=clock):
            pass


def test_the_heartbeat_keeps_a_lease(empty: Ledger) -> None:
    """A lease shorter than the work under it is still ours at the end, and the thread ends with it."""

    def clock() -> datetime:
        return datetime.now(UTC)

    before = threading.active_count()
    with hold_lease(empty, "writer", "a", ttl_s=0.6, clock=clock) as lease:
        first = empty.rows("lease")[0]["expires_at"]
        wait_for(lambda: empty.rows("lease")[0]["expires_at"] > first)
        wait_for(lambda: len(empty.rows("audit_event", kind="lease.update")) >= 3)
        with pytest.raises(ConflictError), hold_lease(empty, "writer", "b", ttl_s=60, clock=clock):
            pass
        lease.check()
    assert threading.active_count() == before


def test_a_busy_moment_does_not_stop_the_heartbeat(empty: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that fails for a passing reason is followed by the next one; only a lost lease ends the beating."""
    real, calls = Lease.renew, []

    def renew(self: Lease) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ConflictError("The ledger is busy.")
        real(self)

    monkeypatch.setattr(Lease, "renew", renew)
    with hold_lease(empty, "writer", "a", ttl_s=0.15, clock=lambda: datetime.now(UTC)):
        wait_for(lambda: len(calls) >= 3)


def test_the_bodys_error_is_what_the_caller_sees(empty: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the work frees the lease; a lease that cannot be freed then does not hide that error."""
    with pytest.raises(ZeroDivisionError), hold_lease(empty, "writer", "a", ttl_s=60, clock=clock):
        raise ZeroDivisionError
    assert empty.rows("lease")[0]["holder"] == ""

    def busy(lease: Lease) -> None:
        raise ConflictError("The ledger is busy.")

    monkeypatch.setattr(module, "_release", busy)
    with pytest.raises(ZeroDivisionError), hold_lease(empty, "writer", "a", ttl_s=60, clock=clock):
        raise ZeroDivisionError


HOLDER = """
import sys
from datetime import UTC, datetime
from redraft.errors import ConflictError
from redraft.ledger import Ledger, hold_lease
ledger = Ledger.open(sys.argv[1])
try:
    with hold_lease(ledger, "writer", sys.argv[2], ttl_s=float(sys.argv[3]), clock=lambda: datetime.now(UTC)) as lease:
        print(lease.token, flush=True)
        sys.stdin.readline()
except ConflictError:
    print("refused", flush=True)
"""


def holder(path: Path, name: str, ttl: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, f"sqlite:///{path}", name, str(ttl)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_of_processes_at_once_one_wins(empty: Ledger, path: Path) -> None:
    """Four processes reach for the lease together; while one holds it the others are refused."""
    running = [holder(path, f"p{n}", 60) for n in range(4)]
    answers = [process.stdout.readline().strip() for process in running if process.stdout]
    for process in running:
        process.communicate("end\n", timeout=60)
    assert sorted(answers) == ["1", "refused", "refused", "refused"]


def test_a_killed_holder_is_taken_over_after_expiry(empty: Ledger, path: Path) -> None:
    """kill -9 of a holder leaves the lease until it expires, then the next one gets it with a higher token."""
    process = holder(path, "a", 1.5)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "1"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)

    def take() -> bool:
        try:
            with hold_lease(empty, "writer", "b", ttl_s=5, clock=lambda: datetime.now(UTC)) as lease:
                return lease.token == 2
        except ConflictError:
            return False

    assert not take()
    wait_for(take)
    assert verify_ledger(empty).broken == []
