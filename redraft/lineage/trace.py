"""`audit trace`: what an auditor asks of a model, answered from records alone (the eight questions of an audit)."""

from __future__ import annotations

from typing import Any

from redraft.cohort import Cohort
from redraft.errors import UsageError
from redraft.ledger import Ledger
from redraft.project import Project
from redraft.worktime.entries import counted


def find_model(project: Project, name: str) -> dict[str, Any]:
    """A model row by digest (or its first characters), version number, or the word `champion`."""
    from redraft import rounds

    models = project.ledger.rows("model")
    if name == "champion":
        row = rounds.champion(project)
        if row is None:
            raise UsageError("No model was promoted yet.", "See `redraft model list`.")
        return row
    hits = [row for row in models if row["model_digest"].startswith(name) or str(row["version"]) == name]
    if len(hits) != 1:
        known = ", ".join(f"{row['version']} ({row['model_digest'][:12]})" for row in models) or "none"
        raise UsageError(f"`{name}` names {'no' if not hits else 'more than one'} model.", f"Models: {known}.")
    return hits[0]


def trace(project: Project, name: str) -> dict[str, Any]:
    """Answer the eight questions for one model.

    Returns
    -------
    dict with the keys training, annotations (every reading), consensus (of several readings), selection, criteria,
    approval, accounts (behind reviews, adjudications and the approval), software, integrity, exclusions.
    """
    ledger = project.ledger
    model = find_model(project, name)
    digest, number = model["model_digest"], model["round"]
    closing = ledger.one("round", number=number) or {}
    splits = {row["subject_id"]: row["split"] for row in ledger.rows("subject")}
    exams = {row["exam_id"]: row for row in ledger.rows("exam")}
    runs = {
        row["step"]: row
        for row in sorted(ledger.rows("step_run", round=number), key=lambda r: r["attempt"])
        if row["state"] == "done"
    }
    used = runs["retrain"]["inputs"]["values"]["training"] if "retrain" in runs else []
    train_exams = {entry["exam_id"] for entry in used}
    train_subjects = {exams[exam]["subject_id"] for exam in train_exams}
    held_out = {subject for subject, split in splits.items() if split != "pool"}
    consensus = {row["consensus_id"]: row for row in ledger.rows("consensus")}
    labels = {e["annotation_id"] for e in used}
    readings = labels | {
        n for e in used if e["annotation_id"] in consensus for n in consensus[e["annotation_id"]]["annotations"]
    }
    annotations = [row for row in ledger.rows("annotation") if row["annotation_id"] in readings]
    minutes: dict[str, float] = {}
    for row in counted(ledger):
        minutes[row["annotation_id"]] = minutes.get(row["annotation_id"], 0.0) + row["active_minutes"]
    assignments = {row["assignment_id"]: row for row in ledger.rows("assignment")}
    selections = [row for row in ledger.rows("selection") if row["exam_id"] in train_exams]
    decisions = ledger.rows("decision", model_digest=digest)
    metrics = ledger.rows("metric", model_digest=digest)
    dataset = ledger.rows("dataset_version", round=number)
    checkpoints = ledger.rows("checkpoint", round=number)
    receipts = ledger.rows("receipt")
    excluded = [row for row in receipts if row["verdict"] in ("refused", "quarantined")]
    invalid = [row for row in ledger.rows("annotation") if row["state"] == "invalid"]
    flags = {row["annotation_id"]: row["soft"] for row in ledger.rows("validation")}
    reviews = _reviews(ledger)
    cohort = Cohort(project)
    now = [cohort.label_of(exam_id) for exam_id in train_exams]
    counting = {identity for label in now if label is not None for identity in label.readings}
    named = {look["account_id"] for row in annotations for look in reviews.get(row["annotation_id"], [])}
    named |= {row["account_id"] for row in consensus.values() if row["consensus_id"] in labels}
    named |= {row["by_whom"] for row in decisions if row["identity"] == "authenticated"}
    return {
        "model": {
            "digest": digest,
            "version": model["version"],
            "round": number,
            "simulated": closing.get("simulated"),
        },
        "training": {
            "exams": len(train_exams),
            "subjects": len(train_subjects),
            "entries": used,
            "training_digest": model["training_digest"],
            "dataset": {k: dataset[-1][k] for k in ("dvc_md5", "commit_sha", "manifest_sha256")} if dataset else None,
            "held_out_subjects": len(held_out),
            "held_out_subjects_in_training": sorted(train_subjects & held_out),
        },
        "annotations": [
            {
                "annotation_id": row["annotation_id"],
                "exam_id": row["exam_id"],
                "reader_id": row["reader_id"],
                "mode": assignments[row["assignment_id"]]["mode"],
                "proposed_by": row["draft_id"],
                "verdict": row["verdict"],
                "reason_code": row["reason_code"],
                "voxels_changed": row["voxels_changed"],
                "minutes": round(minutes.get(row["annotation_id"], 0.0), 2),
                "origin": row["origin"],
                "sha256": row["sha256"],
                "revision": row["revision"],
                "flags": sorted({item["rule"] for item in flags.get(row["annotation_id"], [])}),
                "reviews": reviews.get(row["annotation_id"], []),
                # Reviewed again since, or for good: what a model learned from it stays learned.
                "counts_now": row["annotation_id"] in counting,
            }
            for row in annotations
        ],
        "consensus": [
            {
                "consensus_id": row["consensus_id"],
                "exam_id": row["exam_id"],
                "method": row["method"],
                "state": row["state"],
                "readings": row["annotations"],
                "agreement": row["agreement"],
                "adjudicated_by": row["account_id"],
                "at": row["at"],
                "sha256": row["sha256"],
                "disagreement_sha256": row["disagreement_sha256"],
            }
            for row in consensus.values()
            if row["consensus_id"] in labels
        ],
        "selection": [
            {
                "exam_id": row["exam_id"],
                "round": row["round"],
                "chosen_by": row["chosen_by"],
                "strategy": row["strategy"],
                "inclusion_probability": row["inclusion_probability"],
                "explanation": row["explanation"],
            }
            for row in selections
        ],
        "criteria": {
            "fixed_at": closing.get("opened_at"),
            "criteria": closing.get("criteria"),
            "results": decisions[-1]["gate"]
            if decisions
            else (runs["evaluate"]["outputs"].get("gate") if "evaluate" in runs else None),
            "metrics": [
                {k: row[k] for k in ("test_set", "structure", "name", "mean", "lo", "hi", "n", "dataset_digest")}
                for row in metrics
            ],
        },
        "approval": [
            {k: row[k] for k in ("decision_id", "kind", "by_whom", "identity", "reason", "at", "round")}
            for row in decisions
        ],
        "accounts": {
            row["account_id"]: {key: row[key] for key in ("reader_id", "roles", "state", "added_at", "added_by")}
            for row in ledger.rows("account")
            if row["account_id"] in named
        },
        "software": {
            **(model["software"] or {}),
            "code": runs["retrain"]["inputs"]["code"] if "retrain" in runs else None,
            "seeds": model["seeds"],
            "re_run": "the same data, plan, settings and seeds give the same weights (one CPU type and thread count)",
            "mlflow_run_id": model["mlflow_run_id"],
        },
        "integrity": {
            "manifest_sha256": model["manifest_sha256"],
            "checkpoint": checkpoints[-1] if checkpoints else None,
            "audit_events": len(ledger.rows("audit_event")),
            "verify": "redraft audit verify",
        },
        "exclusions": {
            "series": [{k: row[k] for k in ("series_id", "verdict", "rule", "measured")} for row in excluded],
            "annotations_refused": [row["annotation_id"] for row in invalid],
            "exams_sent_back": [
                {k: row[k] for k in ("exam_id", "round", "reader_id", "reason_code", "consequence")}
                for row in ledger.rows("rejection")
            ],
            "seeded_errors": sorted(row["assignment_id"] for row in ledger.rows("seeded_error")),
            # Of assisted training work, as each round planned it; labels of such work are never among `annotations`.
            "seeded_share": {
                row["number"]: row["config"].get("dispatch", {}).get("seeded_errors", {}).get("share", 0.0)
                for row in ledger.rows("round")
                if row["number"] <= number
            },
            "steps_failed": [
                {k: row[k] for k in ("round", "step", "error", "started_at")}
                for row in ledger.rows("step_run")
                if row["state"] == "failed"
            ],
        },
    }


def _reviews(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """Second looks at each annotation, oldest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    keys = ("why", "state", "account_id", "reason_code", "opened_at", "decided_at")
    for row in sorted(ledger.rows("review"), key=lambda row: row["opened_at"]):
        found.setdefault(row["annotation_id"], []).append({key: row[key] for key in keys})
    return found
