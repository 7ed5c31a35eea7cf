"""Training on several devices, in a program of its own.

Lightning's DDP starts one process per device by running the current program again. Called from a flow that would run
the flow again, so the training is handed to `python -m models.training_process JOB`, and only that is repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.data import Prepared
from models.plan import Plan
from redraft.config.schema import Train
from redraft.errors import TrainingError
from redraft.files import write_text

if TYPE_CHECKING:
    from models.training import Progress


def fit_apart(
    plan: Plan, config: Train, training: Sequence[Prepared], validation: Sequence[Prepared], *, seed: int, member: int,
    checkpoint: Path, threads: int, accelerator: str, precision: str, progress: Progress,
) -> None:  # fmt: skip
    """`models.training.fit` in processes of its own. Raises TrainingError with their last words when they fail."""
    job = {
        "plan": plan.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "training": [exam.reference() for exam in training],
        "validation": [exam.reference() for exam in validation],
        "arguments": {
            "seed": seed, "member": member, "checkpoint": str(checkpoint.resolve()), "accelerator": accelerator,
            "precision": precision, "threads": max(1, threads // config.devices) if accelerator == "cpu" else threads,
        },
    }  # fmt: skip
    file = checkpoint.with_suffix(".job.json")
    write_text(file, json.dumps(job))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        command = [sys.executable, "-m", "models.training_process", str(file.resolve())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                words = line.split()
                if words[:1] == ["step"]:
                    progress(int(words[1]), int(words[2]), float(words[3]))
        if process.returncode != 0:
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:] or ["no message"]
            raise TrainingError(
                f"Training on {config.devices} devices ended with code {process.returncode}: {last[0][:300]}",
                "Run the command again; it goes on from the last checkpoint.",
            )
    file.unlink(missing_ok=True)


def main(file: str) -> None:
    """Run one job; rank 0 tells its progress on standard output."""
    from models.training import fit

    job: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))

    def tell(step: int, steps: int, loss: float) -> None:
        # A parent that is gone breaks the pipe here, and the orphan ends.
        sys.stdout.write(f"step {step} {steps} {loss!r}\n")
        sys.stdout.flush()

    arguments = job["arguments"]
    fit(
        Plan.model_validate(job["plan"]),
        Train.model_validate(job["config"]),
        [Prepared.open(**reference) for reference in job["training"]],
        [Prepared.open(**reference) for reference in job["validation"]],
        progress=tell,
        **{**arguments, "checkpoint": Path(arguments["checkpoint"])},
    )


if __name__ == "__main__":
    main(sys.argv[1])
