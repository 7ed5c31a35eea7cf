"""Rows of the ledger that say what came back: the annotation, its times, its validation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from redraft.digest import sha256_json
from tasks.validate.expectations import Finding, Verdict

Row = dict[str, Any]


def annotation_row(
    identity: str, work: Row, result: Row, revision: int, path: str, sha256: str, changed: int | None, state: str,
    now: datetime,
) -> Row:  # fmt: skip
    """The annotation of one return; `path` and `sha256` are empty where it came without a label."""
    return {
        "annotation_id": identity,
        "assignment_id": work["assignment_id"],
        "exam_id": work["exam_id"],
        "reader_id": work["reader_id"],
        "revision": revision,
        "verdict": result["verdict"],
        "reason_code": result["reason_code"],
        "remark_present": bool(result["remark"]),
        "path": path,
        "sha256": sha256,
        "draft_id": work["draft_id"] if work["mode"] == "assisted" else None,
        "voxels_changed": changed,
        "origin": result["origin"],
        "simulated": result["simulated"],
        "state": state,
        "received_at": now,
    }


def time_rows(identity: str, result: Row) -> list[Row]:
    """Minutes per structure; `exam` is time that belongs to none."""
    return [
        {
            "time_entry_id": sha256_json([identity, name])[:24],
            "annotation_id": identity,
            "structure": None if name == "exam" else name,
            "active_minutes": float(minutes["active"]),
            "idle_minutes": float(minutes["idle"]),
            "away_minutes": float(minutes["away"]),
            "origin": result["origin"],
            "simulated": result["simulated"],
        }
        for name, minutes in sorted(result["minutes"].items())
    ]


def plain(findings: tuple[Finding, ...]) -> list[Row]:
    """Findings as rows keep them."""
    return [{"rule": f.rule, "measured": f.measured, "message": f.message} for f in findings]


def validation_id(identity: str, number: int, stage: str) -> str:
    """One per annotation, round and stage."""
    return sha256_json([identity, number, stage])[:24]


def validation_row(
    identity: str, number: int, stage: str, verdict: Verdict, path: str, digest: str, now: datetime
) -> Row:
    """What the rules said; `path` is where the whole batch's result is kept."""
    return {
        "validation_id": validation_id(identity, number, stage),
        "annotation_id": identity,
        "round": number,
        "stage": stage,
        "ok": verdict.ok,
        "hard": plain(verdict.hard),
        "soft": plain(verdict.soft),
        "result_path": path,
        "result_sha256": digest,
        "at": now,
    }
