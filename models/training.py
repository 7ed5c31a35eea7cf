"""Training one member of the ensemble with Lightning: fixed steps, resumable to the bit, quiet.

The last weights are kept, not the best on validation: choosing by a handful of validation exams would fit them. What a
resumed run needs is in the checkpoint: weights, optimiser, schedule, step. Batches follow from the step (models.data),
and dropout is not used, so no random state is left over.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from monai.losses import DiceCELoss
from torch.utils.data import DataLoader, IterableDataset

from models.data import Prepared, Sampler
from models.networks import build_network, network_arguments
from models.plan import Plan
from redraft.config.schema import Train
from redraft.files import sync_directory

for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
    logging.getLogger(name).setLevel(logging.ERROR)

Progress = Callable[[int, int, float], None]  # step, steps, loss


@dataclass(frozen=True)
class MemberResult:
    """A trained member.

    Attributes
    ----------
    weights : dict of tensors, float32 on the CPU
    curve : list of (step, mean training loss since the last point)
    validation : list of (step, mean foreground Dice on validation patches)
    """

    weights: dict[str, torch.Tensor]
    curve: list[tuple[int, float]]
    validation: list[tuple[int, float]]
    seconds: float
    precision: str


def choose_precision(wanted: str, accelerator: str) -> str:
    """`bf16` where it was asked for or pays off, else `32`: decided by the hardware, recorded with the model."""
    if wanted != "auto":
        return wanted
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "32"
    capability = torch.backends.cpu.get_cpu_capability()
    # Without native bf16 instructions emulation is slower than float32.
    native = capability.startswith("AVX512") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16" if native else "32"


class _Steps(IterableDataset[Any]):
    """Batches from a step to the end; with several devices each takes its share of the steps' samples."""

    def __init__(self, sampler: Sampler, start: int, steps: int):
        self.sampler, self.start, self.steps = sampler, start, steps

    def __iter__(self) -> Any:
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        for step in range(self.start, self.steps):
            # Ranks differ in the step's key, so that several GPUs see different batches.
            image, label = self.sampler.batch(step + rank * 1_000_000)
            yield torch.from_numpy(image), torch.from_numpy(label)


class _Module(pl.LightningModule):
    def __init__(
        self, plan: Plan, train: Train, validation: Sequence[tuple[torch.Tensor, torch.Tensor]], report: Progress
    ):
        super().__init__()
        self.network = build_network(plan.architecture, network_arguments(plan)).to(
            memory_format=torch.channels_last_3d  # type: ignore[call-overload]
        )
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self.plan, self.train_config, self.validation, self.report = plan, train, validation, report
        self.curve: list[tuple[int, float]] = []
        self.scores: list[tuple[int, float]] = []
        self._window: list[float] = []

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.train_config.learning_rate, weight_decay=1e-4)
        steps = self.train_config.steps
        # Polynomial decay (nnU-Net's), with ten warm-up steps against a first step too large.
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1.0, (step + 1) / 10) * max(1 - step / steps, 1e-3) ** 0.9
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        image, label = batch
        image = image.to(memory_format=torch.channels_last_3d)
        loss: torch.Tensor = self.loss(self.network(image).float(), label)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._window.append(float(outputs["loss"]))
        step, config = self.global_step, self.train_config
        if step % 10 == 0 or step == config.steps:
            value = float(np.mean(self._window))
            self._window = []
            self.curve.append((step, value))
            self.report(step, config.steps, value)
        if self.validation and (step % config.validate_every == 0 or step == config.steps):
            self.scores.append((step, self._score()))

    @torch.no_grad()
    def _score(self) -> float:
        self.network.eval()
        values = []
        for image, label in self.validation:
            found = self.network(image.to(self.device)).argmax(dim=1, keepdim=True).cpu()
            for index in range(1, len(self.plan.classes)):
                a, b = found == index, label == index
                if b.any():
                    values.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
        self.network.train()
        return float(np.mean(values)) if values else float("nan")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["redraft"] = {"curve": self.curve, "scores": self.scores, "window": self._window}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["redraft"]
        self.curve = [(int(a), float(b)) for a, b in kept["curve"]]
        self.scores = [(int(a), float(b)) for a, b in kept["scores"]]
        self._window = [float(v) for v in kept["window"]]


class _Checkpoints(pl.Callback):
    """Write a checkpoint every so many steps, atomically: a crash leaves the old one or the new one."""

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every == 0 and trainer.global_step < trainer.max_steps:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".partial")
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                partial.replace(self.path)
                sync_directory(self.path.parent)


def train_member(
    plan: Plan, config: Train, training: Sequence[Prepared], validation: Sequence[Prepared], *, seed: int, member: int,
    work: Path, threads: int, progress: Progress = lambda step, steps, loss: None,
) -> MemberResult:  # fmt: skip
    """Train one member, going on from its checkpoint in `work` where there is one.

    Deterministic on one CPU type with the same `threads`: an interrupted and resumed training ends with the very
    weights of an undisturbed one.
    """
    start = time.perf_counter()
    torch.set_num_threads(threads)
    precision = choose_precision(config.precision, config.accelerator)
    checkpoint = work / f"member-{member}.ckpt"
    sampler = Sampler(training, plan.patch, config.batch_size, config.foreground_share, seed=seed, member=member)
    checks = _validation_patches(validation, plan)
    torch.manual_seed((seed << 8) + member)
    module = _Module(plan, config, checks, progress)
    done = 0
    resume: Path | None = None
    if checkpoint.exists():
        done = int(torch.load(checkpoint, weights_only=True)["global_step"])
        resume = checkpoint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice about workers and loggers; nothing of ours is hidden
        trainer = pl.Trainer(
            max_steps=config.steps, accelerator=config.accelerator, devices=config.devices,
            precision="bf16-mixed" if precision == "bf16" else "32-true", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, deterministic=True, gradient_clip_val=12.0,
            callbacks=[_Checkpoints(checkpoint, config.checkpoint_every)], limit_val_batches=0,
            strategy="ddp" if config.devices > 1 else "auto",
        )  # fmt: skip
        loader = DataLoader(_Steps(sampler, done, config.steps), batch_size=None, num_workers=0)
        trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    weights = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in module.network.state_dict().items()}
    return MemberResult(weights, module.curve, module.scores, time.perf_counter() - start, precision)


def _validation_patches(exams: Sequence[Prepared], plan: Plan) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One fixed patch around the foreground of each validation exam (up to 6): a cheap look at overfitting."""
    patches = []
    for exam in exams[:6]:
        sampler = Sampler([exam], plan.patch, 1, 1.0, seed=0, member=0)
        image, label = sampler.batch(0)
        patches.append((torch.from_numpy(image), torch.from_numpy(label)))
    return patches
