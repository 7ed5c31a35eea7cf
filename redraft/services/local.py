"""`redraft up` and `redraft down`: start this project's servers on loopback, and end those and no others."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redraft.errors import ConflictError, ServiceError
from redraft.files import write_text
from redraft.project import Project
from redraft.registry.tracking import ensure_store

if TYPE_CHECKING:
    import psutil

# How to start a service: command line, environment, URL, URL that answers when it is ready.
Command = tuple[list[str], dict[str, str], str, str]

READY_SECONDS = 120.0
END_SECONDS = 15.0
# Every process that `up` starts carries the project's state folder in this variable, and so do its children: what is
# ended is known to be ours even when the process that started it died before it could write a pid down.
MARK = "REDRAFT_SERVICE_OF"
PORTS = {"prefect": 4200, "mlflow": 5000, "web": 8080}
# The same as mlflow/server.env, which a server of the hospital's own takes: nothing phones home, nothing is unpickled;
# the job runner (for evaluations by language models) is eight processes that nobody here needs.
MLFLOW_ENV = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def up(project: Project) -> dict[str, Any]:
    """Start the servers that do not run yet and wait until they answer; returns name → url and pid.

    A service for which project.yaml names a server of its own is not started (pid None).

    Raises
    ------
    ServiceError
        When a server ends or does not answer in time, with the end of its log; it is not left running.
    """
    commands = {"prefect": _prefect, "mlflow": _mlflow, "web": _web}
    elsewhere = {"prefect": project.config.services.prefect, "mlflow": project.config.services.mlflow, "web": None}
    answer: dict[str, Any] = {}
    with _locked(project):
        state = _load(project)
        wanted = []
        for name in commands:
            if elsewhere[name]:
                answer[name] = {"url": elsewhere[name], "pid": None}
            elif name not in state or not _runs(state[name]):
                wanted.append(name)
        if wanted:
            with _choosing_ports():
                _start_all(project, {name: commands[name] for name in wanted}, state)
    answer |= {name: {"url": state[name]["url"], "pid": state[name]["pid"]} for name in commands if name in state}
    return {name: answer[name] for name in commands}


def down(project: Project) -> list[str]:
    """End the servers that `up` started here, with their children; returns the names of those that ran."""
    with _locked(project):
        ended = []
        for name in PORTS:
            family = _ours(project, name)
            if family:
                _end(family)
                ended.append(name)
        _file(project).unlink(missing_ok=True)
    return ended


def service_url(project: Project, name: str) -> str | None:
    """URL of a service that `up` started and that still runs."""
    service = _load(project).get(name)
    return service["url"] if service and _runs(service) else None


def reachable(project: Project, name: str) -> bool:
    """Whether a service that `up` started answers."""
    service = _load(project).get(name)
    return bool(service and _runs(service) and _healthy(service["health"]))


def _start_all(project: Project, commands: dict[str, Callable[..., Command]], state: dict[str, Any]) -> None:
    """Start these services, all at once since each takes seconds, and wait for them; all of them run, or none."""
    try:
        for name, make in commands.items():
            _end(_ours(project, name))  # what an interrupted `up` left without a record
            command, env, url, health = make(project, _port(project, name))
            process = _start(project, name, command, env)
            state[name] = {"pid": process.pid, "created": _created(process.pid), "url": url, "health": health}
            write_text(_file(project), json.dumps(state, indent=2), mode=0o600)
        for name in commands:
            _wait(project, name, state[name])
    except BaseException:
        for name in commands:
            _end(_ours(project, name))
            state.pop(name, None)
        write_text(_file(project), json.dumps(state, indent=2), mode=0o600)
        raise


def _start(project: Project, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    log = _log(project, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, **env, MARK: f"{project.state}#{name}"}
    with open(log, "wb") as stream:
        return subprocess.Popen(
            command, env=env, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True,
            cwd=project.state,
        )  # fmt: skip


def _ours(project: Project, name: str) -> list[psutil.Process]:
    """Every living process that a service's start of this project led to."""
    import psutil

    mark = f"{project.state}#{name}"
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # gone meanwhile, or another user's
    return found


