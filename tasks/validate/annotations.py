"""Keeping annotations: canonical NIfTI on the image's grid, one file per annotation, never overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from redraft.digest import sha256_file, sha256_json
from redraft.files import write_text
from redraft.volumes import read_volume, write_volume


def annotation_id(assignment_id: str, revision: int, returned_sha256: str) -> str:
    """Deterministic id: taking the same return in twice is one annotation."""
    return sha256_json([assignment_id, revision, returned_sha256])[:24]


def store(root: Path, exam_id: str, identity: str, label: Path, image: Path, facts: dict[str, Any]) -> tuple[str, str]:
    """Store a valid label and what is known of it; returns path (relative to the project) and SHA-256.

    The label was found on the image's grid; it is written with the image's affine to the last digit.
    """
    relative = f"data/labels/{exam_id[:2]}/{exam_id}/{identity}.nii.gz"
    target = root / relative
    if not target.exists():
        values = read_volume(label).array
        write_volume(target, read_volume(image).like(np.rint(values).astype(np.uint8)))
    digest = sha256_file(target)
    meta = {"schema_version": 1, "annotation_id": identity, "exam_id": exam_id, "sha256": digest, **facts}
    write_text(target.with_name(f"{identity}.json"), json.dumps(meta, indent=1, sort_keys=True) + "\n")
    return relative, digest
