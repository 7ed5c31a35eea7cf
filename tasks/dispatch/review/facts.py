"""What the workstation must know of a package before it shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redraft.config.schema import Config, Structure
from redraft.reasons import reasons_for
from redraft.segmentation.colours import colours, web
from tasks.dispatch.contract import Task
from tasks.dispatch.review.image import Prepared
from tasks.dispatch.review.windows import windows
from tasks.dispatch.seeded import notes

FROM_SCRATCH = "This exam is drawn from scratch: no draft is shown, and none is sent to this page."


def facts(
    task: Task, config: Config, image: Prepared, modality: str, *, profile: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The part of `GET /api/work/{a}` that follows from package and project.

    Parameters
    ----------
    profile : mapping or None
        `draft.scores["profile"]`: uncertainty per slice, `{axis, exam, structures}`. It tells where a model was
        unsure, and so what it drew: exams worked from scratch never get it.
    """
    assisted = task.mode == "assisted"
    wanted = [structure for structure in config.structures if structure.name in {s.name for s in task.structures}]
    told = notes(config.dispatch) if assisted else [FROM_SCRATCH]
    return {
        "assignment_id": task.assignment_id,
        "exam_id": task.exam_id,
        "round": task.round,
        # A draft that is wrong on purpose must not be told from others.
        "purpose": "training" if task.purpose == "quality" else task.purpose,
        "mode": task.mode,
        "modality": modality,
        "shape": list(image.shape),
        "spacing": image.spacing,
        "affine": [list(row) for row in image.affine],
        "dtype": image.dtype,
        "intensity": {"low": image.low, "high": image.high},
        "structures": _structures(task, config.structures),
        "draft": assisted,
        "uncertainty": _uncertainty(profile, image) if assisted and profile else None,
        "windows": windows(modality, [s.kind for s in wanted], image.low, image.high, image.percentiles),
        "reasons": [
            {"code": reason.code, "words": reason.words, "no_label": reason.no_label}
            for reason in reasons_for(task.mode)
        ],
        "time": {
            "heartbeat_seconds": config.time.heartbeat_seconds,
            "idle_after_seconds": config.time.idle_after_seconds,
            "away_after_seconds": config.time.away_after_seconds,
        },
        "notes": told,
    }


def _structures(task: Task, configured: Sequence[Structure]) -> list[dict[str, Any]]:
    listed = colours([structure.name for structure in configured])
    protocol = {structure.name: structure.protocol for structure in configured}
    return [
        {
            "name": item.name,
            "value": item.value,
            "kind": item.kind,
            "colour": web(listed[item.name]) if item.name in listed else "#e69f00",
            "protocol": item.protocol or protocol.get(item.name, ""),
        }
        for item in task.structures
    ]


def _uncertainty(profile: Mapping[str, Any], image: Prepared) -> dict[str, Any] | None:
    """The profile, where it is this grid's: one value per slice."""
    axis, exam = profile.get("axis"), profile.get("exam")
    if not isinstance(axis, int) or not isinstance(exam, list) or len(exam) != image.shape[axis]:
        return None
    structures = {n: v for n, v in (profile.get("structures") or {}).items() if len(v) == image.shape[axis]}
    return {"axis": axis, "exam": exam, "structures": structures}
