"""A ledger with at least one row in every table, as a round leaves it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from redraft.ledger import Ledger, RoundState, Tx, move_round, sign_checkpoint_payload
from redraft.ledger.tables import DOMAIN
from redraft.security.keys import KeyRing

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=7)


def round_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of the table `round`."""
    row = {
        "number": number, "state": RoundState.OPENING, "failed_in": None, "strategy": "entropy", "seed": 7,
        "config": {"budget": 1}, "config_sha256": "c" * 64, "criteria": [{"structure": "kidney", "min": True}],
        "opened_at": NOW, "due_at": LATER, "closed_at": None, "champion": None, "challenger": None, "simulated": True,
    }  # fmt: skip
    return {**row, **changes}


def exam_rows(tx: Tx, *names: str) -> None:
    """A subject and an exam per name."""
    for name in names:
        subject = {"subject_id": f"s{name}", "split": "pool", "stratum": "", "drawn_at": None}
        tx.insert("subject", subject)
        tx.insert(
            "exam",
            {
                "exam_id": name, "subject_id": f"s{name}", "series_id": f"r{name}", "modality": "CT",
                "shape": [64, 64, 20], "spacing": [0.75, 0.75, 3.0], "affine": [[0.75, 0.0], [0.0, 1.0]],
                "image_path": f"data/exams/{name}/image.nii.gz", "image_sha256": "a" * 64, "image_bytes": 81920,
                "header_digest": "b" * 64, "source_kind": "dicom", "admitted_at": NOW,
            },
        )  # fmt: skip


def fill(tx: Tx, without: Collection[str] = ()) -> None:
    """One row in every table but these."""
    tx.insert(
        "project",
        {"project_id": "p", "name": "kidney", "created_at": NOW, "currency": "EUR", "key_fingerprint": "f",
         "key_version": 1},
    )  # fmt: skip
    exam_rows(tx, "e1", "e2")
    tx.insert("round", round_row(1))
    tx.insert("reader", {"reader_id": "r1", "role": "radiologist", "simulated": True, "added_at": NOW})
    tx.add_identity("r1", "Dr. Invented")
    for table, row in _others().items():
        if table not in without:
            tx.insert(table, row)
    tx.insert("lease", {"name": "writer", "holder": "", "token": 3, "expires_at": NOW})


def _others() -> dict[str, dict[str, Any]]:
    simulated = {"simulated": True}
    return {
        "receipt": {"receipt_id": "rc1", "intake_id": "i1", "series_id": "re1", "exam_id": "e1", "verdict": "admitted",
                    "rule": "ok", "measured": {"spacing": 3.0, "sorted": True}, "files": 20, "at": NOW},
        "rate_card": {"version": "2026", "sha256": "d" * 64, "currency": "EUR", "content": {"rates": ["120.00"]},
                      "recorded_at": NOW},
        "step_run": {"step_run_id": "st1", "round": 1, "step": "select", "digest": "d", "state": "done", "attempt": 1,
                     "inputs": {}, "outputs": {"n": 1}, "started_at": NOW, "finished_at": NOW, "seconds": 1.5,
                     "host": None, "error": None},
        "draft": {"draft_id": "d1", "exam_id": "e1", "model_digest": "m0", "path": "x", "sha256": "y", "scores": {}},
        "selection": {"selection_id": "se1", "round": 1, "exam_id": "e1", "rank": 1, "chosen_by": "strategy",
                      "strategy": "entropy", "score": 0.25, "inclusion_probability": 1, "explanation": {"why": "x"}},
        "assignment": {"assignment_id": "a1", "round": 1, "exam_id": "e1", "reader_id": "r1", "purpose": "training",
                       "mode": "assisted", "mode_probability": 0.5, "draft_id": "d1", "backend": "folder",
                       "state": "DISPATCHED", "expected_minutes": 12.5, "dispatched_at": NOW, "due_at": LATER,
                       "package_sha256": "p", "attempt": 1},
        "annotation": {"annotation_id": "n1", "assignment_id": "a1", "exam_id": "e1", "reader_id": "r1", "revision": 1,
                       "verdict": "correct", "reason_code": None, "remark_present": False, "path": "l", "sha256": "z",
                       "draft_id": "d1", "voxels_changed": 40, "origin": "simulated", **simulated, "state": "valid",
                       "received_at": NOW},
        "time_entry": {"time_entry_id": "t1", "annotation_id": "n1", "structure": None, "active_minutes": 9.5,
                       "idle_minutes": 0, "away_minutes": 1.25, "origin": "simulated", **simulated},
        "account": {"account_id": "ac1", "reader_id": "r1", "roles": ["reader"], "state": "active", "added_at": NOW,
                    "added_by": "cli"},
        "time_batch": {"batch_id": "tb1", "assignment_id": "a1", "reader_id": "r1", "sitting": "s1", "number": 1,
                       "sent_ms": 15000, "received_at": NOW, "events": [{"kind": "input", "ms": 120.5}]},
        "work_lease": {"assignment_id": "a1", "expires_at": LATER, "extensions": 0, "state": "held"},
        "review": {"review_id": "rv1", "annotation_id": "n1", "round": 1, "why": "soft", "rules": ["volume"],
                   "state": "open", "account_id": "ac1", "reason_code": None, "remark_present": False,
                   "opened_at": NOW, "decided_at": None},
        "look_batch": {"batch_id": "lb1", "record_id": "rv1", "account_id": "ac1", "sitting": "s1", "number": 1,
                       "sent_ms": 15000, "received_at": NOW, "events": [{"kind": "input", "ms": 120.5}]},
        "consensus": {"consensus_id": "cs1", "exam_id": "e1", "round": 1, "purpose": "reference", "method": "staple",
                      "annotations": ["n1"], "path": "c", "sha256": "c", "disagreement_path": "d",
                      "disagreement_sha256": "d", "agreement": {"kidney": 0.9}, "state": "agreed", "account_id": None,
                      "at": NOW},
        "agreement": {"agreement_id": "ag1", "round": 1, "exam_id": "e1", "structure": "kidney", "first_id": "n1",
                      "second_id": "n1", "dice": 0.9, "surface_dice": None, "at": NOW},
        "seeded_error": {"assignment_id": "a1", "exam_id": "e1", "round": 1, "structure": "kidney", "kind": "removed",
                         "truth_annotation_id": "n1", "wrong_voxels": 200, "corrected": None, "outcome": "pending"},
        "rejection": {"rejection_id": "rj1", "assignment_id": "a1", "exam_id": "e1", "reader_id": "r1", "round": 1,
                      "reason_code": "poor_image", "consequence": "exclude", "at": NOW},
        "validation": {"validation_id": "v1", "annotation_id": "n1", "round": 1, "stage": "arrival", "ok": True,
                       "hard": [], "soft": ["volume"], "result_path": "r", "result_sha256": "s", "at": NOW},
        "dataset_version": {"dataset_version_id": "dv1", "round": 1, "dvc_md5": "q.dir", "commit_sha": "c",
                            "manifest_sha256": "m", "roles": {"training": 1}, "exams": 1, "created_at": NOW},
        "model": {"model_digest": "m1", "round": 1, "mlflow_run_id": "x", "mlflow_model_id": "y", "name": "kidney",
                  "version": "1", "package_uri": "u", "manifest_sha256": "v", "training_digest": "w", "state": "READY",
                  "software": {"torch": "2"}, "seeds": [1, 2], "created_at": NOW},
        "metric": {"metric_id": "me1", "model_digest": "m1", "test_set": "internal", "structure": "kidney",
                   "name": "dice", "mean": 0.9, "lo": 0.8, "hi": None, "n": 12, "dataset_digest": "q", "method": "bca"},
        "exam_metric": {"exam_metric_id": "em1", "model_digest": "m1", "test_set": "internal", "exam_id": "e2",
                        "structure": "kidney", "dice": 0.9, "surface_dice": 0.95, "hd95_mm": None, "apl_mm": 11.5},
        "decision": {"decision_id": "de1", "round": 1, "kind": "approve", "model_digest": "m1", "by_whom": "QA",
                     "identity": "authenticated", "reason": "passed", "gate": {"ok": True}, "at": NOW},
        "cost_entry": {"cost_entry_id": "co1", "round": 1, "kind": "expert", "what": "n1", "exam_id": "e1",
                       "reader_id": "r1", "minutes": 9.5, "amount": Decimal("19.00"), "currency": "EUR",
                       "rate": {"per_hour": "120.00"}, **simulated, "at": NOW},
    }  # fmt: skip


