"""Taking exams in outside of a round: `redraft ingest`. Receipts with paths go to the caller's terminal only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redraft import rounds
from redraft.errors import UsageError
from redraft.project import Project
from tasks.ingest.admit import take_in as take_in_exams


def take_in(
    project: Project, paths: Sequence[Path] | None, workers: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Take in the given paths, or the project's configured sources; one receipt per series or stray file.

    `workers` and `progress` as in tasks.ingest.admit.take_in.
    """
    if paths is None and not any(source.take_in for source in project.config.ingest.sources):
        raise UsageError("Nothing to take in.", "Name folders, or set ingest.sources in project.yaml.")
    for path in paths or ():
        if not path.exists():
            raise UsageError(f"{path} is not there.", "Check the path.")

    def now() -> datetime:
        return datetime.now(UTC)

    with rounds.writer(project, now):
        receipts = take_in_exams(project, paths, now(), "ingest", workers, progress)
    return [{"paths": [str(path) for path in receipt.paths], **receipt.record()} for receipt in receipts]
