"""The pages of a project on a loopback port of their own, with accounts, and clients that are signed in."""

from __future__ import annotations

import html
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from redraft.accounts import directory
from redraft.project import Project

PASSWORD = "a long enough sentence"


@dataclass
class WebServer:
    """A running server. `app` is the application itself, for its state (clock, sweeper)."""

    project: Project
    url: str
    app: Any
    accounts: dict[str, directory.Account] = field(default_factory=dict)

    def add(
        self, login: str, *roles: str, reader: str | None = None, name: str = "", password: str | None = PASSWORD
    ) -> directory.Account:
        """Add an account; a reader is named by `reader`, and then has the role."""
        wanted = roles or (("reader",) if reader else ())
        account = directory.add(
            self.project, login, name=name or f"Dr. {login.title()}", roles=wanted, reader_id=reader,
            password=password, now=self.app.state.clock(),
        )  # fmt: skip
        self.accounts[login] = account
        return account

    def client(self, **kwargs: Any) -> httpx.Client:
        """A browser's worth of cookies, not signed in; redirects are not followed."""
        return httpx.Client(base_url=self.url, timeout=30, **kwargs)

    def sign_in(self, login: str, password: str = PASSWORD) -> httpx.Client:
        """A client that is signed in, with its CSRF token in a header of every request."""
        client = self.client()
        answer = post_sign_in(client, login, password)
        assert answer.status_code == 303, answer.text
        client.headers["X-CSRF-Token"] = client.get("/api/me").json()["csrf"]
        return client


def post_sign_in(client: httpx.Client, login: str, password: str, next: str = "/") -> httpx.Response:
    """Fill in the form as a browser does."""
    page = client.get("/sign-in", params={"next": next})
    found = re.findall(r'<input type="hidden" name="(csrf|next)" value="([^"]*)"', page.text)
    fields = {name: html.unescape(value) for name, value in found}
    return client.post("/sign-in", data={"login": login, "password": password, **fields})


@contextmanager
def running_web(
    project: Project,
    *,
    clock: Callable[[], datetime] | None = None,
    port: int = 0,
    sweep_command: list[str] | None = None,
    **uvicorn_settings: Any,
) -> Iterator[WebServer]:
    """Serve the project's pages until the end of the block. `port` 0 takes a free one."""
    import uvicorn

    from app.cli.serve import settings
    from app.web.server import make_app

    app = make_app(project, clock=clock or (lambda: datetime.now(UTC)), sweep_command=sweep_command)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, **{**settings(project), "log_level": "warning", **uvicorn_settings}))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield WebServer(project, f"http://127.0.0.1:{listening.getsockname()[1]}", app)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listening.close()
