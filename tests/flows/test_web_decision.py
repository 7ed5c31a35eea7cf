"""A round's end on the pages: an approver decides, and the model is promoted by a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from redraft import rounds
from redraft.project import Project


def test_a_decision_on_the_pages_promotes_the_model(tmp_path: Path, phantom: Path) -> None:
    """From a closed round: recorded as the account's act, tagged, the champion is the round's model."""
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import make_project
    from plain import run_round

    from tests.servers.web import PASSWORD, running_web

    root = make_project(tmp_path / "kidneys", phantom).root
    run_round(str(root))
    project = Project.open(root)
    assert rounds.get(project, 1)["state"] == "AWAITING_APPROVAL"
    with running_web(project, sweep_command=["true"]) as site:
        account = site.add("ada", "approver")
        ada = site.sign_in("ada")
        assert "Round 1" in ada.get("/decisions").text
        said = {"csrf": ada.headers["X-CSRF-Token"], "decision": "approve", "reason": "r", "password": PASSWORD}
        assert ada.post("/decisions/1", data=said).status_code == 303
        deadline = time.monotonic() + 180
        while site.app.state.carry_out.running:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        outcome = site.app.state.carry_out.last
        assert outcome.exit_code == 0, outcome.error
        assert "carried out" in ada.get("/decisions").text
    row = rounds.get(project, 1)
    champion = rounds.champion(project)
    assert row["state"] == "PROMOTED" and champion is not None and champion["model_digest"] == row["challenger"]
    (decision,) = project.ledger.rows("decision")
    assert (decision["by_whom"], decision["identity"]) == (account.account_id, "authenticated")
    tags = subprocess.run(["git", "-C", str(root), "tag", "--list"], capture_output=True, text=True, check=True)
    assert "decision-0001" in tags.stdout.split()
