"""`redraft audit`: trace a model, verify that nothing was altered, export the chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, open_project, print_json

app = typer.Typer(help="Trace models and verify records.", no_args_is_help=True)


@app.command("trace")
def trace(
    model: Annotated[str, typer.Argument(help="Version, digest or `champion`.")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Answer an auditor's eight questions about a model from the records."""
    from redraft.lineage.trace import trace as trace_model

    answer = trace_model(open_project(project_dir), model)
    if as_json:
        print_json(answer)
        return
    _print_trace(answer)


def _print_trace(answer: dict[str, Any]) -> None:
    training, criteria = answer["training"], answer["criteria"]
    head = answer["model"]
    print(f"Model {head['version']} · {head['digest']} · round {head['round']}")
    if head["simulated"]:
        print("Times and annotations of this project are SIMULATED.")
    print(f"\n1 Training data: {training['exams']} exams of {training['subjects']} subjects")
    print(f"  dataset {training['dataset']}")
    leaked = training["held_out_subjects_in_training"]
    print(f"  {training['held_out_subjects']} held-out subjects, of them in training: {len(leaked)}")
    print(f"\n2 Annotations: {len(answer['annotations'])}")
    for row in answer["annotations"]:
        changed = "" if row["voxels_changed"] is None else f", {row['voxels_changed']} voxels changed"
        print(
            f"  {row['exam_id']} by {row['reader_id']}: {row['mode']}, {row['verdict']}{changed}, "
            f"{row['minutes']} min ({row['origin']})" + ("" if row["counts_now"] else ", counts no more")
        )
        for look in row["reviews"]:
            print(f"    second look ({look['why']}): {look['state']} by {look['account_id'] or 'nobody yet'}")
    for row in answer["consensus"]:
        by = f" by {row['adjudicated_by']}" if row["adjudicated_by"] else ""
        print(f"  {row['exam_id']}: consensus of {len(row['readings'])} readings, {row['method']}{by}")
    print("\n3 Why these exams")
    for row in answer["selection"]:
        print(f"  {row['exam_id']} round {row['round']} ({row['chosen_by']}): {row['explanation'].get('sentence', '')}")
    print(f"\n4 Criteria fixed {criteria['fixed_at']}")
    for row in (criteria["results"] or {}).get("criteria", []):
        verdict = "passed" if row["passed"] else "NOT passed"
        print(f"  {row['name']} {row['structure']}: required {row['required']}, measured {row['measured']}: {verdict}")
    print("\n5 Approval")
    for row in answer["approval"]:
        print(f"  {row['kind']} by {row['by_whom']} (identity: {row['identity']}) at {row['at']}: {row['reason']}")
    if not answer["approval"]:
        print("  no decision yet")
    for account, row in answer["accounts"].items():
        reader = f", reads as {row['reader_id']}" if row["reader_id"] else ""
        print(f"  account {account}: {', '.join(row['roles'])}{reader} ({row['state']} now)")
    print("\n6 Software")
    for name, value in answer["software"].items():
        print(f"  {name}: {value}")
    print("\n7 Integrity")
    for name, value in answer["integrity"].items():
        print(f"  {name}: {value}")
    excluded = answer["exclusions"]
    print(
        f"\n8 Exclusions: {len(excluded['series'])} series not admitted, "
        f"{len(excluded['annotations_refused'])} annotations refused, "
        f"{len(excluded['steps_failed'])} failed step runs, "
        f"{len(excluded['exams_sent_back'])} exams sent back, {len(excluded['seeded_errors'])} known-wrong drafts"
    )


@app.command("verify")
def verify(project_dir: ProjectOption = Path("."), as_json: JsonOption = False) -> None:
    """Replay the audit chain and compare every row, file, manifest line, lock, tag and package."""
    from models.package import verify_package
    from redraft.lineage.verify import trusted_keys, verify_project

    project = open_project(project_dir)
    trusted = trusted_keys(project)
    result = verify_project(project, lambda folder: verify_package(folder, trusted))
    if as_json:
        print_json(result.to_dict())
    else:
        print(", ".join(f"{count} {kind}" for kind, count in sorted(result.checked.items())))
        for item in result.broken:
            print(f"BROKEN {item.kind} {item.record}{f' ({item.path})' if item.path else ''}: {item.why}")
        print("Nothing was altered." if result.ok else f"{len(result.broken)} records are not what the ledger says.")
    if not result.ok:
        raise typer.Exit(1)


@app.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="File to write (JSON lines).")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Write the whole audit chain as readable JSON lines."""
    from redraft.files import write_text

    events = sorted(open_project(project_dir).ledger.rows("audit_event"), key=lambda row: row["seq"])
    write_text(out, "".join(json.dumps(row, default=str, ensure_ascii=False) + "\n" for row in events))
    if as_json:
        print_json({"events": len(events), "path": str(out)})
        return
    print(f"{len(events)} events are in {out}.")
