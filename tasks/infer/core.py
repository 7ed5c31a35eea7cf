"""Drafting exams with the champion: one file and one row of scores per (exam, model)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.inference import predict
from models.package import Ensemble
from redraft.config.schema import Infer
from redraft.digest import sha256_file
from redraft.errors import ExamError, ReadError
from redraft.volumes import read_volume, write_volume


@dataclass(frozen=True)
class ToDraft:
    """An exam to draft, by file and SHA-256."""

    exam_id: str
    image: Path
    image_sha256: str


@dataclass(frozen=True)
class Draft:
    """A draft. `path` is relative to the project; `scores` as in models.uncertainty.summarise."""

    exam_id: str
    model_digest: str
    path: str
    sha256: str
    scores: dict[str, Any]


def draft_path(exam_id: str, model_digest: str) -> str:
    """Where the draft of one exam by one model lies, relative to the project."""
    return f"data/drafts/{exam_id[:2]}/{exam_id}/{model_digest}.nii.gz"


def infer_exams(
    ensemble: Ensemble, exams: Sequence[ToDraft], root: Path, config: Infer, *, threads: int, precision: str,
    failed: Callable[[str, ExamError], None],
) -> Iterator[Draft]:  # fmt: skip
    """Draft exams one after the other; a bad exam is reported to `failed` and the rest goes on."""
    for exam in exams:
        try:
            if not exam.image.is_file() or sha256_file(exam.image) != exam.image_sha256:
                raise ReadError(
                    f"Exam {exam.exam_id}: its image is missing or altered.",
                    "Restore it with `dvc checkout`.",
                    rule="altered",
                )
            image = read_volume(exam.image)
            prediction = predict(
                ensemble,
                image,
                overlap=config.overlap,
                batch_size=config.batch_size,
                threads=threads,
                precision=precision,
            )
        except ExamError as error:
            failed(exam.exam_id, error)
            continue
        path = draft_path(exam.exam_id, ensemble.digest)
        write_volume(root / path, image.like(prediction.labels))
        yield Draft(exam.exam_id, ensemble.digest, path, sha256_file(root / path), prediction.scores)
