"""Pages over a ledger with work in it: own figures, second looks, disagreements, work that came back."""

from __future__ import annotations

from datetime import UTC, datetime

from redraft.ledger import AssignmentState, move_assignment
from redraft.reviews import open_review
from tests.servers.web import WebServer

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


def handed_in(site: WebServer, reader: str, state: AssignmentState) -> str:
    """One annotation of a reader's training work: 4.5 minutes on the kidney, flagged. Returns its assignment."""
    ledger = site.project.ledger
    work = ledger.rows("assignment", reader_id=reader, round=2, purpose="training", mode="assisted")[0]
    name, note = work["assignment_id"], f"note-{reader}"
    with ledger.tx("test", NOW) as tx:
        tx.insert(
            "annotation",
            {
                "annotation_id": note, "assignment_id": name, "exam_id": work["exam_id"], "reader_id": reader,
                "revision": 1, "verdict": "correct", "reason_code": None, "remark_present": False, "path": "p",
                "sha256": "s", "draft_id": work["draft_id"], "voxels_changed": 12, "origin": "measured",
                "simulated": False, "state": "valid", "received_at": NOW,
            },
        )  # fmt: skip
        tx.insert(
            "time_entry",
            {
                "time_entry_id": f"time-{reader}", "annotation_id": note, "structure": "kidney", "active_minutes": 4.5,
                "idle_minutes": 1.0, "away_minutes": 0.0, "origin": "measured", "simulated": False,
            },
        )  # fmt: skip
        soft = [{"rule": "components", "measured": 9, "message": "kidney has more than 6 separate pieces."}]
        hard = [{"rule": "grid", "measured": None, "message": "The label is on another grid."}]
        back = state == AssignmentState.RETURNED_TO_READER
        tx.insert(
            "validation",
            {
                "validation_id": f"v-{reader}", "annotation_id": note, "round": 2, "stage": "arrival", "ok": not back,
                "hard": hard if back else [], "soft": soft, "result_path": "r", "result_sha256": "x", "at": NOW,
            },
        )  # fmt: skip
        move_assignment(tx, name, AssignmentState.RETURNED)
        move_assignment(tx, name, state)
    return name


def test_a_readers_page_shows_their_own_figures(site: WebServer) -> None:
    """Minutes with n and origin, verdicts, agreement and flags of this reader; the other one's page has none of it."""
    handed_in(site, "reader-1", AssignmentState.ACCEPTED)
    other = handed_in(site, "reader-2", AssignmentState.ACCEPTED)
    exam = site.project.ledger.rows("assignment", assignment_id=other)[0]["exam_id"]
    with site.project.ledger.tx("test", NOW) as tx:
        for n, value in enumerate((0.8, 0.9)):
            tx.insert(
                "agreement",
                {
                    "agreement_id": f"a{n}", "round": 2, "exam_id": exam, "structure": "kidney", "dice": value,
                    "first_id": "note-reader-1", "second_id": "note-reader-2", "surface_dice": value, "at": NOW,
                },
            )  # fmt: skip
    client = site.sign_in("anna")
    own = client.get("/api/people/me").json()
    assert own["minutes"] == [
        {"structure": "kidney", "mode": "assisted", "origin": "measured", "n": 1, "median": 4.5, "total": 4.5}
    ]
    assert own["verdicts"] == {"accept": 0, "correct": 1, "reject": 0}
    assert [row["dice"] for row in own["agreement"]] == [0.8, 0.9]
    assert [flag["rule"] for flag in own["flags"]] == ["components"]
    text = client.get("/me").text
    assert "kidney has more than 6 separate pieces" in text and "polyline" in text
    assert "reader-2" not in text and "Ben" not in text
    assert "4.5" in client.get("/").text


def test_work_that_came_back_is_on_top_with_its_reasons(site: WebServer) -> None:
    """Sent-back work comes before everything else and says why in the list."""
    name = handed_in(site, "reader-1", AssignmentState.RETURNED_TO_READER)
    client = site.sign_in("anna")
    first = client.get("/api/work").json()[0]
    assert (first["assignment_id"], first["returned"]) == (name, ["The label is on another grid."])
    assert "The label is on another grid." in client.get("/").text


def test_second_looks_and_disagreements_wait_without_names(site: WebServer) -> None:
    """The queues show exam, reason and how far readings are apart; not who read."""
    name = handed_in(site, "reader-1", AssignmentState.IN_REVIEW)
    handed_in(site, "reader-2", AssignmentState.ACCEPTED)
    exam = site.project.ledger.rows("assignment", assignment_id=name)[0]["exam_id"]
    with site.project.ledger.tx("test", NOW) as tx:
        review = open_review(tx, "note-reader-1", 2, "soft", ["components"], NOW)
        tx.insert(
            "consensus",
            {
                "consensus_id": "c" * 24, "exam_id": exam, "round": 2, "purpose": "training", "method": "staple",
                "annotations": ["note-reader-1", "note-reader-2"], "path": "p", "sha256": "s",
                "disagreement_path": "d", "disagreement_sha256": "e", "account_id": None, "at": NOW,
                "agreement": {"structures": {"kidney": {"dice": 0.42, "surface_dice": 0.3}}, "disputed": ["kidney"]},
                "state": "to_adjudicate",
            },
        )  # fmt: skip
    client = site.sign_in("rita")
    looks, apart = client.get("/reviews").text, client.get("/adjudications").text
    assert f"/reviews/{review}" in looks and "more pieces than expected" in looks
    assert f"/adjudications/{'c' * 24}" in apart and "Dice 0.42" in apart
    for text in (looks, apart):
        assert "reader-1" not in text and "Anna" not in text
    assert client.get("/reviews/unknown").status_code == 404
    omar = site.sign_in("omar").get("/ops").text
    assert "reader-1" in omar and "In review" in omar
