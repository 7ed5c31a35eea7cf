"""`redraft user`, and decisions that people have to show are theirs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from redraft import decisions
from redraft.accounts import Identity, authenticate
from redraft.errors import IntegrityError, SignInError, StateError
from redraft.ledger import RoundState, move_round
from redraft.project import Project

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
PASSWORD = "a long enough sentence"
APPROVER = Identity("ac-000000000001", ("approver",), "password")


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """A file with a password that only its owner reads."""
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def user(redraft: Callable[..., Any], copy: Callable[[str], Path]) -> Callable[..., Any]:
    """Run `redraft user …` on an empty project."""
    root = copy("empty")

    def call(*args: object) -> Any:
        return redraft("user", *args, "--project", root)

    call.root = root  # type: ignore[attr-defined]
    return call


def answer(given: Any) -> Any:
    assert given.code == 0, given.err
    return json.loads(given.out)


def error(given: Any) -> str:
    assert given.code, given.out
    return str(json.loads(given.out)["error"]["code"])


def test_an_account_is_added_listed_and_removed(user: Any, password: Path) -> None:
    """What was given is listed; the account signs in; a removed one stays on the list without its login."""
    made = answer(
        user("add", "Anna", "--name", "Dr. Anna", "--role", "reader", "--role", "reviewer", "--reader", "reader-1",
             "--password-file", password, "--json")
    )  # fmt: skip
    assert made["roles"] == ["reader", "reviewer"] and made["reader_id"] == "reader-1" and made["has_password"]
    assert answer(user("list", "--json")) == [made]
    project = Project.open(user.root)
    assert authenticate(project, "anna", PASSWORD, address="x", now=NOW).account_id == made["account_id"]
    removed = answer(user("remove", "anna", "--json"))
    assert removed == {"account_id": made["account_id"], "reader_id": "reader-1", "open_work": []}
    (row,) = answer(user("list", "--json"))
    assert (row["state"], row["login"], row["name"]) == ("removed", None, "Dr. Anna")
    assert error(user("remove", "anna", "--json")) == "state"


def test_a_reader_removed_in_the_middle_leaves_work_that_is_named(
    redraft: Any, copy: Callable[[str], Path], password: Path
) -> None:
    """Open assignments of the account's reader are in the answer, finished ones are not."""
    root = copy("waiting")
    project = Project.open(root)
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("subject", {"subject_id": "s", "split": "pool", "stratum": "", "drawn_at": None})
        for n, state in enumerate(("DISPATCHED", "WITHDRAWN")):
            exam = {
                "exam_id": f"e{n}", "subject_id": "s", "series_id": f"r{n}", "modality": "CT", "shape": [1, 1, 1],
                "spacing": [1.0, 1.0, 1.0], "affine": [], "image_path": "x", "image_sha256": "a", "image_bytes": 1,
                "header_digest": "b", "source_kind": "dicom", "admitted_at": NOW,
            }  # fmt: skip
            work = {
                "assignment_id": f"a{n}", "round": 1, "exam_id": f"e{n}", "reader_id": "reader-1", "backend": "review",
                "purpose": "training", "mode": "from_scratch", "mode_probability": None, "draft_id": None,
                "state": "DISPATCHED", "expected_minutes": None, "dispatched_at": NOW, "due_at": NOW,
                "package_sha256": "p", "attempt": 1,
            }  # fmt: skip
            tx.insert("exam", exam)
            tx.insert("assignment", work)
            if state != "DISPATCHED":
                tx.update("assignment", {"assignment_id": f"a{n}"}, {"state": state})
    where = ("--project", root)
    added = redraft("user", "add", "anna", "--name", "A", "--role", "reader", "--reader", "reader-1",
                    "--password-file", password, *where)  # fmt: skip
    assert added.code == 0
    assert answer(redraft("user", "remove", "anna", "--json", *where))["open_work"] == ["a0"]


