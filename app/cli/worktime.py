"""`redraft time`: what readers' raw events give, and minutes from tools that keep their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table

app = typer.Typer(help="Readers' minutes.", no_args_is_help=True)


@app.command("show")
def show(
    assignment: Annotated[str | None, typer.Option(help="Of this assignment only.", show_default="all")] = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Active, idle and away minutes that the raw events give, sittings, and what was recorded."""
    from redraft.worktime.show import show as content_of
    from redraft.worktime.show import timed

    ledger = open_project(project_dir).ledger
    names = timed(ledger) if assignment is None else [assignment]
    found = [content_of(ledger, name) for name in names]
    if as_json:
        print_json(found if assignment is None else found[0])
        return
    if not found:
        print("No work was timed yet.")
    for content in found:
        _print(content)


def _print(content: dict[str, Any]) -> None:
    print(
        f"\nAssignment {content['assignment_id']}, exam {content['exam_id']}, round {content['round']}, "
        f"{content['state']}; idle after {content['idle_after_seconds']:g} s, away after "
        f"{content['away_after_seconds']:g} s without a sign of the page"
    )
    for reader in content["readers"]:
        lines = [[name, *_three(m)] for name, m in [*reader["minutes"].items(), ("together", reader["total"])]]
        print_table(["structure", "active min", "idle min", "away min"], lines, f"Raw events of {reader['reader_id']}")
        print_table(
            ["sitting", "from", "to", "active", "idle", "away", "offline s", "flags"],
            [
                [s["sitting"], _clock(s["first_at"]), _clock(s["last_at"]), *_three(s), f"{s['offline_seconds']:.0f}",
                 ", ".join(s["flags"])]
                for s in reader["sittings"]
            ],
        )  # fmt: skip
        offline = reader["offline_seconds"]
        if offline:
            print(f"note: {offline:.0f} s without a connection; they count like any others.")
    if not content["readers"]:
        print("No raw events.")
    print_table(
        ["revision", "structure", "active min", "idle min", "away min", "origin", "counts"],
        [
            [e["revision"], e["structure"] or "exam",
             *_three({n: e[f"{n}_minutes"] for n in ("active", "idle", "away")}), e["origin"],
             "yes" if e["counts"] else "no, replaced"]
            for e in content["entries"]
        ],
        "Recorded minutes",
    )  # fmt: skip


def _three(minutes: dict[str, Any]) -> list[str]:
    return [f"{minutes[name]:.2f}" for name in ("active", "idle", "away")]


def _clock(text: str) -> str:
    return text[:19].replace("T", " ")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV: assignment_id, structure, active, idle, away (minutes).")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Take in minutes from a tool that keeps its own, for work that came without times or with typed ones.

    They are new entries of origin `imported`. They replace typed and earlier imported minutes of the same annotation,
    which stay on record; measured and simulated minutes are never replaced.
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from redraft.errors import UsageError
    from tasks.account.imported import import_times

    project = open_project(project_dir)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"The file cannot be read ({error.strerror}).", "Give a CSV file.") from error
    done = import_times(project, content, now=datetime.now(UTC), actor="cli")
    if as_json:
        print_json(asdict(done))
        return
    print(
        f"{len(done.annotations)} annotations given minutes ({done.added} entries, {done.replaced} replaced); "
        f"{len(done.unchanged)} had them already."
    )
    if done.corrections:
        print(f"{done.corrections} cost entries of accounted rounds corrected by entries of their own.")
