"""A project with a ledger full of invented exams, as it stands when round 2 begins: no network, no Prefect run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redraft import rounds
from redraft.create import create_project
from redraft.digest import sha256_file, sha256_json
from redraft.ledger import AssignmentState, RoundState, Tx, move_assignment, move_round
from redraft.project import Project
from redraft.volumes import Volume, write_volume

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
CHAMPION = "d" * 64
SPLITS = {
    **{f"p{n:02d}": "pool" for n in range(14)},
    **{f"v{n}": "validation" for n in range(2)},
    **{f"t{n}": "test" for n in range(3)},
    **{f"x{n}": "elsewhere" for n in range(2)},
    "u0": "undrawn",
}
# What round 1 left behind: out with a reader, sent back, carried over, withdrawn (free again), taken in.
EARLIER = {
    "p00": [],
    "p01": [AssignmentState.RETURNED, AssignmentState.RETURNED_TO_READER],
    "p02": [AssignmentState.CARRIED_OVER],
    "p03": [AssignmentState.WITHDRAWN],
    "p04": [AssignmentState.RETURNED, AssignmentState.ACCEPTED],
    "t0": [AssignmentState.RETURNED, AssignmentState.ACCEPTED],
    "v0": [],
}
SETTINGS = {
    "budget: {exams: 5}": "budget: {exams: 4}",
    "    - {id: reader-1, role: radiologist}": (
        "    - {id: reader-1, role: radiologist}\n    - {id: reader-2, role: radiologist}"
    ),
}


def exam_row(exam_id: str, path: str, sha256: str, size: int) -> dict[str, Any]:
    """A row of the table `exam`."""
    return {
        "exam_id": exam_id, "subject_id": f"subject-{exam_id}", "series_id": f"series-{exam_id}", "modality": "CT",
        "shape": [12, 10, 8], "spacing": [2.0, 2.0, 3.0], "affine": np.diag([2.0, 2.0, 3.0, 1.0]).tolist(),
        "image_path": path, "image_sha256": sha256, "image_bytes": size, "header_digest": "b" * 64,
        "source_kind": "nifti", "admitted_at": NOW,
    }  # fmt: skip


def model_row() -> dict[str, Any]:
    """The champion: the ledger's word for it, without a network."""
    return {
        "model_digest": CHAMPION, "round": 1, "mlflow_run_id": "r", "mlflow_model_id": "m", "name": "kidney",
        "version": "1", "package_uri": "u", "manifest_sha256": "v", "training_digest": "w", "state": "READY",
        "software": {}, "seeds": [1], "created_at": NOW,
    }  # fmt: skip


def _admit(project: Project, tx: Tx) -> None:
    for n, (exam, split) in enumerate(SPLITS.items()):
        path = f"data/exams/{exam[:2]}/{exam}/image.nii.gz"
        image = np.random.default_rng(n).integers(-50, 150, (12, 10, 8)).astype(np.int16)
        write_volume(project.root / path, Volume(image, np.diag([2.0, 2.0, 3.0, 1.0])))
        tx.insert("subject", {"subject_id": f"subject-{exam}", "split": split, "stratum": "", "drawn_at": NOW})
        tx.insert("exam", exam_row(exam, path, sha256_file(project.root / path), 1))


def _earlier_work(tx: Tx) -> None:
    for exam, states in EARLIER.items():
        reference = exam[0] in "tv"
        tx.insert(
            "assignment",
            {
                "assignment_id": f"old-{exam}", "round": 1, "exam_id": exam, "reader_id": "reader-1",
                "purpose": "reference" if reference else "training", "mode": "from_scratch",
                "mode_probability": None if reference else 1.0, "draft_id": None, "backend": "folder",
                "state": AssignmentState.DISPATCHED, "expected_minutes": 20.0, "dispatched_at": NOW, "due_at": NOW,
                "package_sha256": "p", "attempt": 1,
            },
        )  # fmt: skip
        for state in states:
            move_assignment(tx, f"old-{exam}", state)
        if AssignmentState.ACCEPTED in states:
            tx.insert(
                "annotation",
                {
                    "annotation_id": f"note-{exam}", "assignment_id": f"old-{exam}", "exam_id": exam,
                    "reader_id": "reader-1", "revision": 1, "verdict": "scratch", "reason_code": None,
                    "remark_present": False, "path": "l", "sha256": "z", "draft_id": None, "voxels_changed": None,
                    "origin": "typed", "simulated": False, "state": "valid", "received_at": NOW,
                },
            )  # fmt: skip


def _drafts(project: Project, tx: Tx) -> None:
    for n, exam in enumerate(SPLITS):  # held-out exams too: nothing may take one for the pool because it has a draft
        path = f"data/drafts/{exam[:2]}/{exam}/{CHAMPION}.nii.gz"
        mask = np.zeros((12, 10, 8), np.uint8)
        mask[3:7, 3:7, 2 : 3 + n % 5] = 1
        write_volume(project.root / path, Volume(mask, np.diag([2.0, 2.0, 3.0, 1.0])))
        scores = {"entropy_region": 0.01 * (n + 1), "foreground_voxels": int(mask.sum()), "border_voxels": 8}
        tx.insert(
            "draft",
            {
                "draft_id": sha256_json([exam, CHAMPION])[:24], "exam_id": exam, "model_digest": CHAMPION,
                "path": path, "sha256": sha256_file(project.root / path), "scores": scores,
            },
        )  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, made once; tests take copies."""
    project = create_project(
        tmp_path_factory.mktemp("made") / "kidneys", "kidney-ct", NOW, demo_keys=True, settings=SETTINGS
    )
    rounds.begin(project, NOW, "test", lambda champion: {})
    with project.ledger.tx("test", NOW) as tx:
        _admit(project, tx)
        _earlier_work(tx)
        for state in ("AWAITING_ANNOTATION", "CLOSING", "AWAITING_APPROVAL"):
            move_round(tx, 1, RoundState(state))
        tx.insert("model", model_row())
        tx.insert(
            "decision",
            {
                "decision_id": "one", "round": 1, "kind": "approve", "model_digest": CHAMPION, "by_whom": "QA",
                "identity": "policy", "reason": "passed", "gate": {}, "at": NOW,
            },
        )  # fmt: skip
        move_round(tx, 1, RoundState.PROMOTED)
        _drafts(project, tx)
    rounds.begin(project, NOW, "test", lambda champion: {})
    project.ledger.engine.dispose()  # the last connection empties the log into the file
    return project.root


@pytest.fixture
def tiny(made: Path, tmp_path: Path) -> Callable[..., Project]:
    """Makes a copy of the project; keyword text pairs are replaced in its project.yaml."""

    def copy(*pairs: tuple[str, str]) -> Project:
        root = tmp_path / f"project-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(made, root, symlinks=True)
        text = (root / "project.yaml").read_text(encoding="utf-8")
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        (root / "project.yaml").write_text(text, encoding="utf-8")
        return Project.open(root)

    return copy
