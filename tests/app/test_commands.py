"""The command line's stable contract: every command's options, and what the quick ones print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redraft.project import Project

Redraft = Callable[..., Any]
Copy = Callable[[str], Path]


def leaves(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, below in command.commands.items():
        yield from leaves(below, (*name, part))


def commands() -> dict[tuple[str, ...], Any]:
    import typer

    from app.cli.main import app

    return dict(leaves(typer.main.get_command(app)))


def test_every_command_takes_project_and_json() -> None:
    """`--json` everywhere; `--project` wherever there is a project to work on."""
    without_project = {("init",), ("phantom",), ("key", "init"), ("intake", "rules")}
    for name, command in commands().items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, name
        assert ("--project" in options) == (name not in without_project), name


def test_the_commands_that_other_tools_call_are_there() -> None:
    """Names of the contract are never renamed."""
    named = {" ".join(name) for name in commands()}
    assert {
        "init", "phantom", "ingest", "round open", "round status", "round close", "round abort", "label import",
        "promote", "serve", "user add", "user list", "user remove", "user password", "user pseudonym", "user roles",
        "campaign", "cost report", "cost rates", "audit trace", "audit verify", "audit export", "key init",
        "key show", "model list", "model show", "up", "down", "status",
    } <= named  # fmt: skip


def test_every_command_explains_itself(redraft: Redraft) -> None:
    """`--help` of every command exits 0 and shows more than its options; `--version` names the version."""
    from redraft import __version__

    for name, command in commands().items():
        answer = redraft(*name, "--help")
        assert answer.code == 0 and command.help and command.help.split()[0] in answer.out, name
    assert redraft("--version").out.strip() == f"redraft {__version__}"


def test_status_of_an_empty_project(redraft: Redraft, copy: Copy) -> None:
    """No rounds, no exams, and what to do next, in words and in JSON."""
    root = copy("empty")
    content = json.loads(redraft("status", "--project", root, "--json").out)
    assert (content["project"], content["exams"], content["rounds"]) == ("empty", 0, [])
    assert [item["do"] for item in content["waiting_for"]] == ["redraft round open"]
    plain = redraft("status", "--project", root)
    assert plain.code == 0 and "redraft round open" in plain.out and plain.err == ""


def test_status_says_who_is_waited_for(redraft: Redraft, copy: Copy) -> None:
    """A round that awaits a decision waits for an approver, and the line says how to decide."""
    content = json.loads(redraft("status", "--project", copy("failing"), "--json").out)
    assert [row["state"] for row in content["rounds"]] == ["AWAITING_APPROVAL"]
    assert [(item["who"], item["do"].split(" --")[0]) for item in content["waiting_for"]] == [
        ("approver", "redraft promote 1")
    ]


def test_the_project_comes_from_the_environment_too(
    redraft: Redraft, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REDRAFT_PROJECT stands in for --project; without either it is the current directory."""
    root = copy("empty")
    monkeypatch.setenv("REDRAFT_PROJECT", str(root))
    assert json.loads(redraft("status", "--json").out)["project"] == "empty"
    monkeypatch.delenv("REDRAFT_PROJECT")
    monkeypatch.chdir(root)
    assert json.loads(redraft("status", "--json").out)["project"] == "empty"


def test_a_cost_report_with_nothing_recorded(redraft: Redraft, copy: Copy) -> None:
    """Before the first closing there is nothing to report, which is no error."""
    for where, more in (("empty", ()), ("waiting", ("--round", 1))):
        root = copy(where)
        assert redraft("cost", "report", *more, "--project", root).out.strip() == "No round was accounted yet."
        answer = redraft("cost", "report", *more, "--project", root, "--json")
        assert (answer.code, json.loads(answer.out)) == (0, [])


def test_listing_nothing_is_no_error(redraft: Redraft, copy: Copy) -> None:
    """An empty project's models and rates can be listed."""
    root = copy("empty")
    assert json.loads(redraft("model", "list", "--project", root, "--json").out) == []
    assert redraft("model", "list", "--project", root).code == 0
    rates = json.loads(redraft("cost", "rates", "--project", root, "--json").out)
    assert rates["currency"] == "USD" and rates["rates"]


def test_aborting_a_round(redraft: Redraft, copy: Copy) -> None:
    """The round is aborted once; again is refused because the round has ended."""
    root = copy("waiting")
    answer = redraft("round", "abort", 1, "--project", root, "--json")
    assert (answer.code, json.loads(answer.out)) == (0, {"round": 1, "state": "ABORTED"})
    assert Project.open(root).ledger.rows("round")[0]["state"] == "ABORTED"
    again = redraft("round", "abort", 1, "--project", root, "--json")
    assert again.code == 1 and json.loads(again.out)["error"]["code"] == "state"


def test_exporting_the_chain(redraft: Redraft, copy: Copy, tmp_path: Path) -> None:
    """One JSON document per line, in order, as many as there are events."""
    root = copy("waiting")
    answer = redraft("audit", "export", tmp_path / "chain.jsonl", "--project", root, "--json")
    lines = [json.loads(line) for line in (tmp_path / "chain.jsonl").read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert json.loads(answer.out) == {"events": len(lines), "path": str(tmp_path / "chain.jsonl")}
    assert len(lines) == len(Project.open(root).ledger.rows("audit_event"))


def test_making_a_project_twice_changes_nothing(redraft: Redraft, tmp_path: Path) -> None:
    """`init` can be repeated: the same fingerprint, the same files, the same events."""
    first = redraft("init", tmp_path / "p", "--demo-keys", "--json")
    events = Project.open(tmp_path / "p").ledger.rows("audit_event")
    second = redraft("init", tmp_path / "p", "--demo-keys", "--json")
    assert first.code == second.code == 0 and json.loads(first.out) == json.loads(second.out)
    assert Project.open(tmp_path / "p").ledger.rows("audit_event") == events


def test_a_key_file_is_never_overwritten_and_never_shown(redraft: Redraft, copy: Copy, tmp_path: Path) -> None:
    """A second `key init` on one path is refused; `key show` prints fingerprints, no key."""
    path = tmp_path / "k.json"
    assert redraft("key", "init", path).code == 0 and path.stat().st_mode & 0o077 == 0
    before = path.read_bytes()
    assert redraft("key", "init", path).code == 1 and path.read_bytes() == before
    shown = json.loads(redraft("key", "show", "--project", copy("empty"), "--json").out)
    assert set(shown) == {"fingerprint", "version", "published", "public_key"} and shown["published"] is True


def test_tables_are_aligned_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers to the right, nothing cut off however long, a dash for what is not there, headers without rows."""
    from app.cli.common import print_table

    long = "x" * 300
    print_table(["name", "n"], [[long, 5], ["b", None], ["c", 1234]], "Title")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Title" and lines[4] == f"{long}     5" and lines[5].endswith("  –".rjust(6))
    assert len(lines[4]) == len(lines[6]) == len(lines[3])
    print_table(["name", "n"], [])
    assert capsys.readouterr().out.splitlines()[0] == "name  n"
