"""One phantom round in a process of its own, timed: `python -m benchmarks.one_round PROJECT`, JSON on the last line."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measure(root: Path) -> dict[str, Any]:
    """Open and close the next round; where its seconds went.

    Every task's function is timed inside of Prefect, so that what Prefect adds is the flows' time less the functions'.
    What the libraries of the steps take to import is kept apart: plain functions import them too.
    """
    start = time.perf_counter()
    from flows.runtime import prefect_for
    from redraft.project import Project

    project = Project.open(root)
    with prefect_for(project) as where:
        import great_expectations  # noqa: F401
        import monai.networks.nets  # noqa: F401
        import torch  # noqa: F401

        import flows.close_round as closing
        import flows.open_round as opening
        import tasks.infer.core
        import tasks.retrain.core  # noqa: F401

        imported = time.perf_counter()
        _first()
        ready = time.perf_counter()
        own: dict[str, float] = {}
        for module in (opening, closing):
            for name, value in list(vars(module).items()):
                if type(value).__name__ == "Task":
                    value.fn = _timed(value.fn, own, name)
        closing.lock_and_publish = _timed(closing.lock_and_publish, own, "lock")  # type: ignore[attr-defined]
        begun = time.perf_counter()
        number = opening.open_round(str(root)).round
        closing.close_round(str(root), number, True)
        flows = time.perf_counter() - begun
    parts: dict[str, float] = {}
    for row in project.ledger.rows("step_run", round=number, state="done"):
        for name, seconds in row["host"]["parts"].items():
            if name != "core":
                parts[name] = parts.get(name, 0.0) + seconds
    parts["lock and tag"] = own.pop("lock")
    parts["prefect"] = flows - sum(own.values()) - parts["lock and tag"]
    orchestration = sum(parts.values())
    return {
        "server": where,
        "imports_s": imported - start,
        "prefect_start_s": ready - imported,
        "steps_s": flows - orchestration,
        "orchestration_s": orchestration,
        "parts_s": parts,
    }


def _timed(function: Callable[..., Any], seconds: dict[str, float], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    return timed


def _first() -> None:
    """The first flow of a process brings Prefect up, with a throw-away server where none is reachable."""
    from prefect import flow

    @flow(name="warm_up", persist_result=False)
    def warm_up() -> None:
        """Nothing: what is measured is Prefect's start."""

    warm_up()


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]).resolve())))
