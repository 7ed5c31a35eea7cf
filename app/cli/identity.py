"""Who gives a command that is on record: their password, from the terminal or from a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from redraft.accounts import Identity
    from redraft.project import Project

PasswordFileOption = Annotated[
    str | None,
    typer.Option(
        "--password-file", metavar="FILE", envvar="REDRAFT_PASSWORD_FILE", show_default="ask",
        help="File that holds the password (mode 0600, outside the project), or - for standard input.",
    ),
]  # fmt: skip


def prove(project: Project, login: str, password_file: str | None, *, roles: tuple[str, ...], act: str) -> Identity:
    """Have the caller show that they are `login` and have one of these roles; each try is an audit event."""
    from datetime import UTC, datetime

    from redraft.accounts import sign_in
    from redraft.errors import UsageError

    if not login.strip():
        raise UsageError("This is on record, and needs who does it.", "Give --by LOGIN.")
    password = read_password(project, password_file, f"Password of {login}: ")
    return sign_in.prove(project, login, password, roles=roles, act=act, now=datetime.now(UTC))


def read_password(project: Project, source: str | None, prompt: str, *, twice: bool = False) -> str:
    """A password from a file, from standard input (`-`), or asked for on the terminal."""
    from redraft.errors import UsageError

    if source == "-":
        return sys.stdin.readline().rstrip("\r\n")
    if source is not None:
        return _from_file(project, Path(source).expanduser())
    if not sys.stdin.isatty():
        raise UsageError("A password is needed, and there is no terminal to ask on.", "Give --password-file FILE.")
    from getpass import getpass

    password = getpass(prompt)
    if twice and getpass("Again: ") != password:
        raise UsageError("The two are not the same.", "Type them again.")
    return password


def _from_file(project: Project, path: Path) -> str:
    from redraft.config.base import SecretRef
    from redraft.errors import SecurityError
    from redraft.security.secrets import read_secret

    path = path.absolute()
    if path.is_file() and path.stat().st_mode & 0o077:
        raise SecurityError(f"{path} can be read by others.", f"Run: chmod 600 {path}")
    return read_secret(SecretRef(file=path), {}, project.root)
