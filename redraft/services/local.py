"""`redraft up` and `redraft down`: start this project's servers on loopback, and end those and no others."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from redraft.errors import ServiceError
from redraft.files import write_text
from redraft.project import Project

READY_SECONDS = 120


def up(project: Project) -> dict[str, Any]:
    """Start the servers that do not run yet and wait until they answer. Raises ServiceError with the log's end."""
    state = _load(project)
    commands = {"prefect": _prefect, "mlflow": _mlflow}
    started: list[str] = []
    for name, make in commands.items():
        if name in state and _runs(state[name]):
            continue
        port = _free_port()
        command, env, url, health = make(project, port)
        log = project.state / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as stream:
            process = subprocess.Popen(
                command, env={**os.environ, **env}, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL,
                start_new_session=True, cwd=project.state,
            )  # fmt: skip
        state[name] = {"pid": process.pid, "created": _created(process.pid), "url": url, "health": health}
        write_text(_file(project), json.dumps(state, indent=2), mode=0o600)
        started.append(name)
    for name in started:
        _wait(project, name, state[name])
    return {name: {"url": service["url"], "pid": service["pid"]} for name, service in state.items()}


def down(project: Project) -> list[str]:
    """End the servers that `up` started here; returns their names."""
    import psutil

    ended = []
    for name, service in _load(project).items():
        if not _runs(service):
            continue
        process = psutil.Process(service["pid"])
        family = [*process.children(recursive=True), process]
        for member in family:
            member.terminate()
        _, stubborn = psutil.wait_procs(family, timeout=15)
        for member in stubborn:
            member.kill()
        ended.append(name)
    _file(project).unlink(missing_ok=True)
    return ended


def service_url(project: Project, name: str) -> str | None:
    """URL of a service that `up` started and that still runs."""
    service = _load(project).get(name)
    return service["url"] if service and _runs(service) else None


def _prefect(project: Project, port: int) -> tuple[list[str], dict[str, str], str, str]:
    home = project.state / "prefect"
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_UI_ENABLED": "true",
    }
    home.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    return command, env, url, f"{url}/health"


def _mlflow(project: Project, port: int) -> tuple[list[str], dict[str, str], str, str]:
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{project.state / 'mlflow.db'}",
        "--default-artifact-root", (project.state / "mlartifacts").as_uri(),
    ]  # fmt: skip
    return command, {"MLFLOW_DISABLE_TELEMETRY": "true"}, url, f"{url}/health"


def _wait(project: Project, name: str, service: dict[str, Any]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if not _runs(service):
            break
        try:
            with urllib.request.urlopen(service["health"], timeout=2) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    log = project.state / "logs" / f"{name}.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    raise ServiceError(f"{name} did not start within {READY_SECONDS} s. Its log ends:\n{tail}", f"See {log}.")


def _runs(service: dict[str, Any]) -> bool:
    """Whether exactly this process still runs: a recycled pid has another creation time."""
    created = _created(service["pid"])
    return created is not None and abs(created - service["created"]) < 2


def _created(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _file(project: Project) -> Path:
    return project.state / "services.json"


def _load(project: Project) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(_file(project).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
