"""`redraft quality`: how well reading goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table

app = typer.Typer(help="Seeded errors, agreement, flags and second looks.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("report")
def report(
    number: Annotated[int | None, typer.Option("--round", help="One round only.")] = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Detection of seeded errors per structure, agreement between readers by round, flags, and what reviews decided."""
    from redraft import rounds
    from redraft.quality import quality_report

    project = open_project(project_dir)
    if number is not None:
        rounds.get(project, number)
    content = quality_report(project, number)
    if as_json:
        print_json(content)
        return
    print_table(
        ["structure", "n", "pending", "detected", "rate [CI]", "mean corrected"],
        [
            [row["structure"] or "all", row["n"], row["pending"], row["detected"], _share(row, "rate"),
             _number(row["mean_corrected"])]
            for row in content["detection"]
        ],
        "Drafts that were wrong on purpose",
    )  # fmt: skip
    print_table(
        ["round", "structure", "pairs", "absent", "Dice [CI]", "surface Dice [CI]", "tolerance mm"],
        [
            [row["round"], row["structure"], row["dice"]["n"], row["absent"], _share(row["dice"], "mean"),
             _share(row["surface_dice"], "mean"), row["tolerance_mm"]]
            for row in content["agreement"]
        ],
        "Agreement between readers",
    )  # fmt: skip
    flags = [[row["rule"], row["reader_id"], row["annotations"]] for row in content["flags"]]
    print_table(["rule", "reader", "annotations"], flags, "Flags (each a reason to look twice, none a fault)")
    print_table(
        ["why", "open", "accepted", "returned", "reasons"],
        [
            [row["why"], row["open"], row["accepted"], row["returned"],
             ", ".join(f"{name} {n}" for name, n in row["reasons"].items()) or None]
            for row in content["reviews"]
        ],
        "Reviews",
    )  # fmt: skip
    looks = content["second_looks"]
    print(
        f"\nSecond looks: {looks['decided']} decided, {looks['timed']} of them timed: {looks['active_minutes']:.1f} "
        f"active minutes, {looks['cost']} {looks['currency']}"
        + (f" ({looks['unpriced']} without a rate for their role)" if looks["unpriced"] else "")
    )
    if content["rejections"]:
        print("Sent back: " + ", ".join(f"{name} {n}" for name, n in content["rejections"].items()))


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _share(row: dict[str, Any], key: str) -> str | None:
    if row[key] is None:
        return None
    if row["lo"] is None:
        return f"{row[key]:.2f} (no interval)"
    return f"{row[key]:.2f} [{row['lo']:.2f}, {row['hi']:.2f}]"
