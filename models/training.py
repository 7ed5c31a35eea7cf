"""Training one member of the ensemble with Lightning: fixed steps, resumable to the bit, quiet.

The last weights are kept, not the best on validation: choosing by a handful of validation exams would fit them. What a
resumed run needs is in the checkpoint: weights, optimiser, schedule, step, curves. Batches follow from the step
(models.sampling) and the network has no dropout, so no random state is left over. A checkpoint's name holds a digest
of all that decides the weights: other data, settings or seed never go on from it.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from monai.losses import DiceCELoss
from torch.utils.data import DataLoader, IterableDataset

from models.data import Prepared
from models.hardware import choose_accelerator, choose_precision, repeatable
from models.networks import build_network, network_arguments
from models.plan import Plan
from models.sampling import Sampler, plain_patch
from redraft.config.schema import Train
from redraft.digest import sha256_json
from redraft.errors import StorageError, TrainingError
from redraft.files import sync_directory

__all__ = ["MemberResult", "Progress", "choose_precision", "fit", "train_member"]

for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
    logging.getLogger(name).setLevel(logging.ERROR)

Progress = Callable[[int, int, float], None]  # step, steps, loss
VALIDATION_EXAMS = 6
REPORT_EVERY = 10


@dataclass(frozen=True)
class MemberResult:
    """A trained member.

    Attributes
    ----------
    weights : dict of tensors, float32 on the CPU
    curve : list of (step, mean training loss since the last point)
    validation : list of (step, mean foreground Dice on validation patches)
    seconds : wall-clock of training, interrupted runs included
    precision : `bf16` or `32`
    """

    weights: dict[str, torch.Tensor]
    curve: list[tuple[int, float]]
    validation: list[tuple[int, float]]
    seconds: float
    precision: str


def train_member(
    plan: Plan, config: Train, training: Sequence[Prepared], validation: Sequence[Prepared], *, seed: int, member: int,
    work: Path, threads: int, progress: Progress = lambda step, steps, loss: None,
) -> MemberResult:  # fmt: skip
    """Train one member, going on from its checkpoint in `work` where there is one; a finished one is only read.

    Deterministic on one CPU type with the same `threads`: an interrupted and resumed training ends with the very
    weights of an undisturbed one. With several devices each sees `batch_size` exams per step, in processes of their
    own: Lightning starts its ranks by running the program again, which must not be the caller's.

    Raises
    ------
    TrainingError
        The loss is no number any more, or the training stopped before its last step.
    StorageError
        The checkpoint is damaged, or cannot be written.
    ConfigError
        GPUs are asked for and not there.
    """
    accelerator = choose_accelerator(config.accelerator, config.devices)
    precision = choose_precision(config.precision, accelerator)
    identity = _identity(plan, config, training, seed, member, precision)
    checkpoint = work / f"member-{member}-{identity[:16]}.ckpt"
    if _steps_done(checkpoint) < config.steps:
        if config.devices == 1:
            fit(
                plan, config, training, validation, seed=seed, member=member, checkpoint=checkpoint, threads=threads,
                accelerator=accelerator, precision=precision, progress=progress,
            )  # fmt: skip
        else:
            from models.training_process import fit_apart

            fit_apart(
                plan, config, training, validation, seed=seed, member=member, checkpoint=checkpoint, threads=threads,
                accelerator=accelerator, precision=precision, progress=progress,
            )  # fmt: skip
    kept = _read(checkpoint)
    if kept["global_step"] < config.steps:
        raise TrainingError(
            f"Training of member {member} stopped at step {kept['global_step']} of {config.steps}.",
            "Run the command again; it goes on from there.",
        )
    weights = {
        key.removeprefix("network."): value.to(torch.float32).contiguous() for key, value in kept["state_dict"].items()
    }
    own = kept["redraft"]
    return MemberResult(weights, _points(own["curve"]), _points(own["scores"]), float(own["seconds"]), precision)


def fit(
    plan: Plan, config: Train, training: Sequence[Prepared], validation: Sequence[Prepared], *, seed: int, member: int,
    checkpoint: Path, threads: int, accelerator: str, precision: str, progress: Progress,
) -> None:  # fmt: skip
    """Train up to the last step and leave the result in `checkpoint`."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    done = _steps_done(checkpoint)
    checks = [plain_patch(exam, plan.patch) for exam in validation[:VALIDATION_EXAMS]]
    with repeatable(accelerator == "cpu", threads), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice about workers and loggers; nothing of ours is hidden
        torch.manual_seed((seed << 8) + member)
        network = build_network(plan.architecture, network_arguments(plan))

        def sampler(rank: int) -> Sampler:
            return Sampler(
                training, plan.patch, plan.spacing_mm, config.batch_size, config.foreground_share, seed, member, rank
            )

        module = _Module(network, config, sampler, done, checks, len(plan.classes), checkpoint, progress)
        trainer = pl.Trainer(
            max_steps=config.steps, accelerator=accelerator, devices=config.devices, logger=False,
            precision="bf16-mixed" if precision == "bf16" else "32-true", enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=12.0, limit_val_batches=0,
            deterministic=accelerator == "cpu", strategy="ddp" if config.devices > 1 else "auto",
        )  # fmt: skip
        trainer.fit(module, ckpt_path=checkpoint if done else None, weights_only=True)


