"""Autosaves: what was acknowledged is there, whatever ends the process; the disk they take is bounded."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redraft.desk.mask import Mask, pack
from redraft.desk.saves import KEEP_HOURS, KEEP_LAST, PEN_SECONDS, WorkStore
from redraft.desk.store import Desk
from redraft.errors import ConflictError, StateError

NOW = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
REPOSITORY = Path(__file__).resolve().parents[3]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> WorkStore:
    return WorkStore(Desk.open(tmp_path / "desk.db"), tmp_path / "desk", clock)


def mask(value: int) -> Mask:
    """A mask that says its number."""
    return pack(np.array([value & 255, value >> 8, 1], np.uint8).reshape(3, 1, 1))


def save(store: WorkStore, value: int, base: int, **more: Any) -> int:
    return store.save("a", mask(value), base=base, **{"sitting": "tab-1", "account": "ac-1", **more}).number


def files(store: WorkStore) -> set[str]:
    return {path.name for path in (store.folder / "a").glob("*.gz")}


def test_saves_of_days_take_a_bounded_disk(store: WorkStore, clock: Clock) -> None:
    """The last ones, one of each hour before, and no file besides; numbers go on growing."""
    for n in range(400):
        clock.now += timedelta(minutes=19)
        assert save(store, n, n) == n + 1
    numbers = store.numbers("a")
    assert numbers[-KEEP_LAST:] == list(range(401 - KEEP_LAST, 401))
    assert len(numbers) <= KEEP_LAST + KEEP_HOURS and len(files(store)) == len(numbers)
    times = [store.latest("a", n) for n in numbers[:-KEEP_LAST]]
    hours = [saved.at[:13] for saved in times if saved]
    assert len(set(hours)) == len(hours) >= KEEP_HOURS - 3
    for n in numbers:
        kept = store.latest("a", n)
        assert kept is not None and gzip.decompress(kept.path.read_bytes()) == mask(n - 1).raw


def test_a_tab_that_sleeps_lets_go_of_the_pen(store: WorkStore, clock: Clock) -> None:
    """While it gives signs of life nobody else saves; some time after the last one anybody may."""
    save(store, 1, 0)
    clock.now += timedelta(seconds=PEN_SECONDS - 1)
    with pytest.raises(ConflictError) as caught:
        save(store, 2, 1, sitting="tab-2")
    assert caught.value.code == "work.tab" and store.pen("a", "tab-2") == (False, True)
    clock.now += timedelta(seconds=2)
    assert store.pen("a", "tab-2") == (False, False)
    assert save(store, 3, 1, sitting="tab-2") == 2


def test_what_one_tab_sends_in_vain_is_one_offer(store: WorkStore) -> None:
    """Its latest drawing, not one per try; another tab's is another offer; their files go when they are settled."""
    save(store, 1, 0)
    for value in (2, 3, 4):
        with pytest.raises(ConflictError):
            save(store, value, 1, sitting="tab-2")
    with pytest.raises(StateError):
        save(store, 5, 1, closed="lease_expired")
    offers = store.offers("a")
    assert [(item.why, gzip.decompress(item.path.read_bytes())) for item in offers] == [
        ("tab", mask(4).raw), ("lease_expired", mask(5).raw),
    ]  # fmt: skip
    assert len(files(store)) == 3
    for item in offers:
        store.settle("a", item.offer_id, "dropped")
    assert store.offers("a") == [] and len(files(store)) == 1


def test_offers_of_left_work_outlive_its_thinning_out(store: WorkStore, clock: Clock) -> None:
    """What another reader left stays readable for the next one, and settling it takes nothing from the first."""
    save(store, 7, 0)
    (offer,) = store.offers("b", ["a"])
    assert (offer.from_assignment, offer.why) == ("a", "left")
    for n in range(1, 60):
        save(store, n, n)
    assert gzip.decompress(offer.path.read_bytes()) == mask(7).raw
    store.settle("b", offer.offer_id, "merged")
    assert not offer.path.exists() and store.offers("b") == []


def test_many_at_once_make_one_line_of_numbers(store: WorkStore) -> None:
    """Two pages with one sitting race for each number: one gets it, the other's work is kept; none is lost."""
    won: list[int] = []
    kept: list[int] = []

    def race(value: int) -> None:
        try:
            won.append(save(store, value, 0))
        except ConflictError:
            kept.append(value)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1] and len(kept) == 7
    assert store.numbers("a") == [1] and len(store.offers("a")) == 1


def test_files_that_a_crash_left_are_swept(store: WorkStore) -> None:
    """Only those that no row names, and only old ones: a save may be under way."""
    save(store, 1, 0)
    folder = store.folder / "a"
    for name in ("orphan.gz", ".partial-x.gz", "fresh.gz"):
        (folder / name).write_bytes(b"x")
        old = NOW.timestamp() - 7200 if name != "fresh.gz" else NOW.timestamp()
        os.utime(folder / name, (old, old))
    assert store.sweep("a") == 2
    assert "fresh.gz" in files(store) and store.latest("a") is not None


CHILD = """
import sys
from pathlib import Path
import numpy as np
from redraft.desk.mask import pack
from redraft.desk.saves import WorkStore
from redraft.desk.store import Desk
root = Path(sys.argv[1])
store = WorkStore(Desk.open(root / "desk.db"), root / "desk")
saved = store.latest("a")
number = saved.number if saved else 0
print("ready", flush=True)
while True:
    mask = pack(np.array([(number + 1) & 255, (number + 1) >> 8, 1], np.uint8).reshape(3, 1, 1))
    number = store.save("a", mask, base=number, sitting="tab-1", account="ac-1").number
    print(number, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.05, 0.11])
def test_killed_while_saving(tmp_path: Path, delay: float, kill_after: Callable[..., list[str]]) -> None:
    """Kill -9 at any moment: every acknowledged autosave is whole, no row lacks its file, and work goes on."""
    for _ in range(3):
        said = [int(line) for line in kill_after(CHILD, str(tmp_path), delay) if line.isdigit()]
        store = WorkStore(Desk.open(tmp_path / "desk.db"), tmp_path / "desk")
        numbers = store.numbers("a")
        assert not said or numbers[-1] in (said[-1], said[-1] + 1)
        for n in numbers:
            kept = store.latest("a", n)
            assert kept is not None and gzip.decompress(kept.path.read_bytes()) == mask(n).raw
        store.desk.engine.dispose()


@pytest.fixture
def kill_after() -> Callable[..., list[str]]:
    """Runs code until it says it is ready, kills it a while later, and gives the whole lines it said."""

    def run(code: str, argument: str, delay: float) -> list[str]:
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        child = subprocess.Popen([sys.executable, "-c", code, argument], stdout=subprocess.PIPE, env=env)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        threading.Event().wait(delay)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.wait()
        return rest.decode().rpartition("\n")[0].split("\n")

    return run
