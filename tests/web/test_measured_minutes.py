"""From a page's events to a time entry: what was worked, handed in and taken in is what the raw events give."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from redraft.project import Project
from redraft.worktime.recheck import recheck
from redraft.worktime.store import MEASURED, measure
from tests.servers.web import running_web


def events(*kinds: tuple[str, float]) -> list[dict[str, Any]]:
    return [
        {"kind": "structure", "ms": s * 1000, "structure": kind} if kind == "kidney" else {"kind": kind, "ms": s * 1000}
        for kind, s in kinds
    ]


def test_measured_minutes_reach_the_ledger(project: Project) -> None:
    """A draft accepted in the browser: entries of origin `measured` per structure, and verification agrees."""
    from tasks.dispatch.step import collect
    from tasks.validate.step import arrive

    ledger = project.ledger
    work = next(row for row in ledger.rows("assignment", round=2) if row["mode"] == "assisted")
    name = work["assignment_id"]
    with running_web(project) as server:
        server.add("somebody", reader=work["reader_id"])
        client = server.sign_in("somebody")
        first = events(("open", 0), ("kidney", 2), ("input", 4))
        # idle after 3 s, away after 5 s: 2 s of the exam, 2 + 1 + 2 s of the kidney, 4 s idle, 6 s away.
        second = events(("input", 5), ("heartbeat", 9), ("input", 9), ("input", 11), ("input", 17))
        for number, (sent, batch) in enumerate(((4, first), (17, second))):
            body = {"sitting": "tab", "number": number, "sent_ms": sent * 1000, "events": batch}
            assert client.post(f"/api/work/{name}/time", json=body).status_code == 200
        words = {"sitting": "tab", "number": 0, "verdict": "accept", "reason_code": None, "remark": None}
        answer = client.post(f"/api/work/{name}/submit", json={**words, "no_label": False})
        assert answer.status_code == 200, answer.text
        client.close()
    back = collect.fn(str(project.root), 2, None)
    arrive.fn(str(project.root), 2, None, back.model_dump(mode="json"))
    (note,) = ledger.rows("annotation", assignment_id=name)
    entries = {
        row["structure"]: (row["active_minutes"], row["idle_minutes"], row["away_minutes"], row["origin"])
        for row in ledger.rows("time_entry", annotation_id=note["annotation_id"])
    }
    assert entries == {
        None: (round(2 / 60, 4), 0.0, 0.0, "measured"),
        "kidney": (round(5 / 60, 4), round(4 / 60, 4), round(6 / 60, 4), "measured"),
    }
    assert answer.json()["minutes"]["kidney"]["active"] == round(5 / 60, 4)
    assert len(ledger.rows("audit_event", kind=MEASURED)) == 1
    assert list(recheck(ledger)) == [(note["annotation_id"], [])]


def test_work_on_two_exams_at_once_is_flagged(project: Project) -> None:
    """Acting to and fro counts for both exams, and each submission says so; one exam after the other does not."""
    ledger = project.ledger
    rows = [row for row in ledger.rows("assignment", round=2) if row["mode"] == "assisted"]
    reader = max((row["reader_id"] for row in rows), key=[row["reader_id"] for row in rows].count)
    first, second, *_ = [row["assignment_id"] for row in rows if row["reader_id"] == reader]
    now = datetime.now(UTC)
    with running_web(project, clock=lambda: now) as server:
        server.add("somebody", reader=reader)
        client = server.sign_in("somebody")

        def work(name: str, sitting: str, start: float) -> None:
            body = {"sitting": sitting, "number": 0, "sent_ms": 20_000}
            acts = events(("open", start), *(("input", start + n) for n in range(1, 9)))
            assert client.post(f"/api/work/{name}/time", json={**body, "events": acts}).status_code == 200

        def flags(name: str) -> list[str]:
            measure(ledger, name, at=now, actor="test")
            return [e["payload"]["flags"] for e in ledger.rows("audit_event", kind=MEASURED)][-1]

        work(first, "a", 0)
        work(second, "b", 10)
        assert "exams_at_once" not in flags(first) + flags(second)
        work(second, "c", 4)
        assert "exams_at_once" in flags(first) and "exams_at_once" in flags(second)
