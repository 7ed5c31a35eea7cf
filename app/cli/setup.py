"""Commands that set things up: init, phantom, up, down."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command()(init)
    app.command()(phantom)
    app.command()(up)
    app.command()(down)


def init(
    directory: Annotated[Path, typer.Argument(help="Directory of the new project.")],
    template: Annotated[str, typer.Option(help="kidney-ct, hippocampus-mr or sarcoma-mr.")] = "kidney-ct",
    demo_keys: Annotated[
        bool, typer.Option("--demo-keys", help="Use the published key, so that results reproduce. Not for patients.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a project: a git and DVC repository with a typed project.yaml."""
    from redraft.create import create_project

    project = create_project(directory, template, datetime.now(UTC), demo_keys=demo_keys)
    if as_json:
        print_json({"project": project.config.name, "directory": str(project.root), "key": project.keys.fingerprint})
        return
    print(f"Project {project.config.name} is in {project.root}.")
    print(f"Keys: fingerprint {project.keys.fingerprint}; vault {project.vault_dir}.")
    print("Next: look through project.yaml, then `redraft ingest PATH` and `redraft round open`.")


def phantom(
    out: Annotated[Path, typer.Argument(help="Directory to write into.")],
    exams: Annotated[int, typer.Option(min=1, help="How many exams.")] = 24,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write synthetic abdominal CT exams as DICOM, with truth as RTSTRUCT. Deterministic."""
    from redraft.phantom import write_phantom

    report = write_phantom(out, exams=exams, seed=seed)
    if as_json:
        print_json({"exams": exams, "directory": str(out), "report": report})
        return
    print(f"{exams} synthetic exams are in {out}, their truth in {out / 'truth'}.")


def up(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """Start this machine's services in the background: Prefect server, MLflow and the pages."""
    from redraft.services import local

    state = local.up(open_project(project_dir))
    if as_json:
        print_json(state)
        return
    for name, service in state.items():
        print(f"{name}: {service['url']}")


def down(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """Stop the services that `redraft up` started here, and no others."""
    from redraft.services import local

    ended = local.down(open_project(project_dir))
    if as_json:
        print_json({"stopped": ended})
        return
    print(f"Stopped: {', '.join(ended) or 'nothing was running'}.")
