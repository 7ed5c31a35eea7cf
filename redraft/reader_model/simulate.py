"""A simulated reader at work on one exam: what comes back, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from redraft.reader_model.effort import (
    EffortParameters,
    Form,
    Labels,
    Spacing,
    assisted_seconds,
    scratch_seconds,
    work_left,
)


@dataclass(frozen=True)
class SimulatedReturn:
    """What a simulated reader hands in. Minutes by structure name; `exam` is the overhead."""

    labels: Labels
    verdict: str
    reason_code: str | None
    minutes: dict[str, float]
    voxels_changed: int | None


def simulate_reader(
    truth: Labels, draft: Labels | None, spacing: Spacing, structures: Mapping[str, int], *, speed: float,
    sloppiness_mm: float, parameters: EffortParameters, form: Form, rng: np.random.Generator,
) -> SimulatedReturn:  # fmt: skip
    """Read one exam.

    A sloppy reader aims at the truth with a smoothly displaced border. From scratch the aim is what comes back; from a
    draft only what differs from the aim by more than the tolerance is corrected, an almost right draft is accepted as
    it stands, and a hopeless one is rejected and drawn anew at the price of both.

    Parameters
    ----------
    truth, draft : uint8 arrays, shape (I, J, K)
    sloppiness_mm : float
        Standard deviation of the border's displacement.
    """
    aim = _sloppy(truth, spacing, sloppiness_mm, rng)
    noise = float(np.exp(rng.normal(0.0, parameters.noise_sigma)))
    unit = noise / speed / 60.0
    minutes = {"exam": parameters.overhead_s * unit}
    scratch = {
        name: scratch_seconds(aim == value, spacing, parameters, form) * unit for name, value in structures.items()
    }
    if draft is None:
        return SimulatedReturn(aim, "scratch", None, {**minutes, **scratch}, None)
    work = {
        name: work_left(aim == value, draft == value, spacing, parameters.tolerance_mm)
        for name, value in structures.items()
    }
    contour = sum(item.contour_mm for item in work.values())
    to_do = sum(item.added_mm + item.erased_mm for item in work.values())
    if to_do > parameters.reject_share * 2 * max(contour, 1.0):
        look = parameters.look_s * truth.shape[2] * unit
        redrawn = {name: value + look for name, value in scratch.items()}
        return SimulatedReturn(aim, "reject", "draft_unusable", {**minutes, **redrawn}, int((aim != draft).sum()))
    assisted = {
        name: assisted_seconds(work[name], aim == value, spacing, parameters, form) * unit
        for name, value in structures.items()
    }
    if to_do <= parameters.accept_share * contour and not any(item.stray for item in work.values()):
        look = dict.fromkeys(structures, parameters.look_s * truth.shape[2] * unit)
        return SimulatedReturn(draft.copy(), "accept", None, {**minutes, **look}, 0)
    result = _corrected(aim, draft, spacing, parameters.tolerance_mm)
    changed = int((result != draft).sum())
    return SimulatedReturn(result, "correct" if changed else "accept", None, {**minutes, **assisted}, changed)


def _corrected(aim: Labels, draft: Labels, spacing: Spacing, tolerance_mm: float) -> Labels:
    """The draft where its error stays within the tolerance of the aim's borders, the aim elsewhere."""
    wrong = aim != draft
    if not wrong.any():
        return draft.copy()
    edges = np.zeros(aim.shape, dtype=bool)
    for axis in range(3):
        step = np.diff(aim.astype(np.int16), axis=axis) != 0
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        edges[tuple(low)] |= step
        edges[tuple(high)] |= step
    distance = ndimage.distance_transform_edt(~edges, sampling=spacing) if edges.any() else np.full(aim.shape, np.inf)
    # Voxels beside the border count as distance 0, so a whole first layer of error is always left alone.
    keep = wrong & (distance < tolerance_mm / 2)
    result = aim.copy()
    result[keep] = draft[keep]
    return result


def _sloppy(truth: Labels, spacing: Spacing, sloppiness_mm: float, rng: np.random.Generator) -> Labels:
    """The truth with every structure's border displaced smoothly by about `sloppiness_mm`."""
    if sloppiness_mm <= 0:
        return truth.copy()
    field = ndimage.gaussian_filter(rng.standard_normal(truth.shape), [6.0 / s for s in spacing])
    field *= sloppiness_mm / field.std()
    result = np.zeros_like(truth)
    signed: dict[int, NDArray[np.float64]] = {}
    for value in (int(v) for v in np.unique(truth) if v):
        mask = truth == value
        outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
        inside = ndimage.distance_transform_edt(mask, sampling=spacing)
        signed[value] = np.where(mask, 0.5 * min(spacing) - inside, outside - 0.5 * min(spacing)) - field
    for value, distance in signed.items():
        result[distance <= 0] = value
    return result
