"""`redraft serve` as a process, and the sweeps that it starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.web.sweeper import Sweeper, request_sweep
from redraft.create import create_project
from redraft.project import Project
from tests.servers.web import running_web

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A new project that listens on any free port and sweeps when asked."""
    project = create_project(tmp_path / "kidneys", "kidney-ct", NOW, demo_keys=True)
    configure(project, "web: {port: 0, sweep_minutes: 600}")
    return Project.open(project.root)


def configure(project: Project, text: str) -> None:
    path = project.root / "project.yaml"
    path.write_text(path.read_text().partition("\nweb:")[0] + f"\n{text}\n")


def command(project: Project, *more: str) -> list[str]:
    return [sys.executable, "-m", "app.cli.main", "serve", "--project", str(project.root), *more]


@contextmanager
def serving(project: Project, *more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process, and what it said first."""
    process = subprocess.Popen(
        command(project, "--json", *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_it_serves_says_where_and_ends_when_asked(project: Project) -> None:
    """The address is on the first line, on loopback only; SIGTERM ends it with nothing left to say."""
    with serving(project) as (process, said):
        assert said["accounts"] == 0 and said["host"] == "127.0.0.1"
        until(lambda: answers(said["url"]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) in (0, -signal.SIGTERM)
        assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_it_says_what_to_do_first(project: Project) -> None:
    """Without an account there is nobody to sign in: the command that adds one is printed."""
    process = subprocess.Popen(command(project), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
    finally:
        process.kill()
        process.wait()
    assert "http://127.0.0.1:" in lines[0] and "Nobody has an account yet" in lines[1]
    assert "redraft user add" in lines[2]


@pytest.mark.parametrize(
    ("web", "code", "what"),
    [
        ("web: {host: 0.0.0.0, port: 0}", 2, "in the clear"),
        ("web: {port: 0, certificate: ../none.pem}", 1, "belong together"),
        ("web: {port: 0, certificate: ../none.pem, key: ../none.key}", 1, "is not there"),
        ("web: {port: 0, certificate: project.yaml, key: project.yaml}", 1, "inside the project"),
        ("web: {host: 192.0.2.1, port: 0, url: 'https://x.example'}", 1, "cannot be listened on"),
    ],
)
def test_what_would_be_unsafe_or_cannot_work_is_refused(project: Project, web: str, code: int, what: str) -> None:
    """Passwords in the clear, half a certificate, a key that gets published, an address of another machine."""
    configure(project, web)
    done = subprocess.run(command(project), capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.returncode == code and what in done.stderr and "Traceback" not in done.stderr


def test_beyond_this_machine_without_tls_only_when_told(project: Project) -> None:
    """`--insecure` is somebody's own decision."""
    configure(project, "web: {host: 0.0.0.0, port: 0}")
    with serving(project, "--insecure") as (_, said):
        until(lambda: answers(f"http://127.0.0.1:{said['port']}"))


# -- sweeps --------------------------------------------------------------------------------------------------------
def counting(folder: Path, body: str = "") -> list[str]:
    """A sweep that leaves a file, waits until it may end, and notes whether another ran beside it."""
    program = (
        "import pathlib, sys, time, uuid\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "alone = not (folder / 'running').exists()\n"
        "(folder / 'running').touch()\n"
        '(folder / f\'{uuid.uuid4().hex}.{"alone" if alone else "beside"}\').touch()\n'
        "while (folder / 'wait').exists(): time.sleep(0.01)\n"
        "(folder / 'running').unlink()\n" + body
    )
    return [sys.executable, "-c", program]


def test_wishes_are_coalesced_and_sweeps_run_one_at_a_time(project: Project, tmp_path: Path) -> None:
    """Many submissions while a sweep runs make one more sweep, after it."""
    folder = tmp_path / "sweeps"
    folder.mkdir()
    (folder / "wait").touch()
    with running_web(project, sweep_command=counting(folder)) as server:
        request_sweep(server.app)
        until(lambda: len(list(folder.glob("*.alone"))) == 1)
        for _ in range(50):
            request_sweep(server.app)
        (folder / "wait").unlink()
        until(lambda: len(list(folder.glob("*.alone"))) == 2)
        until(lambda: server.app.state.sweeper.report()["last"]["exit_code"] == 0)
    assert len(list(folder.glob("*.alone"))) == 2 and list(folder.glob("*.beside")) == []


def test_a_failed_sweep_is_shown_and_the_next_one_clears_it(project: Project, tmp_path: Path) -> None:
    """Its words and exit code are kept for operations; it does not stop the server or later sweeps."""
    flag = tmp_path / "broken"
    flag.touch()
    program = f"import os, sys; os.path.exists({str(flag)!r}) and sys.exit('the disk is full')"
    with running_web(project, sweep_command=[sys.executable, "-c", program]) as server:
        sweeper = server.app.state.sweeper
        for count in (1, 2):
            request_sweep(server.app)
            until(lambda: sweeper.failures == count)  # noqa: B023
        last = sweeper.report()["last"]
        assert last["exit_code"] == 1 and "the disk is full" in last["error"]
        assert server.client().get("/health").status_code == 200
        flag.unlink()
        request_sweep(server.app)
        until(lambda: sweeper.failures == 0)
        assert sweeper.report()["last"]["error"] is None


def test_a_sweep_that_cannot_be_started_is_a_failed_one(project: Project) -> None:
    """A missing program is reported like any other failure."""
    with running_web(project, sweep_command=["/nonexistent"]) as server:
        request_sweep(server.app)
        until(lambda: server.app.state.sweeper.failures == 1)
        assert "could not be started" in server.app.state.sweeper.report()["last"]["error"]


def test_the_end_of_the_server_ends_its_sweep(project: Project, tmp_path: Path) -> None:
    """No sweep outlives the server that started it, and the server does not wait for one."""
    folder = tmp_path / "sweeps"
    folder.mkdir()
    (folder / "wait").touch()
    with running_web(project, sweep_command=counting(folder)) as server:
        request_sweep(server.app)
        until(lambda: (folder / "running").exists())
        process = server.app.state.sweeper._process
    assert process.poll() is not None


def test_it_sweeps_by_itself_and_never_when_told_so(project: Project, tmp_path: Path) -> None:
    """Every `sweep_minutes`; with 0 not even after a submission."""
    mark = tmp_path / "swept"
    program = [sys.executable, "-c", f"open({str(mark)!r}, 'w')"]

    def configured(minutes: float) -> Project:
        configure(project, f"web: {{port: 0, sweep_minutes: {minutes}}}")
        return Project.open(project.root)

    never = Sweeper(configured(0), lambda: NOW, program)
    never.start()
    never.request()
    assert never._thread is None
    never.stop()
    often = Sweeper(configured(0.001), lambda: NOW, program)
    often.start()
    until(mark.exists)
    often.stop()
