"""An HTTP proxy in front of a real server that does wrong what networks and servers do wrong."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length", "host"}


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose ``METHOD path?query`` matches; -1: with all of them.

    Attributes
    ----------
    status : int, optional
        Answer this instead of asking the real server.
    hang : bool
        Say nothing until the proxy ends.
    change : function, optional
        Body of the real answer → body to send.
    drop_after : int, optional
        Close the connection after that many bytes of the body.
    framed : bool
        Whether the answer has a Content-Length; without one, its end is the end of the connection.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    change: Callable[[bytes], bytes] | None = None
    drop_after: int | None = None
    framed: bool = True

    def takes(self, line: str) -> bool:
        if self.times == 0 or re.search(self.pattern, line) is None:
            return False
        self.times -= 1
        return True


@dataclass
class FaultyProxy:
    """A running proxy.

    Attributes
    ----------
    requests : list of str
        ``METHOD path?query`` of everything asked, in order.
    authorizations : list
        The Authorization header of each.
    """

    url: str
    faults: list[Fault]
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    def asked(self, pattern: str) -> list[str]:
        """The requests that match a pattern."""
        return [line for line in self.requests if re.search(pattern, line)]


@contextmanager
def faulty_proxy(
    target: str,
    *faults: Fault,
    tls: ssl.SSLContext | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Iterator[FaultyProxy]:
    """Start a proxy on a free port of loopback; everything without a fault goes to `target` as it is.

    Parameters
    ----------
    tls : SSLContext, optional
        Speak HTTPS with this server-side context.
    headers : sequence of (name, value)
        Set in every request that is passed on, e.g. the real server's login.
    """
    over = threading.Event()
    upstream = requests.Session()
    upstream.trust_env = False
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # header and body are two writes: else each answer waits 40 ms

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            line = f"{self.command} {self.path}"
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            with lock:
                proxy.requests.append(line)
                proxy.authorizations.append(self.headers.get("Authorization"))
                fault = next((one for one in proxy.faults if one.takes(line)), Fault(""))
            if fault.hang:
                over.wait()
                self.close_connection = True
                return
            if fault.status is not None:
                self._send(
                    fault.status, {"Content-Type": "text/plain", **fault.headers}, b"the server's own words", fault
                )
                return
            passed = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP} | dict(headers)
            with lock:
                real = upstream.request(self.command, target + self.path, data=body, headers=passed, timeout=60)
            content = fault.change(real.content) if fault.change else real.content
            kept = {k: v for k, v in real.headers.items() if k.lower() not in HOP_BY_HOP}
            self._send(real.status_code, kept | fault.headers, content, fault)

        def _send(self, status: int, sent: dict[str, str], content: bytes, fault: Fault) -> None:
            self.send_response(status)
            for name, value in sent.items():
                self.send_header(name, value)
            if fault.framed:
                self.send_header("Content-Length", str(len(content)))
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content if fault.drop_after is None else content[: fault.drop_after])
            self.wfile.flush()
            if fault.drop_after is not None or not fault.framed:
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # clients that refuse our certificate, or hang up, are what the tests are about

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            if tls is not None:
                # The handshake happens in the connection's own thread, at its first read.
                connection = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, address

    server = Server(("127.0.0.1", 0), Handler)
    scheme = "http" if tls is None else "https"
    proxy = FaultyProxy(f"{scheme}://localhost:{server.server_port}", list(faults))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
        upstream.close()
