"""Signing in: by password, or by the word of a trusted proxy. Each one, and each refusal, is an audit event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update

from redraft.accounts import directory, throttle
from redraft.accounts.passwords import check_password, out_of_date, rehash
from redraft.desk.store import credential
from redraft.errors import RedraftError, SignInError, TooManyAttempts, UsageError
from redraft.ledger.values import plain
from redraft.project import Project


@dataclass(frozen=True)
class Identity:
    """Somebody who has shown who they are; `how` is `password` or `proxy`. Made by this module and by sessions."""

    account_id: str
    roles: tuple[str, ...]
    how: str

    def may(self, *roles: str) -> bool:
        """Whether one of these roles is theirs."""
        return any(role in self.roles for role in roles)


def authenticate(
    project: Project, login: str, password: str, *, address: str, now: datetime, act: str = "sign_in"
) -> directory.Account:
    """The account of a login and its password.

    Parameters
    ----------
    address : str
        Where it comes from, for the limit of attempts; kept for 15 minutes and not recorded.
    act : str
        What it is for, in the audit event.

    Raises
    ------
    SignInError
        Unknown login, no password, wrong password: in the same words and after the same time.
    TooManyAttempts
        Too many were refused; the right password is refused too until the time is over.
    """
    desk, tag = project.desk, project.pseudonyms.login_tag(login)
    turn = throttle.take(desk, tag, address, limit=project.config.web.sign_in_attempts, now=now)
    if not turn.allowed:
        if turn.first:
            _refused(project, {"login_tag": tag}, "too_many", act, now)
        raise TooManyAttempts(
            "Too many sign-ins were refused.", f"Try again in {-(-turn.wait_seconds // 60)} min.", turn.wait_seconds
        )
    row, account = None, None
    try:
        wanted = directory.normal_login(login)
    except UsageError:
        pass
    else:
        with desk.read() as connection:
            row = connection.execute(select(credential).where(credential.c.login == wanted)).first()
        account = None if row is None else directory.by_id(project, row.account_id)
    kept = row.password_hash if row is not None and account is not None and account.active else None
    if not check_password(kept, password) or row is None or account is None:
        who = {"login_tag": tag} if account is None else {"account_id": account.account_id}
        _refused(project, who, "password", act, now)
        raise SignInError("The login or the password is wrong.", "Try again; ops can set a new password.")
    throttle.forgive(desk, tag, turn.attempt_id)
    if out_of_date(row.password_hash):
        with desk.write() as connection:
            connection.execute(
                update(credential)
                .where((credential.c.login == row.login) & (credential.c.password_hash == row.password_hash))
                .values(password_hash=rehash(password), changed_at=plain(now))
            )
    _event(project, "account.signed_in", {"account_id": account.account_id, "how": "password", "for": act}, now)
    return account


def vouched_for(project: Project, login: str, *, address: str, now: datetime) -> directory.Account:
    """The account that a trusted proxy names. SignInError where there is none; the caller has checked the proxy."""
    try:
        account = directory.by_login(project, login)
    except RedraftError as error:
        tag = project.pseudonyms.login_tag(login)
        limit = project.config.web.sign_in_attempts
        turn = throttle.take(project.desk, tag, address, limit=limit, now=now)
        if turn.allowed or turn.first:
            _refused(project, {"login_tag": tag}, "unknown_to_redraft", "proxy", now)
        raise SignInError(
            "You are signed in at your hospital, but have no account here.", "Ask ops for one (`redraft user add`)."
        ) from error
    _event(project, "account.signed_in", {"account_id": account.account_id, "how": "proxy", "for": "sign_in"}, now)
    return account


def signed_out(project: Project, account_id: str, now: datetime) -> None:
    """Record that somebody signed out."""
    _event(project, "account.signed_out", {"account_id": account_id}, now)


def prove(project: Project, login: str, password: str, *, roles: tuple[str, ...], act: str, now: datetime) -> Identity:
    """Authenticate on the command line for one act that needs one of these roles. SignInError without it."""
    account = authenticate(project, login, password, address="command line", now=now, act=act)
    if not account.may(*roles):
        _refused(project, {"account_id": account.account_id}, "role", act, now)
        raise SignInError(
            f"The account has no role that may do this ({' or '.join(roles)}).",
            "Ask somebody who has, or ops to change the roles.",
            code="sign_in.role",
        )
    return Identity(account.account_id, account.roles, "password")


def _refused(project: Project, who: dict[str, str], why: str, act: str, now: datetime) -> None:
    _event(project, "account.refused", {**who, "why": why, "for": act}, now)


def _event(project: Project, kind: str, payload: dict[str, str], now: datetime) -> None:
    with project.ledger.tx(f"account:{payload.get('account_id', 'unknown')}", now) as tx:
        tx.event(kind, payload)
