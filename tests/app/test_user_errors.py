"""What a user does wrong comes back as words: which rule, what to do, the right exit code, never a stack trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
Redraft = Callable[..., Any]
Copy = Callable[[str], Path]


def refused(redraft: Redraft, *args: object) -> dict[str, Any]:
    """The error of a command, after checking that terminal and JSON tell the same."""
    plain, both = redraft(*args), redraft(*args, "--json")
    assert plain.out == "" and "Traceback" not in plain.err + both.err
    error: dict[str, Any] = json.loads(both.out)["error"]
    assert set(error) == {"code", "what", "do", "retry"} and both.err == plain.err
    assert plain.err.startswith(f"error [{error['code']}]: ") and error["what"] in plain.err
    assert error["do"] in plain.err
    assert plain.code == both.code == (2 if error["code"].startswith("usage") else 1)
    return error


def test_a_place_that_is_no_project_is_said(redraft: Redraft, tmp_path: Path) -> None:
    """An empty directory, one that is not there, a file: each points to `redraft init` or to --project."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "odd" / "project.yaml").mkdir(parents=True)
    for place in (".", "absent", "file", "odd"):
        error = refused(redraft, "status", "--project", tmp_path / place)
        assert error["code"] == "config" and "--project" in error["do"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("strategy: entropy", "stratgey: entropy", ["project.yaml:", "select.stratgey", "`strategy`"]),
        ("strategy: entropy", "strategy: entropi", ["project.yaml:", "select.strategy", "'entropi'"]),
        ("dispatch:", "dispach:", ["dispach", "`dispatch`", "`dispatch` is missing"]),
        ("budget: {exams: 5}", "budget: {exams: 5, minutes: 3}", ["select.budget", "exactly one"]),
        ("kidney: 0.6", "spleen: 0.6", ["gate.floor", "spleen"]),
        ("value: 2", "value: 1", ["value"]),
        ("deadline_days: 14", "deadline_days: 14\n  deadline_days: 15", ["twice"]),
        ("deadline_days: 14", "deadline_days: [14", ["not valid YAML"]),
        ("deadline_days: 14", "deadline_days: soon", ["dispatch.deadline_days", "'soon'"]),
    ],
)
def test_a_mistake_in_project_yaml_is_named_with_its_line(
    redraft: Redraft, copy: Copy, old: str, new: str, words: list[str]
) -> None:
    """Misspelt keys get a suggestion, wrong values are shown, and the line is the line of the mistake."""
    path = copy("empty") / "project.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    error = refused(redraft, "status", "--project", path.parent)
    assert error["code"].startswith("config") and all(word in error["what"] for word in words), error
    if "stratgey" in new:
        line = 1 + path.read_text().splitlines().index("  stratgey: entropy")
        assert error["what"].startswith(f"project.yaml:{line}:")


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"just words", b"\xff\xfe\x00"])
def test_a_project_yaml_that_is_none_is_said(redraft: Redraft, copy: Copy, content: bytes) -> None:
    """Empty, a list, a sentence, another encoding."""
    root = copy("empty")
    (root / "project.yaml").write_bytes(content)
    assert refused(redraft, "status", "--project", root)["code"].startswith("config")


def test_a_literal_secret_is_refused_and_not_repeated(redraft: Redraft, copy: Copy) -> None:
    """A key pasted into project.yaml is refused without printing it."""
    path = copy("empty") / "project.yaml"
    path.write_text(path.read_text().replace("published_demo_keys: true", 'keys: "0123456789abcdef-secret"'))
    error = refused(redraft, "status", "--project", path.parent)
    assert "secret" in error["what"] and "0123456789abcdef" not in error["what"]


def test_a_broken_rate_card_is_named(redraft: Redraft, copy: Copy) -> None:
    """Mistakes in rates.yaml are reported like those in project.yaml; so is another currency."""
    root = copy("empty")
    text = (root / "rates.yaml").read_text()
    (root / "rates.yaml").write_text(text.replace("per_hour", "per_our", 1))
    assert "rates.yaml:" in refused(redraft, "cost", "rates", "--project", root)["what"]
    (root / "rates.yaml").write_text(text.replace("currency: USD", "currency: CHF"))
    assert refused(redraft, "cost", "rates", "--project", root)["code"] == "config"


def test_missing_and_different_keys_are_refused(redraft: Redraft, copy: Copy, tmp_path: Path) -> None:
    """A key file that is not there, a variable that is not set, and a key that is not the project's."""
    path = copy("empty") / "project.yaml"
    text = path.read_text()
    for reference in ("{file: ../nowhere.key.json}", "{env: NO_SUCH_KEYS}"):
        path.write_text(text.replace("published_demo_keys: true", f"keys: {reference}"))
        for command in (("key", "show"), ("ingest", tmp_path)):
            assert refused(redraft, *command, "--project", path.parent)["code"].startswith("security")
    assert redraft("key", "init", tmp_path / "other.json").code == 0
    path.write_text(text.replace("published_demo_keys: true", "keys: {file: ../other.json}"))
    error = refused(redraft, "key", "show", "--project", path.parent)
    assert error["code"].startswith("security") and error["do"]


