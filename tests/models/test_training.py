"""Training resumes to the bit, learns, and fails in words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.data import Prepared
from models.plan import Plan
from models.training import MemberResult, train_member
from redraft.config.schema import Train
from redraft.errors import ConfigError, StorageError, TrainingError

KILLED = """
import json, sys
from pathlib import Path
from models.data import Prepared
from models.plan import Plan
from models.training import train_member
from redraft.config.schema import Train

job = json.loads(Path(sys.argv[1]).read_text())
train_member(
    Plan.model_validate(job["plan"]), Train.model_validate(job["config"]),
    [Prepared.open(**r) for r in job["training"]], [Prepared.open(**r) for r in job["validation"]],
    seed=11, member=1, work=Path(job["work"]), threads=1,
    progress=lambda step, steps, loss: print("step", step, flush=True),
)
"""


def same(first: MemberResult, second: MemberResult) -> bool:
    """Whether two members agree to the bit in weights and curves."""
    equal = first.weights.keys() == second.weights.keys() and all(
        torch.equal(value, second.weights[key]) for key, value in first.weights.items()
    )
    return equal and first.curve == second.curve and first.validation == second.validation


@pytest.fixture(scope="module")
def undisturbed(
    plan: Plan, train_config: Train, prepared: list[Prepared], tmp_path_factory: pytest.TempPathFactory
) -> MemberResult:
    """A training that nothing disturbed."""
    work = tmp_path_factory.mktemp("undisturbed")
    return train_member(plan, train_config, prepared[:3], prepared[3:], seed=11, member=1, work=work, threads=1)


def test_kill_minus_nine_changes_no_bit(
    plan: Plan, train_config: Train, prepared: list[Prepared], undisturbed: MemberResult, tmp_path: Path
) -> None:
    """A process killed in the middle and started again ends with the weights and curves of an undisturbed run."""
    job = {
        "plan": plan.model_dump(mode="json"), "config": train_config.model_dump(mode="json"),
        "training": [exam.reference() for exam in prepared[:3]],
        "validation": [exam.reference() for exam in prepared[3:]], "work": str(tmp_path / "work"),
    }  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "job.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.split() == ["step", "20"]:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    (checkpoint,) = (tmp_path / "work").glob("*.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] in (14, 21, 28)
    resumed = train_member(
        plan, train_config, prepared[:3], prepared[3:], seed=11, member=1, work=tmp_path / "work", threads=1
    )
    assert same(undisturbed, resumed)


@pytest.mark.parametrize("at", [10, 20])
def test_an_error_in_the_middle_changes_no_bit(
    plan: Plan, train_config: Train, prepared: list[Prepared], undisturbed: MemberResult, tmp_path: Path, at: int
) -> None:
    """Wherever a run ends, the next one goes on from its checkpoint and the curves have no hole."""

    def stop(step: int, steps: int, loss: float) -> None:
        if step == at:
            raise ZeroDivisionError

    for run in (stop, None):
        arguments = {"progress": run} if run else {}
        try:
            result = train_member(
                plan, train_config, prepared[:3], prepared[3:], seed=11, member=1, work=tmp_path, threads=1, **arguments
            )
        except ZeroDivisionError:
            continue
    assert same(undisturbed, result)
    assert [step for step, _ in result.curve] == [10, 20, 30] == [step for step, _ in result.validation]


def test_a_finished_member_is_read_not_trained(
    plan: Plan, train_config: Train, prepared: list[Prepared], undisturbed: MemberResult, tmp_path: Path
) -> None:
    """The second call takes no step and returns the same member, time included."""
    steps: list[int] = []
    results = [
        train_member(
            plan, train_config, prepared[:3], prepared[3:], seed=11, member=1, work=tmp_path, threads=1,
            progress=lambda step, of, loss: steps.append(step),
        )
        for _ in range(2)
    ]  # fmt: skip
    assert steps == [10, 20, 30]
    assert same(undisturbed, results[0]) and same(*results) and results[0].seconds == results[1].seconds > 0


def test_other_inputs_never_go_on_from_a_checkpoint(
    plan: Plan, train_config: Train, prepared: list[Prepared], undisturbed: MemberResult, tmp_path: Path
) -> None:
    """Another seed, member or training set in the same folder trains anew and gives other weights."""
    short = train_config.model_copy(update={"steps": 3})
    results = [
        train_member(plan, short, exams, [], seed=seed, member=member, work=tmp_path, threads=1)
        for exams, seed, member in (
            (prepared[:3], 11, 1),
            (prepared[:3], 12, 1),
            (prepared[:3], 11, 0),
            (prepared[:2], 11, 1),
        )
    ]
    assert len(list(tmp_path.glob("*.ckpt"))) == 4
    key = next(iter(undisturbed.weights))
    assert len({result.weights[key].numpy().tobytes() for result in results}) == 4


def test_it_learns(plan: Plan, train_config: Train, prepared: list[Prepared], tmp_path: Path) -> None:
    """A few hundred steps on three easy exams bring the Dice on two others above .8."""
    config = train_config.model_copy(update={"steps": 250, "learning_rate": 1e-2, "validate_every": 250})
    result = train_member(plan, config, prepared[:3], prepared[3:], seed=1, member=0, work=tmp_path, threads=1)
    assert result.curve[-1][1] < 0.6 * result.curve[0][1]
    assert result.validation[-1][1] > 0.8
    assert result.precision == "32"
    assert all(value.dtype == torch.float32 and value.is_contiguous() for value in result.weights.values())


def test_a_damaged_checkpoint_is_an_error_in_words(
    plan: Plan, train_config: Train, prepared: list[Prepared], tmp_path: Path
) -> None:
    """A checkpoint of garbage is named, with what to do; nothing in it is executed."""
    config = train_config.model_copy(update={"steps": 2})
    train_member(plan, config, prepared[:1], [], seed=1, member=0, work=tmp_path, threads=1)
    (checkpoint,) = tmp_path.glob("*.ckpt")
    whole = checkpoint.read_bytes()
    for damaged in (b"", b"no checkpoint", whole[: len(whole) // 2]):
        checkpoint.write_bytes(damaged)
        with pytest.raises(StorageError, match="cannot be read") as caught:
            train_member(plan, config, prepared[:1], [], seed=1, member=0, work=tmp_path, threads=1)
        assert "Delete it" in caught.value.do


def test_divergence_is_an_error_in_words(
    plan: Plan, train_config: Train, prepared: list[Prepared], tmp_path: Path
) -> None:
    """A loss that is no number stops the training at once instead of shipping a network of nothing."""
    config = train_config.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(TrainingError, match="diverged"):
        train_member(plan, config, prepared[:1], [], seed=1, member=0, work=tmp_path, threads=1)


def test_missing_gpus_are_an_error_in_words(
    plan: Plan, train_config: Train, prepared: list[Prepared], tmp_path: Path
) -> None:
    """A project that asks for more GPUs than there are is told so before anything is loaded."""
    config = train_config.model_copy(update={"accelerator": "gpu", "devices": 64})
    with pytest.raises(ConfigError, match="64 GPU"):
        train_member(plan, config, prepared[:1], [], seed=1, member=0, work=tmp_path, threads=1)


def test_the_process_is_left_as_it_was(
    plan: Plan, train_config: Train, prepared: list[Prepared], tmp_path: Path
) -> None:
    """Training touches neither torch's random state nor its process-wide switches."""
    torch.manual_seed(7)
    before = torch.random.get_rng_state(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    numbers = np.random.get_state()[1]
    train_member(
        plan, train_config.model_copy(update={"steps": 2}), prepared[:1], [], seed=1, member=0, work=tmp_path, threads=1
    )
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before[1:]
    np.testing.assert_array_equal(np.random.get_state()[1], numbers)


@pytest.mark.slow
def test_several_devices_train_apart(plan: Plan, train_config: Train, prepared: list[Prepared], tmp_path: Path) -> None:
    """Two processes with DDP train one member without running the caller again; rank 0 tells and writes for both."""
    config = train_config.model_copy(update={"devices": 2, "steps": 10})
    told: list[int] = []
    result = train_member(
        plan, config, prepared[:3], prepared[3:], seed=11, member=1, work=tmp_path, threads=2,
        progress=lambda step, of, loss: told.append(step),
    )  # fmt: skip
    assert told == [10] == [step for step, _ in result.curve]
    assert [path.suffix for path in tmp_path.iterdir()] == [".ckpt"]
