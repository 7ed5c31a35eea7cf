"""retrain as a step: publish the dataset, train the challenger on it, register it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.cohort import Cohort, Labelled
from redraft.dataset.manifest import roles_digest
from redraft.dataset.publish import publish_dataset
from redraft.digest import sha256_bytes, sha256_file, sha256_json
from redraft.errors import StateError
from redraft.files import write_text
from redraft.ledger import Tx
from redraft.project import Project
from redraft.registry.tracking import DatasetRef, Registry
from redraft.splits import POOL, VALIDATION
from redraft.steps import Context, Contract, Done, run_step

if TYPE_CHECKING:
    from models.data import TrainingExam
    from tasks.retrain.core import RetrainResult


class RetrainInputs(Contract):
    """Exams with their annotations, plan, settings and seed."""

    training: tuple[dict[str, str], ...]
    validation: tuple[dict[str, str], ...]
    plan_sha256: str
    settings: str
    seed: int


class RetrainRef(Contract):
    """The challenger."""

    model_digest: str
    training_digest: str
    version: str
    precision: str
    dvc_md5: str


@task(name="retrain", cache_policy=NO_CACHE, persist_result=False)
def retrain(project_dir: str, number: int, token: int) -> RetrainRef:
    """Train a challenger on every valid annotation of the pool."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "retrain")
    cohort = Cohort(project)
    training, validation = cohort.labelled(POOL), cohort.labelled(VALIDATION)
    if not training:
        raise StateError(f"Round {number} has no training annotation.", "Wait for readers' work, or abort the round.")
    plan_path = _frozen_plan(project, number, training)
    seed = int(sha256_bytes(f"{project.config.seed}/{number}/retrain".encode())[:8], 16) >> 1
    inputs = RetrainInputs(
        training=tuple(item.entry() for item in training),
        validation=tuple(item.entry() for item in validation),
        plan_sha256=sha256_file(plan_path),
        settings=sha256_json(project.config.train.model_dump(mode="json")),
        seed=seed,
    )

    def body() -> Done:
        registry = Registry(project.tracking_uri, project.state)
        with ctx.timings.part("mlflow"):
            registry.check()  # before an hour of training, not after
        with ctx.timings.part("dataset"):
            version = publish_dataset(
                project.root, number, check_lease=ctx.check_lease, dvc_remote=project.config.remote.dvc
            )
        roles = {
            "training": roles_digest(_entries(training, POOL)),
            "validation": roles_digest(_entries(validation, VALIDATION)),
        }
        with ctx.timings.part("core"):
            result, package = _train(project, training, validation, plan_path.read_text(), seed, inputs.digest)
        datasets = [
            DatasetRef(role, version.dvc_md5, roles[role], version.commit_sha, number, len(items))
            for role, items in (("training", training), ("validation", validation))
            if items
        ]
        ctx.check_lease()
        with ctx.timings.part("mlflow"):
            logged = registry.log_training(
                project=project.config.name,
                step_digest=inputs.digest,
                run_name=f"round {number}",
                params={
                    "members": str(project.config.train.members), "steps": str(project.config.train.steps),
                    "batch_size": str(project.config.train.batch_size), "seed": str(seed),
                    "exams": str(len(training)), "precision": result.precision,
                },
                tags={"redraft.round": str(number), "redraft.model_digest": result.model_digest},
                curves=result.curves,
                datasets=datasets,
                package=project.state / "models" / result.model_digest,
                model_tags={"redraft.model_digest": result.model_digest, "redraft.round": str(number)},
            )  # fmt: skip
            registry.set_alias(project.config.name, "challenger", logged.version)
        now = ctx.clock()

        def record(tx: Tx) -> None:
            tx.insert(
                "dataset_version",
                {
                    "dataset_version_id": sha256_json([number, version.commit_sha, inputs.digest])[:24],
                    "round": number,
                    "dvc_md5": version.dvc_md5,
                    "commit_sha": version.commit_sha,
                    "manifest_sha256": version.manifest_sha256,
                    "roles": roles,
                    "exams": len(cohort.exams),
                    "created_at": now,
                },
            )
            if tx.one("model", model_digest=result.model_digest) is None:
                tx.insert(
                    "model",
                    {
                        "model_digest": result.model_digest,
                        "round": number,
                        "mlflow_run_id": logged.run_id,
                        "mlflow_model_id": logged.model_id,
                        "name": project.config.name,
                        "version": logged.version,
                        "package_uri": package,
                        "manifest_sha256": result.model_digest,
                        "training_digest": result.training_digest,
                        "state": "READY",
                        "software": {**result.software, "precision": result.precision},
                        "seeds": result.seeds,
                        "created_at": now,
                    },
                )
            tx.update("round", {"number": number}, {"challenger": result.model_digest})

        ref = RetrainRef(
            model_digest=result.model_digest, training_digest=result.training_digest, version=logged.version,
            precision=result.precision, dvc_md5=version.dvc_md5,
        )  # fmt: skip
        return Done(ref, record)

    return run_step(ctx, "retrain", inputs, RetrainRef, body)


def _entries(items: list[Labelled], split: str) -> list[dict[str, str]]:
    return [{"exam": i.exam_id, "image": i.image_sha256, "annotation": i.label_sha256, "split": split} for i in items]


def _exams(items: list[Labelled]) -> list[TrainingExam]:
    from models.data import TrainingExam

    return [TrainingExam(i.exam_id, i.annotation_id, i.image, i.label, i.image_sha256, i.label_sha256) for i in items]


def _frozen_plan(project: Project, number: int, training: list[Labelled]) -> Path:
    """Path of the project's plan: made from the first round's labelled exams, frozen for all rounds after."""
    existing = sorted((project.root / "rounds").glob("*/plan.json"))
    if existing:
        return existing[0]
    from tasks.retrain.core import plan_for

    modality = str(project.config.ingest.modalities[0])
    plan = plan_for(_exams(training), modality, project.config)
    path = project.round_dir(number) / "plan.json"
    write_text(path, plan.model_dump_json(indent=1) + "\n")
    return path


def _train(
    project: Project, training: list[Labelled], validation: list[Labelled], plan_json: str, seed: int, key: str
) -> tuple[RetrainResult, str]:
    """Train into a folder named by the inputs, then move the package to its digest's name."""
    from models.data import default_threads
    from models.plan import Plan
    from tasks.retrain.core import retrain as train

    keys = project.checked_keys
    work = project.state / "train" / key[:24]

    def progress(member: int, step: int, steps: int, loss: float) -> None:
        # One line that overwrites itself, and only for a person who looks on.
        if sys.stderr.isatty() or os.environ.get("REDRAFT_PROGRESS"):
            end = "\n" if step == steps else ""
            sys.stderr.write(f"\r  member {member + 1}: step {step}/{steps}, loss {loss:.3f}{end}")
            sys.stderr.flush()

    result = train(
        _exams(training), _exams(validation), Plan.model_validate_json(plan_json), project.config, seed=seed,
        package=work / "package", work=work, cache=project.cache / "arrays",
        threads=project.config.train.threads or default_threads(), sign=keys.sign, public_key=keys.public_key,
        progress=progress,
    )  # fmt: skip
    package = project.state / "models" / result.model_digest
    if not package.exists():
        package.parent.mkdir(parents=True, exist_ok=True)
        (work / "package").rename(package)
    shutil.rmtree(work, ignore_errors=True)
    return result, package.relative_to(project.root).as_posix()
