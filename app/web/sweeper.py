"""Sweeping: `redraft sweep` as a process of its own, every so often and after each submission; one at a time."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from fastapi import FastAPI

from redraft.ledger.values import plain
from redraft.project import Project

_log = logging.getLogger("redraft.web")
_TAIL = 4000


@dataclass(frozen=True)
class Sweep:
    """How the last sweep went; `error` is the end of what it said."""

    started_at: str
    finished_at: str | None
    exit_code: int | None
    error: str | None


class Sweeper:
    """A thread that starts sweeps. Wishes that come while one runs are one wish."""

    def __init__(self, project: Project, clock: Callable[[], datetime], command: list[str] | None = None):
        self._project, self._clock = project, clock
        self._command = command or [
            sys.executable, "-m", "app.cli.main", "sweep", "--project", str(project.root), "--json",
        ]  # fmt: skip
        self._minutes = project.config.web.sweep_minutes
        self._wanted, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self.last: Sweep | None = None
        self.failures = 0

    def start(self) -> None:
        """Begin; nothing where project.yaml says `sweep_minutes: 0`."""
        if self._minutes > 0:
            self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
            self._thread.start()

    def request(self) -> None:
        """Wish for a sweep soon."""
        self._wanted.set()

    def stop(self) -> None:
        """End, with a sweep that runs: it loses nothing, the next one goes on."""
        self._ended.set()
        self._wanted.set()
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
        if self._thread is not None:
            self._thread.join(timeout=15)

    def report(self) -> dict[str, Any]:
        """For /ops: whether it sweeps by itself, how often it failed in a row, and the last sweep."""
        last = None if self.last is None else asdict(self.last)
        return {"minutes": self._minutes, "failures": self.failures, "last": last}

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wanted.wait(self._minutes * 60)
            if self._ended.is_set():
                return
            self._wanted.clear()
            try:
                self._sweep()
            except OSError as error:  # no memory for another process, say: the next wish tries again
                self.failures += 1
                at = plain(self._clock())
                self.last = Sweep(at, at, None, f"could not be started ({error.strerror})")
                _log.error("sweep %s", self.last.error)

    def _sweep(self) -> None:
        started = plain(self._clock())
        self.last = Sweep(started, None, None, None)
        with self._lock:
            if self._ended.is_set():
                return
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", cwd=self._project.root,
            )  # fmt: skip
        said, _ = self._process.communicate()
        code = self._process.returncode
        if self._ended.is_set():
            return
        error = said.strip()[-_TAIL:] if code else None
        self.failures = self.failures + 1 if code else 0
        self.last = Sweep(started, plain(self._clock()), code, error)
        if code:
            _log.error("sweep ended with %s: %s", code, error)


def request_sweep(app: FastAPI) -> None:
    """Wish for a sweep soon: something was handed in. Never waits."""
    app.state.sweeper.request()