def sign(ledger: Ledger, keys: KeyRing, number: int = 1) -> dict[str, Any]:
    """Checkpoint the chain's head; returns what a witness keeps."""
    with ledger.tx("close", NOW) as tx:
        head = tx.rows("audit_event")[-1]
        signature = keys.sign(sign_checkpoint_payload(head["seq"], head["hash"]))
        witness = {"seq": head["seq"], "hash": head["hash"], "signature": signature}
        more = {"checkpoint_id": f"c{head['seq']}", "round": number, "key_fingerprint": keys.fingerprint, "at": NOW}
        tx.insert("checkpoint", {**witness, **more})
    return witness


def finish(ledger: Ledger, number: int, at: datetime = NOW) -> None:
    """Take a round through to HELD."""
    for state in (RoundState.AWAITING_ANNOTATION, RoundState.CLOSING, RoundState.AWAITING_APPROVAL, RoundState.HELD):
        with ledger.tx("test", at) as tx:
            move_round(tx, number, state)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new and a filled ledger, made once: tests take copies."""
    folder = tmp_path_factory.mktemp("ledgers")
    for name in ("empty", "full"):
        ledger = Ledger.create(f"sqlite:///{folder / name}")
        if name == "full":
            with ledger.tx("test", NOW) as tx:
                fill(tx)
            sign(ledger, KeyRing.published_demo())
            assert all(ledger.rows(table.name) for table in DOMAIN)
        ledger.engine.dispose()  # the last connection empties the log into the file
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger's file lies."""
    return tmp_path / "ledger.db"


@pytest.fixture
def empty(path: Path, templates: Path) -> Iterator[Ledger]:
    """A new ledger."""
    yield from _copy(templates / "empty", path)


@pytest.fixture
def ledger(path: Path, templates: Path) -> Iterator[Ledger]:
    """A ledger with a row in every domain table and one signed checkpoint."""
    yield from _copy(templates / "full", path)


def _copy(template: Path, path: Path) -> Iterator[Ledger]:
    shutil.copy(template, path)
    ledger = Ledger.open(f"sqlite:///{path}")
    yield ledger
    ledger.engine.dispose()


# Tests are no package and cannot import this file: they take its functions as fixtures.
@pytest.fixture(name="new_round")
def _new_round() -> Callable[..., dict[str, Any]]:
    return round_row


@pytest.fixture(name="add_exams")
def _add_exams() -> Callable[..., None]:
    return exam_rows


@pytest.fixture(name="fill_tables")
def _fill_tables() -> Callable[..., None]:
    return fill


@pytest.fixture(name="checkpoint")
def _checkpoint() -> Callable[..., dict[str, Any]]:
    return sign


@pytest.fixture(name="finish")
def _finish() -> Callable[..., None]:
    return finish
