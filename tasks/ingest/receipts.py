"""What happened to each series that was offered, and why. Receipts hold pseudonyms and measured values, no identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from redraft.digest import sha256_json

Verdict = Literal["admitted", "duplicate", "quarantined", "refused"]


@dataclass(frozen=True)
class ExamRecord:
    """An admitted exam as the ledger keeps it. Spacing and affine in mm, RAS+."""

    exam_id: str
    subject_id: str
    series_id: str
    modality: str
    shape: list[int]
    spacing: list[float]
    affine: list[list[float]]
    image_path: str
    image_sha256: str
    image_bytes: int
    header_digest: str
    source_kind: str
    external: str | None


@dataclass(frozen=True)
class Receipt:
    """One series, or one file that belongs to no series.

    `paths` are for the caller's terminal; `record()` leaves them out.
    """

    series_id: str
    verdict: Verdict
    rule: str
    files: int
    exam_id: str | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    exam: ExamRecord | None = None

    def receipt_id(self, intake_id: str) -> str:
        """Deterministic id of this receipt within one intake."""
        return sha256_json([intake_id, self.series_id, self.verdict, self.rule, self.files])[:24]

    def record(self) -> dict[str, Any]:
        """What may be kept and shown anywhere."""
        return {
            "series": self.series_id,
            "exam_id": self.exam_id,
            "verdict": self.verdict,
            "rule": self.rule,
            "measured": self.measured,
            "files": self.files,
        }
