"""How many minutes a reader needs for one exam, from the contours that have to be drawn, moved and erased.

From scratch = overhead + viewing + drawing every contour.
Assisted     = overhead + review + per structure the cheaper of correcting the draft and clearing it to draw anew.
Correcting   = a · added path length + b · false-positive contour + c · stray components.

The parameters are the same for all structures, and nothing in them knows how well a model does on an organ or a tumour:
a saving that differs between structures comes from the drafts. They are fixed in this file before a campaign and hidden
from whatever predicts effort. Source of the form: added path length is what predicts correction time best (rank
correlation .69 in 329 thoracic CTs against .25 for volumetric Dice; J Digit Imaging 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.metrics import StructureMetrics, contour_length_mm, exam_metrics

_CALIBRATED = (
    "Assumption. Together the from-scratch values give about 14 minutes for two adult kidneys on a 32-slice CT (6 m of "
    "contour, 320 ml): the upper end of the 10 to 14 minutes per exam that two studies report for manual segmentation, "
    "below the 30 to 60 minutes per organ of others."
)


def _value(default: float, source: str) -> Any:
    return field(default=default, metadata={"source": source})


@dataclass(frozen=True)
class EffortParameters:
    """All constants of the effort model; `sources()` says where each comes from. Times are at reader speed 1."""

    overhead_seconds: float = _value(60.0, "Assumption: open the exam, read its task, save and return.")
    viewing_seconds_per_slice: float = _value(2.0, f"Scrolling once forth and back. {_CALIBRATED}")
    drawing_seconds_per_mm: float = _value(0.12, f"About 8 mm of contour per second by hand. {_CALIBRATED}")
    review_seconds_per_slice: float = _value(
        3.0, "Assumption: half as long again as viewing, because image and overlay are compared."
    )
    correction_seconds_per_mm: float = _value(
        0.15, "Assumption: drawing plus a quarter for finding the place and joining the contour's ends."
    )
    erasing_seconds_per_mm: float = _value(
        0.05, "Assumption: erasing follows no border, so it is taken to be three times as fast as correcting."
    )
    stray_seconds: float = _value(5.0, "Assumption: find, pick and delete one component; also clearing a structure.")
    noise_sigma: float = _value(
        0.25, "Assumption: standard deviation of log time of one reader on equal work; the mean is kept."
    )
    acceptance_share: float = _value(
        0.02, "Assumption: a draft goes untouched when at most this share of a structure's contour would be moved."
    )

    def scaled(self, factor: float) -> EffortParameters:
        """The sensitivity analysis' ½ and 2: what working on a draft costs is scaled, from-scratch values are not.

        Scaling all alike would cancel in a relative saving and prove nothing.
        """
        return replace(
            self,
            review_seconds_per_slice=self.review_seconds_per_slice * factor,
            correction_seconds_per_mm=self.correction_seconds_per_mm * factor,
            erasing_seconds_per_mm=self.erasing_seconds_per_mm * factor,
            stray_seconds=self.stray_seconds * factor,
        )

    def sources(self) -> dict[str, dict[str, float | str]]:
        """Every parameter with its value and source, for documentation and records."""
        return {
            item.name: {"value": getattr(self, item.name), "source": item.metadata["source"]} for item in fields(self)
        }

    def scratch(self, truth: NDArray, spacing: Sequence[float], structures: Sequence[Structure]) -> Minutes:
        """See `minutes_from_scratch`."""
        drawing = {
            s.name: self.drawing_seconds_per_mm * contour_length_mm(truth == s.value, spacing) for s in structures
        }
        shared = self.overhead_seconds + self.viewing_seconds_per_slice * truth.shape[2]
        return Minutes.of(shared, {name: Work(seconds, seconds) for name, seconds in drawing.items()})

    def assisted(
        self,
        truth: NDArray,
        spacing: Sequence[float],
        structures: Sequence[Structure],
        metrics: Mapping[str, StructureMetrics],
    ) -> Minutes:
        """See `minutes_assisted`; `metrics` compare the draft with the truth."""
        work = {}
        for structure in structures:
            m = metrics[structure.name]
            correct = (
                self.correction_seconds_per_mm * m.apl_mm
                + self.erasing_seconds_per_mm * m.false_positive_mm
                + self.stray_seconds * m.stray_components
            )
            draw = self.drawing_seconds_per_mm * m.reference_contour_mm
            # Where nothing was drafted there is nothing to correct: it is drawn, at the price of drawing.
            work[structure.name] = Work(correct, self.stray_seconds + draw) if m.test_ml > 0 else Work(draw, draw)
        return Minutes.of(self.overhead_seconds + self.review_seconds_per_slice * truth.shape[2], work)


@dataclass(frozen=True)
class Work:
    """Seconds for one structure: correcting what is there, or clearing it and drawing from scratch."""

    correct: float
    redraw: float


@dataclass(frozen=True)
class Minutes:
    """Expected minutes of one exam at speed 1, without noise.

    Attributes
    ----------
    shared : overhead and viewing or review of the exam, in minutes.
    work : structure to minutes of its own.
    useless : whether redrawing costs no more than correcting for every structure that needs work.
    """

    shared: float
    work: dict[str, float]
    useless: bool

    @classmethod
    def of(cls, shared_seconds: float, work: Mapping[str, Work]) -> Minutes:
        """From seconds; every structure takes the cheaper way."""
        needed = [w for w in work.values() if max(w.correct, w.redraw) > 0]
        return cls(
            shared_seconds / 60,
            {name: min(w.correct, w.redraw) / 60 for name, w in work.items()},
            bool(needed) and all(w.redraw <= w.correct for w in needed),
        )

    @property
    def total(self) -> float:
        """Minutes of the whole exam."""
        return self.shared + sum(self.work.values())

    def per_structure(self, factor: float = 1.0) -> dict[str, float]:
        """Structure to minutes; what the exam needs as a whole is spread in equal shares, so that nothing is lost.

        Equal, because any share by contour or size would make one structure's time depend on the other's draft.
        """
        share = self.shared / max(1, len(self.work))
        return {name: (share + own) * factor for name, own in self.work.items()}


def minutes_from_scratch(
    truth: NDArray, spacing: Sequence[float], structures: Sequence[Structure], params: EffortParameters
) -> dict[str, float]:
    """Expected minutes per structure when every contour of `truth` (I, J, K) is drawn, at speed 1 and without noise."""
    return params.scratch(truth, spacing, structures).per_structure()


def minutes_assisted(
    draft: NDArray, truth: NDArray, spacing: Sequence[float], structures: Sequence[Structure], params: EffortParameters
) -> dict[str, float]:
    """Expected minutes per structure when `draft` (I, J, K) is reviewed and corrected to `truth`, at speed 1."""
    metrics = exam_metrics(truth, draft, spacing, structures)
    return params.assisted(truth, spacing, structures, metrics).per_structure()


def noise_factor(sigma: float, rng: np.random.Generator) -> float:
    """A log-normal factor of mean 1, drawn once per exam: a reader's day is good or bad for all structures alike."""
    return float(np.exp(sigma * rng.standard_normal() - sigma * sigma / 2))
