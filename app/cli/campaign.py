"""`redraft campaign`: strategies against each other with simulated readers; tables, JSON and learning curves."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table

if TYPE_CHECKING:
    from flows.campaign import Point


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(campaign)


def campaign(
    oracle: Annotated[Path, typer.Option(help="Folder with the truth that simulated readers work from.")],
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    strategies: Annotated[str, typer.Option(help="Comma-separated: random, fg_random, entropy.")] = "random,entropy",
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions; three or more tell strategies apart.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Where the arms go; beside the project when omitted.")] = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Run N rounds per strategy and seed with SIMULATED readers and compare learning curves."""
    from flows.runtime import prefect_for

    base = open_project(project_dir)
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    _check(names)
    target = (out or base.root.with_name(f"{base.root.name}-campaign")).resolve()
    start = time.perf_counter()

    def say(text: str) -> None:
        if not as_json:
            print(f"[{time.perf_counter() - start:7.1f} s] {text}", flush=True)

    with prefect_for(base):
        from flows.campaign import as_rows, run_campaign

        points = run_campaign(base, target, names, seeds, rounds, oracle, say)
    rows = as_rows(points)
    summary = summarise(points)
    (target / "campaign.json").write_text(
        json.dumps({"simulated": True, "summary": summary, "points": rows}, indent=1) + "\n", encoding="utf-8"
    )
    draw(points, target / "learning_curves.png")
    if as_json:
        print_json({"simulated": True, "summary": summary, "points": rows})
        return
    print_campaign(rows, summary, base.config.money.currency)
    print(f"\nFiles: {target / 'campaign.json'}, {target / 'learning_curves.png'}; arms are projects below {target}.")


def _check(names: list[str]) -> None:
    from redraft.errors import UsageError
    from tasks.select.strategies import STRATEGIES

    unknown = [name for name in names if name not in STRATEGIES]
    if unknown or not names:
        raise UsageError(
            f"Unknown strategies: {', '.join(unknown) or 'none given'}.", f"Known: {', '.join(STRATEGIES)}."
        )


def summarise(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Per strategy and structure: area under the curve over minutes (mean over seeds) and the last round's Dice."""
    from redraft.learning_curves import aubc

    result = []
    for strategy in dict.fromkeys(p.strategy for p in points):
        for structure in dict.fromkeys(p.structure for p in points):
            areas, last = [], []
            for seed in sorted({p.seed for p in points}):
                curve = sorted(
                    (p for p in points if (p.strategy, p.structure, p.seed) == (strategy, structure, seed)),
                    key=lambda p: p.round,
                )
                known = [p for p in curve if p.dice is not None]
                if len(known) >= 2:
                    areas.append(aubc([p.minutes for p in known], [float(p.dice or 0) for p in known]))
                if known:
                    last.append(float(known[-1].dice or 0))
            result.append(
                {
                    "strategy": strategy,
                    "structure": structure,
                    "seeds": len(last),
                    "aubc_minutes": round(sum(areas) / len(areas), 4) if areas else None,
                    "last_dice": round(sum(last) / len(last), 4) if last else None,
                    "last_dice_range": [round(min(last), 4), round(max(last), 4)] if last else None,
                }
            )
    return result


def print_campaign(rows: list[dict[str, Any]], summary: list[dict[str, Any]], currency: str) -> None:
    """Curves and summary as tables."""
    print("\nReaders are SIMULATED: minutes and money come from an effort model, not from people.")
    print_table(
        ["strategy", "seed", "round", "exams", "minutes", currency, "structure", "Dice", "95% CI", "n"],
        [
            [
                r["strategy"], r["seed"], r["round"], r["exams"], f"{r['minutes']:.1f}", r["money"], r["structure"],
                None if r["dice"] is None else f"{r['dice']:.3f}",
                None if r["lo"] is None else f"[{r['lo']:.3f}, {r['hi']:.3f}]", r["n"],
            ]
            for r in rows
        ],
        "Learning curves (test set)",
    )  # fmt: skip
    print_table(
        ["strategy", "structure", "seeds", "AUBC over minutes", "last Dice", "range over seeds"],
        [
            [s["strategy"], s["structure"], s["seeds"], s["aubc_minutes"], s["last_dice"], s["last_dice_range"]]
            for s in summary
        ],
        "Summary",
    )


def draw(points: Sequence[Point], path: Path) -> None:
    """Learning curves: Dice with its 95 % interval over expert minutes, a panel per structure, a line per arm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    structures = list(dict.fromkeys(p.structure for p in points))
    strategies = list(dict.fromkeys(p.strategy for p in points))
    seeds = sorted({p.seed for p in points})
    colours = dict(zip(strategies, ["#1b6ca8", "#c8553d", "#3c8d2f", "#7a4fa3"], strict=False))
    figure, axes = plt.subplots(1, len(structures), figsize=(5.4 * len(structures), 4.4), squeeze=False, sharey=True)
    for axis, structure in zip(axes[0], structures, strict=True):
        for strategy in strategies:
            for seed in seeds:
                curve = [p for p in points if (p.strategy, p.structure, p.seed) == (strategy, structure, seed)]
                curve = sorted((p for p in curve if p.dice is not None), key=lambda p: p.round)
                if not curve:
                    continue
                label = strategy if len(seeds) == 1 else f"{strategy}, seed {seed}"
                style = ["-", "--", ":", "-."][seeds.index(seed) % 4]
                minutes = [p.minutes for p in curve]
                line = axis.plot(minutes, [float(p.dice or 0) for p in curve], style, color=colours[strategy],
                                 marker="o", markersize=5, linewidth=1.5, label=label)[0]  # fmt: skip
                known = [p for p in curve if p.lo is not None and p.hi is not None]
                axis.vlines([p.minutes for p in known], [p.lo for p in known], [p.hi for p in known],
                            color=line.get_color(), alpha=0.35, linewidth=1.2)  # fmt: skip
        axis.set_title(structure)
        axis.set_xlabel("expert minutes on training exams, SIMULATED")
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize=8)
    axes[0][0].set_ylabel("mean Dice on the test set, 95 % interval")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