def _end(family: list[psutil.Process]) -> None:
    """End processes: asked first, then killed. A dead one that nobody has collected yet counts as ended."""
    import psutil

    for number in (signal.SIGTERM, signal.SIGKILL):
        for member in family:
            try:
                member.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        deadline = time.monotonic() + END_SECONDS
        while (family := [member for member in family if _lives(member)]) and time.monotonic() < deadline:
            time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _prefect(project: Project, port: int) -> Command:
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


def _mlflow(project: Project, port: int) -> Command:
    store = f"sqlite:///{project.state / 'mlflow.db'}"
    ensure_store(store, project.state)
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", store,
        "--default-artifact-root", (project.state / "mlartifacts").as_uri(),
    ]  # fmt: skip
    return command, dict(MLFLOW_ENV), url, f"{url}/health"


def _web(project: Project, port: int) -> Command:
    web = project.config.web
    scheme = "http" if web.certificate is None else "https"
    here = "127.0.0.1" if web.host in ("0.0.0.0", "localhost") else "[::1]" if web.host == "::" else web.host
    command = [
        sys.executable, "-m", "app.cli.main", "serve", "--project", str(project.root), "--port", str(port), "--json",
    ]  # fmt: skip
    # Started in the state folder: a checkout that is not installed is found by its place.
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    address = f"{scheme}://{here}:{port}"
    return command, {"PYTHONPATH": os.pathsep.join(paths)}, web.url or address, f"{address}/health"


def _wait(project: Project, name: str, service: dict[str, Any]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    why = f"did not answer within {READY_SECONDS:.0f} s"
    while time.monotonic() < deadline:
        if not _runs(service):
            why = "ended while it started"
            break
        if _healthy(service["health"]):
            return
        time.sleep(0.1)
    log = _log(project, name)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    raise ServiceError(f"{name} {why}. Its log ends:\n{tail}\n", f"See {log}.", code=f"service.{name}")


def _healthy(url: str) -> bool:
    try:
        # Whether it answers, not who it is: its certificate is for the name that browsers use.
        context = ssl._create_unverified_context() if url.startswith("https:") else None
        with urllib.request.urlopen(url, timeout=2, context=context) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


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


def _log(project: Project, name: str) -> Path:
    return project.state / "logs" / f"{name}.log"


def _load(project: Project) -> dict[str, Any]:
    """The services on record; a record that cannot be read is none, their marks still tell them."""
    try:
        content = json.loads(_file(project).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def _locked(project: Project) -> Iterator[None]:
    """One `up` or `down` at a time; the lock goes with its process."""
    project.state.mkdir(parents=True, exist_ok=True)
    with open(project.state / "services.lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                "Another `redraft up` or `redraft down` is at work in this project.", "Wait for it to end."
            ) from error
        yield


@contextmanager
def _choosing_ports() -> Iterator[None]:
    """One start of servers at a time per user of the machine: a port found free stays so until its server has it."""
    path = Path(tempfile.gettempdir()) / f"redraft-ports-{os.getuid()}.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _port(project: Project, name: str) -> int:
    """A service's port. The pages' is the configured one where others count on it: a proxy, bookmarks of a url."""
    if name != "web":
        return _free_port(PORTS[name])
    web = project.config.web
    counted_on = web.url is not None or web.proxy is not None or web.host not in ("127.0.0.1", "localhost")
    return _free_port(web.port, other=not counted_on)


def _free_port(wanted: int, *, other: bool = True) -> int:
    """The usual port when it is free, so that bookmarks keep working; else any, or ServiceError."""
    for port in (wanted, 0) if other else (wanted,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    if not other:
        raise ServiceError(f"Port {wanted} is taken.", "End what has it, or set another web.port.")
    raise ServiceError("No port is free on 127.0.0.1.", "Close some programs and run the command again.")
