"""Commands that run the loop: ingest, round open|status|close|abort, promote."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.common import JsonOption, ProjectOption, counter, open_project, print_json, print_table
from app.cli.identity import PasswordFileOption, prove

round_app = typer.Typer(help="Open, watch, close and abort rounds.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command()(ingest)
    app.add_typer(round_app, name="round")
    app.command()(promote)


def ingest(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Folders or files; the configured sources when omitted.")
    ] = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Take exams in; every series gets an intake receipt."""
    from flows.intake import take_in

    project = open_project(project_dir)
    with counter("series judged") as count:
        receipts = take_in(project, [Path(p) for p in paths] if paths else None, progress=count)
    if as_json:
        print_json(receipts)
        return
    totals: dict[str, int] = {}
    for receipt in receipts:
        totals[receipt["verdict"]] = totals.get(receipt["verdict"], 0) + 1
        if receipt["verdict"] in ("refused", "quarantined"):
            where = ", ".join(receipt["paths"][:2]) + (" …" if len(receipt["paths"]) > 2 else "")
            print(f"{receipt['verdict']}: {receipt['rule']} {receipt['measured'] or ''}  {where}")
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(totals.items())) or "Nothing was offered.")


@round_app.command("open")
def open_(project_dir: ProjectOption = Path("."), as_json: JsonOption = False, verbose: bool = False) -> None:
    """Ingest, draft, select and dispatch; then readers work. Running it again resumes an interrupted opening."""
    from flows.runtime import prefect_for

    project = open_project(project_dir)
    with prefect_for(project, verbose=verbose):
        from flows.open_round import open_round

        out = open_round(str(project.root))
    if as_json:
        print_json(out.model_dump(mode="json"))
        return
    print(f"Round {out.round} is open: {out.training} exams to segment, {out.reference} reference exams.")
    print(f"Work packages are in {project.work}. When they are back: `redraft round close {out.round}`.")


