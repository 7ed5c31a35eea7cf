"""Processes that do work which must not be trusted: a job that hangs, eats memory or dies is lost, and nothing else.

Each worker does one job at a time. A job over its time is ended with its process, a process that dies is replaced, and
the caller learns which job was lost and why. Results come in the order of the jobs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from redraft.errors import RedraftError, ServiceError, StorageError

Item = TypeVar("Item")
Job = TypeVar("Job")
Result = TypeVar("Result")

_MB = 1024 * 1024


@dataclass(frozen=True)
class Lost:
    """A job without a result. `rule`: reader_died, reader_failed (unexpectedly), time_limit or memory_limit."""

    rule: str
    measured: dict[str, Any]


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    caller: Connection  # never written to; its end is the end of the process
    number: int = -1  # of the job at hand; none: -1
    started: float = 0.0
    seconds: float = 0.0


class Workers(Generic[Item, Job, Result]):
    """A fixed number of processes.

    Parameters
    ----------
    count : int
        Processes side by side; 0 does the jobs in this process, unguarded (for debugging and tests).
    start : str
        ``module:function``, called once in every process with `args`; returns the function that does a job. A name, so
        that what only workers need is imported only there.
    memory_mb : int
        What a process may allocate.
    """

    def __init__(self, count: int, start: str, args: tuple, memory_mb: int):
        # Not fork: threads of Prefect and others run in this process, and a copy could hold their locks.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([start.split(":")[0]])  # what workers import is imported once
        if count:
            with _without_main():
                forkserver.ensure_running()  # and while the caller still prepares the jobs
        self._count, self._start, self._args, self._memory_mb = count, start, args, memory_mb
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers[Item, Job, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers = []

    def map(
        self, items: Iterable[Item], job: Callable[[Item], Job | None], seconds: Callable[[Job], float]
    ) -> Iterator[tuple[Item, Result | Lost | None]]:
        """Do the items' jobs; yield each item with its result, in the items' order; None where it has no job.

        An item is taken when a worker is free for it, so that making items (fetching files) goes on while others are
        worked. A RedraftError raised by a job is raised here.
        """
        if self._count == 0:
            work = _load(self._start)(*self._args)
            for item in items:
                todo = job(item)
                yield item, None if todo is None else work(todo)
            return
        stream = iter(items)
        at_hand: dict[int, Item] = {}
        done: dict[int, tuple[Item, Result | Lost | None]] = {}
        taken = given = 0
        more = True
        while more or at_hand or done:
            if given in done:
                yield done.pop(given)
                given += 1
                continue
            # Results that wait for a slower job before them are small, but a bound keeps a stuck job from piling up.
            while more and len(at_hand) < self._count and len(done) < 64 * self._count and given not in done:
                try:
                    item = next(stream)
                except StopIteration:
                    more = False
                    break
                todo = job(item)
                if todo is None:
                    done[taken] = (item, None)
                else:
                    self._give(taken, todo, seconds(todo))
                    at_hand[taken] = item
                taken += 1
            if at_hand and given not in done:
                for number, result in self._collect():
                    done[number] = (at_hand.pop(number), result)

    def _give(self, number: int, job: Job, seconds: float) -> None:
        for idle in [item for item in self._workers if item.number < 0 and not item.process.is_alive()]:
            self._workers.remove(idle)  # somebody ended it between two jobs
            _end(idle)
        worker = next((item for item in self._workers if item.number < 0), None) or self._new()
        worker.number, worker.started, worker.seconds = number, time.monotonic(), seconds
        try:
            worker.pipe.send(job)
        except OSError:  # it died while it was idle: the job goes to another one
            self._workers.remove(worker)
            _end(worker)
            self._give(number, job, seconds)

    def _new(self) -> _Worker:
        here, there = self._context.Pipe()
        watched, caller = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_serve, args=(there, watched, self._start, self._args, self._memory_mb), daemon=True
        )
        with _without_main():
            process.start()
        there.close()
        watched.close()
        worker = _Worker(process, here, caller)
        self._workers.append(worker)
        try:
            kind, value = here.recv()
        except (EOFError, OSError):  # no job is to blame for that
            raise ServiceError(
                "A process that reads files could not start.",
                "Check memory and the installation; standard error tells.",
            ) from None
        if kind == "error":
            raise value
        return worker

    def _collect(self) -> Iterator[tuple[int, Result | Lost]]:
        """Wait until a job ended or ran over its time; the results that are there."""
        busy = [worker for worker in self._workers if worker.number >= 0]
        timeout = max(0.0, min(worker.started + worker.seconds for worker in busy) - time.monotonic())
        ready = set(wait([worker.pipe for worker in busy], timeout))
        now = time.monotonic()
        for worker in busy:
            number = worker.number
            if worker.pipe in ready:
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, OSError):
                    self._workers.remove(worker)
                    worker.process.join()
                    measured = {"signal": -worker.process.exitcode} if (worker.process.exitcode or 0) < 0 else {}
                    _end(worker)
                    yield number, Lost("reader_died", measured)
                    continue
                worker.number = -1
                if kind == "error":
                    raise value
                yield number, value
            elif now >= worker.started + worker.seconds:
                self._workers.remove(worker)
                _end(worker)
                yield number, Lost("time_limit", {"seconds": round(worker.seconds, 1)})


def _end(worker: _Worker) -> None:
    with contextlib.suppress(OSError):
        worker.pipe.close()
    if worker.number >= 0:
        worker.process.kill()  # in the middle of a job; files are written aside and renamed, so nothing is half there
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.caller.close()


def _serve(pipe: Connection, caller: Connection, start: str, args: tuple, memory_mb: int) -> None:
    _end_with(caller)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's; the pipe's end ends this process
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mb * _MB, memory_mb * _MB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a patient's header
    warnings.simplefilter("ignore")  # libraries' warnings and logs quote the values that they complain about
    logging.disable()
    answer, work = _answer(lambda _: _load(start)(*args), None, memory_mb), None
    if isinstance(answer[1], Lost):
        answer = ("error", RuntimeError(f"A worker could not start: {answer[1]}"))
    elif answer[0] == "done":
        answer, work = ("ready", None), answer[1]
    with contextlib.suppress(EOFError, OSError):  # the caller is gone
        pipe.send(answer)
        while work is not None:
            pipe.send(_answer(work, pipe.recv(), memory_mb))


def _end_with(caller: Connection) -> None:
    """Have the kernel end this process (SIGIO) when `caller`, through which nothing ever comes, ends: even inside of a
    decoder that hangs. Nobody is left to hold its time then, and a new intake may write the same exam."""
    flags = fcntl.fcntl(caller, fcntl.F_GETFL)
    fcntl.fcntl(caller, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(caller, fcntl.F_SETFL, flags | os.O_ASYNC)
    if caller.poll():  # it ended before
        os._exit(1)


def _load(start: str) -> Callable[..., Callable[[Any], Any]]:
    module, name = start.split(":")
    function: Callable[..., Callable[[Any], Any]] = getattr(importlib.import_module(module), name)
    return function


def _answer(work: Callable[[Any], Any], job: Any, memory_mb: int) -> tuple[str, Any]:
    try:
        return "done", work(job)
    except MemoryError:
        return "done", Lost("memory_limit", {"memory_mb": memory_mb})
    except RedraftError as error:
        return "error", error
    except OSError as error:  # the disk's or the network's, not the job's
        # Libraries raise it without a number, or with that of a wrong argument, for bytes that they do not like.
        if error.errno in (None, errno.EINVAL):
            return "done", _unforeseen(error)
        what = f"A process that reads files failed: {os.strerror(error.errno)}."
        return "error", StorageError(what, "Check the disk and run the command again; what is in stays.")
    except Exception as error:
        return "done", _unforeseen(error)


def _unforeseen(error: Exception) -> Lost:
    # What other people's code says may quote a header, so only the kind of the error and the place are kept.
    place = traceback.extract_tb(error.__traceback__)[-1]
    return Lost("reader_failed", {"error": type(error).__name__, "at": f"{place.name}:{place.lineno}"})


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """New processes import the program they were started from; ours need nothing of it, and it might run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
