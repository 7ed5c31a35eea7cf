"""A ledger with one assignment of one reader, and batches to append."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from redraft.ledger import Ledger

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def rows() -> list[tuple[str, dict[str, Any]]]:
    """What an assignment needs to exist."""
    return [
        ("subject", {"subject_id": "s1", "split": "pool", "stratum": "", "drawn_at": None}),
        (
            "exam",
            {
                "exam_id": "e1", "subject_id": "s1", "series_id": "x1", "modality": "CT", "shape": [4, 4, 4],
                "spacing": [1.0, 1.0, 1.0], "affine": [], "image_path": "i", "image_sha256": "a", "image_bytes": 1,
                "header_digest": "h", "source_kind": "dicom", "admitted_at": NOW,
            },
        ),
        (
            "round",
            {
                "number": 1, "state": "OPENING", "failed_in": None, "strategy": "random", "seed": 1,
                "config": {"time": {"idle_after_seconds": 60.0, "away_after_seconds": 45.0}}, "config_sha256": "c",
                "criteria": [], "opened_at": NOW, "due_at": NOW, "closed_at": None, "champion": None,
                "challenger": None, "simulated": False,
            },
        ),
        *[
            ("reader", {"reader_id": name, "role": "radiologist", "simulated": False, "added_at": NOW})
            for name in ("r1", "r2")
        ],
        (
            "assignment",
            {
                "assignment_id": "a1", "round": 1, "exam_id": "e1", "reader_id": "r1", "purpose": "training",
                "mode": "from_scratch", "mode_probability": 1.0, "draft_id": None, "backend": "review",
                "state": "DISPATCHED", "expected_minutes": 10.0, "dispatched_at": NOW, "due_at": NOW,
                "package_sha256": "p", "attempt": 1,
            },
        ),
    ]  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """See the module."""
    made = Ledger.create(f"sqlite:///{tmp_path / 'ledger.db'}")
    with made.tx("test", NOW) as tx:
        for table, row in rows():
            tx.insert(table, row)
    yield made
    made.engine.dispose()
