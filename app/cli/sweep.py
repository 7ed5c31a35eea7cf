"""`redraft sweep`: take in, give away, close; once, or every so often."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json

if TYPE_CHECKING:
    from flows.sweep import SweepRef


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(sweep)


def sweep(
    project_dir: ProjectOption = Path("."),
    watch: Annotated[
        float | None, typer.Option(metavar="MINUTES", min=0.05, help="Sweep again every so many minutes, until Ctrl-C.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take in what readers finished, keep leases, give away what nobody has, close the round when it is complete.

    Safe to run at any moment, by several at once, and twice. `redraft serve` does it by itself.
    """
    from flows.runtime import prefect_for
    from redraft.errors import RedraftError

    with prefect_for(open_project(project_dir)):
        from flows.sweep import run_sweep

        if watch is None:
            _print(run_sweep(str(project_dir)), as_json, once=True)
            return
        while True:
            try:
                _print(run_sweep(str(project_dir)), as_json, once=False)
            except RedraftError as error:  # a PACS that is down now may be up at the next one
                print(f"error [{error.code}]: {error}", file=sys.stderr, flush=True)
            time.sleep(watch * 60)


def _print(out: SweepRef, as_json: bool, *, once: bool) -> None:
    if as_json:
        content = out.model_dump(mode="json")
        print_json(content) if once else print(json.dumps(content), flush=True)
        return
    if out.round is None:
        for line in out.did:
            print(line, flush=True)
        if once:
            print("No round is open.")
        return
    if out.busy:
        print(f"Round {out.round}: another process works on this project; it or the next sweep does it.", flush=True)
    for line in out.did:
        print(f"Round {out.round}: {line}", flush=True)
    if once:
        if not out.did and not out.busy:
            far = f"{out.complete} of {out.exams} exams are complete" if out.exams else f"it is {out.state}"
            print(f"Round {out.round}: nothing to do ({far}).")
        for line in out.waits:
            print(f"  waits: {line}")
        for name in out.late:
            print(f"  late: {name} was finished after it was withdrawn; its package is kept")
