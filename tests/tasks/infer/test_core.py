"""Drafting: one file and one row per exam and model; a bad exam stops nobody else's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.networks import build_network, network_arguments
from models.package import Ensemble
from models.plan import Plan
from redraft.config.schema import Infer
from redraft.digest import sha256_file
from redraft.errors import ExamError
from redraft.volumes import Volume, grid_difference, read_volume, write_volume
from tasks.infer.core import Draft, ToDraft, draft_path, infer_exams


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    """Two untrained members."""
    plan = Plan(
        modality="CT", labels={"organ": 1, "lesion": 3}, spacing_mm=(2.0, 2.0, 2.0), patch=(8, 8, 8),
        intensity="clip_zscore", intensity_values=(0.0, 100.0, 50.0, 20.0), architecture="unet", channels=(4, 8),
        strides=((2, 2, 2),),
    )  # fmt: skip
    members = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        members.append(build_network(plan.architecture, network_arguments(plan)).eval())
    return Ensemble("d" * 64, plan, members)


@pytest.fixture
def exams(tmp_path: Path) -> list[ToDraft]:
    """Three exams on grids of their own."""
    result = []
    for n in range(3):
        affine = np.diag([1.5, -2.0, 2.5 + n, 1.0])
        image = np.random.default_rng(n).integers(0, 100, (9 + n, 12, 10)).astype(np.int16)
        path = tmp_path / f"{n}.nii.gz"
        write_volume(path, Volume(image, affine))
        result.append(ToDraft(f"{n}abc", path, sha256_file(path)))
    return result


def run(ensemble: Ensemble, exams: list[ToDraft], root: Path) -> tuple[list[Draft], list[tuple[str, ExamError]]]:
    failed: list[tuple[str, ExamError]] = []
    drafts = list(
        infer_exams(
            ensemble, exams, root, Infer(), threads=1, precision="32", failed=lambda e, error: failed.append((e, error))
        )
    )
    return drafts, failed


def test_drafts_are_files_on_their_exam_s_grid(ensemble: Ensemble, exams: list[ToDraft], tmp_path: Path) -> None:
    """Each draft lies where its record says, with that hash, on its exam's grid, with the project's label values."""
    drafts, failed = run(ensemble, exams, tmp_path / "project")
    assert not failed and [draft.exam_id for draft in drafts] == [exam.exam_id for exam in exams]
    for exam, draft in zip(exams, drafts, strict=True):
        path = tmp_path / "project" / draft.path
        assert (
            draft.path
            == draft_path(exam.exam_id, "d" * 64)
            == f"data/drafts/{exam.exam_id[:2]}/{exam.exam_id}/{'d' * 64}.nii.gz"
        )
        assert sha256_file(path) == draft.sha256 and draft.model_digest == ensemble.digest
        volume = read_volume(path)
        assert grid_difference(read_volume(exam.image), volume) is None
        assert volume.array.dtype == np.uint8 and set(np.unique(volume.array)) <= {0, 1, 3}
        assert draft.scores["structures"].keys() == {"organ", "lesion"}


def test_drafting_again_gives_the_same_bytes(ensemble: Ensemble, exams: list[ToDraft], tmp_path: Path) -> None:
    """Two runs agree in hashes and scores."""
    assert run(ensemble, exams, tmp_path / "a")[0] == run(ensemble, exams, tmp_path / "b")[0]


def test_a_bad_exam_stops_nobody_else_s(ensemble: Ensemble, exams: list[ToDraft], tmp_path: Path) -> None:
    """Altered, missing, truncated and NaN images are reported by exam with their rule; the others are drafted."""
    bad = []
    for name in ("altered", "missing", "truncated", "nan"):
        path = tmp_path / f"{name}.nii.gz"
        image = np.full((6, 6, 6), np.nan if name == "nan" else 1, np.float32)
        write_volume(path, Volume(image, np.eye(4)))
        if name == "truncated":
            path.write_bytes(path.read_bytes()[:-40])
        bad.append(ToDraft(name, path, "0" * 64 if name == "altered" else sha256_file(path)))
        if name == "missing":
            path.unlink()
    drafts, failed = run(ensemble, [bad[0], exams[0], *bad[1:], exams[1]], tmp_path / "project")
    assert [draft.exam_id for draft in drafts] == ["0abc", "1abc"]
    assert [(exam, error.rule) for exam, error in failed] == [
        ("altered", "altered"), ("missing", "altered"), ("truncated", "unreadable"), ("nan", "not_finite"),
    ]  # fmt: skip
