"""Decisions on the pages: who may make them, what they must show, and what becomes of them."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from redraft.ledger import RoundState, move_round
from redraft.project import Project
from tests.servers.web import PASSWORD, WebServer, running_web
from tests.web.conftest import AXE, picture
from tests.web.test_pages import violations

NOW = datetime(2026, 4, 1, 9, 0, tzinfo=UTC)
CHALLENGER = "e" * 64
# Stands in for `redraft promote`: writes what it was asked, then ends as the file beside it says.
STAND_IN = """
import json, pathlib, sys
here = pathlib.Path(sys.argv[1])
with (here / "asked").open("a") as asked:
    asked.write(json.dumps(sys.argv[2:]) + "\\n")
answers = (here / "answers").read_text().split()
code = int(answers.pop(0)) if answers else 0
(here / "answers").write_text(" ".join(answers))
if code:
    print(json.dumps({"error": {"what": "It is not there.", "do": "Look.", "retry": code == 3}}))
sys.exit(min(code, 1))
"""


def criterion(name: str, passed: bool) -> dict[str, Any]:
    return {
        "name": "mean_dice_floor", "structure": name, "required": 0.6, "measured": 0.7 if passed else None,
        "passed": passed, "reason": None,
    }  # fmt: skip


def closed(project: Project, *, passed: bool) -> Project:
    """Round 2, evaluated, awaits a decision."""
    criteria = [criterion("kidney", True), criterion("kidney_tumor", passed)]
    (champion,) = project.ledger.rows("model")
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("model", {**champion, "model_digest": CHALLENGER, "version": "2", "round": 2})
        tx.update("round", {"number": 2}, {"challenger": CHALLENGER})
        tx.insert(
            "step_run",
            {
                "step_run_id": "evaluated", "round": 2, "step": "evaluate", "digest": "d", "state": "done",
                "attempt": 1, "inputs": {}, "outputs": {"gate": {"passed": passed, "criteria": criteria}},
                "started_at": NOW, "finished_at": NOW, "seconds": 1.0, "host": None, "error": None,
            },
        )  # fmt: skip
        for state in ("CLOSING", "AWAITING_APPROVAL"):
            move_round(tx, 2, RoundState(state))
    return project


@pytest.fixture
def site(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[WebServer]:
    """Pages over a round whose gate is passed, or not where a test says so."""
    shutil.copytree(made, tmp_path / "kidneys", symlinks=True)
    project = closed(Project.open(tmp_path / "kidneys"), passed=getattr(request, "param", True))
    (tmp_path / "answers").write_text("")
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    with running_web(project, sweep_command=["true"]) as server:
        server.add("ada", "approver")
        server.add("omar", "ops")
        server.app.state.carry_out.command = [sys.executable, str(tmp_path / "stand_in.py"), str(tmp_path)]
        yield server


def send(client: httpx.Client, **said: str) -> httpx.Response:
    token = client.headers["X-CSRF-Token"]
    return client.post("/decisions/2", data={"csrf": token, "password": PASSWORD, "reason": "gate passed", **said})


def decisions(site: WebServer) -> list[dict[str, Any]]:
    return site.project.ledger.rows("decision", round=2)


def carried_out(site: WebServer) -> Any:
    deadline = time.monotonic() + 60
    while site.app.state.carry_out.running:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return site.app.state.carry_out.last


def words(answer: httpx.Response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


def test_a_decision_is_recorded_as_an_authenticated_act_and_carried_out(site: WebServer, tmp_path: Path) -> None:
    """The page shows the gate; the record holds account and reason; the command gets the decision's id and no more."""
    ada = site.sign_in("ada")
    assert ada.get("/").headers["location"] == "/decisions"
    page = words(ada.get("/decisions"))
    assert "Round 2" in page and "kidney tumor 0.600 0.700 yes" in page and "The gate is passed." in page
    answer = send(ada, decision="approve", reason="  gate   passed ")
    assert (answer.status_code, answer.headers["location"]) == (303, "/decisions?said=recorded")
    (row,) = decisions(site)
    assert (row["kind"], row["identity"], row["by_whom"], row["reason"], row["model_digest"]) == (
        "approve", "authenticated", site.accounts["ada"].account_id, "gate passed", CHALLENGER,
    )  # fmt: skip
    outcome = carried_out(site)
    assert (outcome.round, outcome.exit_code) == (2, 0)
    asked = (tmp_path / "asked").read_text()
    assert asked.count("\n") == 1 and f'["promote", "2", "--decision", "{row["decision_id"]}", "--project"' in asked
    assert PASSWORD not in asked and "gate passed" not in asked
    proofs = [e["payload"] for e in site.project.ledger.rows("audit_event", kind="account.signed_in")]
    assert any(proof.get("for") == "decision about round 2" for proof in proofs)
    after = words(ada.get("/decisions"))
    assert "Nothing waits for a decision" in after and "Dr. Ada" in after and "was carried out" in after


