"""Guarded processes: a job that hangs, eats memory or dies is lost; every other job has its result, in order."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from redraft.errors import ServiceError, StorageError
from redraft.workers import Lost, Workers

START = f"{__name__}:start"


def start(factor: int) -> Callable[[Any], Any]:
    """A worker that multiplies, or does what it is told."""

    def work(job: Any) -> Any:
        match job:
            case int():
                return job * factor
            case "slow":
                time.sleep(0.3)
                return "slow"
            case "hang":
                while True:
                    time.sleep(1)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "eat":
                return len(bytearray(1 << 31))
            case "full":
                raise StorageError("No space left.", "Free some.")
            case "disk":
                raise OSError(errno.ENOSPC, "Abendroth.dcm")
            case "bug":
                raise ValueError("Abendroth^Leopoldine")
            case "pid":
                return os.getpid()
        return None

    return work


def run(jobs: list[Any], count: int = 2, seconds: float = 30.0) -> list[Any]:
    with Workers[Any, Any, Any](count, START, (7,), 1024) as workers:
        return [result for _, result in workers.map(jobs, lambda item: item, lambda job: seconds)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_order(count: int) -> None:
    """Also where a job takes longer than those behind it, and where an item has no job."""
    assert run([1, "slow", 2, None, 3], count) == [7, "slow", 14, None, 21]


def test_a_lost_job_is_one_job() -> None:
    """Killed, ended, out of memory: each is told by its rule, and the others are done."""
    results = run([1, "die", 2, "exit", 3, "eat", 4], 2)
    assert [result for result in results if not isinstance(result, Lost)] == [7, 14, 21, 28]
    lost = [result for result in results if isinstance(result, Lost)]
    assert [item.rule for item in lost] == ["reader_died", "reader_died", "memory_limit"]
    assert lost[0].measured == {"signal": 9}


def test_a_job_that_hangs_is_ended_with_its_process() -> None:
    """After its time it is lost, and no process of it is left."""
    results = run([1, "hang", 2], 1, seconds=4.0)
    assert results == [7, Lost("time_limit", {"seconds": 4.0}), 14]
    left = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    assert not [child for child in left if "multiprocessing.spawn" in " ".join(child.cmdline())]


def test_an_error_for_the_user_reaches_the_caller() -> None:
    """A full disk ends the run as itself, whoever met it."""
    with pytest.raises(StorageError, match="No space"):
        run([1, "full", 2])
    with pytest.raises(StorageError, match="No space left on device"):
        run([1, "disk", 2])


def test_an_unexpected_error_is_one_job_s() -> None:
    """What nobody foresaw costs one job; its kind and place are told, what it quoted is not."""
    first, lost, last = run([1, "bug", 2])
    assert (first, last) == (7, 14) and lost.rule == "reader_failed"
    assert lost.measured["error"] == "ValueError" and "Abendroth" not in str(lost)


def test_items_are_taken_as_workers_are_free() -> None:
    """No more items are made than there are workers and results that wait: memory does not grow with them."""
    taken = 0

    def items() -> Any:
        nonlocal taken
        for n in range(1000):
            taken += 1
            yield n

    with Workers[Any, Any, Any](2, START, (1,), 1024) as workers:
        for seen, (_, result) in enumerate(workers.map(items(), lambda item: item, lambda job: 30.0)):
            assert result == seen
            assert taken <= seen + 2 + 64 * 2
    assert taken == 1000


def test_a_process_killed_between_jobs_is_replaced() -> None:
    """Somebody ends an idle worker: the next job goes to a new one."""
    with Workers[Any, Any, Any](1, START, (7,), 1024) as workers:
        ((_, pid),) = workers.map(["pid"], lambda item: item, lambda job: 30.0)
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([process for process in psutil.process_iter() if process.pid == pid], timeout=10)
        (result,) = [result for _, result in workers.map([6], lambda item: item, lambda job: 30.0)]
    assert result == 42


def failing(kind: str) -> Callable[[Any], Any]:
    """A worker that does not get as far as a job."""
    if kind == "die":
        os._exit(1)
    raise StorageError("The key file is not there.", "Look for it.") if kind == "error" else ValueError("Abendroth")


@pytest.mark.parametrize(("kind", "error"), [("die", ServiceError), ("error", StorageError), ("bug", RuntimeError)])
def test_a_worker_that_cannot_start_is_nobodys_fault(kind: str, error: type[Exception]) -> None:
    """No job is refused for it: the run ends with what is wrong."""
    with pytest.raises(error) as caught, Workers[Any, Any, Any](2, f"{__name__}:failing", (kind,), 1024) as workers:
        list(workers.map([1, 2], lambda item: item, lambda job: 30.0))
    assert "Abendroth" not in str(caught.value)


def test_workers_do_not_run_the_script_again(tmp_path: Path) -> None:
    """A script without a main guard starts workers and ends once."""
    script = tmp_path / "script.py"
    script.write_text(
        "from redraft.workers import Workers\nprint('run')\n"
        "with Workers(2, 'operator:itemgetter', (0,), 1024) as workers:\n"
        "    print([r for _, r in workers.map([[3], [4]], lambda item: item, lambda job: 30.0)])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "run\n[3, 4]\n"


@pytest.mark.parametrize("how", ["sleeping", "busy"])
def test_no_worker_outlives_its_caller(tmp_path: Path, how: str) -> None:
    """The caller is killed while a job hangs: the process with the job goes too."""
    (tmp_path / "hanging.py").write_text(
        "import os, time\n"
        "def start(path, how):\n"
        "    def work(job):\n"
        "        open(path, 'w').write(str(os.getpid()))\n"
        "        while True:\n"
        "            how == 'busy' or time.sleep(60)\n"
        "    return work\n"
    )
    pid = tmp_path / "pid"
    script = (
        "from redraft.workers import Workers\n"
        f"with Workers(1, 'hanging:start', ({str(pid)!r}, {how!r}), 1024) as workers:\n"
        "    list(workers.map([1], lambda item: item, lambda job: 600))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])}
    caller = subprocess.Popen([sys.executable, "-c", script], env=env)
    try:
        wait_for(lambda: pid.exists() and bool(pid.read_text()), "the job to begin")
        worker = psutil.Process(int(pid.read_text()))
    finally:
        caller.kill()
        caller.wait()
    try:
        wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "the worker to end")
    finally:
        if worker.is_running():
            worker.kill()


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
