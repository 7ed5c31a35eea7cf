"""What is going on in a project and what needs somebody: the stable JSON of `redraft status`."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from redraft.project import Project
from redraft.waiting import waiting_for
from redraft.worktime.entries import counted


def project_status(project: Project) -> dict[str, Any]:
    """Rounds with their results, and what waits for whom. Reads the ledger only."""
    ledger = project.ledger
    rows = sorted(ledger.rows("round"), key=lambda row: row["number"])
    annotations = {row["annotation_id"]: row for row in ledger.rows("annotation")}
    assignments = {row["assignment_id"]: row for row in ledger.rows("assignment")}
    minutes: dict[int, float] = {}
    for entry in counted(ledger):
        assignment = assignments[annotations[entry["annotation_id"]]["assignment_id"]]
        minutes[assignment["round"]] = minutes.get(assignment["round"], 0.0) + entry["active_minutes"]
    parts: dict[tuple[int, str], Decimal] = {}
    for entry in ledger.rows("cost_entry"):
        key = (entry["round"], entry["kind"])
        parts[key] = parts.get(key, Decimal(0)) + Decimal(entry["amount"])
    cost: dict[int, Decimal] = {}
    for (number, _), amount in parts.items():
        # Each part is rounded, then summed: as in the cost report, so that both name the same total.
        cost[number] = cost.get(number, Decimal(0)) + amount.quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    metrics = ledger.rows("metric", name="dice")
    versions = {row["round"]: row for row in ledger.rows("dataset_version")}
    rounds = []
    for row in rows:
        number = row["number"]
        dice: dict[str, dict[str, Any]] = {}
        for metric in metrics:
            if metric["model_digest"] == row["challenger"] and row["challenger"] is not None:
                values = {key: metric[key] for key in ("mean", "lo", "hi", "n")}
                dice.setdefault(metric["test_set"], {})[metric["structure"]] = values
        rounds.append(
            {
                "number": number,
                "state": row["state"],
                "failed_in": row["failed_in"],
                "dataset": versions[number]["dvc_md5"] if number in versions else None,
                "model": row["challenger"],
                "dice": dice,
                "minutes": round(minutes.get(number, 0.0), 2),
                "cost": str(cost[number].quantize(Decimal("0.01"))) if number in cost else None,
                "currency": project.config.money.currency,
                "simulated": row["simulated"],
            }
        )
    return {
        "project": project.config.name,
        "exams": len(ledger.rows("exam")),
        "rounds": rounds,
        "waiting_for": waiting_for(project, rows, list(assignments.values())),
    }
