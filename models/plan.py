"""The training plan: spacing, patch and intensity rule, made once from a fingerprint and frozen for all rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.preprocess import to_canonical
from redraft.config.schema import Train
from redraft.digest import sha256_json
from redraft.errors import StateError
from redraft.volumes import Volume

MIN_PATCH = 16
# An axis is halved only while this many voxels are left: a thin stack keeps its slices (nnU-Net's smallest map is 4).
MIN_BOTTOM = 4


class Frozen(BaseModel):
    """Base of what is kept in a model package: frozen, JSON, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = 1


class Fingerprint(Frozen):
    """What the labelled exams of round 1 look like, in canonical RAS orientation."""

    modality: str
    exams: int
    spacing_mm: tuple[float, float, float]  # median
    shape: tuple[int, int, int]  # median, in voxels of the median spacing
    foreground: tuple[float, float, float, float]  # 0.5 and 99.5 percentile, mean and deviation inside the labels


class Plan(Frozen):
    """How volumes become network input, and the network itself."""

    modality: str
    labels: dict[str, int]
    spacing_mm: tuple[float, float, float]
    patch: tuple[int, int, int]
    intensity: Literal["clip_zscore", "exam_zscore"]
    intensity_values: tuple[float, float, float, float]
    architecture: str
    channels: tuple[int, ...]
    strides: tuple[tuple[int, int, int], ...]

    @property
    def digest(self) -> str:
        """Identity of the plan."""
        return sha256_json(self.model_dump(mode="json"))

    @property
    def classes(self) -> list[int]:
        """Label value of each network output; output 0 is background."""
        return [0, *sorted(self.labels.values())]

    def differences(self, train: Train, labels: Mapping[str, int]) -> list[str]:
        """What project.yaml asks for by now and this frozen plan does not give, in words; empty when they agree."""
        asked: dict[str, tuple[object, object]] = {
            "structures": (dict(labels), self.labels),
            "train.channels": (train.channels, self.channels),
        }
        if train.spacing_mm is not None:
            asked["train.spacing_mm"] = (train.spacing_mm, self.spacing_mm)
        return [f"{name} is {new}, the plan has {old}" for name, (new, old) in asked.items() if new != old]


def take_fingerprint(exams: Iterable[tuple[Volume, Volume]], modality: str) -> Fingerprint:
    """Fingerprint of labelled exams.

    Parameters
    ----------
    exams : iterable of (image, label)
        Read one after the other; only a sample of foreground values is kept.

    Raises
    ------
    StateError
        When no label marks a single voxel: there is nothing to learn from.
    """
    rng = np.random.default_rng(0)
    spacings, shapes, values = [], [], []
    for image, label in exams:
        canonical, marked = to_canonical(image), to_canonical(label)
        spacings.append(canonical.spacing)
        shapes.append(np.array(canonical.shape) * canonical.spacing)
        inside = canonical.array[marked.array > 0].astype(np.float64)
        values.append(rng.choice(inside, min(20_000, inside.size), replace=False) if inside.size else inside)
    spacing = np.median(np.array(spacings), axis=0)
    extent = np.median(np.array(shapes), axis=0) / spacing
    if not any(v.size for v in values):
        raise StateError(
            f"None of the {len(values)} labelled exams marks a structure; there is nothing to train on.",
            "Have exams that show the structures annotated first.",
            code="state.no_foreground",
        )
    pooled = np.concatenate(values)
    low, high = np.percentile(pooled, [0.5, 99.5])
    kept = np.clip(pooled, low, high)
    return Fingerprint(
        modality=modality,
        exams=len(spacings),
        spacing_mm=_triple(round(float(v), 4) for v in spacing),
        shape=_ints(extent),
        foreground=(float(low), float(high), float(kept.mean()), float(max(kept.std(), 1e-6))),
    )


def make_plan(fingerprint: Fingerprint, train: Train, labels: Mapping[str, int]) -> Plan:
    """Plan from a fingerprint; values of project.yaml win over planned ones.

    The patch covers the median exam as far as `max_patch_voxels` allows, shrunk along its longest physical axis first,
    and is a multiple of what the strides divide it by.
    """
    spacing = train.spacing_mm or fingerprint.spacing_mm
    extent = np.array(fingerprint.shape) * fingerprint.spacing_mm / spacing
    strides = _strides(spacing, extent, len(train.channels) - 1)
    factor = np.prod(np.array(strides).reshape(-1, 3), axis=0)
    patch = np.array(train.patch) if train.patch else _patch(extent, np.array(spacing), factor, train.max_patch_voxels)
    rounded = np.maximum(np.ceil(patch / factor), 1) * factor
    if (rounded == factor).all():
        # Instance norm needs more than one voxel at the bottom of the network.
        rounded[int(np.argmin(np.array(spacing) * factor))] *= 2
    ct = fingerprint.modality == "CT"
    return Plan(
        modality=fingerprint.modality,
        labels=dict(labels),
        spacing_mm=_triple(spacing),
        patch=_ints(rounded),
        intensity="clip_zscore" if ct else "exam_zscore",
        intensity_values=fingerprint.foreground if ct else (0.5, 99.5, 0.0, 1.0),
        architecture="unet",
        channels=train.channels,
        strides=strides,
    )


def _strides(spacing: Sequence[float], extent: np.ndarray, levels: int) -> tuple[tuple[int, int, int], ...]:
    """Halve an axis only while its voxels are not more than twice as coarse as the finest: anisotropy evens out."""
    current, left = np.array(spacing, dtype=float), np.array(extent, dtype=float)
    result = []
    for _ in range(levels):
        long = left >= 2 * MIN_BOTTOM
        halve = long & (current < 2 * np.min(current, where=long, initial=np.inf) - 1e-9)
        result.append(_ints(np.where(halve, 2, 1)))
        current, left = np.where(halve, current * 2, current), np.where(halve, left / 2, left)
    return tuple(result)


def _patch(extent: np.ndarray, spacing: np.ndarray, factor: np.ndarray, limit: int) -> np.ndarray:
    patch = np.maximum(np.ceil(extent / factor), 1) * factor
    while np.prod(patch) > limit:
        shrinkable = patch - factor >= np.minimum(MIN_PATCH, patch)
        if not shrinkable.any():
            break
        axis = int(np.argmax(np.where(shrinkable, patch * spacing, -1)))
        patch[axis] -= factor[axis]
    return np.asarray(patch)


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return (a, b, c)


def _ints(values: Iterable[float]) -> tuple[int, int, int]:
    a, b, c = (round(float(v)) for v in values)
    return (a, b, c)
