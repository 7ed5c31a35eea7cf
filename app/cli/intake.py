"""`redraft intake`: what became of everything that was offered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table

intake_app = typer.Typer(help="What became of everything that was offered.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(intake_app, name="intake")


@intake_app.command()
def report(
    rule: Annotated[str | None, typer.Option(help="List the series that this rule decided.")] = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """The manifest of intake: every series ever offered by verdict, rule and source; totals that add up."""
    from tasks.ingest.report import VERDICTS, intake_report
    from tasks.ingest.rules import explain

    project = open_project(project_dir)
    manifest = intake_report(project.ledger.rows("receipt"))
    if as_json:
        print_json(manifest)
        return
    if rule is not None:
        chosen = [entry for entry in manifest["series"] if entry["rule"] == rule]
        print_table(
            ["series", "verdict", "files", "source", "measured", "at"],
            [[e["series"], e["verdict"], e["files"], e["source"], e["measured"] or None, e["at"]] for e in chosen],
            f"{len(chosen)} series by rule {rule}",
        )
        if chosen:
            meaning, do = explain(rule)
            print(f"\n{rule}: {meaning}.\n  → {do}")
        return
    totals = manifest["totals"]
    print_table(
        ["verdict", "rule", "source", "series", "files"],
        [[row["verdict"], row["rule"], row["source"], row["series"], row["files"]] for row in manifest["rules"]],
        "What became of everything that was offered",
    )
    parts = ", ".join(f"{totals[verdict]['series']} {verdict}" for verdict in VERDICTS)
    print(f"\n{totals['series']} series and stray files ({totals['files']} files): {parts}.")
    print("A series counts once. Which ones: `redraft intake report --rule RULE`.")


@intake_app.command()
def rules(as_json: JsonOption = False) -> None:
    """Every rule of intake: what it means and what to do."""
    from tasks.ingest.rules import RULES

    if as_json:
        print_json({rule: {"meaning": meaning, "do": do} for rule, (meaning, do) in RULES.items()})
        return
    print_table(["rule", "meaning", "what to do"], [[rule, *words] for rule, words in RULES.items()])
