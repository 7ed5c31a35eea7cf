"""A challenger from labelled exams: the same package for the same inputs, whatever order or interruption."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data import TrainingExam
from models.package import load_package
from models.plan import Plan
from redraft.config.schema import Config
from redraft.digest import sha256_file
from redraft.errors import IntegrityError, StateError
from redraft.security.keys import KeyRing
from redraft.volumes import Volume, write_volume
from tasks.retrain.core import RetrainResult, plan_for, retrain, training_digest

KEYS = KeyRing.published_demo()


@pytest.fixture(scope="module")
def config() -> Config:
    """A project with two structures and a network that trains in milliseconds."""
    return Config.model_validate(
        {
            "name": "test",
            "structures": [
                {"name": "organ", "value": 1, "kind": "organ"},
                {"name": "lesion", "value": 3, "kind": "lesion"},
            ],
            "ingest": {"modalities": ["CT"]},
            "select": {"budget": {"exams": 2}},
            "dispatch": {"readers": [{"id": "r1"}]},
            "train": {
                "channels": [4, 8], "steps": 12, "batch_size": 2, "checkpoint_every": 5, "validate_every": 6,
                "precision": "32", "patch": [16, 16, 8],
            },
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingExam]:
    """Four exams of noise with a bright box."""
    folder, result = tmp_path_factory.mktemp("exams"), []
    for n in range(4):
        rng = np.random.default_rng(n)
        label = np.zeros((20, 18, 10), np.uint8)
        label[4:12, 5 + n : 12, 2:8], label[6:8, 9:11, 3:5] = 1, 3
        image = (label * 60 + rng.normal(0, 10, label.shape)).astype(np.int16)
        paths = folder / f"{n}.nii.gz", folder / f"{n}.label.nii.gz"
        write_volume(paths[0], Volume(image, np.diag([2.0, 2.0, 4.0, 1.0])))
        write_volume(paths[1], Volume(label, np.diag([2.0, 2.0, 4.0, 1.0])))
        result.append(TrainingExam(f"e{n}", f"a{n}", *paths, *(sha256_file(path) for path in paths)))
    return result


@pytest.fixture
def run(config: Config, exams: list[TrainingExam], tmp_path: Path) -> Callable[..., RetrainResult]:
    """Retrain on the first three exams; keyword arguments replace what is given."""

    def call(name: str, **changes: Any) -> RetrainResult:
        arguments: dict[str, Any] = {
            "training": exams[:3], "validation": exams[3:], "plan": plan_for(exams[:3], "CT", config), "config": config,
            "seed": 5, "package": tmp_path / name / "package", "work": tmp_path / name / "work",
            "cache": tmp_path / "cache", "threads": 1, "sign": KEYS.sign, "public_key": KEYS.public_key,
        } | changes  # fmt: skip
        return retrain(**arguments)

    return call


def test_the_package_is_what_was_trained(run: Callable[..., RetrainResult], tmp_path: Path) -> None:
    """The package verifies under the result's digest, holds every member, and the result tells curves and software."""
    told: list[tuple[int, int]] = []
    result = run("a", progress=lambda member, step, steps, loss: told.append((member, step)))
    ensemble = load_package(tmp_path / "a" / "package", [KEYS.public_key])
    assert ensemble.digest == result.model_digest and len(ensemble.members) == 2
    assert told == [(0, 10), (0, 12), (1, 10), (1, 12)]
    assert {name for name, _, _ in result.curves} == {
        "member0/loss", "member1/loss", "member0/validation_dice", "member1/validation_dice",
    }  # fmt: skip
    assert result.seconds > 0 and result.precision == "32" and {"torch", "python", "threads"} <= result.software.keys()


def test_order_does_not_matter_and_seeds_do(run: Callable[..., RetrainResult], exams: list[TrainingExam]) -> None:
    """The same exams in another order give the same model; another seed gives another one."""
    first, turned, other = run("a"), run("b", training=exams[2::-1]), run("c", seed=6)
    assert first.model_digest == turned.model_digest != other.model_digest
    assert first.training_digest == turned.training_digest == other.training_digest


def test_an_interrupted_training_gives_the_same_model(run: Callable[..., RetrainResult]) -> None:
    """Stopped in the second member and run again: the first is read back, the second resumed, the model is the same."""
    whole = run("whole")

    def stop(member: int, step: int, steps: int, loss: float) -> None:
        if (member, step) == (1, 10):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("broken", progress=stop)
    told: list[int] = []
    again = run("broken", progress=lambda member, step, steps, loss: told.append(member))
    assert again.model_digest == whole.model_digest and again.curves == whole.curves
    assert set(told) == {1}


def test_the_training_digest_names_exactly_the_training_set(exams: list[TrainingExam]) -> None:
    """Every field that says what was trained on counts, paths do not."""
    base = training_digest(exams)
    assert base == training_digest(exams[::-1]) != training_digest(exams[:3])
    for name in ("exam_id", "annotation_id", "image_sha256", "label_sha256"):
        assert training_digest([*exams[:3], dataclasses.replace(exams[3], **{name: "x"})]) != base
    assert training_digest([*exams[:3], dataclasses.replace(exams[3], image=Path("elsewhere"))]) == base


def test_a_plan_does_not_depend_on_order(exams: list[TrainingExam], config: Config) -> None:
    """The plan of the same exams in any order is the same to its digest."""
    assert plan_for(exams, "CT", config).digest == plan_for(exams[::-1], "CT", config).digest


def test_a_frozen_plan_is_not_trained_past(
    run: Callable[..., RetrainResult], exams: list[TrainingExam], config: Config
) -> None:
    """A project.yaml that has moved away from the frozen plan is refused and told what differs."""
    plan = plan_for(exams, "CT", config)
    other = Plan.model_validate({**plan.model_dump(), "labels": {"organ": 1}})
    with pytest.raises(StateError, match=r"frozen in the first round.*structures"):
        run("a", plan=other)


def test_bad_training_sets_are_refused(run: Callable[..., RetrainResult], exams: list[TrainingExam]) -> None:
    """No exam at all, or one whose label is not what its record says, stops before a step is taken."""
    with pytest.raises(StateError, match="no labelled exam"):
        run("a", training=[])
    with pytest.raises(IntegrityError, match="Exam e1"):
        run("b", training=[exams[0], dataclasses.replace(exams[1], label_sha256="0" * 64)])
