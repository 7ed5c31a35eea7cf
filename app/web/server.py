"""The application: routers, front, errors, static files, sweeper."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from app.web import auth, decisions, pages, people, reviews, work, worktime
from app.web.carry_out import CarryOut
from app.web.deps import is_secure, session_cookie
from app.web.errors import add_handlers
from app.web.front import Front
from app.web.sweeper import Sweeper
from redraft.errors import ConfigError
from redraft.project import Project
from redraft.security.secrets import read_secret

STATIC = Path(__file__).parent / "static"
# One line per router; each room adds its own.
ROUTERS = (auth.router, pages.router, people.router, worktime.router, work.router, reviews.router, decisions.router)


def utc_now() -> datetime:
    """The server's time."""
    return datetime.now(UTC)


def make_app(
    project: Project, *, clock: Callable[[], datetime] = utc_now, sweep_command: list[str] | None = None
) -> FastAPI:
    """The pages of one project.

    Parameters
    ----------
    clock : callable
        Aware UTC time; tests give their own.
    sweep_command : list of str, optional
        What the sweeper runs instead of `redraft sweep` (for tests).

    Raises
    ------
    ConfigError, SecurityError
        A proxy's address that is none, its secret that is not there.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan)
    app.state.project, app.state.clock = project, clock
    app.state.proxy_secret = _proxy_secret(project)
    app.state.sweeper = Sweeper(project, clock, sweep_command)
    app.state.carry_out = CarryOut(project, clock)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    add_handlers(app)
    web = project.config.web
    app.add_middleware(
        Front, cookie=session_cookie(project), secure=is_secure(project), hosts=_hosts(project),
        max_upload=web.max_upload_mb << 20,
    )  # fmt: skip
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.sweeper.start()
    yield
    app.state.sweeper.stop()
    app.state.carry_out.stop()


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(project: Project) -> frozenset[str] | None:
    """Names that browsers may give; any where the server listens on all addresses and no url is configured."""
    web = project.config.web
    known = {"localhost", "127.0.0.1", "[::1]"}
    if web.url is not None:
        known.add((urlsplit(web.url).hostname or "").lower())
    elif not is_loopback(web.host):
        return None
    return frozenset({*known, web.host.lower()})


def _proxy_secret(project: Project) -> str | None:
    proxy = project.config.web.proxy
    if proxy is None:
        return None
    for address in proxy.addresses:
        try:
            ipaddress.ip_network(address, strict=False)
        except ValueError as error:
            raise ConfigError(
                f"web.proxy.addresses: `{address}` is no address.", "Give addresses or networks, such as 10.0.0.7."
            ) from error
    return read_secret(proxy.secret, project.env, project.root)
