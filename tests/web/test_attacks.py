"""What outsiders and careless programs send, and what lies in a package that does not belong there any more."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from redraft.signing import token
from tests.servers.web import WebServer
from tests.web.at_work import clock, collected, drawing, packed, put, server, submit, work_on

__all__ = ["clock", "server"]  # fixtures


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
def test_large_bodies_of_strangers_are_not_read(server: WebServer, kind: str) -> None:
    """Whoever is not signed in is told so before anything of 50 MiB was sent, whatever it says that it is."""
    address = urlsplit(server.url)
    head = (
        f"PUT /api/work/any/mask?base=0&sitting=s HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {50 << 20}\r\n\r\n"
    )
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as stream:
        stream.sendall(head.encode())
        assert stream.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_result_of_an_earlier_handing_out_does_not_end_the_work(server: WebServer) -> None:
    """Its reader is shown work to do, not work that is on its way, and handing in again counts."""
    client, url, row = work_on(server, "axial")
    name, project = row["assignment_id"], server.project
    put(client, url, packed(drawing(1)), 0)
    assert submit(client, url, 1, "correct").status_code == 200
    assert client.get(url).json()["state"] == "RETURNED"
    with project.ledger.tx("test") as tx:
        tx.update("assignment", {"assignment_id": name}, {"attempt": row["attempt"] + 1})
    task = json.loads((project.work / name / "task.json").read_text())
    task["token"] = token(project.checked_keys, name, row["reader_id"], row["attempt"] + 1)
    (project.work / name / "task.json").write_text(json.dumps(task))
    assert collected(project)[1][name].rule == "token"
    listed = {item["assignment_id"]: item for item in client.get("/api/work").json()}
    assert listed[name]["state"] == client.get(url).json()["state"] == "DISPATCHED"
    assert f"/work/{name}" in client.get("/").text
    assert submit(client, url, 1, "correct").status_code == 200
    items, failed = collected(project)
    assert name in items and not failed
