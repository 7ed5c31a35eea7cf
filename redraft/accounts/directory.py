"""Accounts: added, changed, removed and listed.

Two databases cannot change as one. The login is written first and the ledger after it: a login whose account the ledger
does not have can do nothing, and the same command run again completes it. A removal goes the other way round.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from redraft.accounts import sessions
from redraft.accounts.passwords import hash_password
from redraft.desk.store import credential
from redraft.errors import StateError, UsageError
from redraft.ledger.values import plain
from redraft.project import Project

ROLES = ("reader", "reviewer", "approver", "ops", "auditor")
_LOGIN = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}")
_OPEN = ("DISPATCHED", "RETURNED_TO_READER", "CARRIED_OVER")


@dataclass(frozen=True)
class Account:
    """One account of the ledger. `login` is None where only the ledger was asked, `name` where it was erased."""

    account_id: str
    reader_id: str | None
    roles: tuple[str, ...]
    active: bool
    login: str | None = None
    name: str | None = None
    has_password: bool = False

    def may(self, *roles: str) -> bool:
        """Whether the account is active and has one of these roles."""
        return self.active and any(role in self.roles for role in roles)


def normal_login(text: str) -> str:
    """A login as it is kept: lower case. UsageError for what is none; it is not quoted, it may be a password."""
    login = text.strip().lower()
    if not _LOGIN.fullmatch(login):
        raise UsageError(
            "This is no login.", "Take letters a-z, digits and . _ @ + -, beginning with a letter or a digit."
        )
    return login


def check_new(project: Project, login: str, *, name: str, roles: Iterable[str], reader_id: str | None) -> None:
    """Raise what `add` would, before a password is asked for."""
    login = normal_login(login)
    if not name.strip():
        raise UsageError("An account needs the person's name.", "Give --name.")
    _checked_roles(project, roles, reader_id)
    other = by_reader(project, reader_id) if reader_id else None
    if other is not None and other.login != login:
        raise StateError(
            f"The reader {reader_id} has the account {other.account_id} already.",
            "Remove that one first, or give this account another reader.",
        )
    with project.desk.read() as connection:
        row = connection.execute(select(credential).where(credential.c.login == login)).first()
    known = None if row is None else by_id(project, row.account_id)
    if known is not None and known.active:
        raise StateError(f"The login belongs to the account {known.account_id} already.", "See `redraft user list`.")


def add(
    project: Project,
    login: str,
    *,
    name: str,
    roles: Iterable[str],
    reader_id: str | None,
    password: str | None,
    now: datetime,
    added_by: str = "cli",
) -> Account:
    """Add an account, or complete one whose adding was interrupted.

    Parameters
    ----------
    password : str or None
        None for accounts that a trusted proxy vouches for.

    Raises
    ------
    UsageError
        Wrong roles, a reader that dispatch.readers does not name, a weak password.
    StateError
        The login is taken, or the reader has an account.
    """
    roles = tuple(roles)
    check_new(project, login, name=name, roles=roles, reader_id=reader_id)
    login, name = normal_login(login), name.strip()
    chosen = _checked_roles(project, roles, reader_id)
    hashed = None if password is None else hash_password(password, login=login)
    desk = project.desk
    with desk.write() as connection:
        row = connection.execute(select(credential).where(credential.c.login == login)).first()
        known = None if row is None else by_id(project, row.account_id)
        if known is not None and known.active:
            raise StateError(
                f"The login belongs to the account {known.account_id} already.", "See `redraft user list`."
            )
        if known is not None:  # a removal that was interrupted
            _forget_login(connection, known.account_id)
            row = None
        account_id = "ac-" + secrets.token_hex(6) if row is None else str(row.account_id)
        values = {"password_hash": hashed, "changed_at": plain(now)}
        if row is None:
            connection.execute(insert(credential).values(login=login, account_id=account_id, **values))
        else:
            connection.execute(update(credential).where(credential.c.login == login).values(**values))
    with project.ledger.tx(f"user:{added_by}", now) as tx:
        tx.insert(
            "account",
            {
                "account_id": account_id,
                "reader_id": reader_id,
                "roles": list(chosen),
                "state": "active",
                "added_at": now,
                "added_by": added_by,
            },
        )
        tx.add_identity(account_id, name)
    return Account(account_id, reader_id, chosen, True, login, name, hashed is not None)


def set_roles(
    project: Project, login: str, *, roles: Iterable[str], reader_id: str | None, now: datetime, changed_by: str = "cli"
) -> Account:
    """Give an account other roles; they hold from its next request on."""
    account = by_login(project, login)
    chosen = _checked_roles(project, roles, reader_id)
    other = by_reader(project, reader_id) if reader_id else None
    if other is not None and other.account_id != account.account_id:
        raise StateError(f"The reader {reader_id} has the account {other.account_id} already.", "Remove that first.")
    with project.ledger.tx(f"user:{changed_by}", now) as tx:
        tx.update("account", {"account_id": account.account_id}, {"roles": list(chosen), "reader_id": reader_id})
    return by_login(project, login)


def set_password(
    project: Project, login: str, password: str, *, now: datetime, account_id: str | None = None
) -> Account:
    """Set an account's password and end its sessions.

    `account_id` gives an account of the ledger a login again, where the desk database was lost.
    """
    login = normal_login(login)
    hashed = hash_password(password, login=login)
    desk = project.desk
    if account_id is not None:
        account = by_id(project, account_id)
        if account is None or not account.active:
            raise StateError(f"There is no active account {account_id}.", "See `redraft user list`.")
        with desk.write() as connection:
            taken = connection.execute(
                select(credential).where((credential.c.login == login) | (credential.c.account_id == account_id))
            ).first()
            if taken is not None and (taken.login, taken.account_id) != (login, account_id):
                raise StateError("The login or the account is in use already.", "See `redraft user list`.")
            if taken is None:
                connection.execute(insert(credential).values(login=login, account_id=account_id, changed_at=plain(now)))
    account = by_login(project, login)
    with desk.write() as connection:
        connection.execute(
            update(credential).where(credential.c.login == login).values(password_hash=hashed, changed_at=plain(now))
        )
        sessions.end_all(connection, account.account_id)
    with project.ledger.tx("user:cli", now) as tx:
        tx.event("account.password_changed", {"account_id": account.account_id})
    return by_login(project, login)


def remove(
    project: Project, login: str, *, now: datetime, forget: bool = False, removed_by: str = "cli"
) -> tuple[Account, list[str]]:
    """Remove an account, end its sessions, and name the assignments that are open with its reader.

    The ledger keeps the account's row; `forget` erases the person's name from it too.
    """
    login = normal_login(login)
    with project.desk.read() as connection:
        row = connection.execute(select(credential).where(credential.c.login == login)).first()
    account = None if row is None else by_id(project, row.account_id)
    if row is not None and account is None:  # an adding that was interrupted
        with project.desk.write() as connection:
            _forget_login(connection, row.account_id)
        return Account(row.account_id, None, (), False, login), []
    if account is None:
        raise StateError("There is no account with this login.", "See `redraft user list`.")
    with project.ledger.tx(f"user:{removed_by}", now) as tx:
        current = tx.get("account", account_id=account.account_id)
        if current["state"] == "active":
            tx.update("account", {"account_id": account.account_id}, {"state": "removed"})
        if forget and tx.one("reader_identity", reader_id=account.account_id):
            tx.erase_identity(account.account_id)
    with project.desk.write() as connection:
        _forget_login(connection, account.account_id)
    return account, open_work(project, account.reader_id)


def open_work(project: Project, reader_id: str | None) -> list[str]:
    """Assignments that wait for a reader."""
    if reader_id is None:
        return []
    rows = project.ledger.rows("assignment", reader_id=reader_id)
    return [str(row["assignment_id"]) for row in rows if row["state"] in _OPEN]


def by_login(project: Project, login: str) -> Account:
    """The active account of a login. StateError where there is none."""
    login = normal_login(login)
    with project.desk.read() as connection:
        row = connection.execute(select(credential).where(credential.c.login == login)).first()
    account = None if row is None else by_id(project, row.account_id)
    if row is None or account is None or not account.active:
        raise StateError(
            "There is no account with this login.", "See `redraft user list`; add it with `redraft user add`."
        )
    return _with_login(account, row)


def by_id(project: Project, account_id: str) -> Account | None:
    """An account of the ledger, removed ones too; without its login."""
    row = project.ledger.one("account", account_id=account_id)
    if row is None:
        return None
    identity = project.ledger.one("reader_identity", reader_id=account_id)
    return _account(row, identity)


def by_reader(project: Project, reader_id: str) -> Account | None:
    """The active account of a reader."""
    return next((a for a in everybody(project) if a.active and a.reader_id == reader_id), None)


def everybody(project: Project) -> list[Account]:
    """All accounts, removed ones too, in the order they were added."""
    names = {row["reader_id"]: row for row in project.ledger.rows("reader_identity")}
    with project.desk.read() as connection:
        logins = {row.account_id: row for row in connection.execute(select(credential))}
    rows = sorted(project.ledger.rows("account"), key=lambda row: (row["added_at"], row["account_id"]))
    found = []
    for row in rows:
        account = _account(row, names.get(row["account_id"]))
        known = logins.get(row["account_id"])
        found.append(account if known is None else _with_login(account, known))
    return found


def _account(row: dict[str, Any], identity: dict[str, Any] | None) -> Account:
    name = None if identity is None else str(identity["display_name"])
    return Account(row["account_id"], row["reader_id"], tuple(row["roles"]), row["state"] == "active", None, name)


def _with_login(account: Account, row: Any) -> Account:
    return Account(
        account.account_id, account.reader_id, account.roles, account.active, row.login, account.name,
        row.password_hash is not None,
    )  # fmt: skip


def _checked_roles(project: Project, roles: Iterable[str], reader_id: str | None) -> tuple[str, ...]:
    wanted = set(roles)
    if unknown := wanted - set(ROLES):
        raise UsageError(f"There is no role {', '.join(sorted(unknown))}.", f"Roles: {', '.join(ROLES)}.")
    if not wanted:
        raise UsageError("An account needs a role.", f"Give --role; roles: {', '.join(ROLES)}.")
    if ("reader" in wanted) != (reader_id is not None):
        raise UsageError("The role reader and --reader belong together.", "Give both or neither.")
    known = [reader.id for reader in project.config.dispatch.readers]
    if reader_id is not None and reader_id not in known:
        raise UsageError(f"dispatch.readers names no {reader_id}.", f"It names: {', '.join(known)}.")
    return tuple(role for role in ROLES if role in wanted)


def _forget_login(connection: Any, account_id: str) -> None:
    sessions.end_all(connection, account_id)
    connection.execute(delete(credential).where(credential.c.account_id == account_id))
