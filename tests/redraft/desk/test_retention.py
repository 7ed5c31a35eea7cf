"""What the desk keeps of work that is over, and what it must never lose."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redraft import rounds
from redraft.create import create_project
from redraft.desk.mask import pack
from redraft.desk.retention import clear_finished
from redraft.desk.saves import WorkStore
from redraft.errors import ConflictError
from redraft.ledger import AssignmentState, RoundState, move_assignment, move_round
from redraft.project import Project

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=40)
WAY: dict[str, tuple[AssignmentState, ...]] = {
    "accepted": (AssignmentState.RETURNED, AssignmentState.ACCEPTED),
    "rejected": (AssignmentState.RETURNED, AssignmentState.REJECTED),
    "withdrawn": (AssignmentState.WITHDRAWN,),
    "carried": (AssignmentState.CARRIED_OVER,),
    "out": (),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One round, and an exam with an assignment for every way that work can end."""
    made = create_project(tmp_path / "kidneys", "kidney-ct", NOW, demo_keys=True)
    rounds.begin(made, NOW, "test", lambda champion: {})
    with made.ledger.tx("test", NOW) as tx:
        known = {row["reader_id"] for row in tx.rows("reader")}
        for reader in {"reader-1", "reader-2"} - known:
            tx.insert("reader", {"reader_id": reader, "role": "radiologist", "simulated": False, "added_at": NOW})
        for name, way in WAY.items():
            tx.insert("subject", {"subject_id": f"s-{name}", "split": "pool", "stratum": "", "drawn_at": NOW})
            tx.insert("exam", {
                "exam_id": name, "subject_id": f"s-{name}", "series_id": name, "modality": "CT", "shape": [3, 1, 1],
                "spacing": [1.0, 1.0, 1.0], "affine": np.eye(4).tolist(), "image_path": name, "image_sha256": "b" * 64,
                "image_bytes": 1, "header_digest": "b" * 64, "source_kind": "nifti", "admitted_at": NOW,
            })  # fmt: skip
            tx.insert("assignment", {
                "assignment_id": name, "round": 1, "exam_id": name, "reader_id": "reader-1", "purpose": "training",
                "mode": "from_scratch", "mode_probability": 1.0, "draft_id": None, "backend": "review",
                "state": AssignmentState.DISPATCHED, "expected_minutes": 20.0, "dispatched_at": NOW, "due_at": NOW,
                "package_sha256": "p", "attempt": 1,
            })  # fmt: skip
            for state in way:
                move_assignment(tx, name, state)
    return made


@pytest.fixture
def draw(project: Project) -> Callable[[str, int, datetime], None]:
    """Saves so many masks on a piece of work, at a moment."""

    def save(name: str, count: int, at: datetime = NOW) -> None:
        store = WorkStore(project.desk, project.state / "desk", lambda: at)
        base = (store.numbers(name) or [0])[-1]
        for n in range(base, base + count):
            mask = pack(np.full((3, 1, 1), n % 2 + 1, np.uint8))
            store.save(name, mask, base=n, sitting="tab", account="ac-1")

    return save


def end_round(project: Project) -> None:
    with project.ledger.tx("test", NOW) as tx:
        for state in ("AWAITING_ANNOTATION", "CLOSING"):
            move_round(tx, 1, RoundState(state))
        move_round(tx, 1, RoundState("AWAITING_APPROVAL"))
        tx.update("round", {"number": 1}, {"closed_at": NOW})
        move_round(tx, 1, RoundState("HELD"))


def files(project: Project, name: str) -> int:
    return len(list((project.state / "desk" / name).glob("*.gz")))


def label(project: Project, exam: str) -> None:
    """Another reader's accepted reading of an exam."""
    (work,) = project.ledger.rows("assignment", assignment_id=exam)
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("assignment", {**work, "assignment_id": f"{exam}-2", "reader_id": "reader-2", "state": "DISPATCHED"})
        for state in WAY["accepted"]:
            move_assignment(tx, f"{exam}-2", state)
        tx.insert("annotation", {
            "annotation_id": f"note-{exam}", "assignment_id": f"{exam}-2", "exam_id": exam, "reader_id": "reader-2",
            "revision": 1, "verdict": "scratch", "reason_code": None, "remark_present": False, "path": "l",
            "sha256": "z", "draft_id": None, "voxels_changed": None, "origin": "typed", "simulated": False,
            "state": "valid", "received_at": NOW,
        })  # fmt: skip


