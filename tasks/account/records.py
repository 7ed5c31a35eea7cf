"""What accounting reads from a project: its minutes, machine seconds and bytes; and the report made of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from redraft.cohort import Cohort
from redraft.dataset.manifest import read_manifest
from redraft.look_times import look_minutes, looks, roles
from redraft.project import Project
from redraft.rounds import get
from redraft.worktime.contract import EXAM
from redraft.worktime.entries import counted
from redraft.worktime.store import active_minutes, measured
from tasks.account.report import CostReport, cost_reports
from tasks.account.rows import ComputeUse, LookRow, StorageUse, TimeRow
from tasks.account.sensitivity import Alternatives


def time_rows(project: Project) -> list[TimeRow]:
    """Every recorded minute that counts, with what accounting needs to know of it, sorted."""
    ledger, cohort = project.ledger, Cohort(project)
    roles = {row["reader_id"]: row["role"] for row in ledger.rows("reader")}
    annotations = {row["annotation_id"]: row for row in ledger.rows("annotation")}
    models = {row["draft_id"]: row["model_digest"] for row in ledger.rows("draft")}
    accepted = {row["assignment_id"] for row in annotations.values() if row["state"] == "valid"}
    found = []
    for entry in counted(ledger):
        annotation = annotations[entry["annotation_id"]]
        work = cohort.assignments[annotation["assignment_id"]]
        found.append(
            TimeRow(
                round=work["round"],
                annotation_id=annotation["annotation_id"],
                exam_id=work["exam_id"],
                subject_id=cohort.exams[work["exam_id"]]["subject_id"],
                reader_id=work["reader_id"],
                role=roles[work["reader_id"]],
                purpose=work["purpose"],
                mode=work["mode"],
                mode_probability=work["mode_probability"],
                drafted_by=models.get(work["draft_id"]),
                structure=entry["structure"],
                active_minutes=entry["active_minutes"],
                simulated=entry["simulated"],
                origin=entry["origin"],
                worked_on=datetime.fromisoformat(annotation["received_at"]).date(),
                finished=annotation["assignment_id"] in accepted,
                rejected=annotation["state"] == "rejected",
            )
        )
    return sorted(found, key=lambda row: (row.round, row.annotation_id, row.structure or ""))


def reports(project: Project, number: int | None = None) -> tuple[CostReport, ...]:
    """Cost reports of a project (or of one round), one for people's times and one for simulated ones."""
    closed = sorted({row["round"] for row in project.ledger.rows("cost_entry")})
    wanted = [n for n in closed if number is None or n == number]
    rows = [row for row in time_rows(project) if row.round in wanted]
    compute: list[ComputeUse] = []
    storage: list[StorageUse] = []
    for entry in project.ledger.rows("cost_entry"):
        if entry["round"] not in wanted:
            continue
        common: dict[str, Any] = {"round": entry["round"], "simulated": entry["simulated"]}
        if entry["kind"] == "compute":
            compute.append(ComputeUse(step=entry["what"], seconds=float(entry["rate"]["seconds"]), **common))
        elif entry["kind"] == "storage":
            storage.append(StorageUse(what=entry["what"], bytes=int(entry["rate"]["bytes"]), **common))
    return cost_reports(
        rows, compute, storage, project.rates, structures=[s.name for s in project.config.structures],
        currency=project.config.money.currency, site=project.config.money.site, bootstrap=project.config.bootstrap,
        seed=project.config.seed, alternatives=alternatives(project, rows),
        looks=[look for n in wanted for look in look_rows(project, n)],
    )  # fmt: skip


def look_rows(project: Project, number: int) -> list[LookRow]:
    """Second looks that round `number` pays for, sorted: those that it was charged with.

    Before it is accounted: those that are over, of this round or of an earlier one, and that no round was charged with
    yet (work is reviewed after its round was closed, too). Whoever looked is paid, not only who decided. Once charged,
    minutes and role stay those of the cost entry.
    """
    ledger = project.ledger
    entries = {row["what"]: row for row in ledger.rows("cost_entry") if row["what"].startswith("look/")}
    accounted = {row["round"] for row in ledger.rows("cost_entry")}
    known = {look["record_id"]: look for look in looks(ledger)}
    spent, paid_as = look_minutes(ledger, project.config.time), roles(ledger, project.config)
    found = []
    for record, account in sorted({*spent, *((look["record_id"], look["account_id"]) for look in known.values())}):
        if record not in known:
            continue  # still waits, or its readings were changed before anybody decided
        look = known[record]
        row = LookRow(
            round=number, record_id=record, account_id=account, look=look["kind"], exam_id=look["exam_id"],
            role=paid_as[account], worked_on=datetime.fromisoformat(look["at"]).date(),
            active_minutes=round(spent[record, account]["active"], 4) if (record, account) in spent else None,
        )  # fmt: skip
        entry = entries.get(row.what)
        if entry is not None:
            paid = {"role": entry["rate"]["role"], "active_minutes": entry["minutes"]}
            row = row.model_copy(update={**paid, "worked_on": date.fromisoformat(entry["rate"]["day"])})
            if entry["round"] == number:
                found.append(row)
        elif row.active_minutes is None:
            if look["round"] == number:
                found.append(row)
        elif number not in accounted and look["round"] <= number:
            found.append(row)
    return found


def alternatives(project: Project, rows: Sequence[TimeRow]) -> Alternatives | None:
    """Minutes of the measured annotations among `rows` with other thresholds of idleness; None where there are none."""
    wanted = {row.annotation_id for row in rows if row.origin == "measured"}
    if not wanted:
        return None
    records = {name: record for name, record in measured(project.ledger).items() if name in wanted}
    recorded = frozenset(record.idle_after_seconds for record in records.values())
    seconds = sorted({*project.config.time.sensitivity_seconds, *recorded})
    found: dict[float, dict[str, dict[str | None, float]]] = {value: {} for value in seconds}
    for annotation, record in records.items():
        for value, minutes in active_minutes(project.ledger, record, seconds).items():
            found[value][annotation] = {None if name == EXAM else name: spent for name, spent in minutes.items()}
    return Alternatives(found, recorded)


def uses(project: Project, number: int) -> tuple[list[ComputeUse], list[StorageUse]]:
    """Machine seconds of the round's finished steps, and the bytes it added."""
    simulated = bool(get(project, number)["simulated"])
    compute = [
        ComputeUse(
            round=number, step=f"{row['step']}/{row['step_run_id']}", seconds=row["seconds"], simulated=simulated
        )
        for row in project.ledger.rows("step_run", round=number)
        if row["state"] == "done"
    ]
    size = sum(line["size"] for line in read_manifest(project.data) if line["round"] == number)
    return compute, [StorageUse(round=number, what="dataset", bytes=size, simulated=simulated)]
