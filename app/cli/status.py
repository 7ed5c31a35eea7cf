"""`redraft status`: what is going on and what needs me."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(status)


def status(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """What is going on and what needs me."""
    from redraft.services.local import service_url
    from redraft.status import project_status

    project = open_project(project_dir)
    content = {**project_status(project), "pages": service_url(project, "web")}
    if as_json:
        print_json(content)
        return
    print_status(content)
    if content["pages"]:
        print(f"\nPages: {content['pages']}")


def print_status(content: dict[str, Any]) -> None:
    """The status as tables for a terminal."""
    print(f"Project {content['project']}: {content['exams']} exams")
    if any(r["simulated"] for r in content["rounds"]):
        print("Readers are SIMULATED: minutes and money below were not measured on people.")
    if content["rounds"]:
        names = sorted({name for r in content["rounds"] for sets in r["dice"].values() for name in sets})
        print_table(
            [
                "round",
                "state",
                *[f"Dice {n} [95% CI]" for n in names],
                "minutes",
                f"cost {content['rounds'][0]['currency']}",
            ],
            [
                [r["number"], r["state"], *[_dice(r, n) for n in names], f"{r['minutes']:.1f}", r["cost"]]
                for r in content["rounds"]
            ],
            "Rounds",
        )
    print_table(["who", "what", "do"], [[w["who"], w["what"], w["do"]] for w in content["waiting_for"]], "Waiting for")


def _dice(row: dict[str, Any], structure: str) -> str | None:
    value = row["dice"].get("test", {}).get(structure)
    if value is None or value["mean"] is None:
        return None
    if value["lo"] is None:
        return f"{value['mean']:.3f} (n={value['n']})"
    return f"{value['mean']:.3f} [{value['lo']:.2f}, {value['hi']:.2f}]"
