"""What every request meets first and every answer passes last: sizes, other sites, security headers, the cookie."""

from __future__ import annotations

import json
from http.cookies import SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Scripts, styles and pictures from here only. Blobs: a viewer's workers, pictures made in the page.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self' blob:; "
    "worker-src 'self' blob:; font-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
SMALL = 1 << 20
_LARGE = ("mask", "upload")


class Front:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, cookie: str, secure: bool, hosts: frozenset[str] | None, max_upload: int):
        """`hosts` are the names that the Host header may give (another one may be a rebound name); any when None."""
        self.app = app
        self.cookie, self.secure, self.hosts, self.max_upload = cookie, secure, hosts, max_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        state: dict[str, Any] = scope.setdefault("state", {})

        async def out(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._dress(MutableHeaders(scope=message), state)
            await send(message)

        if self.hosts is not None and _host(headers.get("host", "")) not in self.hosts:
            await _refuse(out, 421, "web.host", "This server has another name.", "Open the address that ops gave you.")
            return
        safe = scope["method"] in ("GET", "HEAD", "OPTIONS")
        if not safe and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            await _refuse(out, 403, "web.cross_site", "Another site sent this request.", "Use redraft's own pages.")
            return
        limit = self.max_upload if is_large(scope["path"]) else SMALL
        declared = headers.get("content-length", "0")
        length = int(declared) if declared.isascii() and declared.isdigit() else None
        if length is None or length > limit:
            if length is not None and length <= 2 * limit:
                await _drain(receive)
            size = f"{limit >> 20} MiB"
            await _refuse(
                out,
                413,
                "web.too_large",
                f"What was sent is larger than {size}.",
                "Send less; web.max_upload_mb says how much.",
            )
            return
        await self.app(scope, _counted(receive, limit), out)

    def _dress(self, headers: MutableHeaders, state: dict[str, Any]) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("Cache-Control", "no-store")
        if self.secure:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        if "set_cookie" in state:
            headers.append("Set-Cookie", cookie(self.cookie, state["set_cookie"], secure=self.secure))


def is_large(path: str) -> bool:
    """Whether masks and labels are sent to this address: up to web.max_upload_mb, with the CSRF token as a header."""
    return path.rstrip("/").rpartition("/")[2] in _LARGE


def cookie(name: str, value: str, *, secure: bool) -> str:
    """A Set-Cookie header; an empty value takes the cookie away.

    Lax and not Strict: a reminder's link is opened from a mail program, and would find its reader signed out. What
    changes something needs the CSRF token besides.
    """
    jar: SimpleCookie = SimpleCookie()
    jar[name] = value
    jar[name]["path"], jar[name]["httponly"], jar[name]["samesite"] = "/", True, "Lax"
    if secure:
        jar[name]["secure"] = True
    if not value:
        jar[name]["max-age"] = 0
    return jar[name].OutputString()


def _host(value: str) -> str:
    """The name in a Host header, without its port."""
    name = value.rpartition("]")[0] + "]" if value.startswith("[") else value.partition(":")[0]
    return name.lower()


def _counted(receive: Receive, limit: int) -> Receive:
    """What is received, until it is more than the limit: a body may come without saying its length."""
    count = 0

    async def counted() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > limit:
            raise HTTPException(413)
        return message

    return counted


async def _drain(receive: Receive) -> None:
    """Read on to the end: a sender that is cut off while it sends never sees the answer."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


async def _refuse(send: Send, status: int, code: str, what: str, do: str) -> None:
    error = {"code": code, "what": what, "do": do, "retry": False}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
