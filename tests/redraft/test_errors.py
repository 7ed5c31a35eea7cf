"""Errors carry a stable code, what to do, and whether trying again can help; they survive a way between processes."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from redraft import errors
from redraft.errors import ExamError, GeometryError, LabelError, ReadError, RedraftError, SetAside, TransferError

ALL = sorted(
    (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RedraftError)),
    key=lambda kind: kind.__name__,
)
EXAM = [kind for kind in ALL if issubclass(kind, ExamError)]


def make(kind: type[RedraftError]) -> RedraftError:
    """An error of any class, with every field set."""
    if issubclass(kind, ExamError):
        return kind("Slices differ.", "Send them again.", rule="mixed_size", measured={"sizes": [[1, 2], [3, 4]]})
    return kind("It failed.", "Do this.", code="some.code", retry=not kind.retry)


def test_classes_have_codes_of_their_own() -> None:
    """No two classes share a code: a script can tell them apart without reading prose."""
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", ALL)
def test_the_text_says_what_and_what_to_do(kind: type[RedraftError]) -> None:
    """`str` is what a terminal shows: what happened, then what to do; nothing dangles where there is nothing to do."""
    error = make(kind)
    assert str(error) == f"{error.what} {error.do}"
    bare = kind("It failed.", rule="r") if issubclass(kind, ExamError) else kind("It failed.")
    assert str(bare) == "It failed."


@pytest.mark.parametrize("kind", ALL)
def test_json_holds_code_and_retry(kind: type[RedraftError]) -> None:
    """`--json` gives plain values, the instance's own code and retry before the class's."""
    error = make(kind)
    content = json.loads(json.dumps(error.to_dict()))
    assert content == {"code": error.code, "what": error.what, "do": error.do, "retry": error.retry}
    if not issubclass(kind, ExamError):
        assert content["code"] == "some.code" and content["retry"] is not kind.retry
        assert kind("x").code == kind.code  # an instance's code does not change its class


@pytest.mark.parametrize("kind", EXAM)
def test_exam_errors_name_their_rule(kind: type[ExamError]) -> None:
    """Rule and measured values go into receipts; the code holds the class's and the rule."""
    measured = {"missing": 2}
    error = kind("Bad.", rule="missing_slices", measured=measured)
    measured["missing"] = 3
    assert error.rule == "missing_slices" and error.code == f"{kind.code}.missing_slices"
    assert error.measured == {"missing": 2}
    assert kind("Bad.", rule="r").measured == {}


def test_only_usage_ends_with_exit_code_two() -> None:
    """2 means the command was called wrongly, 1 everything else."""
    assert {kind.__name__ for kind in ALL if kind.exit_code == 2} == {"UsageError"}


def test_one_except_clause_catches_bad_exams() -> None:
    """A batch goes on after any error of one exam, and only after those."""
    assert set(EXAM) == {ExamError, GeometryError, ReadError, SetAside, TransferError, LabelError}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("way", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy], ids=["pickle", "deepcopy"])  # noqa: S301
def test_errors_survive_the_way_between_processes(kind: type[RedraftError], way) -> None:
    """A worker's error arrives with its class and every field, not as a broken pool."""
    error = make(kind)
    back = way(error)
    assert type(back) is kind and vars(back) == vars(error) and str(back) == str(error) and back.args == error.args


def test_measured_values_can_be_recorded() -> None:
    """A record of what is no number in JSON could not be written, and would end the batch."""
    error = GeometryError("Bad.", rule="r", measured={"shift_mm": float("inf"), "x": float("nan"), "y": 1.5})
    assert error.measured == {"shift_mm": "inf", "x": "nan", "y": 1.5}
