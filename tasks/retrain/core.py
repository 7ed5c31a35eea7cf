"""Training a challenger: exams in, a signed model package out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from models.data import TrainingExam, prepare
from models.package import write_package
from models.plan import Plan, make_plan, take_fingerprint
from models.training import train_member
from redraft.config.schema import Config
from redraft.digest import sha256_json
from redraft.errors import StateError
from redraft.volumes import read_volume

Progress = Callable[[int, int, int, float], None]  # member, step, steps, loss


@dataclass(frozen=True)
class RetrainResult:
    """A trained challenger; `curves` are (metric name, step, value)."""

    model_digest: str
    training_digest: str
    curves: list[tuple[str, int, float]]
    seconds: float
    precision: str
    seeds: dict[str, int]
    software: dict[str, str]


def training_digest(exams: Sequence[TrainingExam]) -> str:
    """Identity of a training set: SHA-256 over its sorted entries."""
    return sha256_json(sorted([e.exam_id, e.annotation_id, e.image_sha256, e.label_sha256] for e in exams))


def plan_for(exams: Sequence[TrainingExam], modality: str, config: Config) -> Plan:
    """The plan of a first round, from the fingerprint of its labelled exams."""
    ordered = sorted(exams, key=lambda exam: exam.exam_id)
    fingerprint = take_fingerprint(((read_volume(e.image), read_volume(e.label)) for e in ordered), modality)
    return make_plan(fingerprint, config.train, config.labels)


def retrain(
    training: Sequence[TrainingExam], validation: Sequence[TrainingExam], plan: Plan, config: Config, *, seed: int,
    package: Path, work: Path, cache: Path, threads: int, sign: Callable[[bytes], str], public_key: str,
    progress: Progress = lambda member, step, steps, loss: None,
) -> RetrainResult:  # fmt: skip
    """Train `config.train.members` networks and write their package.

    Exams are taken in the order of their ids, whatever order they come in. An interrupted training goes on from its
    checkpoints in `work`; finished members are read from theirs.

    Raises
    ------
    StateError
        No training exam, or project.yaml asks for another network or other structures than the frozen plan.
    IntegrityError, LabelError, ReadError
        A file that is not what its record says, or a label that does not fit its exam; the exam is named.
    """
    if not training:
        raise StateError("There is no labelled exam to train on.", "Wait for readers' work.")
    changed = plan.differences(config.train, config.labels)
    if changed:
        raise StateError(
            f"The training plan was frozen in the first round; project.yaml differs from it: {'; '.join(changed)}.",
            "Put project.yaml back, or begin a new project: models of different plans are not comparable.",
            code="state.plan_frozen",
        )
    ordered = sorted(training, key=lambda exam: exam.exam_id)
    arrays = prepare(ordered, plan, cache)
    checks = prepare(sorted(validation, key=lambda exam: exam.exam_id), plan, cache)
    results = []
    for member in range(config.train.members):

        def report(step: int, steps: int, loss: float, member: int = member) -> None:
            progress(member, step, steps, loss)

        results.append(
            train_member(
                plan,
                config.train,
                arrays,
                checks,
                seed=seed,
                member=member,
                work=work,
                threads=threads,
                progress=report,
            )
        )
    digest = write_package(
        package, plan, [r.weights for r in results], training_digest=training_digest(training), sign=sign,
        public_key=public_key,
    )  # fmt: skip
    curves = [(f"member{n}/loss", step, value) for n, r in enumerate(results) for step, value in r.curve]
    curves += [
        (f"member{n}/validation_dice", step, v) for n, r in enumerate(results) for step, v in r.validation if v == v
    ]
    return RetrainResult(
        digest,
        training_digest(training),
        curves,
        sum(r.seconds for r in results),
        results[0].precision,
        {"project": config.seed, "training": seed},
        {name: version(name) for name in ("redraft", "torch", "monai", "lightning", "numpy")}
        | {"python": platform.python_version(), "machine": platform.machine(), "threads": str(threads)},
    )
