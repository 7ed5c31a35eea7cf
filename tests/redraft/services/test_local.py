from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from redraft.config.load import load_config
from redraft.config.schema import Services
from redraft.errors import ConflictError, ServiceError
from redraft.files import write_text
from redraft.ledger import Ledger
from redraft.project import Project
from redraft.services import local

SLEEPER = "import time; time.sleep(600)"
ANSWERER = (
    "import http.server as h, socketserver as s, subprocess, sys\n"
    "class H(h.BaseHTTPRequestHandler):\n"
    " def do_GET(self): self.send_response(200); self.end_headers()\n"
    " def log_message(self, *a): pass\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "s.TCPServer.allow_reuse_address = True\n"
    "s.TCPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()"
)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    from importlib.resources import files

    root = tmp_path / "a project"
    text = (files("redraft.config.templates") / "kidney-ct.yaml").read_text(encoding="utf-8")
    write_text(root / "project.yaml", text.replace("{name}", "kidneys"))
    project = Project(root.resolve(), load_config(root / "project.yaml"))
    project.state.mkdir()
    yield project
    for name in local.PORTS:
        local._end(local._ours(project, name))


def small(program: str) -> Any:
    """A server of a few lines in place of Prefect and MLflow."""

    def make(project: Project, port: int) -> tuple[list[str], dict[str, str], str, str]:
        url = f"http://127.0.0.1:{port}"
        return [sys.executable, "-c", program, str(port)], {}, url, url

    return make


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_prefect", "_mlflow", "_web"):
        monkeypatch.setattr(local, name, small(ANSWERER))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_servers_really_start_answer_and_end(project: Project) -> None:
    """All answer on loopback, a second `up` is the same, `down` leaves no process, and they can start again."""
    Ledger.create(project.ledger_url)
    before = {process.pid for process in psutil.process_iter()}
    first = local.up(project)
    assert all(service["url"].startswith("http://127.0.0.1:") for service in first.values())
    assert local.up(project) == first
    assert all(local.reachable(project, name) for name in first)
    assert local.service_url(project, "prefect") == first["prefect"]["url"]
    for name in first:
        for process in local._ours(project, name):
            listening = [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            assert set(listening) <= {"127.0.0.1"}
    family = [process for name in first for process in local._ours(project, name)]
    assert len(family) >= 3
    assert local.down(project) == ["prefect", "mlflow", "web"]
    assert not any(local._lives(process) for process in family)
    assert not any(local.reachable(project, name) for name in first)
    # Whatever they write stays inside the project.
    assert (project.state / "prefect" / "prefect.db").exists() and (project.state / "mlflow.db").exists()
    assert not {p.pid for p in psutil.process_iter() if "prefect" in " ".join(_cmdline(p))} - before


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.usefixtures("quick")
def test_down_ends_children_and_nothing_else(project: Project) -> None:
    """A server's children go with it; a process of somebody else, started the same way, stays."""
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        local.up(project)
        deadline = time.monotonic() + 10
        while len(local._ours(project, "prefect")) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        family = [process for name in local.PORTS for process in local._ours(project, name)]
        assert len(family) >= 3
        assert local.down(project) == ["prefect", "mlflow", "web"]
        assert not any(local._lives(process) for process in family)
        assert stranger.poll() is None
        assert local.down(project) == []
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.usefixtures("quick")
def test_a_recycled_pid_is_not_taken_for_ours(project: Project) -> None:
    """services.json names a living process that is somebody else's: it is neither believed nor ended."""
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        record = {"pid": stranger.pid, "created": 1.0, "url": "http://127.0.0.1:1", "health": "http://127.0.0.1:1"}
        write_text(project.state / "services.json", json.dumps({"prefect": record}))
        assert local.service_url(project, "prefect") is None
        assert local.down(project) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("record", [None, "{", "[]"])
def test_a_server_without_a_record_is_found_by_its_mark(project: Project, record: str | None) -> None:
    """`up` died before it wrote the pid, or the file is damaged: the next `up` does not leave a second server."""
    local.up(project)
    file = project.state / "services.json"
    if record is None:
        file.unlink()
    else:
        file.write_text(record)
    orphans = [process for name in local.PORTS for process in local._ours(project, name)]
    local.up(project)
    assert not any(local._lives(process) for process in orphans)
    assert local.down(project) == ["prefect", "mlflow", "web"]


def test_a_server_that_ends_at_once_is_said_with_its_log(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the end of the log; the other server is not left running either."""
    monkeypatch.setattr(local, "_mlflow", small(SLEEPER))
    monkeypatch.setattr(local, "_web", small(SLEEPER))
    monkeypatch.setattr(local, "_prefect", small("raise SystemExit('the database is locked')"))
    with pytest.raises(ServiceError, match="the database is locked") as caught:
        local.up(project)
    assert caught.value.code == "service.prefect"
    assert [process for name in local.PORTS for process in local._ours(project, name)] == []
    assert local.service_url(project, "mlflow") is None


def test_a_server_that_never_answers_is_given_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that a start may take it is ended, and that is said."""
    monkeypatch.setattr(local, "READY_SECONDS", 0.5)
    for name in ("_prefect", "_mlflow", "_web"):
        monkeypatch.setattr(local, name, small(SLEEPER))
    with pytest.raises(ServiceError, match="did not answer within"):
        local.up(project)
    assert local._ours(project, "prefect") == []


@pytest.mark.usefixtures("quick")
def test_a_service_configured_elsewhere_is_not_started(project: Project) -> None:
    """With services.mlflow in project.yaml there is one MLflow, and it is not ours to start or stop."""
    config = project.config.model_copy(update={"services": Services(mlflow="https://mlflow.example.org")})
    elsewhere = replace(project, config=config)
    state = local.up(elsewhere)
    assert state["mlflow"] == {"url": "https://mlflow.example.org", "pid": None}
    assert local.down(elsewhere) == ["prefect", "web"]


@pytest.mark.usefixtures("quick")
def test_two_at_once_start_one_set_of_servers(project: Project) -> None:
    """While one `up` is at work, another is told to wait."""
    with local._locked(project), pytest.raises(ConflictError, match="at work"):
        local.up(project)


def test_the_pages_port_is_kept_where_others_count_on_it(project: Project) -> None:
    """A free one is taken instead of an occupied one; behind a proxy or a url that would lead nobody anywhere."""
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]

        def served(**settings: Any) -> Project:
            web = project.config.web.model_copy(update={"port": port, **settings})
            return replace(project, config=project.config.model_copy(update={"web": web}))

        assert local._port(served(), "web") != port
        with pytest.raises(ServiceError, match=f"Port {port} is taken"):
            local._port(served(url="https://redraft.example.org"), "web")


def test_an_occupied_port_is_avoided() -> None:
    """The usual port is taken when free, another one when not."""
    free = local._free_port(0)
    assert local._free_port(free) == free
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free))
        taken.listen()
        assert local._free_port(free) != free


def test_no_mark_of_ours_is_on_the_tests_themselves() -> None:
    """The mark that `down` ends processes by is not inherited from whoever runs this."""
    assert local.MARK not in os.environ
