"""An S3 endpoint over HTTP, and a proxy that drops, breaks, delays and alters what passes.

The endpoint is moto's server on a free port. With REDRAFT_TEST_S3_ENDPOINT, REDRAFT_TEST_S3_KEY and
REDRAFT_TEST_S3_SECRET in the environment the same tests run against another one (radosgw, MinIO, AWS).
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit


@dataclass(frozen=True)
class S3:
    """A running endpoint; `real` when it is not moto's, which believes every key."""

    endpoint: str
    key: str
    secret: str
    real: bool
    client: Any = field(repr=False)

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """A new bucket, emptied and removed at the end."""
        name = f"redraft-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        try:
            yield name
        finally:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=name)
            for key in [item["Key"] for page in pages for item in page.get("Contents", ())]:
                self.client.delete_object(Bucket=name, Key=key)
            self.client.delete_bucket(Bucket=name)


@contextmanager
def running_s3() -> Iterator[S3]:
    """The endpoint that the environment names, else a server of our own."""
    if endpoint := os.environ.get("REDRAFT_TEST_S3_ENDPOINT"):
        key, secret = os.environ["REDRAFT_TEST_S3_KEY"], os.environ["REDRAFT_TEST_S3_SECRET"]
        yield S3(endpoint, key, secret, True, _client(endpoint, key, secret))
        return
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # Small pages, so that listings go over several.
    os.environ["MOTO_S3_DEFAULT_MAX_KEYS"] = "7"
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        yield S3(endpoint, "reader", "reader-secret", False, _client(endpoint, "reader", "reader-secret"))
    finally:
        server.stop()
        del os.environ["MOTO_S3_DEFAULT_MAX_KEYS"]


def _client(endpoint: str, key: str, secret: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )  # fmt: skip


@dataclass
class Fault:
    """What happens to the next answer to a request for an object that holds `match` (for a listing: `token`).

    `after` bytes of the answer (head included) pass. Then: the connection is closed (``cut``) or reset (``reset``),
    nothing comes any more (``hang``), or one byte is another (``alter``).
    """

    kind: Literal["cut", "reset", "hang", "alter"]
    after: int
    match: str = "GET "


class Proxy:
    """A TCP proxy before an HTTP endpoint. `requests` are the heads of the requests that passed; `faults` are due."""

    def __init__(self, endpoint: str):
        place = urlsplit(endpoint)
        self._upstream = (place.hostname, place.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.sent = 0
        self.hanging = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def gets(self, match: str = "") -> list[str]:
        """Requests for objects (not listings), in short: method and what range."""
        found = []
        for head in list(self.requests):
            line, *fields = head.split("\r\n")
            if line.startswith("GET ") and "list-type" not in line and match in head:
                found.append(next((one[7:] for one in fields if one.lower().startswith("range: ")), "all"))
        return found

    def close(self) -> None:
        for one in [self._listener, *self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                self._sockets += [client, server]
                due: list[Fault] = []
                for source, target, work in ((client, server, self._up), (server, client, self._down)):
                    threading.Thread(target=self._pump, args=(source, target, work, due), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, work: Any, due: list[Fault]) -> None:
        with suppress(OSError):
            while data := source.recv(16_384):
                if not work(data, target, due):
                    break
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _up(self, data: bytes, target: socket.socket, due: list[Fault]) -> bool:
        if data.startswith((b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")):
            head = data.partition(b"\r\n\r\n")[0].decode("latin-1")
            with self._lock:
                self.requests.append(head)
                for fault in self.faults:
                    if fault.match in head and ("list-type" not in head or "token" in fault.match):
                        self.faults.remove(fault)
                        due[:] = [Fault(fault.kind, fault.after, fault.match)]
                        break
        target.sendall(data)
        return True

    def _down(self, data: bytes, target: socket.socket, due: list[Fault]) -> bool:
        with self._lock:
            self.sent += len(data)
        if not due:
            target.sendall(data)
            return True
        fault = due[0]
        if len(data) <= fault.after:
            fault.after -= len(data)
            target.sendall(data)
            return True
        if fault.kind == "alter":
            due.clear()
            target.sendall(data[: fault.after] + bytes([data[fault.after] ^ 1]) + data[fault.after + 1 :])
            return True
        target.sendall(data[: fault.after])
        if fault.kind == "hang":
            self.hanging.set()
            with suppress(OSError):
                target.recv(1, socket.MSG_PEEK)  # until the client gives up; what it sends is left to the other pump
            return False
        if fault.kind == "reset":
            target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            target.shutdown(socket.SHUT_RD)  # wakes the thread that reads there
            target.close()
        return False
