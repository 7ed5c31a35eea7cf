"""`redraft cost`: what the loop costs and saves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table

app = typer.Typer(help="Minutes and money.", no_args_is_help=True)


@app.command("report")
def report(
    number: Annotated[int | None, typer.Option("--round", help="One round only.")] = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Cost per exam and saving per structure with intervals. Times of different origins are never pooled."""
    from redraft import rounds
    from tasks.account.records import reports

    project = open_project(project_dir)
    if number is not None:
        rounds.get(project, number)
    found = reports(project, number)
    if as_json:
        content = [item.model_dump(mode="json") for item in found]
        # One kind of times is the rule; two make a list, never a sum.
        print_json(content[0] if len(content) == 1 else content)
        return
    if not found:
        print("No round was accounted yet.")
    for item in found:
        print_report(item.model_dump(mode="json"))


def print_report(content: dict[str, Any]) -> None:
    """One cost report as tables."""
    kind = "SIMULATED times: not measured on people" if content["simulated"] else "times of people"
    print(f"\nCost report, {content['currency']}, {kind}; rounds {', '.join(map(str, content['rounds']))}")
    print(
        f"Baseline of savings: {content['baseline']}" + (f"; intervals: {content['label']}" if content["label"] else "")
    )
    print_table(
        ["origin", "annotations", "exams", "active min"],
        [[name, o["annotations"], o["exams"], _number(o["minutes"])] for name, o in content["origins"].items()],
        "Where the minutes come from",
    )
    _print_savings(content, f"Savings by drafts, {content['origin']} times")
    for other in content["other_savings"]:
        _print_savings(other, f"Told apart: {other['origin']} times, baseline {other['baseline']}")
    _print_sensitivity(content["sensitivity"])
    per, total = content["per_exam"], content["total"]
    names = ["expert", "reference", "compute", "storage"]
    print_table(
        ["", "all", *names],
        [
            [f"per training exam (n={per['n']})", _interval(per["cost"]), *[per[n] for n in names]],
            ["total", total["cost"], *[total[n] for n in names]],
        ],
        "Cost",
    )
    looks = content["second_looks"]
    if looks["reviews"] or looks["adjudications"]:
        untimed = f"; {looks['untimed']} came without times and cost nothing here" if looks["untimed"] else ""
        print(
            f"Of reference: {looks['reviews']} reviews and {looks['adjudications']} adjudications, "
            f"{looks['minutes']:.1f} min, {looks['cost']}{untimed}."
        )
    for warning in content.get("warnings", []):
        print(f"note: {warning}")


def _print_savings(content: dict[str, Any], title: str) -> None:
    print_table(
        ["structure", "n scratch", "n assisted", "min scratch", "min assisted", "min saved [CI]", "money saved [CI]"],
        [
            [
                name, s["n_from_scratch"], s["n_assisted"], _number(s["minutes_from_scratch"]),
                _number(s["minutes_assisted"]), _interval(s["saving_minutes"]), _interval(s["saving"]),
            ]
            for name, s in [*content["structures"].items(), ("whole exam", content["exam"])]
        ],
        title,
    )  # fmt: skip


def _print_sensitivity(content: dict[str, Any]) -> None:
    if not content["rows"]:
        print(f"\nNo sensitivity table: {content['reason']}.")
        return
    print_table(
        ["idle after s", "active min", "min scratch", "min assisted", "min saved [CI]", ""],
        [
            [
                f"{row['idle_after_seconds']:g}", _number(row["active_minutes"]), _number(row["minutes_from_scratch"]),
                _number(row["minutes_assisted"]), _interval(row["saving_minutes"]), "recorded" if row["used"] else "",
            ]
            for row in content["rows"]
        ],
        f"Sensitivity: {content['annotations']} measured annotations, taken again from their events",
    )  # fmt: skip
    if content["reason"]:
        print(f"note: {content['reason']}.")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{float(value):.1f}"


def _interval(value: dict[str, Any]) -> str | None:
    if value["mean"] is None:
        return None
    mean = f"{float(value['mean']):.2f}"
    if value["lo"] is None:
        return f"{mean} (no interval)"
    return f"{mean} [{float(value['lo']):.2f}, {float(value['hi']):.2f}]"


@app.command("rates")
def rates(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """The rate card in use."""
    card = open_project(project_dir).rates
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    print_table(
        ["role", "site", "valid from", f"{card.currency} per hour", "source"],
        [[r.role, r.site, r.valid_from, r.per_hour, r.source] for r in card.rates],
        f"Rate card {card.version}",
    )