class _Steps(IterableDataset[Any]):
    """Batches from a step to the end; the next one is made while the network works on this one."""

    def __init__(self, sampler: Sampler, start: int, steps: int):
        self.sampler, self.start, self.steps = sampler, start, steps

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.sampler.batch, self.start)
            for step in range(self.start, self.steps):
                image, label = coming.result()
                if step + 1 < self.steps:
                    coming = pool.submit(self.sampler.batch, step + 1)
                yield torch.from_numpy(image), torch.from_numpy(label)


class _Module(pl.LightningModule):
    def __init__(
        self, network: torch.nn.Module, config: Train, sampler: Callable[[int], Sampler], done: int,
        checks: Sequence[tuple[np.ndarray, np.ndarray]], classes: int, checkpoint: Path, progress: Progress,
    ):  # fmt: skip
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self.config, self.sampler, self.done, self.checks, self.classes = config, sampler, done, checks, classes
        self.checkpoint, self.progress = checkpoint, progress
        self.curve: list[tuple[int, float]] = []
        self.scores: list[tuple[int, float]] = []
        self.window: list[float] = []
        self.seconds, self.started = 0.0, time.perf_counter()

    def train_dataloader(self) -> Any:
        steps = _Steps(self.sampler(self.trainer.global_rank), self.done, self.config.steps)
        return DataLoader(steps, batch_size=None, num_workers=0)

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.config.learning_rate, weight_decay=1e-4)
        steps = self.config.steps
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
        loss, step, config = float(outputs["loss"]), self.global_step, self.config
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {step}: training diverged.",
                "Lower train.learning_rate, or set train.precision to 32.",
            )
        self.window.append(loss)
        last = step == config.steps
        if step % REPORT_EVERY == 0 or last:
            value = float(np.mean(self.window))
            self.window = []
            self.curve.append((step, value))
            if self.trainer.is_global_zero:
                self.progress(step, config.steps, value)
        if self.checks and (step % config.validate_every == 0 or last):
            self.scores.append((step, self._score()))
        # After the curves, so that a resumed run's curves are whole too.
        if step % config.checkpoint_every == 0 or last:
            self._keep()

    def _keep(self) -> None:
        """Write the checkpoint so that a crash, or a power cut, leaves the old one or the new one."""
        partial = self.checkpoint.with_suffix(".partial")
        try:
            self.trainer.save_checkpoint(partial)
            if self.trainer.is_global_zero:
                with open(partial, "rb") as stream:
                    os.fsync(stream.fileno())
                partial.replace(self.checkpoint)
                sync_directory(self.checkpoint.parent)
        except OSError as error:
            raise StorageError(
                f"The training checkpoint cannot be written: {error.strerror}.",
                "Free disk space and run the command again; it goes on from the last checkpoint.",
            ) from error

    @torch.no_grad()
    def _score(self) -> float:
        self.network.eval()
        values = []
        for image, label in self.checks:
            found = self.network(torch.from_numpy(image)[None, None].to(self.device)).argmax(dim=1)[0].cpu().numpy()
            for index in range(1, self.classes):
                a, b = found == index, label == index
                if b.any():
                    values.append(2.0 * float((a & b).sum()) / float(a.sum() + b.sum()))
        self.network.train()
        return float(np.mean(values)) if values else float("nan")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        seconds = self.seconds + time.perf_counter() - self.started
        checkpoint["redraft"] = {
            "curve": self.curve, "scores": self.scores, "window": self.window, "seconds": seconds,
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        kept = checkpoint["redraft"]
        self.curve, self.scores = _points(kept["curve"]), _points(kept["scores"])
        self.window, self.seconds = [float(value) for value in kept["window"]], float(kept["seconds"])


def _identity(plan: Plan, config: Train, training: Sequence[Prepared], seed: int, member: int, precision: str) -> str:
    """Digest of all that decides the weights; what only decides when something is written is left out."""
    aside = {"members", "threads", "checkpoint_every", "validate_every", "accelerator", "precision"}
    settings = config.model_dump(mode="json", exclude=aside)
    return sha256_json([plan.digest, settings, [exam.key for exam in training], seed, member, precision])


def _steps_done(checkpoint: Path) -> int:
    return int(_read(checkpoint)["global_step"]) if checkpoint.exists() else 0


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")
        if not {"global_step", "state_dict", "redraft"} <= content.keys():
            raise KeyError("a checkpoint of another kind")
    except FileNotFoundError as error:
        raise TrainingError("Training left no checkpoint.", "Run the command again.") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, AttributeError, OSError) as error:
        raise StorageError(
            f"The training checkpoint {checkpoint.name} cannot be read ({type(error).__name__}).",
            "Delete it and run the command again; this member is then trained from its first step.",
            retry=False,
        ) from error
    return content


def _points(pairs: Any) -> list[tuple[int, float]]:
    return [(int(step), float(value)) for step, value in pairs]
