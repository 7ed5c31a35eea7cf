"""Writing phantom exams: the same exam number and seed give the same bytes, whatever else is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redraft.errors import UsageError
from redraft.files import write_text
from redraft.phantom.anatomy import KIDNEY, TUMOR, Anatomy, draw_anatomy
from redraft.phantom.identities import draw_identity
from redraft.phantom.rtstruct import build_rtstruct
from redraft.phantom.series import Uids, exam_header, save, write_series

SHAPE = (96, 80, 32)
SPACING = (3.6, 3.6, 6.0)
STRUCTURES = {"kidney": KIDNEY, "kidney_tumor": TUMOR}
BLOCK = 6  # of six exams in a row the last one is a second exam of the patient before


@dataclass(frozen=True)
class PhantomReport:
    """What was written."""

    exams: int
    subjects: int
    with_tumor: int
    planted: tuple[str, ...]


def write_phantom(
    out: Path,
    exams: int,
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
) -> PhantomReport:
    """Write `exams` synthetic CT series below `out/images` and their truth (RTSTRUCT) below `out/truth`.

    `out/planted_identifiers.json` lists every invented identifier in the headers; it lies beside the images so that a
    leak check has something to look for. It is written last: where it stands, the phantom is whole.

    Parameters
    ----------
    exams : int
        How many; at least 1. Exam n is the same for every count.
    shape, spacing
        Voxels, and mm per voxel, along (i, j, k) = (left, back, head).

    Raises
    ------
    UsageError
        Fewer than one exam, or a field of view that does not hold both kidneys.
    StorageError
        The disk is full or the folder cannot be written.
    """
    if exams < 1:
        raise UsageError(f"{exams} exams cannot be written.", "Ask for at least one.")
    planted: set[str] = set()
    tumors = 0
    for number in range(exams):
        planted.update(_write_exam(out, seed, number, draw_exam(seed, number, shape, spacing), spacing))
        tumors += has_tumor(seed, subject_of(number))
    write_text(out / "planted_identifiers.json", json.dumps(sorted(planted), ensure_ascii=False, indent=1) + "\n")
    subjects = len({subject_of(number) for number in range(exams)})
    return PhantomReport(exams, subjects, tumors, tuple(sorted(planted)))


def draw_exam(
    seed: int, number: int, shape: tuple[int, int, int] = SHAPE, spacing: tuple[float, float, float] = SPACING
) -> Anatomy:
    """The anatomy of one exam, without writing it."""
    subject = subject_of(number)
    return draw_anatomy(
        _rng(seed, "subject", subject), _rng(seed, "exam", number), shape, spacing,
        tumor=has_tumor(seed, subject), visit=number - subject,
    )  # fmt: skip


def subject_of(number: int) -> int:
    """Whose exam this is: the number of the subject's first exam."""
    return number - 1 if number % BLOCK == BLOCK - 1 else number


def has_tumor(seed: int, subject: int) -> bool:
    """Whether a subject has a tumour: one of two neighbours has, so that a short series is balanced too."""
    block, place = divmod(subject, BLOCK)
    if place == BLOCK - 2:  # subjects with two exams have their neighbour in the next block
        key, second = f"{block // 2}/twice", block % 2
    else:
        key, second = f"{block}/{place // 2}", place % 2
    return bool(_rng(seed, "tumor", key).integers(2)) == bool(second)


def _rng(seed: int, kind: str, key: object) -> np.random.Generator:
    digest = hashlib.sha256(f"redraft phantom/{seed}/{kind}/{key}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _write_exam(
    out: Path, seed: int, number: int, anatomy: Anatomy, spacing: tuple[float, float, float]
) -> list[str]:  # fmt: skip
    """Write one exam; returns the identifiers planted in it."""
    subject = subject_of(number)
    order = f"ACC{int(_rng(seed, 'order', number).integers(10**9, 10**10))}"
    identity = draw_identity(_rng(seed, "identity", subject), subject, order)
    uids = Uids.of(seed, number, anatomy.hu.shape[2])
    header = exam_header(identity, uids, number, number - subject)
    affine = _affine(_rng(seed, "table", number), anatomy.hu.shape, spacing)
    # A folder as an archive exports it: named by patient and study.
    folder = out / "images" / identity.patient_id / f"CT_{header.StudyDate}"
    write_series(folder, header, identity, uids, anatomy.hu, affine)
    save(out / "truth" / f"exam_{number:04d}.dcm", build_rtstruct(header, anatomy.labels, STRUCTURES, affine, uids))
    return [*identity.planted(), uids.study, uids.series, uids.frame, uids.truth]


def _affine(
    rng: np.random.Generator, shape: tuple[int, ...], spacing: tuple[float, float, float]
) -> NDArray[np.float64]:
    """From (i, j, k) to LPS mm; the table stands at another height for every exam."""
    affine = np.diag([*spacing, 1.0])
    table = [0.0, float(rng.integers(-400, 400)) / 10, float(rng.integers(-9000, -3000)) / 10]
    middle = [(n - 1) / 2 * step for n, step in zip(shape, spacing, strict=True)]
    affine[:3, 3] = [round(place - half, 4) for place, half in zip(table, middle, strict=True)]
    return affine
