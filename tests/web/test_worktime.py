"""Readers' events over HTTP: kept as they came, each reader's own, refused in words, and never in anybody's way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from redraft import rounds
from redraft.create import create_project
from redraft.ledger import Tx
from redraft.worktime.contract import MAX_EVENTS
from redraft.worktime.store import minutes_of
from tests.servers.web import WebServer, running_web

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


def _work(tx: Tx) -> None:
    tx.insert("subject", {"subject_id": "s", "split": "pool", "stratum": "", "drawn_at": None})
    tx.insert(
        "exam",
        {
            "exam_id": "e1", "subject_id": "s", "series_id": "x", "modality": "CT", "shape": [4, 4, 4],
            "spacing": [1.0, 1.0, 1.0], "affine": [], "image_path": "i", "image_sha256": "a", "image_bytes": 1,
            "header_digest": "h", "source_kind": "dicom", "admitted_at": NOW,
        },
    )  # fmt: skip
    for reader in ("reader-1", "reader-2"):
        if tx.one("reader", reader_id=reader) is None:
            row = {"reader_id": reader, "role": "radiologist", "simulated": False, "added_at": NOW}
            tx.insert("reader", row)
    for n, reader in enumerate(("reader-1", "reader-2")):
        tx.insert(
            "assignment",
            {
                "assignment_id": f"a{n}", "round": 1, "exam_id": "e1", "reader_id": reader, "purpose": "training",
                "mode": "from_scratch", "mode_probability": 1.0, "draft_id": None, "backend": "review",
                "state": "DISPATCHED", "expected_minutes": 10.0, "dispatched_at": NOW, "due_at": NOW,
                "package_sha256": "p", "attempt": 1,
            },
        )  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A project with one assignment for each of two readers, served with a clock that tests set."""
    two = {"    - {id: reader-1, role: radiologist}": "    - {id: reader-1, role: radiologist}\n"
           "    - {id: reader-2, role: radiologist}"}  # fmt: skip
    folder: Path = tmp_path_factory.mktemp("timed") / "project"
    project = create_project(folder, "kidney-ct", NOW, demo_keys=True, settings=two)
    rounds.begin(project, NOW, "test", lambda champion: {})
    with project.ledger.tx("test", NOW) as tx:
        _work(tx)
    with running_web(project, clock=lambda: datetime.now(UTC)) as running:
        running.add("one", reader="reader-1")
        running.add("two", reader="reader-2")
        running.add("boss", "approver")
        yield running
    project.ledger.engine.dispose()


@pytest.fixture(scope="module")
def one(server: WebServer) -> Iterator[httpx.Client]:
    client = server.sign_in("one")
    yield client
    client.close()


def body(sitting: str, number: int, seconds: list[float], **more: Any) -> dict[str, Any]:
    events = [{"kind": "input", "ms": s * 1000} for s in seconds]
    return {"sitting": sitting, "number": number, "sent_ms": max(seconds) * 1000, "events": events, **more}


def test_events_become_minutes(server: WebServer, one: httpx.Client) -> None:
    """Two batches, one of them twice: the minutes are those of the events."""
    for n, seconds in enumerate(([0, 10], [20, 40])):
        answer = one.post("/api/work/a0/time", json=body("tab", n, seconds))
        assert (answer.status_code, answer.json()["received"]) == (200, n)
    assert one.post("/api/work/a0/time", json=body("tab", 1, [20, 40])).json()["again"] is True
    assert minutes_of(server.project.ledger, "a0").total.active == 40_000_000


def test_a_closing_page_sends_plain_text(server: WebServer, one: httpx.Client) -> None:
    """A beacon: text/plain without headers of its own, the token in the JSON; without the token it is refused."""
    content = body("beacon", 0, [0, 5], csrf=one.headers["X-CSRF-Token"])
    with server.client(cookies=one.cookies, headers={"Content-Type": "text/plain;charset=UTF-8"}) as plain:
        assert plain.post("/api/work/a0/time", content=json.dumps(content)).json()["received"] == 0
        content.pop("csrf")
        assert plain.post("/api/work/a0/time", content=json.dumps({**content, "number": 1})).status_code == 403
    assert len(server.project.ledger.rows("time_batch", sitting="beacon")) == 1


def test_only_the_reader_s_own_work(server: WebServer, one: httpx.Client) -> None:
    """Another reader's assignment and one that is not there look alike; who is no reader, or nobody, is refused."""
    answers = [one.post(f"/api/work/{name}/time", json=body("x", 0, [0])) for name in ("a1", "nothing")]
    assert [a.status_code for a in answers] == [404, 404] and answers[0].json() == answers[1].json()
    boss = server.sign_in("boss")
    assert boss.post("/api/work/a0/time", json=body("x", 0, [0])).status_code == 403
    boss.close()
    with server.client() as nobody:
        assert nobody.post("/api/work/a0/time", json=body("x", 0, [0])).status_code in (401, 403)
    assert not server.project.ledger.rows("time_batch", sitting="x")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        ("{", 422, "time.form"),
        ("[]", 422, "time.form"),
        (json.dumps({"sitting": "f", "number": 0, "sent_ms": float("nan"), "events": []}), 422, "time.form"),
        (json.dumps({"sitting": "f", "number": 0, "sent_ms": -1, "events": []}), 422, "time.form"),
        (json.dumps(body("f", 0, [0] * (MAX_EVENTS + 1))), 422, "time.form"),
        (json.dumps({"sitting": "f", "number": 0, "sent_ms": 1,
                     "events": [{"kind": "structure", "ms": 1, "structure": "spleen"}]}), 422, "time.structure"),
        (json.dumps(body("f", 0, [0], padding="x" * 300_000)), 413, "time.too_large"),
        ("[" * 100_000, 422, "time.form"),
    ],
    ids=["torn", "list", "nan", "negative", "many", "structure", "large", "nested"],
)  # fmt: skip
def test_bad_batches_are_refused_in_words(one: httpx.Client, content: str, status: int, code: str) -> None:
    """What is no batch is refused with a code and a sentence, and nothing of what was sent is quoted."""
    answer = one.post("/api/work/a0/time", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code and error["what"] and not error["retry"]
    assert "spleen" not in answer.text or code == "time.structure"


def test_a_differing_repeat_is_a_conflict(one: httpx.Client) -> None:
    """A number that is taken takes no other events; trying again cannot help."""
    one.post("/api/work/a0/time", json=body("twice", 0, [0, 1]))
    answer = one.post("/api/work/a0/time", json=body("twice", 0, [0, 2]))
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["retry"]) == (
        409, "time.differs", False,
    )  # fmt: skip


def test_events_wait_for_the_ledger_and_block_nobody(server: WebServer, one: httpx.Client) -> None:
    """While another process writes the ledger for long, batches wait and other requests go on; then all are kept."""
    outcomes: list[int] = []

    def send(n: int) -> None:
        with server.client(cookies=one.cookies, headers=one.headers) as client:
            outcomes.append(client.post("/api/work/a0/time", json=body(f"busy{n}", 0, [0, n + 1])).status_code)

    senders = [threading.Thread(target=send, args=(n,)) for n in range(45)]
    with server.project.ledger.tx("somebody else", NOW + timedelta(days=1)) as tx:
        tx.event("test.long_write", {})
        for sender in senders:
            sender.start()
        with server.client(cookies=one.cookies) as other:
            assert [other.get("/health").status_code for _ in range(20)] == [200] * 20
            assert other.get("/api/me").status_code == 200
        assert not outcomes
    for sender in senders:
        sender.join(timeout=30)
    assert outcomes == [200] * 45
