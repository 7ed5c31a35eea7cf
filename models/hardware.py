"""What this machine can do for training and inference: decided by the hardware, recorded with the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from redraft.errors import ConfigError


def choose_accelerator(wanted: str, devices: int = 1) -> str:
    """`cpu` or `gpu`. Raises ConfigError where project.yaml asks for GPUs that are not there."""
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "gpu" and present < devices:
        raise ConfigError(
            f"project.yaml asks for {devices} GPU(s) and this machine offers {present}.",
            "Set train.accelerator to cpu or auto, or install a CUDA build of torch (`make install TORCH=gpu`).",
        )
    return "gpu" if wanted != "cpu" and present >= devices else "cpu"


def choose_precision(wanted: str, accelerator: str) -> str:
    """`bf16` where it was asked for or pays off, else `32`."""
    if wanted != "auto":
        return wanted
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "32"
    # Without native bf16 instructions emulation is slower than float32.
    capable = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "bf16" if capable and torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32"


@contextmanager
def repeatable(enabled: bool, threads: int) -> Iterator[None]:
    """Deterministic algorithms and a fixed number of threads; torch's process-wide settings are put back after."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling, used = torch.utils.deterministic.fill_uninitialized_memory, torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(enabled)
    # It would write NaN into every buffer before use, a debugging aid that costs time in each step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filling
        torch.set_num_threads(used)