@round_app.command("status")
def status(
    number: Annotated[int | None, typer.Argument(help="Round number; the latest when omitted.")] = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """What one round has done, step by step, and what is out with readers."""
    from redraft import rounds

    project = open_project(project_dir)
    row = rounds.get(project, number)
    steps = sorted(project.ledger.rows("step_run", round=row["number"]), key=lambda step: step["started_at"])
    work = project.ledger.rows("assignment", round=row["number"])
    from redraft.work_leases import OUT, view

    now = datetime.now(UTC)
    rules = project.config.dispatch.lease
    kept = {lease["assignment_id"]: lease for lease in project.ledger.rows("work_lease")}
    leases = [
        {**{key: item[key] for key in ("assignment_id", "exam_id", "reader_id", "state")},
         **view(kept[item["assignment_id"]], rules, now)}
        for item in work
        if item["state"] in OUT and item["assignment_id"] in kept
    ]  # fmt: skip
    leases.sort(key=lambda lease: (lease["expires_at"], lease["assignment_id"]))
    found = rounds.completion(project, row["number"])
    if as_json:
        complete = {"exams": found.exams, "complete": found.complete, "done": found.done, "missing": found.missing}
        print_json({"round": row, "steps": steps, "assignments": work, "leases": leases, "completion": complete})
        return
    print(f"Round {row['number']}: {row['state']}" + (f" (in {row['failed_in']})" if row["failed_in"] else ""))
    print_table(
        ["step", "state", "attempt", "seconds", "error"],
        [[s["step"], s["state"], s["attempt"], s["seconds"], s["error"]] for s in steps],
    )
    counts: dict[tuple[str, str], int] = {}
    for item in work:
        counts[(item["purpose"], item["state"])] = counts.get((item["purpose"], item["state"]), 0) + 1
    print_table(["purpose", "state", "assignments"], [[p, s, n] for (p, s), n in sorted(counts.items())], "Work")
    print(f"\n{found.complete} of {found.exams} exams are complete" + (": the round may close." if found.done else "."))
    if leases:
        print_table(
            ["assignment", "exam", "reader", "kept until", "extensions left"],
            [
                [
                    item["assignment_id"], item["exam_id"], item["reader_id"],
                    "over" if item["expired"] else f"{item['expires_at'][:16].replace('T', ' ')} UTC",
                    item["extensions_left"],
                ]
                for item in leases
            ],
            "Leases",
        )  # fmt: skip


@round_app.command("assign")
def assign(
    exam: Annotated[str, typer.Argument(help="Exam that waits for a reader; `redraft status` names them.")],
    reader: Annotated[str, typer.Argument(help="Who gets it.")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Give an exam that nobody has to a reader.

    That its time ran out too often, or that the reader has no minutes left, is no hindrance; a conflict is.
    """
    from flows.hand_over import give_exam

    assignment = give_exam(open_project(project_dir), exam, reader)
    if as_json:
        print_json({"exam_id": exam, "reader_id": reader, "assignment_id": assignment})
        return
    print(f"Exam {exam} is with {reader} now: assignment {assignment}.")


@round_app.command("extend")
def extend(
    assignment: Annotated[str, typer.Argument(help="Assignment that is out with a reader.")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Keep an exam for its reader longer, as readers can do on their pages."""
    from redraft.work_leases import extend as extend_lease

    project = open_project(project_dir)
    found = extend_lease(project.ledger, assignment, project.config.dispatch.lease, datetime.now(UTC), "cli")
    if as_json:
        print_json({"assignment_id": assignment, **found})
        return
    left = found["extensions_left"]
    print(f"Kept until {found['expires_at'][:16].replace('T', ' ')} UTC; it can be extended {left} more times.")


@round_app.command("close")
def close(
    number: Annotated[int | None, typer.Argument(help="Round number; the latest when omitted.")] = None,
    early: Annotated[
        bool, typer.Option("--early", help="Close although work is still out before the deadline.")
    ] = False,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
    verbose: bool = False,
) -> None:
    """Validate, retrain, evaluate and account. Running it again resumes an interrupted closing."""
    from flows.runtime import prefect_for
    from redraft import rounds

    project = open_project(project_dir)
    chosen = int(rounds.get(project, number)["number"])
    with prefect_for(project, verbose=verbose):
        from flows.close_round import close_round

        out = close_round(str(project.root), chosen, early)
    if as_json:
        print_json(out.model_dump(mode="json"))
        return
    print_gate(chosen, out.gate)
    print(f"Next: `redraft promote {chosen} --approve|--hold --by LOGIN --reason TEXT`.")


def print_gate(number: int, gate: dict[str, Any]) -> None:
    """The gate's result, one line per criterion."""
    print_table(
        ["criterion", "structure", "required", "measured", "passed"],
        [
            [c["name"], c["structure"], c["required"], c["measured"], "yes" if c["passed"] else "NO"]
            for c in gate["criteria"]
        ],
        f"Gate of round {number}: {'passed' if gate['passed'] else 'NOT passed'}",
    )


@round_app.command("abort")
def abort(
    number: Annotated[int, typer.Argument(help="Round number.")],
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Abort a round: open work is withdrawn; what readers returned stays."""
    from redraft import rounds

    project = open_project(project_dir)
    rounds.get(project, number)
    now = datetime.now(UTC)
    with rounds.writer(project, lambda: datetime.now(UTC)):
        rounds.abort(project, number, now, "cli")
    if as_json:
        print_json({"round": number, "state": rounds.get(project, number)["state"]})
        return
    print(f"Round {number} is aborted. Annotations that were returned are kept.")


def promote(
    number: Annotated[int, typer.Argument(help="Round number.")],
    approve: Annotated[
        bool | None, typer.Option("--approve/--hold", help="Promote the challenger, or keep the champion.")
    ] = None,
    by: Annotated[str, typer.Option(metavar="LOGIN", help="Who decides: an account with the role approver.")] = "",
    reason: Annotated[str, typer.Option(help="Why; kept in the record.")] = "",
    recorded: Annotated[
        str | None, typer.Option("--decision", metavar="ID", help="Carry out a decision that is on record already.")
    ] = None,
    record_only: Annotated[
        bool, typer.Option("--record-only", help="Leave acting on it to a promote_model run that waits on a server.")
    ] = False,
    password_file: PasswordFileOption = None,
    project_dir: ProjectOption = Path("."),
    as_json: JsonOption = False,
) -> None:
    """Decide about a round's challenger. The decision is recorded first, then the champion alias moves."""
    from flows.runtime import prefect_for
    from redraft.decisions import APPROVER, check, decide, verified
    from redraft.errors import UsageError

    if recorded is not None and (approve is not None or by or reason or record_only):
        raise UsageError("--decision names a decision that was made.", "Give it alone.")
    if recorded is None and (approve is None or not by or not reason):
        raise UsageError("A decision is to approve or to hold.", "Give --approve or --hold, --by and --reason.")
    project = open_project(project_dir)
    if recorded is not None:
        decision = str(verified(project, number, recorded)["decision_id"])
    else:
        assert approve is not None
        check(project, number, approve=approve, reason=reason)  # before a password is asked for
        who = prove(project, by, password_file, roles=(APPROVER,), act=f"decision about round {number}")
        decision = decide(project, number, approve=approve, by=who, reason=reason, now=datetime.now(UTC))
    if record_only:
        if as_json:
            print_json({"round": number, "decision_id": decision})
        else:
            print(
                f"Decision {decision} is recorded. Resume the waiting run with it, or run this again without the flag."
            )
        return
    with prefect_for(project):
        from flows.promote_model import promote_model

        out = promote_model(str(project.root), number, decision)
    if as_json:
        print_json(out.model_dump(mode="json"))
        return
    print(f"Round {number}: {out.state}. Champion: {out.champion or 'none'}.")
