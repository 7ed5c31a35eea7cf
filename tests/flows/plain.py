"""The steps of a round called without Prefect (`task.fn`), the way flows call them with it."""

from __future__ import annotations

import sys

from redraft import rounds
from redraft.ledger import RoundState
from redraft.project import Project


def unwrap() -> None:
    """Let flow modules call the plain functions behind their tasks: the bodies are what a kill interrupts."""
    import flows.close_round as close
    import flows.open_round as opening

    for module in (opening, close):
        for name, value in list(vars(module).items()):
            if hasattr(value, "fn") and type(value).__name__ in ("Task", "Flow"):
                setattr(module, name, value.fn)


def run_round(project_dir: str) -> None:
    """Open and close one round, resuming whatever stands there."""
    unwrap()
    import flows.close_round as close
    import flows.open_round as opening

    project = Project.open(project_dir)
    live = rounds.current(project)
    stage = None if live is None else (live["failed_in"] or live["state"])
    if stage in (None, "OPENING"):
        opening.open_round(project_dir)
    live = rounds.current(project)
    assert live is not None
    if live["state"] != RoundState.AWAITING_APPROVAL:
        close.close_round(project_dir, live["number"], True)


if __name__ == "__main__":
    run_round(sys.argv[1])
