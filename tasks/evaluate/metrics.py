"""A model's predictions against the references of one test set: per exam, then as means with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from redraft.config.schema import Bootstrap, Structure
from redraft.errors import UsageError
from redraft.intervals import Interval, bca_interval
from redraft.metrics import METRICS, StructureMetrics, exam_metrics


@dataclass(frozen=True, eq=False)
class ExamPair:
    """One exam's reference and prediction: integer labels (I, J, K) on one grid, spacing in mm."""

    exam_id: str
    reference: NDArray
    prediction: NDArray
    spacing: tuple[float, float, float]


class ExamMetrics(BaseModel):
    """Metrics of one exam, by structure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exam_id: str
    structures: dict[str, StructureMetrics]


def evaluate_exams(pairs: Iterable[ExamPair], structures: Sequence[Structure]) -> Iterator[ExamMetrics]:
    """Metrics exam by exam. Give a generator that loads on demand and memory stays flat in the number of exams."""
    for pair in pairs:
        metrics = exam_metrics(pair.reference, pair.prediction, pair.spacing, structures)
        yield ExamMetrics(exam_id=pair.exam_id, structures=metrics)


def dice_per_exam(exams: Iterable[ExamMetrics]) -> dict[str, dict[str, float | None]]:
    """Exam to structure to Dice; None where the structure is in neither mask. What the gate judges."""
    return {exam.exam_id: {name: None if m.absent else m.dice for name, m in exam.structures.items()} for exam in exams}


def summarise(
    exams: Sequence[ExamMetrics],
    subjects: Mapping[str, str],
    structures: Sequence[Structure],
    bootstrap: Bootstrap,
    seed: int,
) -> dict[str, dict[str, Interval]]:
    """Structure to metric (`METRICS`) to mean with interval, clustered by subject.

    An exam in whose reference and prediction a structure is absent says nothing about it: it is left out of that
    structure's means and counted in `excluded`. So is an exam without HD95 (one mask empty), from HD95 only. A
    structure that only one of the two masks holds counts with Dice 0.

    Raises
    ------
    UsageError
        Two results for one exam, or an exam whose subject is unknown.
    """
    names = [exam.exam_id for exam in exams]
    unknown = sorted(set(names) - set(subjects))
    if unknown or len(set(names)) != len(names):
        raise UsageError(f"Test results name an exam twice, or exams of unknown subjects: {unknown or names}.")
    summary: dict[str, dict[str, Interval]] = {}
    for structure in structures:
        of_structure: dict[str, Interval] = {}
        for metric in METRICS:
            values, clusters = [], []
            for exam in exams:
                measured = exam.structures[structure.name]
                value = getattr(measured, metric)
                if measured.absent or value is None:
                    continue
                values.append(float(value))
                clusters.append(subjects[exam.exam_id])
            interval = bca_interval(
                values, clusters, resamples=bootstrap.resamples, confidence=bootstrap.confidence, seed=seed
            )
            of_structure[metric] = interval.model_copy(update={"excluded": len(exams) - len(values)})
        summary[structure.name] = of_structure
    return summary
