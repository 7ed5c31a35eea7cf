"""Who asks, and may they: what every endpoint depends on.

`viewer` also checks the CSRF token of every request that can change something, so that no endpoint can forget it.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import select

from app.web.errors import WebError, signed_out
from app.web.front import is_large
from redraft.accounts import directory, sessions, sign_in
from redraft.config.schema import TrustedProxy
from redraft.desk.store import Desk, credential
from redraft.project import Project

SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Viewer:
    """Somebody signed in. `how` is `password` or `proxy`."""

    account_id: str
    reader_id: str | None
    roles: tuple[str, ...]
    csrf: str
    name: str
    how: str = "password"

    def may(self, *roles: str) -> bool:
        """Whether one of these roles is theirs."""
        return any(role in self.roles for role in roles)

    @property
    def identity(self) -> sign_in.Identity:
        """The viewer as somebody whose act is authenticated (decisions, exports)."""
        return sign_in.Identity(self.account_id, self.roles, self.how)


def project_of(request: Request) -> Project:
    """The project that this server serves."""
    project: Project = request.app.state.project
    return project


def desk_of(request: Request) -> Desk:
    """Its desk database."""
    return project_of(request).desk


def now_of(request: Request) -> datetime:
    """The server's time; tests set it."""
    now: datetime = request.app.state.clock()
    return now


async def _offered_csrf(request: Request) -> str | None:
    """The token that a request carries: in its header, in a form, or in the JSON that a closing page sends."""
    if request.method in SAFE:
        return None
    if header := request.headers.get("x-csrf-token"):
        return header
    if is_large(request.scope["path"]):  # nobody may have this much read who has not shown who they are
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
            value: Any = (await request.form()).get("csrf")
        elif kind in ("application/json", "text/plain"):  # sendBeacon sends text
            content = json.loads(await request.body())
            value = content.get("csrf") if isinstance(content, dict) else None
        else:
            value = None
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, str) else None


def viewer(request: Request, offered: Annotated[str | None, Depends(_offered_csrf)]) -> Viewer:
    """Who asks. WebError 401 when nobody is signed in, 403 for a wrong CSRF token."""
    found = viewer_or_none(request)
    if found is None:
        raise signed_out()
    if request.method not in SAFE and not same(offered, found.csrf):
        raise WebError(
            403, "web.csrf", "This request does not come from a page of yours.", "Reload the page and try again."
        )
    return found


def need(*roles: str) -> Callable[..., Viewer]:
    """A dependency: the viewer, who has one of these roles. WebError 403 otherwise."""

    def needed(found: Annotated[Viewer, Depends(viewer)]) -> Viewer:
        if not found.may(*roles):
            raise WebError(
                403, "web.role", f"This needs the role {' or '.join(roles)}.", "Ask ops if it should be yours."
            )
        return found

    return needed


def viewer_or_none(request: Request) -> Viewer | None:
    """Who asks, or None; the account is looked up each time, so that a removal holds at once."""
    session = _session(request)
    if session is None:
        return None
    project = project_of(request)
    account = directory.by_id(project, session.account_id)
    if account is None or not account.active:
        return None
    found = Viewer(
        account.account_id, account.reader_id, account.roles, session.csrf, account.name or account.account_id,
        session.identity,
    )  # fmt: skip
    request.state.viewer = found
    return found


def _session(request: Request) -> sessions.Session | None:
    project, now = project_of(request), now_of(request)
    token = request.cookies.get(cookie_name(request))
    session = None
    if token:
        idle = project.config.web.session_idle_minutes
        session = sessions.find(project.desk, token, now=now, idle_minutes=idle)
    login = _login_by_proxy(request)
    if login is None:
        # What the proxy vouched for once holds only while it does.
        return session if session is not None and session.identity == "password" else None
    if session is not None and session.identity == "proxy" and _login_is(project.desk, login, session.account_id):
        return session
    account = sign_in.vouched_for(project, login, address=address_of(request), now=now)
    if session is not None and token:
        sessions.end(project.desk, token)
    hours = project.config.web.session_hours
    token, session = sessions.begin(project.desk, account.account_id, "proxy", now=now, hours=hours)
    request.state.set_cookie = token  # the front puts it into the answer
    return session


def _login_is(desk: Desk, login: str, account_id: str) -> bool:
    with desk.read() as connection:
        known = connection.execute(select(credential.c.login).where(credential.c.account_id == account_id)).scalar()
    return known is not None and known == login.strip().lower()


def _login_by_proxy(request: Request) -> str | None:
    proxy = project_of(request).config.web.proxy
    if proxy is None or not from_proxy(request, proxy):
        return None
    return request.headers.get(proxy.header) or None


def from_proxy(request: Request, proxy: TrustedProxy) -> bool:
    """Whether a request comes from the trusted proxy: from its address, and with the secret they share."""
    try:
        peer = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    if not any(peer in ipaddress.ip_network(address, strict=False) for address in proxy.addresses):
        return False
    return same(request.headers.get("x-redraft-proxy"), request.app.state.proxy_secret)


def address_of(request: Request) -> str:
    """The browser's address, for the limit of attempts: the proxy's word counts when the proxy is the trusted one."""
    proxy = project_of(request).config.web.proxy
    if proxy is not None and from_proxy(request, proxy):
        forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        if forwarded:
            return forwarded[:64]
    return request.client.host if request.client else "unknown"


def is_secure(project: Project) -> bool:
    """Whether browsers reach this server over https."""
    web = project.config.web
    return web.certificate is not None or (web.url or "").startswith("https://")


def cookie_name(request: Request) -> str:
    """Name of the session's cookie. `__Host-`: browsers take it over https only, from this host only."""
    return session_cookie(project_of(request))


def session_cookie(project: Project) -> str:
    """Name of the session's cookie of a project's pages."""
    return "__Host-redraft" if is_secure(project) else "redraft"


def same(offered: str | None, right: str | None) -> bool:
    """Whether two secrets are the same, in a time that does not tell how much of them is."""
    if not offered or not right:
        return False
    return hmac.compare_digest(offered.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))
