"""Exams on any grid, coded structures, and label arrays that no mirroring leaves as they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from redraft.config.schema import Structure
from redraft.dicom.geometry import LPS_TO_RAS
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.origin import Origin

ANATOMICAL = {"value": "91723000", "meaning": "Anatomical Structure"}
ABNORMAL = {"value": "49755003", "meaning": "Morphologically Abnormal Structure"}
KIDNEY = {"value": "64033007", "meaning": "Kidney"}
NEOPLASM = {"value": "108369006", "meaning": "Neoplasm"}


@pytest.fixture(scope="session")
def structures() -> list[Structure]:
    """Organ (value 3), tumour in it (1), vessel (7): values against the order on purpose."""
    vein = {"value": "56400007", "meaning": "Renal vein"}
    listed: list[dict[str, Any]] = [
        {"name": "kidney", "value": 3, "kind": "organ", "aliases": ["Niere"],
         "code": {"category": ANATOMICAL, "type": KIDNEY}},
        {"name": "kidney_tumor", "value": 1, "kind": "tumor",
         "code": {"category": ABNORMAL, "type": NEOPLASM, "region": KIDNEY}},
        {"name": "vein", "value": 7, "kind": "vessel",
         "code": {"category": ANATOMICAL, "type": vein, "laterality": {"value": "7771000", "meaning": "Left"}}},
    ]  # fmt: skip
    return [Structure.model_validate(item) for item in listed]


@pytest.fixture(scope="session")
def make_exam() -> Callable[..., ExamGeometry]:
    """An exam from shape and affine (voxel to LPS mm), as an exam.json describes it; `content` is merged into that."""

    def make(shape: tuple[int, int, int] = (7, 6, 5), lps: np.ndarray | None = None, **content: Any) -> ExamGeometry:
        if lps is None:
            lps = np.array([[0.9, 0, 0, -12.5], [0, 1.3, 0, 40.25], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])
        directions = lps[:3, :2] / np.linalg.norm(lps[:3, :2], axis=0)
        slices = {
            "frame_of_reference": "2.25.1", "study": "2.25.2", "series": "2.25.3",
            "sop_class": "1.2.840.10008.5.1.4.1.1.2", "orientation_lps": directions.T.ravel().tolist(),
            "instances": [
                {"uid": f"2.25.{100 + k}", "frame": None, "position_lps": (lps @ [0, 0, k, 1])[:3].tolist()}
                for k in range(shape[2])
            ],
        }  # fmt: skip
        base = {
            "exam_id": "0123456789abcdef0123", "subject_id": "fedcba9876543210fedc", "modality": "CT",
            "shape": list(shape), "affine_ras": (LPS_TO_RAS @ lps).tolist(), "slices": slices,
        }  # fmt: skip
        return ExamGeometry.of({**base, **content})

    return make


@pytest.fixture(scope="session")
def make_labels() -> Callable[..., np.ndarray]:
    """Random labels of the structures, never the same under a mirroring or turn."""

    def make(shape: tuple[int, int, int] = (7, 6, 5), seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        labels = rng.choice(np.array([0, 0, 0, 3, 3, 1, 7], np.uint8), shape)
        labels[0, 0, 0], labels[-1, 0, 0], labels[0, -1, 0], labels[0, 0, -1] = 1, 3, 7, 0
        return labels

    return make


@pytest.fixture(scope="session")
def origin() -> Origin:
    """A corrected draft."""
    at = datetime(2026, 3, 2, 8, 30, 5, tzinfo=UTC)
    return Origin("note", "ab" * 32, "SEMIAUTOMATIC", at, "kidney", "cd" * 32)
