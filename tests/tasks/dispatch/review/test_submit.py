"""Handing in is all or nothing, once or many times, and says what the voxels say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.digest import sha256_file
from redraft.errors import ConflictError, IntegrityError, LabelError, UsageError
from redraft.security.keys import KeyRing
from redraft.signing import token
from redraft.volumes import Volume, read_volume, write_volume
from tasks.dispatch.backends import Returned, ReviewBackend
from tasks.dispatch.contract import Task, TaskStructure
from tasks.dispatch.review.submit import Said, hand_in

KEYS = KeyRing.published_demo()
SHAPE = (24, 20, 10)
AFFINE = np.array([[-1.0, 0.2, 0, 5], [0.2, -1, 0.1, -3], [0, 0.1, 3, 7], [0, 0, 0, 1]])
REPOSITORY = Path(__file__).resolve().parents[4]


def package(work: Path, mode: str = "assisted", shape: tuple[int, int, int] = SHAPE) -> Task:
    """A work package, as dispatch makes it."""
    folder = work / "a"
    folder.mkdir(parents=True)
    image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    write_volume(folder / "image.nii.gz", Volume(image, AFFINE))
    draft = np.zeros(shape, np.uint8)
    draft[5:9, 5:9, 2:5] = 1
    if mode == "assisted":
        write_volume(folder / "draft.nii.gz", Volume(draft, AFFINE))
    task = Task(
        assignment_id="a", exam_id="e", round=1, purpose="training", mode=mode, reader_id="r",  # type: ignore[arg-type]
        structures=(TaskStructure(name="kidney", value=1, kind="organ"),),
        image_sha256=sha256_file(folder / "image.nii.gz"),
        draft_sha256=sha256_file(folder / "draft.nii.gz") if mode == "assisted" else None,
        token=token(KEYS, "a", "r", 1),
    )  # fmt: skip
    (folder / "task.json").write_text(task.model_dump_json())
    return task


def minutes() -> dict[str, dict[str, float]]:
    return {"exam": {"active": 2.5, "idle": 0.5, "away": 0.0}}


def collected(work: Path, attempt: int = 1) -> tuple[list[Returned], dict[str, LabelError]]:
    failed: dict[str, LabelError] = {}
    backend = ReviewBackend(work, keys=KEYS, attempts=lambda _: attempt)
    return list(backend.collect(["a"], failed.__setitem__)), failed


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changed=st.sets(st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), max_size=6),
    said=st.sampled_from(["accept", "correct"]),
)
def test_the_voxels_decide(tmp_path_factory: pytest.TempPathFactory, changed: set[tuple[int, ...]], said: str) -> None:
    """Accepted where not one voxel differs, corrected otherwise; the count is the count, the label is the drawing."""
    work = tmp_path_factory.mktemp("work")
    task = package(work)
    drawn = read_volume(work / "a" / "draft.nii.gz").array.copy()
    for where in changed:
        drawn[where] = 1 - drawn[where]
    result = hand_in(work / "a", task, Said(said), drawn, keys=KEYS, attempt=1, minutes=minutes)  # type: ignore[arg-type]
    assert (result.verdict, result.voxels_changed) == ("correct" if changed else "accept", len(changed))
    (item,), failed = collected(work)
    assert not failed and item.label is not None
    label = read_volume(item.label)
    np.testing.assert_array_equal(label.array, drawn)
    np.testing.assert_array_equal(label.affine, read_volume(work / "a" / "image.nii.gz").affine)


def test_minutes_are_taken_once(tmp_path: Path) -> None:
    """At the submission that counts: not for one that is refused, not for the same one again."""
    task = package(tmp_path)
    calls: list[int] = []

    def count() -> dict[str, dict[str, float]]:
        calls.append(1)
        return minutes()

    with pytest.raises(UsageError):
        hand_in(tmp_path / "a", task, Said("reject"), None, keys=KEYS, attempt=1, minutes=count)
    first = hand_in(tmp_path / "a", task, Said("accept"), None, keys=KEYS, attempt=1, minutes=count)
    assert hand_in(tmp_path / "a", task, Said("accept"), None, keys=KEYS, attempt=1, minutes=count) == first
    assert len(calls) == 1
    with pytest.raises(ConflictError):
        hand_in(tmp_path / "a", task, Said("accept", remark="but"), None, keys=KEYS, attempt=1, minutes=count)


def test_an_answer_to_an_earlier_handing_out_is_written_anew(tmp_path: Path) -> None:
    """The next attempt has another token: the old result is refused when it is collected, and no obstacle here."""
    task = package(tmp_path)
    hand_in(tmp_path / "a", task, Said("accept"), None, keys=KEYS, attempt=1, minutes=minutes)
    assert collected(tmp_path, attempt=2)[1]["a"].rule == "token"
    again = hand_in(tmp_path / "a", task, Said("reject", "poor_image", None, True), None, keys=KEYS, attempt=2,
                    minutes=minutes)  # fmt: skip
    assert again.no_label and not (tmp_path / "a" / "label.nii.gz").exists()
    (item,), failed = collected(tmp_path, attempt=2)
    assert not failed and item.label is None


@pytest.mark.parametrize("name", ["draft.nii.gz", "image.nii.gz"])
def test_a_package_that_was_changed_is_not_handed_in(tmp_path: Path, name: str) -> None:
    """What was drawn would be compared with something else than was shown, or stored on another grid."""
    task = package(tmp_path)
    write_volume(tmp_path / "a" / name, Volume(np.zeros((3, 3, 3), np.uint8), np.eye(4)))
    with pytest.raises(IntegrityError):
        hand_in(tmp_path / "a", task, Said("correct"), np.ones(SHAPE, np.uint8), keys=KEYS, attempt=1, minutes=minutes)
    assert not (tmp_path / "a" / "result.json").exists()


CHILD = """
import sys
from pathlib import Path
import numpy as np
from redraft.security.keys import KeyRing
from tasks.dispatch.contract import Task
from tasks.dispatch.review.submit import Said, hand_in
work = Path(sys.argv[1])
task = Task.model_validate_json((work / "a" / "task.json").read_text())
drawn = np.zeros((200, 200, 80), np.uint8)
drawn[::2, ::3, ::2] = 1
print("ready", flush=True)
hand_in(work / "a", task, Said("correct"), drawn, keys=KeyRing.published_demo(), attempt=1,
        minutes=lambda: {"exam": {"active": 1.0}})
"""


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06])
def test_killed_while_handing_in(tmp_path: Path, delay: float) -> None:
    """Kill -9 at any moment: the package is unfinished or finished, never broken; handing in again finishes it."""
    package(tmp_path, shape=(200, 200, 80))
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    threading.Event().wait(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    items, failed = collected(tmp_path)
    assert not failed and len(items) in (0, 1)
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=60)
    (item,), failed = collected(tmp_path)
    assert not failed and item.label is not None
    assert int(read_volume(item.label).array.sum()) == 100 * 67 * 40
