"""Networks by name; what a model package stores is the name and the keyword arguments, never code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redraft.errors import ModelPackageError

if TYPE_CHECKING:
    import torch

    from models.plan import Plan


def _unet(*, classes: int, channels: list[int], strides: list[list[int]]) -> torch.nn.Module:
    """MONAI's residual U-Net, decoded into `channels[0]` features, and a 1x1x1 convolution to the classes.

    Asked for the classes directly, MONAI's last decoder stage has as many features as classes, normalised per patch:
    too few to tell two structures apart, and blind to how much of each a patch holds (one structure in three trainings
    was never learnt, see docs/results/network.md).
    """
    import torch
    from monai.networks.nets import UNet

    features = UNet(
        spatial_dims=3, in_channels=1, out_channels=channels[0], channels=channels, strides=strides, kernel_size=3,
        num_res_units=1, norm=("instance", {"affine": True}), act="LEAKYRELU",
    )  # fmt: skip
    return torch.nn.Sequential(features, torch.nn.LeakyReLU(), torch.nn.Conv3d(channels[0], classes, 1))


ARCHITECTURES: dict[str, Callable[..., Any]] = {"unet": _unet}


def network_arguments(plan: Plan) -> dict[str, Any]:
    """Keyword arguments of the plan's network, JSON."""
    return {
        "classes": len(plan.classes),
        "channels": list(plan.channels),
        "strides": [list(stride) for stride in plan.strides],
    }


def build_network(name: str, arguments: dict[str, Any]) -> torch.nn.Module:
    """Build a network. Raises ModelPackageError for a name this version does not know."""
    if name not in ARCHITECTURES:
        raise ModelPackageError(
            f"The architecture `{name}` is not known here.", f"Known: {', '.join(sorted(ARCHITECTURES))}."
        )
    module: torch.nn.Module = ARCHITECTURES[name](**arguments)
    return module
