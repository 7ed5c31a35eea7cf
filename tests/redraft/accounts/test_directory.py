"""Accounts in two databases: nothing personal in the chain, and every interruption is repaired by the same command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from redraft.accounts import directory, sessions
from redraft.accounts.sign_in import authenticate
from redraft.desk.store import credential, web_session
from redraft.errors import SignInError, StateError, UsageError
from redraft.ledger import Ledger, verify_ledger
from redraft.project import Project

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
PASSWORD = "a long enough sentence"


def sign_in(project: Project, login: str = "anna", password: str = PASSWORD) -> directory.Account:
    return authenticate(project, login, password, address="10.0.0.1", now=NOW)


def test_an_account_signs_in_and_is_listed(project: Project, add: Callable[..., Any]) -> None:
    """It has a random id, the roles in their order, its reader; the login's case does not matter."""
    account = add("Anna", "approver", "reader")
    assert re.fullmatch(r"ac-[0-9a-f]{12}", account.account_id)
    assert (account.login, account.roles, account.reader_id) == ("anna", ("reader", "approver"), "reader-1")
    assert sign_in(project, "ANNA").account_id == account.account_id
    assert directory.everybody(project) == [account]


def test_neither_login_nor_name_nor_password_is_in_the_chain(project: Project, add: Callable[..., Any]) -> None:
    """Adding, signing in, being refused, a new password and a removal leave ids and tags in the ledger only."""
    add("anna.meier", name="Dr. Anna Meier")
    sign_in(project, "anna.meier")
    for login, password in (("anna.meier", "wrong wrong wrong"), ("i typed my password here", "x")):
        with pytest.raises(SignInError):
            sign_in(project, login, password)
    directory.set_password(project, "anna.meier", "another long sentence", now=NOW)
    directory.remove(project, "anna.meier", now=NOW, forget=True)
    chain = json.dumps(project.ledger.rows("audit_event")).lower()
    assert not [word for word in ("meier", "sentence", "wrong wrong", "typed my") if word in chain]
    assert project.ledger.rows("reader_identity") == [] and verify_ledger(project.ledger).broken == []
    kept = (project.state / "desk.db").read_bytes() + (project.state / "desk.db-wal").read_bytes()
    assert b"typed my" not in kept and b"sentence" not in kept


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"roles": ("reader",), "reader_id": None}, "--reader"),
        ({"roles": ("ops",), "reader_id": "reader-1"}, "--reader"),
        ({"roles": (), "reader_id": None}, "needs a role"), ({"roles": ("king",), "reader_id": None}, "no role king"),
        ({"roles": ("reader",), "reader_id": "reader-9"}, "names no reader-9"), ({"name": "  "}, "person's name"),
        ({"password": "short"}, "12 characters"), ({"password": "a" * 2000}, "1024 characters"),
        ({"password": "aaaaaaaaaaaaaaaa"}, "different"), ({"password": "carl.oberst-12"}, "login"),
    ],
)  # fmt: skip
def test_what_is_no_account_is_refused_and_nothing_is_kept(project: Project, changes: Any, what: str) -> None:
    """The error names the rule; neither database has a row of it."""
    settings = {"name": "Carl", "roles": ("ops",), "reader_id": None, "password": PASSWORD, "now": NOW, **changes}
    with pytest.raises(UsageError, match=what):
        directory.add(project, "carl.oberst", **settings)
    assert project.ledger.rows("account") == []
    with project.desk.read() as connection:
        assert connection.execute(select(credential)).all() == []


@pytest.mark.parametrize("login", ["", " ", "a b", "ä", "-x", "x" * 129, "a/b", "a\nb"])
def test_what_is_no_login_is_refused_without_quoting_it(project: Project, login: str) -> None:
    """A login is plain letters, digits and a few signs."""
    with pytest.raises(UsageError, match=r"^This is no login\.") as raised:
        directory.normal_login(login)
    assert len(login) < 3 or login not in str(raised.value)


def test_a_login_and_a_reader_belong_to_one_account(project: Project, add: Callable[..., Any]) -> None:
    """A second account for either is refused, until the first is removed; then it is another account."""
    first = add("anna")
    with pytest.raises(StateError, match="login belongs"):
        add("anna", "ops")
    with pytest.raises(StateError, match="reader-1 has the account"):
        add("berta")
    directory.remove(project, "anna", now=NOW)
    assert add("anna").account_id != first.account_id