def test_a_project_without_its_ledger_is_said(redraft: Redraft, copy: Copy) -> None:
    """A fresh clone has no .redraft: the error points to `redraft init`, and no empty ledger is made."""
    root = copy("empty")
    for path in sorted((root / ".redraft").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    error = refused(redraft, "status", "--project", root)
    assert error["code"].startswith("state") and "redraft init" in error["do"]
    assert not (root / ".redraft" / "ledger.db").exists()


@pytest.mark.parametrize(
    "args",
    [
        ("round", "status", 7), ("round", "close", 7), ("round", "abort", 7), ("cost", "report", "--round", 7),
        ("promote", 7, "--hold", "--by", "QA", "--reason", "x"), ("audit", "trace", "1"), ("model", "show", "champion"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["empty", "waiting"])
def test_unknown_rounds_and_models_are_said(redraft: Redraft, copy: Copy, where: str, args: tuple[object, ...]) -> None:
    """What does not exist is wrong usage, and the error says what there is or how to get one."""
    error = refused(redraft, *args, "--project", copy(where))
    assert error["code"] == "usage" and error["do"]


def test_a_second_round_is_refused_while_one_is_live(
    redraft: Redraft, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`round open` twice: the error names the live round, its state and how to finish it; nothing is recorded."""
    import flows.open_round
    from redraft.project import Project

    # The flow's own function: starting Prefect takes longer than everything this test looks at.
    monkeypatch.setattr(flows.open_round, "open_round", flows.open_round.open_round.fn)
    for where, state in (("waiting", "AWAITING_ANNOTATION"), ("failing", "AWAITING_APPROVAL")):
        root = copy(where)
        before = [row["number"] for row in Project.open(root).ledger.rows("round")]
        error = refused(redraft, "round", "open", "--project", root)
        assert error["code"] == "state" and f"Round 1 is {state}" in error["what"] and "round abort 1" in error["do"]
        assert [row["number"] for row in Project.open(root).ledger.rows("round")] == before


def test_promoting_against_a_failed_gate_is_refused(redraft: Redraft, copy: Copy, who: Any) -> None:
    """An approval names the failed criterion, points to --hold and leaves no decision; then only the hold stands."""
    from redraft.project import Project

    root = copy("failing")
    how = (*who(root, "approver"), "--reason", "looks fine", "--project", root)
    error = refused(redraft, "promote", 1, "--approve", *how)
    assert error["code"] == "state.gate_failed" and "floor of kidney" in error["what"]
    assert "redraft promote 1 --hold" in error["do"]
    project = Project.open(root)
    assert project.ledger.rows("decision") == [] and project.ledger.rows("round")[0]["state"] == "AWAITING_APPROVAL"
    held = [json.loads(redraft("promote", 1, "--hold", "--record-only", *how, "--json").out) for _ in range(2)]
    assert held[0] == held[1] and held[0]["decision_id"] == project.ledger.rows("decision")[0]["decision_id"]
    assert refused(redraft, "promote", 1, "--approve", *how)["code"] == "state"


def test_a_decision_needs_a_person_a_reason_and_a_round_that_waits(redraft: Redraft, copy: Copy) -> None:
    """Blank names and reasons are wrong usage; a round still with its readers cannot be decided."""
    root = copy("failing")
    for by, reason in ((" ", "x"), ("quentin", " ")):
        blank = refused(redraft, "promote", 1, "--hold", "--by", by, "--reason", reason, "--project", root)
        assert blank["code"] == "usage"
    root = copy("waiting")
    early = refused(redraft, "promote", 1, "--hold", "--by", "QA", "--reason", "x", "--project", root)
    assert early["code"] == "state" and "AWAITING_ANNOTATION" in early["what"]


def test_other_wrong_usage_is_said(redraft: Redraft, copy: Copy, tmp_path: Path) -> None:
    """Unknown templates and strategies, occupied directories, paths that are not there, nothing to take in."""
    root = copy("empty")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("init", tmp_path / "new", "--template", "brain"), "kidney-ct"), (("init", tmp_path / "mine"), "empty"),
        (("ingest", "--project", root), "ingest.sources"), (("ingest", tmp_path / "no", "--project", root), "path"),
        (("campaign", "--oracle", ".", "--strategies", "guess", "--project", root), "entropy"),
    ]  # fmt: skip
    for args, hint in cases:
        error = refused(redraft, *args)
        assert error["code"] == "usage" and hint in error["do"], args
    assert not (tmp_path / "new").exists() and [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",), ("status", "--projekt", "x"), ("round",), ("round", "status", "first"), ("promote", "1"),
        ("promote", "1", "--by", "QA", "--reason", "x"), ("phantom", "out", "--exams", "0"), ("audit", "trace"),
        ("round", "abort"), ("cost", "report", "--round", "one"), ("init",),
    ],
)  # fmt: skip
def test_commands_called_wrongly_exit_2(redraft: Redraft, args: tuple[str, ...]) -> None:
    """Unknown commands, options and values, missing arguments: exit code 2, a hint, and JSON where it is asked for."""
    plain = redraft(*args)
    assert plain.code == 2 and "Traceback" not in plain.err and (plain.err or plain.out)
    both = redraft(*args, "--json")
    assert both.code == 2 and json.loads(both.out)["error"]["code"] == "usage"


def test_ctrl_c_says_that_the_command_can_be_repeated(
    redraft: Redraft, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt ends with 130 and one line, without a stack trace."""

    def interrupted(project: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("redraft.status.project_status", interrupted)
    answer = redraft("status", "--project", copy("empty"))
    assert answer.code == 130 and "resumes" in answer.err and "Traceback" not in answer.err


def test_the_installed_command_behaves_the_same(copy: Copy, tmp_path: Path) -> None:
    """In a process of its own: exit codes 0, 1 and 2, standard output for JSON only, no stack trace."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    env.pop("REDRAFT_PROJECT", None)
    root = copy("empty")
    cases = ((["status"], root, 0), (["status"], tmp_path, 1), (["round", "status", "7"], root, 2))
    for args, cwd, code in cases:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli.main", *args, "--json"], cwd=cwd, env=env, capture_output=True, text=True
        )
        content = json.loads(done.stdout)
        assert done.returncode == code and "Traceback" not in done.stderr
        assert ("error" in content) == (code > 0) == bool(done.stderr)
