"""`redraft label`: take in work that readers have finished, without closing the round."""

from __future__ import annotations

from pathlib import Path

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json

label_app = typer.Typer(help="Exchange work with annotation tools.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(label_app, name="label")


@label_app.command("import")
def import_(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """Judge what readers have put into their work packages; refused work goes back with its reasons."""
    from flows.runtime import prefect_for
    from redraft import rounds

    project = open_project(project_dir)
    number = int(rounds.get(project, None)["number"])
    with prefect_for(project):
        from flows.close_round import receive_labels

        out = receive_labels(str(project.root), number)
    if as_json:
        print_json(out.model_dump(mode="json"))
        return
    print(f"{out.valid} annotations taken in, {len(out.refused)} sent back.")
    for assignment, rules in sorted(out.refused.items()):
        print(f"  {assignment}: {', '.join(rules)} (see RETURNED.txt in its package)")
    for name, rule in sorted(out.unreadable.items()):
        print(f"  {name}: {rule}; left where it is")
