"""`redraft model`: the models of a project."""

from __future__ import annotations

from pathlib import Path

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json, print_table

app = typer.Typer(help="Models that rounds trained.", no_args_is_help=True)


@app.command("list")
def list_(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """Every model, the round that trained it and what became of it."""
    from redraft import rounds

    project = open_project(project_dir)
    models = sorted(project.ledger.rows("model"), key=lambda row: row["round"])
    champion = rounds.champion(project)
    in_use = champion["model_digest"] if champion else None
    if as_json:
        print_json([{**row, "champion": row["model_digest"] == in_use} for row in models])
        return
    print_table(
        ["version", "round", "digest", "state", "use"],
        [
            [
                m["version"],
                m["round"],
                m["model_digest"][:12],
                m["state"],
                "champion" if m["model_digest"] == in_use else "",
            ]
            for m in models
        ],
    )


@app.command("show")
def show(name: str, project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """One model: its test results and decisions. NAME is a version, a digest or `champion`."""
    from redraft.lineage.trace import find_model

    project = open_project(project_dir)
    model = find_model(project, name)
    metrics = project.ledger.rows("metric", model_digest=model["model_digest"])
    decisions = project.ledger.rows("decision", model_digest=model["model_digest"])
    if as_json:
        print_json({"model": model, "metrics": metrics, "decisions": decisions})
        return
    print(f"Model {model['version']} ({model['model_digest']}), trained in round {model['round']}")
    print_table(
        ["test set", "structure", "metric", "mean", "lo", "hi", "n"],
        [
            [m["test_set"], m["structure"], m["name"], *(_short(m[k]) for k in ("mean", "lo", "hi")), m["n"]]
            for m in sorted(metrics, key=lambda m: (m["test_set"], m["structure"], m["name"]))
        ],
    )
    for row in decisions:
        print(f"{row['kind']} by {row['by_whom']} (identity: {row['identity']}): {row['reason']}")


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
