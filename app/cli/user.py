"""`redraft user`: who may sign in, and as what."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table
from app.cli.identity import PasswordFileOption, read_password

if TYPE_CHECKING:
    from redraft.accounts import Account

app = typer.Typer(help="Accounts: who may sign in, and as what.", no_args_is_help=True)
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="reader, reviewer, approver, ops or auditor; may be given several times."),
]


@app.command("add")
def add(
    login: Annotated[str, typer.Argument(help="What is typed at sign-in.")],
    name: Annotated[str, typer.Option(help="The person's name, shown on pages.")],
    role: Roles = None,
    reader: Annotated[str | None, typer.Option(help="With the role reader: which of dispatch.readers this is.")] = None,
    password_file: PasswordFileOption = None,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Sign in through the trusted proxy only (web.proxy).")
    ] = False,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Add an account. Running it again after an interruption completes it."""
    from redraft.accounts import directory
    from redraft.errors import UsageError

    if no_password and password_file:
        raise UsageError("--no-password and --password-file exclude each other.", "Give one of them.")
    project = open_project(project_dir)
    directory.check_new(project, login, name=name, roles=role or (), reader_id=reader)
    password = None if no_password else read_password(project, password_file, "New password: ", twice=True)
    account = directory.add(
        project, login, name=name, roles=role or (), reader_id=reader, password=password, now=datetime.now(UTC)
    )
    _say(account, as_json, f"{account.account_id} may sign in as {account.login} ({', '.join(account.roles)}).")


@app.command("list")
def list_(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """Every account, removed ones too."""
    from redraft.accounts import directory

    accounts = directory.everybody(open_project(project_dir))
    if as_json:
        print_json([_row(account) for account in accounts])
        return
    print_table(
        ["account", "login", "name", "roles", "reader", "state", "password"],
        [
            [
                a.account_id, a.login, a.name, ", ".join(a.roles), a.reader_id, "active" if a.active else "removed",
                "yes" if a.has_password else "no",
            ]
            for a in accounts
        ],
    )  # fmt: skip


@app.command("roles")
def roles(
    login: str,
    role: Roles = None,
    reader: Annotated[str | None, typer.Option(help="With the role reader: which of dispatch.readers this is.")] = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Give an account these roles instead of those it has."""
    from redraft.accounts import directory

    project = open_project(project_dir)
    account = directory.set_roles(project, login, roles=role or (), reader_id=reader, now=datetime.now(UTC))
    _say(account, as_json, f"{account.account_id} is now {', '.join(account.roles)}.")


@app.command("password")
def password(
    login: str,
    account: Annotated[
        str | None, typer.Option(help="Give this account the login, where the desk database was lost.")
    ] = None,
    password_file: PasswordFileOption = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Set an account's password; its sessions end."""
    from redraft.accounts import directory

    project = open_project(project_dir)
    if account is None:
        directory.by_login(project, login)
    new = read_password(project, password_file, "New password: ", twice=True)
    changed = directory.set_password(project, login, new, now=datetime.now(UTC), account_id=account)
    _say(changed, as_json, f"{changed.account_id} has a new password; its sessions are ended.")


@app.command("remove")
def remove(
    login: str,
    forget: Annotated[bool, typer.Option("--forget", help="Erase the person's name from the ledger too.")] = False,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Remove an account: its sessions end at once. Work that is open with its reader is named."""
    from redraft.accounts import directory

    project = open_project(project_dir)
    account, work = directory.remove(project, login, now=datetime.now(UTC), forget=forget)
    if as_json:
        print_json({"account_id": account.account_id, "reader_id": account.reader_id, "open_work": work})
        return
    print(f"{account.account_id} is removed, its sessions are ended.")
    if work:
        print(f"Open with {account.reader_id}: {len(work)} assignments; the next sweep gives them to other readers.")
        for assignment_id in work:
            print(f"  {assignment_id}")


@app.command("pseudonym")
def pseudonym(
    name: Annotated[str, typer.Argument(help="A person's name as DICOM writes it, such as SMITH^JOHN.")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Print the pseudonym of a person's name, for dispatch.readers[].reader_of_record. Nothing is kept."""
    found = open_project(project_dir).pseudonyms.person_id(name)
    if as_json:
        print_json({"pseudonym": found})
        return
    print(found)


def _row(account: Account) -> dict[str, Any]:
    return {
        "account_id": account.account_id, "login": account.login, "name": account.name, "roles": list(account.roles),
        "reader_id": account.reader_id, "state": "active" if account.active else "removed",
        "has_password": account.has_password,
    }  # fmt: skip


def _say(account: Account, as_json: bool, text: str) -> None:
    if as_json:
        print_json(_row(account))
    else:
        print(text)
