"""One phantom round in a process of its own, timed: `python -m benchmarks.one_round PROJECT`, JSON on the last line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def measure(root: Path) -> dict[str, Any]:
    """Open and close the next round; seconds of the whole, of Prefect's start, and of each part of every step."""
    start = time.perf_counter()
    from flows.runtime import prefect_for
    from redraft.project import Project

    project = Project.open(root)
    with prefect_for(project) as where:
        from flows.close_round import close_round
        from flows.open_round import open_round

        imported = time.perf_counter()
        # The first flow of a process brings Prefect up (a throw-away server where none is reachable).
        _first()
        ready = time.perf_counter()
        number = open_round(str(root)).round
        opened = time.perf_counter()
        close_round(str(root), number, True)
        closed = time.perf_counter()
    parts: dict[str, float] = {}
    for row in project.ledger.rows("step_run", round=number, state="done"):
        for name, seconds in row["host"]["parts"].items():
            parts[name] = parts.get(name, 0.0) + seconds
    return {
        "server": where,
        "import_s": imported - start,
        "prefect_start_s": ready - imported,
        "open_s": opened - ready,
        "close_s": closed - opened,
        "parts_s": parts,
    }


def _first() -> None:
    from prefect import flow

    @flow(name="warm_up", persist_result=False)
    def warm_up() -> None:
        """Nothing: what is measured is Prefect's start."""

    warm_up()


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]).resolve())))
