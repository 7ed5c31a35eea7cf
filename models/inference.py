"""Drafting one exam: every member over sliding windows, probabilities averaged, back on the exam's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from models.package import Ensemble
from models.plan import Plan
from models.preprocess import preprocess_image, restore_labels
from models.uncertainty import slice_profile, summarise
from redraft.volumes import Volume


@dataclass(frozen=True)
class Prediction:
    """Labels (uint8, the exam's own grid) and the summaries that selection reads."""

    labels: NDArray[np.uint8]
    scores: dict[str, object]


def predict(
    ensemble: Ensemble,
    image: Volume,
    *,
    overlap: float,
    batch_size: int,
    threads: int,
    precision: str = "32",
    device: str = "cpu",
) -> Prediction:
    """Draft one exam. Deterministic on one CPU type with the same `threads`.

    Raises ReadError where the exam holds voxels that are no numbers.
    """
    torch.set_num_threads(threads)
    plan = ensemble.plan
    members = member_probabilities(
        ensemble, image, overlap=overlap, batch_size=batch_size, precision=precision, device=device
    )
    mean = members.mean(axis=0)
    labels = restore_labels(mean, image, plan)
    # Uncertainty is taken in plan spacing: scores of exams with different voxels compare.
    coarse = np.asarray(plan.classes, dtype=np.uint8)[mean.argmax(axis=0)]
    voxel_ml = float(np.prod(plan.spacing_mm)) / 1000.0
    scores = summarise(members, coarse, plan.labels, voxel_ml)
    scores["profile"] = profile(mean, coarse, image, plan)
    return Prediction(labels, scores)


def profile(mean: NDArray[np.float32], labels: NDArray[np.uint8], image: Volume, plan: Plan) -> dict[str, object]:
    """Uncertainty per slice of the image's third axis, in the image's own voxel order.

    Parameters
    ----------
    mean : shape (C, I, J, K), mean probabilities in plan spacing and RAS axes
    labels : shape (I, J, K), predicted label values, on the same grid
    image : the exam

    Returns
    -------
    {"axis": 2, "exam": [0..1 per slice], "structures": {name: [0..1 per slice]}}, three digits: mean predictive entropy
    over where something is drawn or possible, as a share of its maximum; see models.uncertainty.slice_profile.
    """
    target, sign = nib.io_orientation(image.affine)[2]
    sums, areas = slice_profile(mean, labels, plan.labels, plan.spacing_mm, int(target))
    count = image.shape[2]

    def on_image(name: str) -> list[float]:
        # Sums and areas apart: a slice beside the region must not be averaged with slices that have none.
        values = _resampled(sums[name], count) / _resampled(areas[name], count)
        values = values[::-1] if sign < 0 else values
        return [round(float(value), 3) for value in np.clip(values, 0, 1)]

    return {"axis": 2, "exam": on_image(""), "structures": {name: on_image(name) for name in plan.labels}}


def _resampled(values: NDArray[np.floating], count: int) -> NDArray[np.floating]:
    """A profile on another number of slices over the same extent; slice edges are aligned, as in `resample`."""
    at = (np.arange(count) + 0.5) * len(values) / count - 0.5
    return np.interp(at, np.arange(len(values)), values)


def member_probabilities(
    ensemble: Ensemble, image: Volume, *, overlap: float, batch_size: int, precision: str, device: str
) -> NDArray[np.float32]:
    """Each member's probabilities (M, C, I, J, K) in plan spacing and RAS axes, sum 1 over C."""
    values = torch.from_numpy(preprocess_image(image, ensemble.plan))[None, None]
    patch = ensemble.plan.patch
    return np.stack(
        [_probabilities(m, values, patch, overlap, batch_size, precision, device) for m in ensemble.members]
    )


@torch.inference_mode()
def _probabilities(
    network: torch.nn.Module,
    values: torch.Tensor,
    patch: tuple[int, int, int],
    overlap: float,
    batch: int,
    precision: str,
    device: str,
) -> NDArray[np.float32]:
    network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(window: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = network(window.to(memory_format=torch.channels_last_3d))
        return torch.softmax(logits.float(), dim=1)

    # The windows are computed on `device` and gathered in main memory: a whole exam need not fit beside the network.
    result = sliding_window_inference(
        values, patch, batch, forward, overlap=overlap, mode="gaussian", padding_mode="replicate",
        sw_device=device, device="cpu",
    )  # fmt: skip
    probabilities = result[0].numpy()
    return np.asarray(probabilities / probabilities.sum(axis=0, keepdims=True), dtype=np.float32)
