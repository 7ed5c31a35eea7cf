"""Readers at work on a real server: the round, the clients, what they send and what they are told."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from redraft.errors import LabelError
from redraft.project import Project
from tasks.dispatch.open_backend import backend_for
from tests.servers.web import WebServer, running_web
from tests.web.made import SHAPE, exam_name

Json = dict[str, Any]


class Clock:
    """The server's time, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    """The server's time."""
    return Clock()


@pytest.fixture
def server(project: Project, clock: Clock) -> Iterator[WebServer]:
    """The pages with two readers; leases of all that is out."""
    with project.ledger.tx("test") as tx:
        for row in project.ledger.rows("assignment"):
            if tx.one("work_lease", assignment_id=row["assignment_id"]) is None:
                expires = datetime.now(UTC) + timedelta(hours=72)
                tx.insert(
                    "work_lease",
                    {"assignment_id": row["assignment_id"], "expires_at": expires, "extensions": 0, "state": "held"},
                )
    for row in project.ledger.rows("exam"):
        record = {
            "exam_id": row["exam_id"], "subject_id": row["subject_id"], "modality": "CT", "shape": row["shape"],
            "affine_ras": row["affine"],
        }  # fmt: skip
        project.image(row["exam_id"]).with_name("exam.json").write_text(json.dumps(record))
    with running_web(project, clock=clock, sweep_command=["true"]) as server:
        server.add("anna", reader="reader-1")
        server.add("ben", reader="reader-2")
        yield server


def work_on(server: WebServer, name: str) -> tuple[httpx.Client, str, dict[str, Any]]:
    """A client of the reader who has this exam, the API's address of it, and the ledger's row."""
    row = server.project.ledger.rows("assignment", exam_id=exam_name(name))[0]
    client = server.sign_in("anna" if row["reader_id"] == "reader-1" else "ben")
    return client, f"/api/work/{row['assignment_id']}", row


def other(server: WebServer, row: dict[str, Any]) -> httpx.Client:
    """A client of the other reader."""
    return server.sign_in("ben" if row["reader_id"] == "reader-1" else "anna")


def packed(array: NDArray[np.uint8]) -> bytes:
    return gzip.compress(array.tobytes(order="F"), 1)


def drawing(seed: int = 0) -> NDArray[np.uint8]:
    """Something drawn: asymmetric in every axis."""
    rng = np.random.default_rng(seed)
    array = np.zeros(SHAPE, np.uint8)
    array[10:40, 20:33, 3:9] = 1
    array[12:15, 21:30, 4:7] = 2
    array[tuple(rng.integers(0, SHAPE[axis], 50) for axis in range(3))] = 1
    return array


def put(
    client: httpx.Client, url: str, body: bytes, base: int, sitting: str = "tab-1", **kwargs: Any
) -> httpx.Response:
    return client.put(f"{url}/mask", params={"base": base, "sitting": sitting}, content=body, **kwargs)


def error(response: httpx.Response, status: int, code: str) -> Json:
    """The error on the wire, after checking what it is and that it has words."""
    found: Json = response.json()["error"]
    assert (response.status_code, found["code"]) == (status, code), response.text
    assert found["what"] and found["do"]
    return found


def unpacked(response: httpx.Response) -> NDArray[np.uint8]:
    assert response.status_code == 200, response.text
    return np.frombuffer(gzip.decompress(response.content), np.uint8).reshape(SHAPE, order="F")


def submit(client: httpx.Client, url: str, number: int | None, verdict: str, **more: Any) -> httpx.Response:
    body = {"sitting": "tab-1", "number": number, "verdict": verdict, **more}
    return client.post(f"{url}/submit", json=body)


def collected(project: Project) -> tuple[dict[str, Any], dict[str, LabelError]]:
    """What the backend takes in now, by assignment, and what it refuses."""
    failed: dict[str, LabelError] = {}
    names = [row["assignment_id"] for row in project.ledger.rows("assignment")]
    return {item.assignment_id: item for item in backend_for(project).collect(names, failed.__setitem__)}, failed
