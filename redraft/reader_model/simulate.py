"""A simulated reader works one exam: what comes back, under which verdict, after how many minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.errors import LabelError
from redraft.metrics import StructureMetrics, exam_metrics
from redraft.reader_model.border import correct, perturb
from redraft.reader_model.effort import Minutes, noise_factor

Verdict = Literal["accept", "correct", "reject", "scratch"]


class Effort(Protocol):
    """An effort model of any form."""

    @property
    def noise_sigma(self) -> float: ...

    @property
    def acceptance_share(self) -> float: ...

    def scratch(self, truth: NDArray, spacing: Sequence[float], structures: Sequence[Structure]) -> Minutes: ...

    def assisted(
        self,
        truth: NDArray,
        spacing: Sequence[float],
        structures: Sequence[Structure],
        metrics: Mapping[str, StructureMetrics],
    ) -> Minutes: ...


class ReaderTraits(Protocol):
    """What the model needs to know of a reader (`redraft.config.schema.Reader` has it)."""

    @property
    def speed(self) -> float: ...

    @property
    def sloppiness_mm(self) -> float: ...


@dataclass(frozen=True, eq=False)
class SimulatedReturn:
    """What a simulated reader hands back.

    Attributes
    ----------
    labels : ndarray of uint8, shape (I, J, K)
    verdict : accept (the draft itself is returned), correct, reject (drawn from scratch after a look at the draft),
        scratch (no draft was shown)
    reason_code : for a rejected draft `draft_empty` or `draft_unusable`, else None
    minutes_per_structure : structure to active minutes; their sum is the exam's time
    voxels_changed : voxels in which `labels` differ from the draft; None without a draft
    """

    labels: NDArray[np.uint8]
    verdict: Verdict
    reason_code: str | None
    minutes_per_structure: dict[str, float]
    voxels_changed: int | None

    @property
    def minutes(self) -> float:
        """Active minutes of the exam."""
        return sum(self.minutes_per_structure.values())


def simulate_reader(
    truth: NDArray,
    draft: NDArray | None,
    spacing: Sequence[float],
    structures: Sequence[Structure],
    reader: ReaderTraits,
    params: Effort,
    rng: np.random.Generator,
) -> SimulatedReturn:
    """Let a reader of some speed and sloppiness segment one exam.

    Parameters
    ----------
    truth : ndarray of integers, shape (I, J, K); what a perfect reader would draw.
    draft : ndarray of integers, same shape, or None when the exam is worked from scratch.
    spacing : (i, j, k) in mm
    params : EffortParameters or VolumeParameters
    rng : the only source of chance; the same state gives the same return.

    A sloppy reader aims at a displaced truth, and his time is reckoned against what he aims at: he corrects a draft
    that was right where he sees it otherwise. Sloppiness itself makes nobody faster; speed does.

    Raises
    ------
    LabelError
        Draft and truth are not on one grid.
    """
    target = perturb(truth.astype(np.uint8), spacing, structures, reader.sloppiness_mm, rng)
    factor = noise_factor(params.noise_sigma, rng) / reader.speed
    scratch = params.scratch(target, spacing, structures)
    if draft is None:
        return SimulatedReturn(target, "scratch", None, scratch.per_structure(factor), None)
    if draft.shape != truth.shape:
        raise LabelError(
            f"Draft {draft.shape} and truth {truth.shape} are not on one grid.",
            "The simulated reader needs both on the exam's grid.",
            rule="shape",
            measured={"draft": list(draft.shape), "truth": list(truth.shape)},
        )
    proposed = draft.astype(np.uint8)
    metrics = exam_metrics(target, proposed, spacing, structures)
    assisted = params.assisted(target, spacing, structures, metrics)
    if all(_good_enough(m, params.acceptance_share) for m in metrics.values()):
        looked = Minutes(assisted.shared, dict.fromkeys(assisted.work, 0.0), False)
        return SimulatedReturn(proposed, "accept", None, looked.per_structure(factor), 0)
    if assisted.useless:
        reason = "draft_unusable" if proposed.any() else "draft_empty"
        minutes = Minutes(assisted.shared, assisted.work, True).per_structure(factor)
        return SimulatedReturn(target, "reject", reason, minutes, _changed(target, proposed))
    labels = correct(proposed, target, spacing, structures)
    return SimulatedReturn(labels, "correct", None, assisted.per_structure(factor), _changed(labels, proposed))


def _good_enough(m: StructureMetrics, share: float) -> bool:
    return m.stray_components == 0 and m.apl_mm + m.false_positive_mm <= share * m.reference_contour_mm


def _changed(labels: NDArray, draft: NDArray) -> int:
    return int(np.count_nonzero(labels != draft))
