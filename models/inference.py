"""Drafting one exam: every member over sliding windows, probabilities averaged, back on the exam's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from models.package import Ensemble
from models.preprocess import preprocess_image, restore
from models.uncertainty import summarise
from redraft.volumes import Volume


@dataclass(frozen=True)
class Prediction:
    """Labels (uint8, the exam's own grid) and the summaries that selection reads."""

    labels: NDArray[np.uint8]
    scores: dict[str, object]


def predict(
    ensemble: Ensemble, image: Volume, *, overlap: float, batch_size: int, threads: int, precision: str = "32"
) -> Prediction:
    """Draft one exam. Deterministic on one CPU type with the same `threads`."""
    torch.set_num_threads(threads)
    plan = ensemble.plan
    values = torch.from_numpy(preprocess_image(image, plan))[None, None]
    members = np.stack(
        [_probabilities(member, values, plan.patch, overlap, batch_size, precision) for member in ensemble.members]
    )
    mean = restore(members.mean(axis=0), image)
    labels = np.asarray(plan.classes, dtype=np.uint8)[mean.argmax(axis=0)]
    # Uncertainty is taken in plan spacing: scores of exams with different voxels compare.
    coarse = np.asarray(plan.classes, dtype=np.uint8)[members.mean(axis=0).argmax(axis=0)]
    voxel_ml = float(np.prod(plan.spacing_mm)) / 1000.0
    return Prediction(labels, summarise(members, coarse, plan.labels, voxel_ml))


@torch.no_grad()
def _probabilities(
    network: torch.nn.Module,
    values: torch.Tensor,
    patch: tuple[int, int, int],
    overlap: float,
    batch: int,
    precision: str,
) -> NDArray[np.float32]:
    def forward(window: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = network(window.to(memory_format=torch.channels_last_3d))
        return torch.softmax(logits.float(), dim=1)

    result = sliding_window_inference(
        values, patch, batch, forward, overlap=overlap, mode="gaussian", padding_mode="replicate"
    )
    probabilities = result[0].numpy()
    return np.asarray(probabilities / probabilities.sum(axis=0, keepdims=True), dtype=np.float32)
