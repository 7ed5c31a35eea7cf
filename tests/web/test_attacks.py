"""What outsiders send, what lies in a package that does not belong there any more, and a server that cannot write."""

from __future__ import annotations

import json
import resource
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from redraft.signing import token
from tests.servers.web import WebServer
from tests.web.at_work import Clock, clock, collected, drawing, error, packed, put, server, submit, work_on

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


def test_halves_of_characters_are_refused_in_words(server: WebServer) -> None:
    """JSON can say `\\ud800`: a remark or an id of it is 422 and changes nothing, and handing in works afterwards."""
    client, url, row = work_on(server, "axial")
    server.add("rita", "reviewer")
    put(client, url, packed(drawing(1)), 0)
    half = '{"sitting": "tab-1", "number": 1, "verdict": "correct", "remark": "\\ud800"}'
    said = {"headers": {"Content-Type": "application/json"}}
    error(client.post(f"{url}/submit", content=half, **said), 422, "work.remark")  # type: ignore[arg-type]
    assert not (server.project.work / row["assignment_id"] / "label.nii.gz").exists()
    reopen = '{"annotation_id": "\\ud800"}'
    found = server.sign_in("rita").post("/api/reviews", content=reopen, **said)  # type: ignore[arg-type]
    assert found.status_code == 422 and found.json()["error"]["what"]
    assert submit(client, url, 1, "correct").status_code == 200


def test_numbers_beyond_all_measure_are_refused(server: WebServer) -> None:
    """An autosave, an offer, a slice of number 10^20 are no error of the server's."""
    client, url, _ = work_on(server, "axial")
    for path in ("mask?number=", "offers/", "slice?axis=2&index="):
        assert client.get(f"{url}/{path}{10**20}").status_code in (404, 422), path
    assert put(client, url, packed(drawing(1)), 10**20).status_code in (409, 422)
    assert submit(client, url, 10**20, "correct").status_code in (409, 422)
    assert put(client, url, packed(drawing(1)), 0).json()["number"] == 1


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process grows."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_is_told_as_one(server: WebServer, clock: Clock) -> None:
    """A session of a minute ago can read on; what must be written says why not, and is done once there is room."""
    client, url, row = work_on(server, "axial")
    put(client, url, packed(drawing(1)), 0)
    clock.ahead = timedelta(minutes=2)  # the session's last sign of life is due to be written
    with full_disk():
        assert client.get("/api/work").status_code == 200
        assert client.get(f"{url}/mask").status_code == 200
        saved = put(client, url, packed(drawing(2)), 1)
        assert saved.status_code in (503, 507) and saved.json()["error"]["code"].startswith("storage")
        entering = server.client()
        page = entering.get("/sign-in")
        token_ = page.text.split('name="csrf" value="')[1].split('"')[0]
        answer = entering.post("/sign-in", data={"login": "anna", "password": "x" * 20, "csrf": token_})
        assert answer.status_code == 507 and "disk is full" in answer.text
    assert put(client, url, packed(drawing(2)), 1).json()["number"] == 2
    assert submit(client, url, 2, "correct").status_code == 200
    assert row["assignment_id"] in collected(server.project)[0]


def test_a_ledger_that_is_busy_for_long_says_later(server: WebServer) -> None:
    """Saving does not wait for it; handing in is refused as 503 with `retry`, and then works."""
    from sqlalchemy import event

    client, url, row = work_on(server, "axial")
    engine = server.project.ledger.engine
    with engine.connect() as connection:
        (path,) = [found[2] for found in connection.exec_driver_sql("PRAGMA database_list") if found[1] == "main"]
    event.listen(engine, "checkout", lambda raw, *_: raw.execute("PRAGMA busy_timeout=200"))  # not 30 s
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert put(client, url, packed(drawing(1)), 0).json()["number"] == 1
        found = error(submit(client, url, 1, "correct"), 503, "conflict")
        assert found["retry"] is True
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert submit(client, url, 1, "correct").status_code == 200
    assert row["assignment_id"] in collected(server.project)[0]
