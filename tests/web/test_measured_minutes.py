"""From a page's events to a time entry: what was worked, handed in and taken in is what the raw events give."""

from __future__ import annotations

from typing import Any

from redraft.project import Project
from redraft.worktime.recheck import recheck
from redraft.worktime.store import MEASURED
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
