"""`redraft serve`: the pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project

if TYPE_CHECKING:
    from redraft.project import Project


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(serve)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; web.host when omitted.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; web.port when omitted, any free one when 0.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine without TLS and without a proxy.")
    ] = False,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Serve the pages: work lists and review workstation, reviews, operations."""
    import json
    import socket

    import uvicorn

    from app.web.server import make_app
    from redraft.accounts import directory

    project = _with_address(open_project(project_dir), host, port)
    _check(project, insecure)
    application = make_app(project)
    web = project.config.web
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    # With the protocol named: asyncio then sends small answers at once instead of waiting 40 ms for more.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    _bind(listening, web.host, web.port)
    bound = listening.getsockname()[1]
    name = f"[{web.host}]" if ":" in web.host else web.host
    url = web.url or f"{_scheme(project)}://{name}:{bound}"
    active = sum(account.active for account in directory.everybody(project))
    if as_json:
        print(json.dumps({"url": url, "host": web.host, "port": bound, "accounts": active}), flush=True)
    else:
        print(f"Pages of {project.config.name}: {url}", flush=True)
        if not active:
            print("Nobody has an account yet. Add the first one:", flush=True)
            print(f"  redraft user add LOGIN --name NAME --role ops --project {project.root}", flush=True)
    uvicorn.Server(uvicorn.Config(application, **settings(project))).run(sockets=[listening])


def settings(project: Project) -> dict[str, Any]:
    """How uvicorn is run; tests run it the same way."""
    web = project.config.web
    found: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        # Its own idea of a trusted proxy believes everybody on this machine; ours is app/web/deps.py.
        "proxy_headers": False,
        "timeout_graceful_shutdown": 10,
        "ws": "none",
    }
    if web.certificate is not None:
        found |= {
            "ssl_certfile": str(project.resolve(web.certificate)),
            "ssl_keyfile": None if web.key is None else str(project.resolve(web.key)),
        }
    return found


def _with_address(project: Project, host: str | None, port: int | None) -> Project:
    """The project with the address that the command line asks for."""
    from dataclasses import replace

    changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    web = project.config.web.model_copy(update=changes)
    return replace(project, config=project.config.model_copy(update={"web": web}))


def _check(project: Project, insecure: bool) -> None:
    from app.web.server import is_loopback
    from redraft.errors import ConfigError, UsageError

    web = project.config.web
    if (web.certificate is None) != (web.key is None):
        raise ConfigError("web.certificate and web.key belong together.", "Give both in project.yaml, or neither.")
    for path in (web.certificate, web.key):
        if path is not None and not project.resolve(path).is_file():
            raise ConfigError(f"{path} is not there.", "Correct web.certificate and web.key in project.yaml.")
    if web.key is not None and project.resolve(web.key).is_relative_to(project.root):
        raise ConfigError("web.key lies inside the project, which gets published.", "Move it out of the project.")
    protected = web.certificate is not None or web.proxy is not None or (web.url or "").startswith("https://")
    if not is_loopback(web.host) and not protected and not insecure:
        raise UsageError(
            f"{web.host} can be reached from other machines, and passwords would cross the network in the clear.",
            "Set web.certificate and web.key, or a proxy (web.proxy) in front; --insecure overrides this.",
        )


def _scheme(project: Project) -> str:
    return "https" if project.config.web.certificate is not None else "http"


def _bind(listening: Any, host: str, port: int) -> None:
    import socket

    from redraft.errors import ServiceError

    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise ServiceError(
            f"{host}:{port} cannot be listened on ({error.strerror}).",
            "Choose another with --port, or end what has it.",
        ) from error