def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next write to the ledger never happens, as after kill -9."""

    def broken(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "tx", broken)


def test_an_interrupted_adding_lets_nobody_in_and_is_completed(
    project: Project, add: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash between the databases the login is good for nothing; the same command makes the account."""
    with monkeypatch.context() as patch:
        crash(patch)
        with pytest.raises(KeyboardInterrupt):
            add("anna")
    with pytest.raises(SignInError):
        sign_in(project)
    account = add("anna", password="quite another sentence")
    assert sign_in(project, password="quite another sentence").account_id == account.account_id
    assert len(project.ledger.rows("account")) == 1


def test_an_interrupted_adding_can_be_taken_back(
    project: Project, add: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`remove` of a login whose account was never made removes the login."""
    with monkeypatch.context() as patch:
        crash(patch)
        with pytest.raises(KeyboardInterrupt):
            add("anna")
    directory.remove(project, "anna", now=NOW)
    with project.desk.read() as connection:
        assert connection.execute(select(credential)).all() == []


def test_an_interrupted_removal_locks_out_and_is_completed(
    project: Project, add: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash between the databases nobody gets in; the same command, or adding again, clears the rest."""
    account = add("anna")
    sessions.begin(project.desk, account.account_id, "password", now=NOW, hours=1)
    with monkeypatch.context() as patch:
        patch.setattr(directory, "_forget_login", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            directory.remove(project, "anna", now=NOW)
    with pytest.raises(SignInError):
        sign_in(project)
    directory.remove(project, "anna", now=NOW)
    with project.desk.read() as connection:
        assert connection.execute(select(credential)).all() == connection.execute(select(web_session)).all() == []
    assert [row["state"] for row in project.ledger.rows("account")] == ["removed"]


def test_a_new_password_and_a_removal_end_every_session(project: Project, add: Callable[..., Any]) -> None:
    """Sessions of the account end; those of others stay."""
    anna, other = add("anna"), add("olga", "ops")
    tokens = [sessions.begin(project.desk, a.account_id, "password", now=NOW, hours=1)[0] for a in (anna, anna, other)]

    def live() -> list[bool]:
        return [sessions.find(project.desk, token, now=NOW, idle_minutes=5) is not None for token in tokens]

    assert live() == [True, True, True]
    directory.set_password(project, "anna", "another long sentence", now=NOW)
    assert live() == [False, False, True]
    with pytest.raises(SignInError):
        sign_in(project)
    tokens[0] = sessions.begin(project.desk, anna.account_id, "password", now=NOW, hours=1)[0]
    directory.remove(project, "anna", now=NOW)
    assert live() == [False, False, True]


def test_an_account_gets_a_login_again_after_the_desk_is_lost(project: Project, add: Callable[..., Any]) -> None:
    """The ledger's accounts outlive the desk database: a new password names the account it is for."""
    account = add("anna")
    project.desk.engine.dispose()
    for path in project.state.glob("desk.db*"):
        path.unlink()
    again = Project.open(project.root)
    assert [a.login for a in directory.everybody(again)] == [None]
    with pytest.raises(StateError, match="no account with this login"):
        directory.set_password(again, "anna", PASSWORD, now=NOW)
    directory.set_password(again, "anna", PASSWORD, now=NOW, account_id=account.account_id)
    assert sign_in(again).account_id == account.account_id
    with pytest.raises(StateError, match="in use"):
        directory.set_password(again, "berta", PASSWORD, now=NOW, account_id=account.account_id)


def test_roles_change_and_are_on_record(project: Project, add: Callable[..., Any]) -> None:
    """New roles replace the old ones; a reader's role needs a reader nobody else is."""
    add("anna")
    add("olga", "ops")
    assert directory.set_roles(project, "olga", roles=("auditor",), reader_id=None, now=NOW).roles == ("auditor",)
    with pytest.raises(StateError, match="reader-1 has the account"):
        directory.set_roles(project, "olga", roles=("reader",), reader_id="reader-1", now=NOW)
    rows = project.ledger.rows("audit_event", kind="account.update")
    assert [row["payload"]["row"]["roles"] for row in rows] == [["auditor"]]
