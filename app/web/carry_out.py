"""Carrying out recorded decisions: `redraft promote N --decision ID` as a process of its own, one at a time."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from redraft.ledger.values import plain
from redraft.project import Project

_log = logging.getLogger("redraft.web")
# While another process (a sweep, say) holds the project's writer lease.
_TRIES, _PAUSE_SECONDS = 20, 3.0


@dataclass(frozen=True)
class Outcome:
    """How carrying out a decision went; `error` says what happened and what to do. Unfinished while it runs."""

    round: int
    started_at: str
    finished_at: str | None = None
    exit_code: int | None = None
    error: str | None = None


class CarryOut:
    """Starts the command in a thread. What it leaves undone is in the ledger, and the page offers it again."""

    def __init__(self, project: Project, clock: Callable[[], datetime]):
        self._project, self._clock = project, clock
        self.command = [sys.executable, "-m", "app.cli.main"]
        self.last: Outcome | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        """Whether a decision is being carried out."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, number: int, decision_id: str) -> bool:
        """Begin; False while another one runs. Never waits."""
        with self._lock:
            if self.running or self._ended.is_set():
                return False
            self.last = Outcome(number, self._now())
            self._thread = threading.Thread(target=self._run, args=(number, decision_id), name="carry-out", daemon=True)
            self._thread.start()
        return True

    def stop(self) -> None:
        """End, with a process that runs: the same command again goes on from there."""
        self._ended.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        if self._thread is not None:
            self._thread.join(timeout=15)

    def _run(self, number: int, decision_id: str) -> None:
        assert self.last is not None
        started = self.last.started_at
        command = [
            *self.command, "promote", str(number), "--decision", decision_id, "--project", str(self._project.root),
            "--json",
        ]  # fmt: skip
        for _ in range(_TRIES):
            try:
                code, error, again = self._once(command)
            except OSError as refused:  # no memory for another process, say
                code, error, again = 1, f"It could not be started ({refused.strerror}).", True
            if self._ended.is_set():
                return
            if not (code and again) or self._ended.wait(_PAUSE_SECONDS):
                break
        self.last = Outcome(number, started, self._now(), code, error)
        if code:
            _log.error("carrying out the decision about round %s ended with %s: %s", number, code, error)

    def _once(self, command: list[str]) -> tuple[int, str | None, bool]:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            errors="replace", cwd=self._project.root,
        )  # fmt: skip
        said, _ = self._process.communicate()
        code = self._process.returncode
        if not code:
            return 0, None, False
        try:
            error = json.loads(said.strip().splitlines()[-1])["error"]
            return code, f"{error['what']} {error['do']}".strip(), bool(error["retry"])
        except (ValueError, LookupError, TypeError):
            return code, f"The command ended with exit code {code}.", False

    def _now(self) -> str:
        return str(plain(self._clock()))
