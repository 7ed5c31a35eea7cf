"""evaluate as a step: challenger (and champion) on every test set, then the gate as it was fixed at opening."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.cohort import Cohort, Labelled
from redraft.dataset.manifest import roles_digest
from redraft.digest import sha256_json
from redraft.errors import StateError
from redraft.ledger import Tx
from redraft.lineage.verify import trusted_keys
from redraft.project import Project
from redraft.registry.tracking import DatasetRef, Logged, Registry
from redraft.rounds import get
from redraft.steps import Context, Contract, Done, run_step
from redraft.volumes import read_volume
from tasks.evaluate.gate import Criteria, judge
from tasks.evaluate.metrics import ExamMetrics, ExamPair, dice_per_exam, evaluate_exams, summarise


class EvaluateInputs(Contract):
    """Models, test exams with their references, criteria."""

    challenger: str
    champion: str | None
    test_sets: dict[str, tuple[dict[str, str], ...]]
    criteria_sha256: str
    settings: str


class EvaluateRef(Contract):
    """Means and the gate's verdict."""

    round: int
    model_digest: str
    dice: dict[str, dict[str, float | None]]
    gate: dict[str, Any]


@task(name="evaluate", cache_policy=NO_CACHE, persist_result=False)
def evaluate(project_dir: str, number: int, token: int) -> EvaluateRef:
    """Measure the challenger on every test set and judge it by the criteria recorded when the round opened."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "evaluate")
    row, cohort = get(project, number), Cohort(project)
    fixed = Criteria.model_validate(row["criteria"])
    sets = {name: cohort.labelled(name) for name in cohort.test_sets()}
    if not sets.get(fixed.test_set):
        raise StateError(
            f"Round {number}: no exam of the test set `{fixed.test_set}` has a reference annotation yet.",
            "Wait for the reference work to come back, or abort the round.",
            code="state.no_reference",
        )
    inputs = EvaluateInputs(
        challenger=row["challenger"],
        champion=row["champion"],
        test_sets={name: tuple(item.entry() for item in items) for name, items in sets.items()},
        criteria_sha256=fixed.digest,
        settings=sha256_json([project.config.infer.model_dump(), project.config.bootstrap.model_dump()]),
    )

    def body() -> Done:
        measured: dict[str, list[ExamMetrics]] = {}
        with ctx.timings.part("core"):
            for name, items in sets.items():
                measured[name] = list(_measure(project, row["challenger"], items)) if items else []
            champion = None
            if row["champion"] is not None:
                champion = dice_per_exam(_measure(project, row["champion"], sets[fixed.test_set]))
            subjects = {item.exam_id: item.subject_id for items in sets.values() for item in items}
            summary = {
                name: summarise(
                    exams, subjects, project.config.structures, project.config.bootstrap, project.config.seed
                )
                for name, exams in measured.items()
            }
            judged = {item.exam_id: item.subject_id for item in sets[fixed.test_set]}
            gate = judge(fixed, dice_per_exam(measured[fixed.test_set]), champion, judged)
        digests = {name: _digest(items, name) for name, items in sets.items()}
        with ctx.timings.part("mlflow"):
            _log(project, number, row["challenger"], summary, sets, digests)

        def record(tx: Tx) -> None:
            _record(tx, row["challenger"], measured, summary, sets, digests)

        dice = {
            name: {structure: _round(metrics["dice"].mean) for structure, metrics in of.items()}
            for name, of in summary.items()
        }
        ref = EvaluateRef(round=number, model_digest=row["challenger"], dice=dice, gate=gate.model_dump(mode="json"))
        return Done(ref, record)

    return run_step(ctx, "evaluate", inputs, EvaluateRef, body)


def _measure(project: Project, digest: str, items: list[Labelled]) -> Iterator[ExamMetrics]:
    """Predict and compare, one exam in memory at a time."""
    from models.data import default_threads
    from models.inference import predict
    from models.package import load_package
    from models.training import choose_precision

    train, infer = project.config.train, project.config.infer
    ensemble = load_package(project.state / "models" / digest, trusted_keys(project))

    def pairs() -> Iterator[ExamPair]:
        for item in items:
            image, label = read_volume(item.image), read_volume(item.label)
            found = predict(
                ensemble, image, overlap=infer.overlap, batch_size=infer.batch_size,
                threads=train.threads or default_threads(), precision=choose_precision(train.precision, "cpu"),
            )  # fmt: skip
            yield ExamPair(item.exam_id, label.array, found.labels, image.spacing)

    yield from evaluate_exams(pairs(), project.config.structures)


def _digest(items: list[Labelled], name: str) -> str:
    return roles_digest(
        [{"exam": i.exam_id, "image": i.image_sha256, "annotation": i.label_sha256, "split": name} for i in items]
    )


def _log(
    project: Project, number: int, digest: str, summary: Any, sets: dict[str, list[Labelled]], digests: dict[str, str]
) -> None:
    model = project.ledger.one("model", model_digest=digest)
    version = project.ledger.rows("dataset_version", round=number)[-1]
    assert model is not None
    registry = Registry(project.tracking_uri, project.state)
    logged = Logged(model["mlflow_run_id"], model["mlflow_model_id"], model["version"])
    for name, of in summary.items():
        values = {
            f"{metric}/{structure}/{name}": interval.mean
            for structure, metrics in of.items()
            for metric, interval in metrics.items()
            if interval.mean is not None
        }
        ref = DatasetRef(name, version["dvc_md5"], digests[name], version["commit_sha"], number, len(sets[name]))
        if values:
            registry.log_metrics(logged, ref, values)


def _record(
    tx: Tx, digest: str, measured: dict[str, list[ExamMetrics]], summary: Any, sets: dict[str, list[Labelled]],
    digests: dict[str, str],
) -> None:  # fmt: skip
    tx.insert_many(
        "metric",
        [
            {
                "metric_id": sha256_json([digest, name, structure, metric, digests[name]])[:24],
                "model_digest": digest,
                "test_set": name,
                "structure": structure,
                "name": metric,
                "mean": _round(interval.mean),
                "lo": _round(interval.lo),
                "hi": _round(interval.hi),
                "n": interval.n,
                "dataset_digest": digests[name],
                "method": interval.method,
            }
            for name, of in summary.items()
            for structure, metrics in of.items()
            for metric, interval in metrics.items()
        ],
    )
    annotation = {item.exam_id: item.annotation_id for items in sets.values() for item in items}
    tx.insert_many(
        "exam_metric",
        [
            {
                "exam_metric_id": sha256_json([digest, name, exam.exam_id, structure, annotation[exam.exam_id]])[:24],
                "model_digest": digest,
                "test_set": name,
                "exam_id": exam.exam_id,
                "structure": structure,
                "dice": None if m.absent else _round(m.dice),
                "surface_dice": None if m.absent else _round(m.surface_dice),
                "hd95_mm": None if m.absent else _round(m.hd95_mm),
                "apl_mm": _round(m.apl_mm),
            }
            for name, exams in measured.items()
            for exam in exams
            for structure, m in exam.structures.items()
        ],
    )


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
