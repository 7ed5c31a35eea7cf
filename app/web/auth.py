"""Signing in and out, and who is signed in."""

from __future__ import annotations

import secrets
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from app.web.deps import (
    Viewer,
    address_of,
    cookie_name,
    desk_of,
    is_secure,
    now_of,
    project_of,
    same,
    viewer,
    viewer_or_none,
)
from app.web.errors import WebError, status_of
from app.web.front import cookie
from app.web.render import page
from redraft.accounts import authenticate, sessions
from redraft.accounts.sign_in import signed_out
from redraft.errors import SignInError, TooManyAttempts

router = APIRouter()


@router.get("/health")
def health(request: Request) -> dict[str, str]:
    """Whether the server and its ledger answer; says nothing else to anybody."""
    project_of(request).ledger.rows("project")
    return {"status": "ok"}


@router.get("/sign-in")
def sign_in_page(request: Request, next: str = "/") -> Response:
    """The form; somebody who is signed in goes on."""
    try:
        if viewer_or_none(request) is not None:
            return RedirectResponse(local_path(next), 303)
    except SignInError as error:
        return _form(request, next, error, status_of(error))
    return _form(request, next, None, 200)


@router.post("/sign-in")
def sign_in(
    request: Request,
    login: Annotated[str, Form(max_length=256)] = "",
    password: Annotated[str, Form(max_length=4096)] = "",
    csrf: Annotated[str, Form(max_length=256)] = "",
    next: Annotated[str, Form(max_length=2048)] = "/",
) -> Response:
    """Begin a session of its own, whatever cookie came with the request."""
    project, now = project_of(request), now_of(request)
    # Without a session yet, the form's token is compared with a cookie that only this site can have set.
    if not same(csrf, request.cookies.get(_form_cookie(request))):
        error = WebError(403, "web.csrf", "The form was too old, or cookies are not allowed.", "Sign in again.")
        return _form(request, next, error, 403)
    try:
        account = authenticate(project, login, password, address=address_of(request), now=now)
    except SignInError as refused:
        answer = _form(request, next, refused, status_of(refused))
        if isinstance(refused, TooManyAttempts):
            answer.headers["Retry-After"] = str(refused.wait_seconds)
        return answer
    if old := request.cookies.get(cookie_name(request)):
        sessions.end(project.desk, old)
    hours = project.config.web.session_hours
    token, _ = sessions.begin(project.desk, account.account_id, "password", now=now, hours=hours)
    answer = RedirectResponse(local_path(next), 303)
    answer.headers.append("Set-Cookie", cookie(cookie_name(request), token, secure=is_secure(project)))
    answer.headers.append("Set-Cookie", cookie(_form_cookie(request), "", secure=is_secure(project)))
    return answer


@router.post("/sign-out")
def sign_out(request: Request, found: Annotated[Viewer, Depends(viewer)]) -> Response:
    """End this session."""
    token = request.cookies.get(cookie_name(request)) or str(getattr(request.state, "set_cookie", ""))
    sessions.end(desk_of(request), token)
    request.scope["state"].pop("set_cookie", None)
    signed_out(project_of(request), found.account_id, now_of(request))
    answer = RedirectResponse("/sign-in", 303)
    answer.headers.append("Set-Cookie", cookie(cookie_name(request), "", secure=is_secure(project_of(request))))
    # Not "storage": a workstation page may still hold what it could not send.
    answer.headers["Clear-Site-Data"] = '"cache"'
    return answer


@router.get("/api/me")
def me(found: Annotated[Viewer, Depends(viewer)]) -> dict[str, Any]:
    """Who is signed in."""
    return {
        "account_id": found.account_id, "name": found.name, "roles": list(found.roles), "reader_id": found.reader_id,
        "csrf": found.csrf,
    }  # fmt: skip


def local_path(wanted: str) -> str:
    """Where to go after signing in: a path of this site, else the start page."""
    plain = all(" " <= letter <= "~" and letter != "\\" for letter in wanted)
    parts = urlsplit(wanted) if plain else None
    if parts is None or parts.scheme or parts.netloc or not wanted.startswith("/") or wanted.startswith("//"):
        return "/"
    return wanted


def _form(request: Request, next: str, error: Any, status: int) -> Response:
    name = _form_cookie(request)
    token = request.cookies.get(name) or secrets.token_urlsafe(32)
    shown = None if error is None else error.to_dict()
    answer = page(request, "sign_in.html", status=status, next=local_path(next), csrf=token, error=shown)
    answer.headers.append("Set-Cookie", cookie(name, token, secure=is_secure(project_of(request))))
    return answer


def _form_cookie(request: Request) -> str:
    return f"{cookie_name(request)}-form"
