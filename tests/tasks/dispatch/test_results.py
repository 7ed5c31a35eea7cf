"""Results without a label, tokens and signatures: what a package must hold to be taken in, whatever the backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redraft.digest import sha256_file
from redraft.errors import LabelError
from redraft.security.keys import KeyRing
from redraft.signing import sign_result, token
from redraft.volumes import Volume, write_volume
from tasks.dispatch.backends import FolderBackend, Returned, ReviewBackend
from tasks.dispatch.contract import Result, Task, TaskStructure

KEYS = KeyRing.published_demo()
NOW = 2  # the attempt


def hand_in(
    work: Path, *, mode: str = "assisted", label: bool = True, signed: bool = False, task_token: str | None = None,
    **fields: Any,
) -> None:  # fmt: skip
    """A package with work in it; the token and the signature are right unless said otherwise."""
    folder = work / "a"
    folder.mkdir(parents=True)
    right = token(KEYS, "a", "r", NOW)
    task = Task(
        assignment_id="a", exam_id="e", round=1, purpose="training", mode=mode, reader_id="r",  # type: ignore[arg-type]
        structures=(TaskStructure(name="kidney", value=1, kind="organ"),), image_sha256="0" * 64, draft_sha256=None,
        token=right if task_token is None else task_token,
    )  # fmt: skip
    (folder / "task.json").write_text(task.model_dump_json())
    sha256 = None
    if label:
        write_volume(folder / "label.nii.gz", Volume(np.zeros((3, 4, 5), np.uint8), np.eye(4)))
        sha256 = sha256_file(folder / "label.nii.gz")
    result = {
        "assignment_id": "a", "reader_id": "r", "verdict": "correct", "origin": "typed", "token": right,
        "minutes": {"exam": {"active": 1}}, **fields,
    }  # fmt: skip
    if signed:
        full = Result.model_validate(result).model_dump(mode="json")
        result["signature"] = sign_result(KEYS, full, sha256)
    (folder / "result.json").write_text(json.dumps(result))


def collect(work: Path, kind: type[FolderBackend] = FolderBackend, keys: KeyRing | None = KEYS) -> Returned | str:
    """What came back, or the rule that refused it."""
    failed: dict[str, LabelError] = {}
    items = list(kind(work, keys=keys, attempts=lambda _: NOW).collect(["a"], failed.__setitem__))
    return failed["a"].rule if failed else items[0]


@pytest.mark.parametrize("mode", ["assisted", "from_scratch"])
def test_an_exam_sent_back_needs_no_label(tmp_path: Path, mode: str) -> None:
    """A reason that asks for none is taken without one, in either mode."""
    hand_in(tmp_path, mode=mode, label=False, no_label=True, verdict="reject", reason_code="poor_image")
    item = collect(tmp_path)
    assert isinstance(item, Returned) and (item.label, item.label_sha256) == (None, None)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"label": False}, "no_label"),
        ({"label": False, "no_label": True}, "result"),
        ({"label": False, "no_label": True, "verdict": "reject", "reason_code": "dull"}, "result"),
        ({"label": False, "no_label": True, "verdict": "reject", "reason_code": "draft_unusable"}, "result"),
        ({"label": True, "no_label": True, "verdict": "reject", "reason_code": "poor_image"}, "result"),
        ({"label": False, "no_label": True, "verdict": "reject", "reason_code": "draft_unusable_redo",
          "mode": "from_scratch"}, "result"),
        ({"label": False, "verdict": "reject", "reason_code": "poor_image"}, "no_label"),
    ],
)  # fmt: skip
def test_a_label_is_missing_only_where_the_reason_says_so(tmp_path: Path, fields: dict[str, Any], rule: str) -> None:
    """Without no_label, with a reason that needs a label, with none that is known, or with a label all the same."""
    hand_in(tmp_path, **fields)
    assert collect(tmp_path) == rule


@pytest.mark.parametrize(
    "wrong",
    ["", "nonsense", token(KEYS, "b", "r", NOW), token(KEYS, "a", "q", NOW), token(KEYS, "a", "r", NOW - 1),
     token(KeyRing(bytes(32), 1), "a", "r", NOW)],
)  # fmt: skip
def test_a_token_of_another_package_is_refused(tmp_path: Path, wrong: str) -> None:
    """None, another assignment's, another reader's, an earlier attempt's, another project's."""
    hand_in(tmp_path, token=wrong)
    assert collect(tmp_path) == "token"


def test_a_whole_package_of_an_earlier_attempt_is_refused(tmp_path: Path) -> None:
    """Task and result agree with one another, and not with what was handed out last."""
    old = token(KEYS, "a", "r", NOW - 1)
    hand_in(tmp_path, task_token=old, token=old)
    assert collect(tmp_path) == "token"


def test_packages_of_older_versions_hold_no_token(tmp_path: Path) -> None:
    """They are taken as before."""
    hand_in(tmp_path, task_token="", token="")
    assert isinstance(collect(tmp_path), Returned)


def test_measured_minutes_need_a_signature(tmp_path: Path) -> None:
    """Ours over this result and label is taken; none, or no keys to verify it with, is not."""
    hand_in(tmp_path / "signed", origin="measured", signed=True)
    hand_in(tmp_path / "unsigned", origin="measured")
    assert isinstance(collect(tmp_path / "signed"), Returned)
    assert collect(tmp_path / "signed", keys=None) == "unsigned"
    assert collect(tmp_path / "unsigned") == "unsigned"


def test_in_the_browser_only_the_server_measures(tmp_path: Path) -> None:
    """The review backend takes signed, measured work; what somebody typed into a package is named."""
    hand_in(tmp_path / "signed", origin="measured", signed=True)
    hand_in(tmp_path / "typed")
    assert isinstance(collect(tmp_path / "signed", ReviewBackend), Returned)
    assert collect(tmp_path / "typed", ReviewBackend) == "unsigned"
