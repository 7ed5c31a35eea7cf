"""A model trained on reviewed and adjudicated labels: what was paid for them, what an auditor is told, what leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from redraft import decisions, second_reads
from redraft.accounts import Identity
from redraft.ledger import RoundState, move_round
from redraft.look_times import append
from redraft.project import Project
from redraft.volumes import read_volume
from redraft.worktime.contract import Batch
from tests.tasks.validate.made_readings import (
    DOUBLE,
    NOW,
    copied,
    decide,
    dispatched,
    fresh,
    hand_in,
    label_for,
    note,
    pair,
    receive,
    training,
)

TINY_NETWORK = (
    "train:\n  members: 2\n  steps: 400",
    "train:\n  channels: [4, 8]\n  members: 1\n  steps: 4\n  threads: 1",
)
SAMPLED = ("\ntrain:", "\nvalidate: {review_share: 1.0}\n\ntrain:")
SEEDED = ("dispatch:\n", "dispatch:\n  seeded_errors: {share: 0.1}\n")


def look(project: Project, record: str, account: str, minutes: int) -> None:
    """Somebody at work on a second look, with an input every ten seconds."""
    end = minutes * 60_000.0
    events = [{"kind": "open", "ms": 0.0}, *({"kind": "input", "ms": ms} for ms in np.arange(0.0, end + 1, 10_000))]
    batch = Batch.model_validate({"sitting": f"s-{account}", "number": 0, "sent_ms": end, "events": events})
    append(project.ledger, record, account, batch, NOW + timedelta(minutes=minutes))


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, dict[str, Any]]]:
    """One exam read twice, reviewed and adjudicated; a network trained on it; an approval; the round accounted.

    The adjudicator took 6 minutes, a colleague looked at the same for 2; one review took 3, the others sent no times.
    """
    from tasks.account.step import account
    from tasks.retrain.step import retrain

    root = tmp_path_factory.mktemp("lineage") / "kidneys"
    project = dispatched(copied(made, root, DOUBLE, TINY_NETWORK, SAMPLED, SEEDED))
    with project.ledger.tx("test", NOW) as tx:
        for name in ("ac-approver", "ac-second"):
            roles = ["approver"] if name == "ac-approver" else ["reviewer"]
            tx.insert("account", {"account_id": name, "reader_id": None, "roles": roles, "state": "active",
                                  "added_at": NOW, "added_by": "test"})  # fmt: skip
        for invented in ("note-p04", "note-t0"):  # rows without files
            tx.update("annotation", {"annotation_id": invented}, {"state": "invalid"})
    first, second = pair(project)
    hand_in(project, first)
    hand_in(project, second, shift=3)
    receive(project)
    timed, untimed = sorted(row["review_id"] for row in project.ledger.rows("review"))
    look(project, timed, "ac-reviewer", 3)
    for review in (timed, untimed):
        decide(project, review, "accept")
    receive(project)
    (argued,) = project.ledger.rows("consensus")
    look(project, argued["consensus_id"], "ac-reviewer", 6)
    look(project, argued["consensus_id"], "ac-second", 2)
    own = label_for(project, first["exam_id"], 1)
    settled = second_reads.settle(project, argued["consensus_id"], "ac-reviewer", "own", own=own)
    with project.ledger.tx("ac-reviewer", NOW) as tx:
        made_of_both = second_reads.adjudicate(tx, settled, NOW)
    model = retrain.fn(str(root), 2, None)
    criteria = [{"name": "mean_dice_floor", "structure": "kidney", "required": 0.1, "measured": 0.2, "passed": True}]
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("step_run", {
            "step_run_id": "evaluated", "round": 2, "step": "evaluate", "digest": "d", "state": "done", "attempt": 1,
            "inputs": {}, "outputs": {"gate": {"passed": True, "criteria": criteria}}, "started_at": NOW,
            "finished_at": NOW, "seconds": 1.0, "host": None, "error": None,
        })  # fmt: skip
        for state in ("CLOSING", "AWAITING_APPROVAL"):
            move_round(tx, 2, RoundState(state))
    account.fn(str(root), 2, None)
    by = Identity("ac-approver", ("approver",), "password")
    decisions.decide(project, 2, approve=True, by=by, reason="gate passed", now=NOW)
    yield project, {
        "exam": first["exam_id"], "readings": {note(project, w)["annotation_id"] for w in (first, second)},
        "consensus": made_of_both, "argued": argued["consensus_id"], "own": own, "timed": timed,
        "model": model.model_digest, "readers": {first["reader_id"], second["reader_id"]},
    }  # fmt: skip


def test_the_network_learnt_from_the_adjudicated_label(trained: tuple[Project, dict[str, Any]]) -> None:
    """The step's inputs name the consensus and its file's digest, the package holds a network made of it."""
    project, facts = trained
    (entry,) = project.ledger.rows("step_run", round=2, step="retrain")[0]["inputs"]["values"]["training"]
    label = training(project)[facts["exam"]]
    assert entry == {
        "exam_id": facts["exam"], "annotation_id": facts["consensus"], "of": "consensus",
        "image_sha256": label.image_sha256, "label_sha256": label.label_sha256,
    }  # fmt: skip
    np.testing.assert_array_equal(read_volume(label.label).array, facts["own"])
    assert (project.state / "models" / facts["model"]).is_dir()
    assert project.ledger.one("round", number=2)["challenger"] == facts["model"]  # type: ignore[index]


def test_an_auditor_is_told_who_decided_what(trained: tuple[Project, dict[str, Any]]) -> None:
    """Readings with their reviews, the consensus with its adjudicator, the planned share of known-wrong drafts, the
    approval, and what each account behind them may do; in words and as JSON."""
    from app.cli.main import app

    project, facts = trained
    result = CliRunner().invoke(app, ["audit", "trace", facts["model"][:16], "--project", str(project.root), "--json"])
    answer = json.loads(result.output)
    assert answer["training"]["exams"] == 1 and answer["training"]["entries"][0]["annotation_id"] == facts["consensus"]
    assert {row["annotation_id"] for row in answer["annotations"]} == facts["readings"]
    for row in answer["annotations"]:
        assert row["reader_id"] in facts["readers"] and row["counts_now"] and row["minutes"] == 3.0
        assert [(r["why"], r["state"], r["account_id"]) for r in row["reviews"]] == [
            ("sample", "accepted", "ac-reviewer")
        ]
    (row,) = answer["consensus"]
    assert (row["consensus_id"], row["method"], row["adjudicated_by"]) == (
        facts["consensus"], "adjudicated", "ac-reviewer",
    )  # fmt: skip
    assert set(row["readings"]) == facts["readings"] and row["agreement"]["chosen"] == {"choice": "own"}
    (approval,) = answer["approval"]
    assert (approval["by_whom"], approval["identity"]) == ("ac-approver", "authenticated")
    assert {name: a["roles"] for name, a in answer["accounts"].items()} == {
        "ac-approver": ["approver"], "ac-reviewer": ["reader", "reviewer"],
    }  # fmt: skip
    assert set(answer["exclusions"]["seeded_share"]) == {"1", "2"}
    words = CliRunner().invoke(app, ["audit", "trace", facts["model"][:16], "--project", str(project.root)])
    assert words.exit_code == 0 and "adjudicated by ac-reviewer" in words.output
    assert "second look (sample): accepted by ac-reviewer" in words.output
    assert "account ac-approver: approver" in words.output


def test_second_looks_are_paid_for_once(trained: tuple[Project, dict[str, Any]]) -> None:
    """Whoever looked is paid by their role's rate; a look without times is counted and costs nothing; what is decided
    after its round was accounted is the next round's."""
    from tasks.account.records import look_rows, reports

    project, facts = trained
    per_hour = next(r.per_hour for r in project.rates.rates if r.role == "radiologist")
    entries = {e["what"]: e for e in project.ledger.rows("cost_entry", round=2) if e["what"].startswith("look/")}
    minutes = {
        f"look/{facts['argued']}/ac-reviewer": 6.0, f"look/{facts['argued']}/ac-second": 2.0,
        f"look/{facts['timed']}/ac-reviewer": 3.0,
    }  # fmt: skip
    assert {what: e["minutes"] for what, e in entries.items()} == pytest.approx(minutes)
    for what, entry in entries.items():
        assert entry["kind"] == "reference" and not entry["simulated"] and entry["reader_id"] is None
        assert float(entry["amount"]) == pytest.approx(float(per_hour) * minutes[what] / 60, abs=1e-6)
    report = next(r for r in reports(project) if not r.simulated)
    looks = report.second_looks
    assert (looks.reviews, looks.adjudications, looks.untimed, looks.minutes) == (2, 1, 1, pytest.approx(11.0))
    assert float(looks.cost) == pytest.approx(float(per_hour) * 11 / 60, abs=0.005)
    assert report.total.reference == looks.cost  # nothing else is reference here
    assert (
        report.total.cost == report.total.expert + report.total.reference + report.total.compute + report.total.storage
    )
    assert report.break_even.overhead >= looks.cost and report.total.minutes_training == pytest.approx(6.0)
    late = next(row for row in fresh(project))
    hand_in(project, late)
    receive(project)
    (review,) = project.ledger.rows("review", state="open")
    look(project, review["review_id"], "ac-reviewer", 4)
    decide(project, review["review_id"], "accept")
    assert {row.what for row in look_rows(project, 2)} >= set(minutes) and len(look_rows(project, 2)) == 4
    (next_round,) = look_rows(project, 3)
    assert (next_round.record_id, next_round.active_minutes) == (review["review_id"], pytest.approx(4.0))


def test_the_label_that_counts_is_the_one_that_leaves(trained: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    """Exported is the adjudicated consensus, under its own id and voxel for voxel."""
    from app.cli.main import app

    project, facts = trained
    out = tmp_path / "out"
    command = ["label", "export", "--format", "nifti", "--out", str(out), "--project", str(project.root), "--json"]
    result = CliRunner().invoke(app, [*command, "--exam", facts["exam"]])
    assert result.exit_code == 0, result.output
    (line,) = json.loads(result.output)["exported"]
    assert facts["consensus"] in json.dumps(line)
    (file,) = out.rglob("*.nii.gz")
    np.testing.assert_array_equal(np.rint(read_volume(file).array), facts["own"])
