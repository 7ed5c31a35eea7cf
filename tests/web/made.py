"""A project on the phantom whose second round is out with readers: backend `review`, made by the real dispatch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft import rounds
from redraft.create import create_project
from redraft.digest import sha256_file, sha256_json
from redraft.ledger import RoundState, Tx, move_round
from redraft.phantom.write import draw_exam
from redraft.project import Project
from redraft.volumes import Volume, write_volume

CHAMPION = "d" * 64
SHAPE, SPACING = (96, 80, 24), (3.6, 3.6, 8.0)
# Exams of the pool and how each is worked; `oblique` lies at an angle to the patient's axes.
TRAINING = {"axial": "assisted", "oblique": "assisted", "scratch": "from_scratch", "fourth": "assisted"}
REFERENCE = {"v0": "validation", "t0": "test"}
SETTINGS = {
    "backend: folder": "backend: review",
    "    - {id: reader-1, role: radiologist}": (
        "    - {id: reader-1, role: radiologist}\n    - {id: reader-2, role: radiologist}"
    ),
    "  - {name: kidney, value: 1, kind: organ,": (
        "  - {name: kidney, value: 1, kind: organ, protocol: 'Parenchyma and cysts of both kidneys. The renal sinus "
        "(fat, vessels, collecting system) does not belong to it, nor does the ureter.',"
    ),
    "gate:\n": (
        "time: {idle_after_seconds: 3, away_after_seconds: 5, heartbeat_seconds: 1}\nweb: {sweep_minutes: 0}\n\ngate:\n"
    ),
}


def exam_name(name: str) -> str:
    """An exam id as real ones are: 20 hexadecimal characters."""
    return sha256_json(["exam", name])[:20]


def affine_of(name: str) -> NDArray[np.float64]:
    """The grid in patient space: along the axes as CT tables have it (left, back, head), or turned about all three."""
    scale = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    if name != "oblique":
        return scale
    a, b, c = np.deg2rad([14.0, -9.0, 21.0])
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turned = np.eye(4)
    turned[:3, :3] = z @ y @ x
    turned[:3, 3] = [31.0, -12.5, -480.0]
    return turned @ scale


def draft_of(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a fair model would have drawn: kidneys a little too small, with a piece too many."""
    kidney = ndimage.binary_erosion(labels == 1)
    draft = np.where(kidney, 1, np.where(labels == 2, 2, 0)).astype(np.uint8)
    draft[4:8, 4:8, 2:4] = 1
    return draft


def make_round(root: Path, now: datetime | None = None, settings: Mapping[str, str] | None = None) -> Project:
    """The project at `root` with round 2 dispatched. `settings` replaces further template text."""
    from tasks.dispatch.step import dispatch

    now = now or datetime.now(UTC)
    project = create_project(root, "kidney-ct", now, demo_keys=True, settings={**SETTINGS, **(settings or {})})
    rounds.begin(project, now, "test", lambda champion: {})
    with project.ledger.tx("test", now) as tx:
        for n, (name, split) in enumerate([*((name, "pool") for name in TRAINING), *REFERENCE.items()]):
            _admit(project, tx, n, name, split, now)
        for state in ("AWAITING_ANNOTATION", "CLOSING", "AWAITING_APPROVAL"):
            move_round(tx, 1, RoundState(state))
        _approve(tx, now)
        move_round(tx, 1, RoundState.PROMOTED)
    rounds.begin(project, now, "test", lambda champion: {})
    with project.ledger.tx("test", now) as tx:
        tx.insert_many("selection", [_chosen(n, name, mode) for n, (name, mode) in enumerate(TRAINING.items())])
    dispatch.fn(str(root), 2, None)
    with project.ledger.tx("test", now) as tx:
        move_round(tx, 2, RoundState.AWAITING_ANNOTATION)
    return project


def _admit(project: Project, tx: Tx, number: int, name: str, split: str, now: datetime) -> None:
    exam, affine = exam_name(name), affine_of(name)
    anatomy = draw_exam(7, number, SHAPE, SPACING)
    path = f"data/exams/{exam[:2]}/{exam}/image.nii.gz"
    write_volume(project.root / path, Volume(anatomy.hu, affine))
    tx.insert("subject", {"subject_id": f"subject-{name}", "split": split, "stratum": "", "drawn_at": now})
    tx.insert(
        "exam",
        {
            "exam_id": exam, "subject_id": f"subject-{name}", "series_id": f"series-{name}", "modality": "CT",
            "shape": list(SHAPE), "spacing": list(SPACING), "affine": affine.tolist(), "image_path": path,
            "image_sha256": sha256_file(project.root / path), "image_bytes": (project.root / path).stat().st_size,
            "header_digest": "b" * 64, "source_kind": "nifti", "admitted_at": now,
        },
    )  # fmt: skip
    draft = f"data/drafts/{exam[:2]}/{exam}/{CHAMPION}.nii.gz"
    write_volume(project.root / draft, Volume(draft_of(anatomy.labels), affine))
    doubt = np.exp(-(((np.arange(SHAPE[2]) - 0.6 * SHAPE[2]) / 4) ** 2)).round(3).tolist()
    profile = {"axis": 2, "exam": doubt, "structures": {"kidney": doubt}}
    tx.insert(
        "draft",
        {
            "draft_id": sha256_json([exam, CHAMPION])[:24], "exam_id": exam, "model_digest": CHAMPION, "path": draft,
            "sha256": sha256_file(project.root / draft),
            "scores": {"entropy_region": 0.01 * (number + 1), "foreground_voxels": 900, "border_voxels": 80,
                       "profile": profile},
        },
    )  # fmt: skip


def _approve(tx: Tx, now: datetime) -> None:
    tx.insert(
        "model",
        {
            "model_digest": CHAMPION, "round": 1, "mlflow_run_id": "r", "mlflow_model_id": "m", "name": "kidney",
            "version": "1", "package_uri": "u", "manifest_sha256": "v", "training_digest": "w", "state": "READY",
            "software": {}, "seeds": [1], "created_at": now,
        },
    )  # fmt: skip
    tx.insert(
        "decision",
        {
            "decision_id": "one", "round": 1, "kind": "approve", "model_digest": CHAMPION, "by_whom": "policy",
            "identity": "policy", "reason": "passed", "gate": {}, "at": now,
        },
    )  # fmt: skip


def _chosen(number: int, name: str, mode: str) -> dict[str, object]:
    return {
        "selection_id": f"selection-{name}", "round": 2, "exam_id": exam_name(name), "rank": number + 1,
        "chosen_by": "strategy", "strategy": "entropy", "score": 0.1, "inclusion_probability": 1.0,
        "explanation": {"mode": mode, "mode_probability": 0.4 if mode == "from_scratch" else 0.6},
    }  # fmt: skip
