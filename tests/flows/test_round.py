"""A whole loop through Prefect in this process: cold start, drafts, decisions, records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from redraft.ledger import RoundState
from redraft.ledger.store import HEAD
from redraft.project import Project

RUNNER = CliRunner()


def redraft(project: Project, *args: str) -> tuple[int, str]:
    """Call the command line in this process."""
    from app.cli.main import app

    result = RUNNER.invoke(app, [*args, "--project", str(project.root)])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, phantom: Path) -> Project:
    """A project after two rounds run through Prefect in a process of its own, as a user's command would."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import make_project, run_python

    project = make_project(tmp_path_factory.mktemp("loop") / "kidneys", phantom)
    code = (
        "import sys\nfrom redraft.project import Project\nfrom flows.runtime import prefect_for\n"
        "project = Project.open(sys.argv[1])\n"
        "with prefect_for(project):\n"
        "    from flows.campaign import run_rounds\n    run_rounds(str(project.root), 2)\n"
    )
    run_python(code, str(project.root))
    return project


def test_two_rounds_end_in_decisions(finished: Project) -> None:
    """A cold start and a drafted round both reach a decision, and the second one showed drafts."""
    states = [row["state"] for row in finished.ledger.rows("round")]
    assert all(state in (RoundState.PROMOTED, RoundState.HELD) for state in states) and len(states) == 2
    assert finished.ledger.rows("draft")
    modes = {row["mode"] for row in finished.ledger.rows("assignment", round=1)}
    assert modes == {"from_scratch"}


def test_status_is_the_stable_json(finished: Project) -> None:
    """`status --json` has the contract's keys and marks simulated rounds."""
    code, output = redraft(finished, "status", "--json")
    content = json.loads(output)
    assert code == 0
    assert {"number", "state", "dataset", "model", "dice", "minutes", "cost", "currency", "simulated"} <= set(
        content["rounds"][0]
    )
    assert all(row["simulated"] for row in content["rounds"])


def test_trace_answers_eight_questions(finished: Project) -> None:
    """`audit trace` of a model answers every question from records, and no held-out subject trained it."""
    code, output = redraft(finished, "audit", "trace", "1", "--json")
    answer = json.loads(output)
    assert code == 0
    for question in (
        "training", "annotations", "selection", "criteria", "approval", "software", "integrity", "exclusions",
    ):  # fmt: skip
        assert answer[question], question
    assert answer["training"]["held_out_subjects_in_training"] == []
    assert answer["training"]["exams"] == len(answer["annotations"]) == len(answer["selection"])


def test_verify_accepts_what_redraft_wrote(finished: Project) -> None:
    """A project that only redraft touched verifies."""
    code, output = redraft(finished, "audit", "verify", "--json")
    assert code == 0, output
    assert json.loads(output)["broken"] == []


def test_cost_report_adds_up_and_is_marked_simulated(finished: Project) -> None:
    """The parts of the total add up to the cent, and simulated times say so."""
    from decimal import Decimal

    code, output = redraft(finished, "cost", "report", "--json")
    content = json.loads(output)
    total = content["total"]
    assert code == 0 and content["simulated"] is True
    parts = sum(Decimal(total[name]) for name in ("expert", "reference", "compute", "storage"))
    assert parts == Decimal(total["cost"])


def test_no_identity_leaves_the_vault(finished: Project, phantom: Path) -> None:
    """None of the invented identifiers in the headers stands in any file of the project."""
    planted = [text.encode() for text in json.loads((phantom / "planted_identifiers.json").read_text())]
    for path in finished.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found = [text for text in planted if text in content]
            assert not found, f"{path.relative_to(finished.root)} holds {len(found)} planted identifiers"


@pytest.mark.parametrize("what", ["label", "image", "manifest", "lock", "package", "row"])
def test_any_change_is_found_and_named(finished: Project, tmp_path: Path, what: str) -> None:
    """Changing a label, image, manifest line, lock, package or ledger row makes verify fail and name it."""
    import shutil
    import sqlite3

    root = tmp_path / "copy"
    shutil.copytree(finished.root, root, symlinks=True)
    shutil.copytree(finished.vault_dir, tmp_path / finished.vault_dir.name)
    project = Project.open(root)
    if what == "row":
        with sqlite3.connect(root / ".redraft" / "ledger.db") as db:
            db.execute("UPDATE assignment SET expected_minutes = 1 WHERE rowid = 1")
        expected = "assignment"
    else:
        pattern = {
            "label": "data/labels/*/*/*.nii.gz", "image": "data/exams/*/*/image.nii.gz",
            "manifest": "data/MANIFEST.sha256.jsonl", "lock": "rounds/0001/round.yaml",
            "package": ".redraft/models/*/weights.safetensors",
        }[what]  # fmt: skip
        path = sorted(root.glob(pattern))[0]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        path.write_bytes(bytes(content))
        expected = {"label": "label", "image": "image", "manifest": "manifest", "lock": "round_lock",
                    "package": "model_package"}[what]  # fmt: skip
    code, output = redraft(project, "audit", "verify", "--json")
    kinds = {item["kind"] for item in json.loads(output)["broken"]}
    assert code == 1 and expected in kinds, output


@pytest.mark.parametrize("what", ["round-0001", "decision-0001", "stray", "cut"])
def test_tags_witness_the_ledger(finished: Project, tmp_path: Path, what: str) -> None:
    """A tag that is missing, says something else or has no round is named; so is a ledger that was cut behind it."""
    import shutil
    import sqlite3
    import subprocess

    root = tmp_path / "copy"
    shutil.copytree(finished.root, root, symlinks=True)
    shutil.copytree(finished.vault_dir, tmp_path / finished.vault_dir.name)

    def git(*args: str) -> None:
        who = ["-c", "user.name=other", "-c", "user.email=other@localhost"]
        subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True)

    expected = {"round-0001": "tag", "decision-0001": "decision_tag", "stray": "tag", "cut": "witnessed_checkpoint"}[
        what
    ]
    if what == "round-0001":
        git("tag", "-d", what)
    elif what == "decision-0001":
        git("tag", "-d", what)
        git("tag", "-a", what, "-m", "Decision about round 1")
    elif what == "stray":
        git("tag", "-a", "round-0009", "-m", "Round 9")
    else:
        with sqlite3.connect(root / ".redraft" / "ledger.db") as db:
            for kind in ("trigger", "table"):
                for (name,) in db.execute(f"SELECT name FROM sqlite_master WHERE type='{kind}'").fetchall():
                    db.execute(f"DROP TRIGGER {name}" if kind == "trigger" else f"DELETE FROM {name}")
            db.execute("INSERT INTO alembic_version VALUES (?)", (HEAD,))
    code, output = redraft(Project.open(root), "audit", "verify", "--json")
    kinds = {item["kind"] for item in json.loads(output)["broken"]}
    assert code == 1 and expected in kinds, output


def test_a_second_live_round_is_refused(finished: Project) -> None:
    """The database itself refuses a second live round."""
    from datetime import UTC, datetime

    from redraft.errors import ConflictError

    last = finished.ledger.rows("round")[-1]
    with pytest.raises(ConflictError), finished.ledger.tx("test", datetime.now(UTC)) as tx:
        for number in (98, 99):
            tx.insert("round", {**last, "number": number, "state": "OPENING"})