def test_what_is_over_goes_and_what_may_be_needed_stays(project: Project, draw: Any) -> None:
    """Accepted work keeps its newest autosave, rejected none; what is out, carried over or withdrawn without a label
    keeps all; a withdrawn reader's work goes once the exam has its label. Again, nothing happens."""
    for name in WAY:
        draw(name, 3)
    store = WorkStore(project.desk, project.state / "desk")
    newest = store.latest("accepted")
    assert newest is not None
    assert clear_finished(project, LATER) == 0  # the round is not over
    end_round(project)
    assert clear_finished(project, NOW) == 0  # not for long enough
    assert clear_finished(project, LATER) == 2
    assert {name: files(project, name) for name in WAY} == {
        "accepted": 1, "rejected": 0, "withdrawn": 3, "carried": 3, "out": 3,
    }  # fmt: skip
    assert store.latest("accepted") == newest and newest.path.is_file()
    assert clear_finished(project, LATER) == 0
    label(project, "withdrawn")
    assert clear_finished(project, LATER) == 1 and files(project, "withdrawn") == 0


def test_offers_that_are_open_outlive_their_work(project: Project, draw: Any) -> None:
    """A drawing that came too late, and one offered to the reader who took over, are there until they are settled."""
    for name in ("accepted", "withdrawn"):
        draw(name, 2)
    store = WorkStore(project.desk, project.state / "desk", lambda: NOW)
    with pytest.raises(ConflictError):
        late = pack(np.array([0, 7, 0], np.uint8).reshape(3, 1, 1))
        store.save("accepted", late, base=0, sitting="tab", account="ac-1")
    (offered,) = store.offers("out", ["withdrawn"])
    label(project, "withdrawn")
    end_round(project)
    assert clear_finished(project, LATER) == 2
    (kept,) = store.offers("accepted")
    assert kept.path.is_file() and offered.path.is_file() and store.numbers("withdrawn") == []
    store.settle("accepted", kept.offer_id, "dropped")
    assert not kept.path.exists()


def test_somebody_who_draws_again_is_left_alone(project: Project, draw: Any) -> None:
    """Saved on within the time, all autosaves stay."""
    draw("accepted", 2)
    end_round(project)
    draw("accepted", 1, LATER)
    assert clear_finished(project, LATER) == 0 and files(project, "accepted") == 3


def test_a_second_look_that_waits_keeps_its_drawing(project: Project, draw: Any) -> None:
    """An adjudicator's own drawing goes when the disagreement is settled, not before."""
    row = {
        "consensus_id": "c1", "exam_id": "accepted", "round": 1, "purpose": "training", "method": "staple",
        "annotations": [], "path": "p", "sha256": "s", "disagreement_path": "p", "disagreement_sha256": "s",
        "agreement": {}, "state": "to_adjudicate", "account_id": None, "at": NOW,
    }  # fmt: skip
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("consensus", row)
    draw("look-c1", 2)
    end_round(project)
    assert clear_finished(project, LATER) == 0 and files(project, "look-c1") == 2
    with project.ledger.tx("test", NOW) as tx:
        tx.update("consensus", {"consensus_id": "c1"}, {"state": "superseded"})
    assert clear_finished(project, LATER) == 1 and files(project, "look-c1") == 0


def test_a_sweep_clears_the_desk(project: Project, draw: Any) -> None:
    """Without a live round too; it says so once, and tells nothing when there is nothing to clear."""
    from flows.sweep import run_sweep

    draw("rejected", 2)
    end_round(project)
    keep = timedelta(days=project.config.web.keep_days)
    assert run_sweep(str(project.root), lambda: NOW + keep).cleared == 0
    swept = run_sweep(str(project.root), lambda: NOW + keep + timedelta(hours=1))
    assert swept.cleared == 1 and "cleared" in swept.did[0]
    assert run_sweep(str(project.root), lambda: NOW + keep + timedelta(hours=2)).did == ()
