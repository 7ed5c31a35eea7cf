"""Passwords and the limit of attempts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import argon2
import pytest
from sqlalchemy import select, update

from redraft.accounts import passwords
from redraft.accounts.sign_in import authenticate, prove
from redraft.accounts.throttle import SHARED
from redraft.desk.store import attempt, credential
from redraft.errors import SignInError, TooManyAttempts
from redraft.project import Project

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
PASSWORD = "a long enough sentence"
LIMIT = 8


def refusals(project: Project, why: str | None = None) -> list[dict[str, Any]]:
    rows = [row["payload"] for row in project.ledger.rows("audit_event", kind="account.refused")]
    return [row for row in rows if why is None or row["why"] == why]


def fail(project: Project, times: int, login: str = "anna", address: str = "10.0.0.1", now: datetime = NOW) -> None:
    for _ in range(times):
        with pytest.raises(SignInError, match="login or the password is wrong"):
            authenticate(project, login, "wrong wrong wrong", address=address, now=now)


def test_hashes_are_argon2id_with_todays_parameters() -> None:
    """argon2-cffi itself verifies the hash; two of one password differ; the parameters are RFC 9106's."""
    first, second = (passwords.hash_password(PASSWORD, login="anna") for _ in range(2))
    assert first != second and argon2.PasswordHasher().verify(first, PASSWORD)
    found = argon2.extract_parameters(first)
    assert (found.type, found.memory_cost, found.time_cost) == (argon2.Type.ID, 65536, 3)
    assert argon2.extract_parameters(passwords._NOBODY) == found  # an unknown login costs as much
    assert not passwords.check_password(passwords._NOBODY, "") and not passwords.check_password(None, "")


def test_the_same_characters_in_another_coding_are_the_same_password() -> None:
    """A composed and a decomposed umlaut are one."""
    kept = passwords.hash_password("gr\u00fcne gr\u00fcnde", login="anna")
    assert passwords.check_password(kept, "gru\u0308ne gru\u0308nde")


def test_a_hash_of_older_parameters_is_made_again_at_sign_in(project: Project, add: Callable[..., Any]) -> None:
    """The first right password after a change of parameters replaces the hash; a wrong one does not."""
    add("anna")
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8192).hash(PASSWORD)

    def kept() -> str:
        with project.desk.read() as connection:
            return str(connection.execute(select(credential.c.password_hash)).scalar_one())

    with project.desk.write() as connection:
        connection.execute(update(credential).values(password_hash=weak))
    fail(project, 1)
    assert kept() == weak
    authenticate(project, "anna", PASSWORD, address="10.0.0.1", now=NOW)
    assert not passwords.out_of_date(kept()) and passwords.check_password(kept(), PASSWORD)


def test_every_refusal_sounds_the_same(project: Project, add: Callable[..., Any]) -> None:
    """An unknown login, a wrong password, an account without one and an empty one are told in the same words."""
    add("anna")
    add("olga", "ops", password=None)
    words = set()
    for login, password in (("nobody", PASSWORD), ("anna", "wrong wrong wrong"), ("olga", ""), ("", ""), ("a b", "x")):
        with pytest.raises(SignInError) as raised:
            authenticate(project, login, password, address="10.0.0.1", now=NOW)
        words.add((raised.value.what, raised.value.code))
    assert len(words) == 1 and len(refusals(project)) == 5


def test_after_so_many_wrong_passwords_the_right_one_waits_too(project: Project, add: Callable[..., Any]) -> None:
    """The limit holds per login from any address, ends after 15 minutes, and is on record once."""
    add("anna")
    for number in range(LIMIT):
        fail(project, 1, address=f"10.0.0.{number}")
    for _ in range(3):
        with pytest.raises(TooManyAttempts) as raised:
            authenticate(project, "anna", PASSWORD, address="10.9.9.9", now=NOW + timedelta(minutes=5))
        assert 9 * 60 < raised.value.wait_seconds <= 16 * 60
    assert len(refusals(project, "too_many")) == 1
    later = NOW + timedelta(minutes=21)
    assert authenticate(project, "anna", PASSWORD, address="10.9.9.9", now=later).login is None


def test_one_address_cannot_try_many_logins(project: Project, add: Callable[..., Any]) -> None:
    """An address that many share may mistype some times as much; then it waits, and other addresses do not."""
    add("anna")
    for number in range(LIMIT * SHARED):
        fail(project, 1, login=f"guess{number}")
    with pytest.raises(TooManyAttempts):
        authenticate(project, "anna", PASSWORD, address="10.0.0.1", now=NOW)
    authenticate(project, "anna", PASSWORD, address="10.0.0.2", now=NOW)


def test_the_right_password_forgives_the_logins_mistakes_only(project: Project, add: Callable[..., Any]) -> None:
    """Signing in clears what was mistyped for this login; an address's guesses at others still count."""
    add("anna")
    fail(project, LIMIT - 2)
    authenticate(project, "anna", PASSWORD, address="10.0.0.1", now=NOW)
    fail(project, LIMIT - 2)
    authenticate(project, "anna", PASSWORD, address="10.0.0.1", now=NOW)
    for number in range(SHARED):
        fail(project, LIMIT - 1, login=f"other{number}")
    authenticate(project, "anna", PASSWORD, address="10.0.0.1", now=NOW)
    for number in range(SHARED):
        fail(project, 1, login=f"other{number}")
    with pytest.raises(TooManyAttempts):
        authenticate(project, "anna", PASSWORD, address="10.0.0.1", now=NOW)


def test_attempts_side_by_side_are_counted(project: Project, add: Callable[..., Any]) -> None:
    """Forty at once get no more tries than forty in a row."""
    add("anna")

    def attempt_one(_: int) -> str:
        try:
            authenticate(project, "anna", "wrong wrong wrong", address="10.0.0.1", now=NOW)
        except TooManyAttempts:
            return "waits"
        except SignInError:
            return "tried"
        return "in"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt_one, range(40)))
    assert (outcomes.count("tried"), outcomes.count("waits")) == (LIMIT, 40 - LIMIT)


def test_what_was_typed_as_login_is_not_kept(project: Project) -> None:
    """A password in the login's field is neither in the desk nor in the chain."""
    fail(project, 1, login="my secret words")
    with project.desk.read() as connection:
        (row,) = connection.execute(select(attempt)).all()
    assert row.login == project.pseudonyms.login_tag("my secret words") == refusals(project)[0]["login_tag"]


def test_a_proof_needs_the_role(project: Project, add: Callable[..., Any]) -> None:
    """The right password of an account without the role is refused, on record by its id; with the role it is good."""
    anna = add("anna")
    with pytest.raises(SignInError) as raised:
        prove(project, "anna", PASSWORD, roles=("approver",), act="decision", now=NOW)
    assert raised.value.code == "sign_in.role"
    assert refusals(project, "role") == [{"account_id": anna.account_id, "why": "role", "for": "decision"}]
    add("olga", "approver", "ops")
    assert prove(project, "olga", PASSWORD, roles=("approver",), act="decision", now=NOW).may("approver")
