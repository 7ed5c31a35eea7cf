"""What every command shares: the project option, JSON output, tables, and errors as words instead of stack traces."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from redraft.project import Project

ProjectOption = Annotated[
    Path, typer.Option("--project", envvar="REDRAFT_PROJECT", help="Project directory.", show_default="here")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other tools.")]


def open_project(path: Path) -> Project:
    """Open the project a command works on."""
    from redraft.errors import ConfigError
    from redraft.project import Project

    try:
        return Project.open(path)
    except OSError as error:
        what = f"{path / 'project.yaml'} cannot be read ({error.strerror})."
        raise ConfigError(what, "--project takes the directory that holds project.yaml.") from error


def print_json(value: Any) -> None:
    """Print a JSON document on standard output and nothing else."""
    json.dump(value, sys.stdout, indent=2, default=str, ensure_ascii=False)
    sys.stdout.write("\n")


@contextmanager
def counter(what: str) -> Iterator[Callable[[int], None]]:
    """A line on a terminal's standard error that counts along; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    try:
        yield lambda count: print(f"\r{count} {what}", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def print_table(columns: list[str], rows: list[list[Any]], title: str = "") -> None:
    """Print an aligned table; numbers are right-aligned, None is a dash. Never truncated: it may be piped."""
    shown = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [
        max(len(name), *(len(row[n]) for row in shown), 0) if shown else len(name) for n, name in enumerate(columns)
    ]
    right = [
        bool(rows) and all(isinstance(row[n], (int, float)) or row[n] is None for row in rows)
        for n in range(len(columns))
    ]
    if title:
        print(f"\n{title}")
    print("  ".join(_pad(name, width, flag) for name, width, flag in zip(columns, widths, right, strict=True)).rstrip())
    print("  ".join("─" * width for width in widths))
    for row in shown:
        print("  ".join(_pad(cell, width, flag) for cell, width, flag in zip(row, widths, right, strict=True)).rstrip())


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
