"""Errors of the pages: redraft's own, told by HTTP status, as JSON for programs and as a page for people."""

from __future__ import annotations

import logging
from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from app.web.render import error_page
from redraft.errors import (
    ConflictError,
    ExamError,
    RedraftError,
    SecurityError,
    ServiceError,
    SignInError,
    StateError,
    StorageError,
    TooManyAttempts,
    UsageError,
)

_log = logging.getLogger("redraft.web")


class WebError(RedraftError):
    """A refusal of the pages, with its HTTP status."""

    code = "web"

    def __init__(self, status: int, code: str, what: str, do: str = "", *, retry: bool | None = None):
        super().__init__(what, do, code=code, retry=retry)
        self.status = status


def not_found(what: str = "This is not here.", do: str = "Go back to your work list.") -> WebError:
    """What a viewer may not know of, or what does not exist: the same answer, so that nothing is told."""
    return WebError(404, "web.not_found", what, do)


def signed_out() -> WebError:
    """The request shows no session that holds."""
    return WebError(401, "web.signed_out", "You are not signed in, or no longer.", "Sign in; unsaved work is kept.")


# Errors of other rooms by their codes, where the class does not tell the status.
_BY_CODE = {
    "work.no_draft": 404, "work.not_found": 404, "work.stale": 409, "work.tab": 409, "work.lease_expired": 410,
    "work.too_large": 413, "work.grid": 422, "work.values": 422, "work.not_gzip": 422, "sign_in.role": 403,
    "review.role": 403, "review.own_work": 403, "usage.reason": 422, "usage.reading": 422, "work.slice": 404,
    "work.not_a_label": 422, "work.verdict": 422, "work.reason": 422, "work.remark": 422,
    "work.nothing_drawn": 409, "work.busy": 503, "storage.full": 507,
}  # fmt: skip
_BY_CLASS: tuple[tuple[type[RedraftError], int], ...] = (
    (TooManyAttempts, 429), (SignInError, 401), (UsageError, 400), (ExamError, 422), (StateError, 409),
    (ConflictError, 409), (StorageError, 503), (ServiceError, 503), (SecurityError, 403),
)  # fmt: skip


def status_of(error: RedraftError) -> int:
    """The HTTP status of an error."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    if isinstance(error, ConflictError) and error.code == ConflictError.code and error.retry:
        return 503  # the ledger is busy: the same again, a little later, is no conflict
    return next((status for kind, status in _BY_CLASS if isinstance(error, kind)), 500)


def add_handlers(app: FastAPI) -> None:
    """Turn every error that reaches the server into an answer; none quotes what was sent."""
    app.add_exception_handler(RedraftError, _redraft)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(UnicodeEncodeError, _no_value)
    app.add_exception_handler(OverflowError, _no_value)
    app.add_exception_handler(Exception, _unexpected)


async def _redraft(request: Request, error: Exception) -> Response:
    assert isinstance(error, RedraftError)
    status = status_of(error)
    if status >= 500:
        _log.error("%s %s: %s", request.method, request.scope["path"], error.code, exc_info=error)
    return _answer(request, error, status)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = sorted({".".join(str(part) for part in item["loc"]) for item in error.errors()})
    what = f"The request is not as it should be: {', '.join(places)}."
    return _answer(request, WebError(422, "web.validation", what, "Reload the page."), 422)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    if status == 404:
        found: WebError = not_found("There is no such page.", "Go back to the start page.")
    elif status == 413:
        found = WebError(413, "web.too_large", "What was sent is larger than this server takes.", "Send less.")
    else:
        phrase = HTTPStatus(status).phrase
        found = WebError(status, f"web.http_{status}", f"The request was refused ({phrase}).", "Reload the page.")
    answer = _answer(request, found, status)
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _database(request: Request, error: Exception) -> Response:
    """The desk's database, where no room has words of its own: sessions, attempts, what a page reads."""
    assert isinstance(error, DBAPIError)
    text = str(error.orig)
    _log.error("%s %s: the desk (%s)", request.method, request.scope["path"], type(error.orig).__name__)
    if any(sign in text for sign in ("locked", "busy")):
        return _answer(
            request, WebError(503, "work.busy", "The desk is busy.", "Try again in a moment.", retry=True), 503
        )
    if any(sign in text for sign in ("full", "disk I/O", "readonly", "unable to open")):
        what = "The server cannot write: its disk is full or cannot be reached."
        do = "Tell who runs redraft; what is on this page is kept here until it is saved."
        return _answer(request, WebError(507, "storage.full", what, do, retry=True), 507)
    return await _unexpected(request, error)


async def _no_value(request: Request, error: Exception) -> Response:
    """JSON and addresses can carry halves of characters and numbers of any size, which no database takes."""
    what = "The request holds a number that is far too large, or text that is none (half a character)."
    return _answer(request, WebError(422, "web.validation", what, "Reload the page."), 422)


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, and the server logs it.
    what = "The server met an error of its own; it is in the server's log."
    return _answer(request, WebError(500, "web.internal", what, "Try again; report it if it stays."), 500)


def _answer(request: Request, error: RedraftError, status: int) -> Response:
    path: str = request.scope["path"]
    if path.startswith("/api/"):
        answer: Response = JSONResponse({"error": error.to_dict()}, status)
    elif status == 401 and not isinstance(error, SignInError) and request.method in ("GET", "HEAD"):
        query = request.scope.get("query_string", b"").decode("latin-1")
        wanted = path + (f"?{query}" if query else "")
        answer = RedirectResponse(f"/sign-in?next={quote(wanted, safe='')}" if wanted != "/" else "/sign-in", 303)
    else:
        answer = error_page(request, error.to_dict(), status, getattr(request.state, "viewer", None))
    if isinstance(error, TooManyAttempts):
        answer.headers["Retry-After"] = str(error.wait_seconds)
    return answer
