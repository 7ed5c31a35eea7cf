"""campaign: N rounds for several strategies and seeds with simulated readers, each arm a project of its own."""

from __future__ import annotations

from pathlib import Path

from redraft import rounds
from redraft.decisions import decide, gate_of
from redraft.project import Project


def run_rounds(project_dir: str, count: int) -> None:
    """Run `count` rounds of one project to their decision; a project that has some goes on where it stands.

    Decisions follow the gate: this is the policy of campaigns and demos, and the record names it.
    """
    from datetime import UTC, datetime

    from flows.close_round import close_round
    from flows.open_round import open_round
    from flows.promote_model import promote_model

    while True:
        project = Project.open(project_dir)
        done = [row for row in project.ledger.rows("round") if row["state"] in rounds.TERMINAL]
        if len(done) >= count:
            return
        live = rounds.current(project)
        stage = None if live is None else (live["failed_in"] or live["state"])
        if live is None or stage == "OPENING":
            open_round(project_dir)
            continue
        number = int(live["number"])
        if stage in ("AWAITING_ANNOTATION", "CLOSING"):
            close_round(project_dir, number, True)
            continue
        passed = bool(gate_of(project, number)["passed"])
        decision = decide(
            project, number, approve=passed, by="policy: follow the gate",
            reason="gate passed" if passed else "gate not passed", now=datetime.now(UTC),
        )  # fmt: skip
        promote_model(project_dir, number, decision)


def arm_name(strategy: str, seed: int) -> str:
    """Directory of one arm."""
    return f"{strategy}-seed{seed}"


def arms(out: Path) -> list[Path]:
    """Arm projects below a campaign directory."""
    return sorted(path.parent for path in out.glob("*/project.yaml"))