def test_where_a_password_may_come_from(user: Any, password: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one's own outside the project, standard input, a terminal; never a file that others read."""
    base = ("--name", "A", "--role", "ops", "--json")
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\nmore\n"))
    assert answer(user("add", "a1", "--password-file", "-", *base))["has_password"]
    assert error(user("add", "a2", *base)) == "usage"  # nobody to ask
    assert error(user("add", "a2", "--password-file", password.with_name("none"), *base)) == "security"
    password.chmod(0o644)
    assert error(user("add", "a2", "--password-file", password, *base)) == "security"
    inside = user.root / "password"
    inside.write_text(PASSWORD)
    inside.chmod(0o600)
    assert error(user("add", "a2", "--password-file", inside, *base)) == "security"
    assert not answer(user("add", "a2", "--no-password", *base))["has_password"]
    assert error(user("add", "a3", "--no-password", "--password-file", "-", *base)) == "usage"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    typed = iter([PASSWORD, PASSWORD + "x", PASSWORD, PASSWORD])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    assert error(user("add", "a4", *base)) == "usage"  # not the same twice
    assert answer(user("add", "a4", *base))["has_password"]


def test_a_new_password_and_new_roles(user: Any, password: Path) -> None:
    """The old password is good no longer; roles are replaced."""
    answer(user("add", "olga", "--name", "O", "--role", "ops", "--password-file", password, "--json"))
    password.write_text("quite another sentence")
    answer(user("password", "olga", "--password-file", password, "--json"))
    project = Project.open(user.root)
    with pytest.raises(SignInError):
        authenticate(project, "olga", PASSWORD, address="x", now=NOW)
    assert authenticate(project, "olga", "quite another sentence", address="x", now=NOW)
    roles = ("--role", "approver", "--role", "auditor")
    assert answer(user("roles", "olga", *roles, "--json"))["roles"] == ["approver", "auditor"]


def test_a_person_has_one_pseudonym_however_it_is_written(user: Any) -> None:
    """Case, spaces, empty components and other writings of a DICOM name do not count; another name is another one."""

    def of(name: str) -> str:
        return str(answer(user("pseudonym", name, "--json"))["pseudonym"])

    first = of("SMITH^JOHN")
    assert re.fullmatch(r"[0-9a-f]{16,64}", first)  # what dispatch.readers[].reader_of_record takes
    assert {of(n) for n in ("Smith^John", " smith ^ john ", "SMITH^JOHN^^^", "Smith^John=史密斯^約翰")} == {first}
    assert first not in {of(name) for name in ("SMITH^JOHNNY", "JOHN^SMITH", "SMITHJOHN", "SMITH^JOHN^A", "SMITH")}
    assert Project.open(user.root).ledger.rows("audit_event", kind="account.insert") == []


# -- decisions -----------------------------------------------------------------------------------------------------
def test_promote_takes_the_right_person_with_the_right_password(redraft: Any, copy: Any, who: Any) -> None:
    """A wrong password and a missing role decide nothing and are on record; then the account's id stands in it."""
    root = copy("failing")
    right, reader = who(root, "approver"), who(root, "auditor", login="rob")
    wrong = Path(str(right[-1])).with_name("wrong")
    wrong.write_text("not the right sentence")
    wrong.chmod(0o600)
    rest = ("--hold", "--reason", "gate", "--record-only", "--json", "--project", root)
    assert error(redraft("promote", 1, *right[:-1], wrong, *rest)) == "sign_in"
    assert error(redraft("promote", 1, *reader, *rest)) == "sign_in.role"
    project = Project.open(root)
    assert project.ledger.rows("decision") == []
    assert [e["payload"]["why"] for e in project.ledger.rows("audit_event", kind="account.refused")] == [
        "password", "role",
    ]  # fmt: skip
    made = answer(redraft("promote", 1, *right, *rest))
    (row,) = project.ledger.rows("decision")
    account = next(a for a in project.ledger.rows("account") if a["roles"] == ["approver"])
    assert (row["identity"], row["by_whom"]) == ("authenticated", account["account_id"])
    assert decisions.verified(project, 1, made["decision_id"]) == row


def insert(project: Project, **changes: Any) -> None:
    row = {
        "decision_id": "d1", "round": 1, "kind": "hold", "model_digest": "m" * 64, "by_whom": "QA",
        "identity": "asserted", "reason": "x", "gate": {}, "at": NOW, **changes,
    }  # fmt: skip
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("decision", row)


def test_a_decision_that_nobody_has_shown_is_not_carried_out(copy: Any) -> None:
    """Records from before there were accounts stand where they were carried out, and move nothing any more."""
    project = Project.open(copy("failing"))
    insert(project)
    with pytest.raises(StateError, match="nobody has shown it"):
        decisions.verified(project, 1, "d1")
    with project.ledger.tx("test", NOW) as tx:
        move_round(tx, 1, RoundState.HELD)
    assert decisions.verified(project, 1, "d1")["identity"] == "asserted"


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"identity": "authenticated"}, "no approver"), ({"identity": "policy", "by_whom": "policy: x"}, "policy")],
)
def test_a_forged_decision_is_not_acted_on(copy: Any, changes: dict[str, str], what: str) -> None:
    """An account that is none, and a policy that the project does not have."""
    project = Project.open(copy("failing"))
    insert(project, **changes)
    with pytest.raises(IntegrityError, match=what):
        decisions.verified(project, 1, "d1")


def test_an_id_that_is_not_in_the_ledger_decides_nothing(copy: Any) -> None:
    """What a resume carries is asked of the ledger."""
    with pytest.raises(StateError, match="no decision made-up"):
        decisions.verified(Project.open(copy("failing")), 1, "made-up")


def test_a_role_that_was_taken_away_later_does_not_undo_a_decision(redraft: Any, copy: Any, who: Any) -> None:
    """The approver of then is removed; the decision stands."""
    root = copy("failing")
    rest = ("--hold", "--reason", "gate", "--record-only", "--json", "--project", root)
    made = answer(redraft("promote", 1, *who(root, "approver"), *rest))
    assert redraft("user", "remove", "quentin", "--forget", "--project", root).code == 0
    assert decisions.verified(Project.open(root), 1, made["decision_id"])


def test_a_policy_decides_only_where_the_project_says_so(copy: Any) -> None:
    """People's work is decided by people, unless gate.approval is automatic; the record then names the policy."""
    root = copy("failing")
    with pytest.raises(StateError, match="decided by a person"):
        decisions.decide_by_policy(Project.open(root), 1, now=NOW)
    path = root / "project.yaml"
    path.write_text(path.read_text().replace("gate:\n", "gate:\n  approval: automatic\n", 1))
    project = Project.open(root)
    made = decisions.decide_by_policy(project, 1, now=NOW)
    row = decisions.verified(project, 1, made)
    assert (row["kind"], row["identity"], row["by_whom"]) == ("hold", "policy", "policy: follow the gate")


def test_only_approvers_decide(copy: Any) -> None:
    """The kernel asks for the role itself, whoever calls."""
    project = Project.open(copy("failing"))
    with pytest.raises(SignInError, match="role approver"):
        decisions.decide(project, 1, approve=False, by=Identity("ac-1", ("ops",), "password"), reason="x", now=NOW)
    assert decisions.decide(project, 1, approve=False, by=APPROVER, reason="x", now=NOW)