def test_a_session_alone_decides_nothing(site: WebServer) -> None:
    """A wrong or missing password, no reason, no choice, no CSRF token, another role: said so, nothing recorded; the
    password does not come back in the page, the reason does."""
    ada = site.sign_in("ada")
    refused = send(ada, decision="approve", password="not the right one", reason="because of this")
    assert refused.status_code == 401 and "password is wrong" in words(refused)
    assert 'value="because of this"' in refused.text and "not the right one" not in refused.text
    assert send(ada, decision="approve", password="").status_code == 401
    assert send(ada, decision="approve", reason="  ").status_code == 400
    assert send(ada).status_code == 400
    assert send(ada, decision="perhaps").status_code == 422
    with site.client() as stranger:
        stranger.cookies = ada.cookies
        said = {"decision": "approve", "reason": "r", "password": PASSWORD}
        assert stranger.post("/decisions/2", data=said).status_code == 403
    omar = site.sign_in("omar")
    assert omar.get("/decisions").status_code == 403
    assert send(omar, decision="approve").status_code == 403
    assert omar.post("/decisions/2/carry-out").status_code == 403
    assert decisions(site) == [] and site.app.state.carry_out.last is None


def test_guessing_is_bounded(site: WebServer) -> None:
    """Wrong passwords for the act count as wrong sign-ins do: after so many the right one waits too."""
    ada = site.sign_in("ada")
    for _ in range(site.project.config.web.sign_in_attempts):
        assert send(ada, decision="hold", password="wrong").status_code == 401
    assert send(ada, decision="hold").status_code == 429
    assert decisions(site) == []


@pytest.mark.parametrize("site", [False], indirect=True)
def test_a_failed_gate_can_only_be_held(site: WebServer) -> None:
    """The page offers no approval and the server takes none; holding back is a decision like any other."""
    ada = site.sign_in("ada")
    page = ada.get("/decisions")
    assert 'value="approve"' not in page.text and "The gate is not passed." in words(page)
    refused = send(ada, decision="approve")
    assert refused.status_code == 409 and "kidney_tumor" in words(refused) and decisions(site) == []
    assert send(ada, decision="hold", reason="the tumour is missed").status_code == 303
    assert [row["kind"] for row in decisions(site)] == ["hold"]
    other = send(ada, decision="approve")
    assert other.status_code == 409 and len(decisions(site)) == 1


def test_what_could_not_be_carried_out_is_said_and_offered_again(
    site: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the project: tried again by itself. It fails: the page says why, and takes it up again."""
    import app.web.carry_out as carrying

    monkeypatch.setattr(carrying, "_PAUSE_SECONDS", 0.01)
    (tmp_path / "answers").write_text("3 3 1")
    ada = site.sign_in("ada")
    send(ada, decision="approve")
    assert carried_out(site).exit_code == 1
    assert (tmp_path / "asked").read_text().count("\n") == 3
    page = words(ada.get("/decisions"))
    assert "carrying it out failed" in page and "It is not there. Look." in page and "Carry it out" in page
    token = ada.headers["X-CSRF-Token"]
    assert ada.post("/decisions/2/carry-out", data={"csrf": token}).headers["location"] == "/decisions?said=begun"
    assert carried_out(site).exit_code == 0 and len(decisions(site)) == 1
    assert ada.post("/decisions/9/carry-out").status_code == 404


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_decision_that_waits_meets_wcag_aa(site: WebServer, open_page: Callable[..., Any], theme: str) -> None:
    """axe finds nothing on the page, and the keyboard alone reaches the answer that comes after a wrong password."""
    if not AXE.exists():
        pytest.skip("axe-core is absent: `npm ci` in app/web/ui")
    page = open_page(site, "ada", theme=theme)
    page.goto("/decisions")
    picture(page, f"decision-{theme}", full_page=True)
    assert violations(page) == []
    page.get_by_label("Use this model").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("Gate passed.")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong wrong wrong")
    page.keyboard.press("Enter")
    page.get_by_text("password is wrong").first.wait_for()
    assert violations(page) == [] and not decisions(site)
