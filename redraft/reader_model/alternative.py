"""A second effort model of another form, so that a result does not hang on contour lengths.

From scratch = overhead + viewing + seconds per slice that holds the structure + seconds per ml.
Assisted     = overhead + review + (1 − surface Dice) · what drawing that structure would cost · a surcharge.
A structure that only the draft shows costs one surcharge per slice of the draft to remove.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.metrics import StructureMetrics
from redraft.reader_model.effort import Minutes, Work

_FIT = "Assumption, set so that two adult kidneys (24 slices each, 320 ml) on a 32-slice CT take about 15 minutes."


def _value(default: float, source: str) -> Any:
    return field(default=default, metadata={"source": source})


@dataclass(frozen=True)
class VolumeParameters:
    """All constants of the alternative form; `sources()` says where each comes from."""

    overhead_seconds: float = _value(60.0, "As in the contour form.")
    viewing_seconds_per_slice: float = _value(2.0, "As in the contour form.")
    drawing_seconds_per_slice: float = _value(25.0, _FIT)
    drawing_seconds_per_ml: float = _value(0.9, _FIT)
    review_seconds_per_slice: float = _value(3.0, "As in the contour form.")
    surcharge: float = _value(1.25, "Assumption: correcting costs a quarter more than drawing the same share.")
    clearing_seconds_per_slice: float = _value(2.0, "Assumption: one stroke of the eraser per slice.")
    noise_sigma: float = _value(0.25, "As in the contour form.")
    acceptance_share: float = _value(0.02, "As in the contour form, of the surface.")

    def scaled(self, factor: float) -> VolumeParameters:
        """What working on a draft costs, scaled; from-scratch values stay."""
        return replace(
            self,
            review_seconds_per_slice=self.review_seconds_per_slice * factor,
            surcharge=self.surcharge * factor,
            clearing_seconds_per_slice=self.clearing_seconds_per_slice * factor,
        )

    def sources(self) -> dict[str, dict[str, float | str]]:
        """Every parameter with its value and source."""
        return {
            item.name: {"value": getattr(self, item.name), "source": item.metadata["source"]} for item in fields(self)
        }

    def scratch(self, truth: NDArray, spacing: Sequence[float], structures: Sequence[Structure]) -> Minutes:
        """Expected minutes when everything is drawn."""
        voxel_ml = float(np.prod(np.asarray(spacing, dtype=float))) / 1000
        work = {}
        for structure in structures:
            mask = truth == structure.value
            seconds = self._drawing(mask, int(np.count_nonzero(mask)) * voxel_ml)
            work[structure.name] = Work(seconds, seconds)
        return Minutes.of(self.overhead_seconds + self.viewing_seconds_per_slice * truth.shape[2], work)

    def assisted(
        self,
        truth: NDArray,
        spacing: Sequence[float],
        structures: Sequence[Structure],
        metrics: Mapping[str, StructureMetrics],
    ) -> Minutes:
        """Expected minutes when a draft is corrected; `metrics` compare it with the truth."""
        work = {}
        for structure in structures:
            m = metrics[structure.name]
            draw = self._drawing(truth == structure.value, m.reference_ml)
            if m.reference_ml == 0:
                clear = self.clearing_seconds_per_slice * self.surcharge * (truth.shape[2] if m.test_ml > 0 else 0)
                work[structure.name] = Work(clear, clear)
                continue
            if m.test_ml == 0:
                work[structure.name] = Work(draw, draw)
                continue
            correct = (1 - m.surface_dice) * draw * self.surcharge
            work[structure.name] = Work(correct, self.clearing_seconds_per_slice + draw)
        return Minutes.of(self.overhead_seconds + self.review_seconds_per_slice * truth.shape[2], work)

    def _drawing(self, mask: NDArray, ml: float) -> float:
        slices = int(np.count_nonzero(mask.any(axis=(0, 1))))
        return self.drawing_seconds_per_slice * slices + self.drawing_seconds_per_ml * ml
