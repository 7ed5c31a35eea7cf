"""What is going on in a project and what needs somebody: the stable JSON of `redraft status`."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from redraft.ledger import RoundState
from redraft.project import Project
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
        "waiting_for": _waiting(rows, list(assignments.values()), ledger.rows("subject")),
    }


def _waiting(
    rounds: list[dict[str, Any]], assignments: list[dict[str, Any]], subjects: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    waiting: list[dict[str, Any]] = []
    if any(row["split"] == "undrawn" for row in subjects):
        what = "too few subjects for validation and test sets"
        waiting.append({"who": "operator", "what": what, "do": "redraft ingest PATH"})
    live = next((row for row in rounds if row["state"] not in ("PROMOTED", "HELD", "ABORTED")), None)
    if live is None:
        waiting.append({"who": "operator", "what": "no round is open", "do": "redraft round open"})
        return waiting
    number, state = live["number"], live["state"]
    if state == RoundState.AWAITING_ANNOTATION:
        out: dict[str, int] = {}
        for row in assignments:
            if row["state"] in ("DISPATCHED", "RETURNED_TO_READER"):
                out[row["reader_id"]] = out.get(row["reader_id"], 0) + 1
        for reader, count in sorted(out.items()):
            waiting.append(
                {
                    "who": reader,
                    "what": f"{count} exams to segment by {live['due_at'][:16].replace('T', ' ')} UTC",
                    "do": "work packages",
                }
            )
        waiting.append(
            {"who": "operator", "what": f"round {number} awaits annotation", "do": f"redraft round close {number}"}
        )
    elif state == RoundState.AWAITING_APPROVAL:
        do = f"redraft promote {number} --approve|--hold --by WHO --reason TEXT"
        waiting.append({"who": "approver", "what": f"round {number} awaits a decision", "do": do})
    else:
        stage = live["failed_in"] or state
        verb = "open" if stage == RoundState.OPENING else f"close {number}"
        word = "failed" if state == RoundState.FAILED else "was interrupted or is running"
        waiting.append({"who": "operator", "what": f"round {number} {word} in {stage}", "do": f"redraft round {verb}"})
    return waiting
