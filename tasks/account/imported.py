"""Minutes that another tool kept, taken in from CSV for work that came without times or with typed ones.

Nothing is overwritten: imported minutes are new time entries of origin `imported`, and the chain's event
`time.imported` names the file's digest and, per annotation, what was added and what it replaces. What was measured or
simulated is not replaced. Where a round has been accounted already, the difference is a cost entry of its own.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redraft.digest import sha256_bytes, sha256_json
from redraft.errors import UsageError
from redraft.project import Project
from redraft.worktime.contract import EXAM
from redraft.worktime.entries import IMPORTED, counted
from tasks.account.cost import cost_entries
from tasks.account.money import exact
from tasks.account.records import time_rows

COLUMNS = ("assignment_id", "structure", "active", "idle", "away")
MAX_BYTES = 10 << 20
# A week without a break: more is a wrong unit (seconds, milliseconds), not work on one exam.
MAX_MINUTES = 7 * 24 * 60.0


@dataclass(frozen=True)
class Line:
    """A row of the file, minutes."""

    number: int
    assignment_id: str
    structure: str
    active: float
    idle: float
    away: float


@dataclass(frozen=True)
class Imported:
    """What an import did: annotations with new entries, those that already had these, and entries replaced."""

    import_id: str
    annotations: list[str]
    unchanged: list[str]
    added: int
    replaced: int
    corrections: int


def read_csv(content: bytes, structures: Sequence[str]) -> list[Line]:
    """Parse and check a file: UTF-8, a header with COLUMNS in any order (`idle` and `away` may be missing).

    `structure` is a structure's name, or empty or `exam` for time that belongs to none.

    Raises
    ------
    UsageError
        Names the line and what is wrong with it.
    """
    if len(content) > MAX_BYTES:
        raise UsageError("The file is larger than 10 MiB.", "Import it in parts.", code="time.import")
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"The file is not CSV in UTF-8 ({type(error).__name__}).", "Save it as CSV, comma-separated.",
            code="time.import",
        ) from error  # fmt: skip
    header = list(reader.fieldnames or ())
    if not set(COLUMNS[:3]) <= set(header) or not set(header) <= set(COLUMNS) or len(set(header)) < len(header):
        raise UsageError(
            f"The file's columns are {', '.join(map(repr, header)) or 'none'}.", f"It takes {', '.join(COLUMNS)}.",
            code="time.import",
        )  # fmt: skip
    lines, seen = [], set()
    for number, row in enumerate(rows, 2):
        line = _line(number, row, structures)
        if (line.assignment_id, line.structure) in seen:
            raise _wrong(number, f"{line.structure} of this assignment stands in the file twice", "Add them up.")
        seen.add((line.assignment_id, line.structure))
        lines.append(line)
    if not lines:
        raise UsageError("The file has no rows.", "One row per assignment and structure.", code="time.import")
    return lines


def import_times(project: Project, content: bytes, *, now: datetime, actor: str) -> Imported:
    """Take minutes in, all of them or none. The same file again changes nothing.

    An import stands for the whole of an annotation: all typed or imported entries that it had are replaced, also those
    of structures that the file does not name. Minutes go to the assignment's latest annotation.

    Raises
    ------
    UsageError
        A wrong file; an assignment without annotation; minutes that were measured or simulated.
    """
    lines = read_csv(content, [structure.name for structure in project.config.structures])
    ledger = project.ledger
    latest: dict[str, dict[str, Any]] = {}
    for row in ledger.rows("annotation"):
        if row["revision"] > latest.get(row["assignment_id"], {"revision": 0})["revision"]:
            latest[row["assignment_id"]] = row
    standing: dict[str, list[dict[str, Any]]] = {}
    for entry in counted(ledger):
        standing.setdefault(entry["annotation_id"], []).append(entry)
    groups: dict[str, list[Line]] = {}
    for line in lines:
        annotation = latest.get(line.assignment_id)
        if annotation is None:
            raise _wrong(
                line.number, "there is no annotation of this assignment", "Import when its work has been taken in."
            )
        for entry in standing.get(annotation["annotation_id"], []):
            if entry["origin"] not in ("typed", "imported"):
                raise _wrong(line.number, f"this work has {entry['origin']} minutes", "They stand; leave the row out.")
        if annotation["simulated"]:
            raise _wrong(line.number, "this work is simulated", "People's minutes do not belong to it.")
        groups.setdefault(annotation["annotation_id"], []).append(line)
    import_id = sha256_json([sha256_bytes(content), now.isoformat()])[:24]
    rows: list[dict[str, Any]] = []
    changes, unchanged = [], []
    for annotation_id, of_it in sorted(groups.items()):
        before = standing.get(annotation_id, [])
        if _same(before, of_it):
            unchanged.append(annotation_id)
            continue
        added = [_entry(import_id, annotation_id, line) for line in of_it]
        rows += added
        changes.append(
            {
                "annotation_id": annotation_id,
                "added": [row["time_entry_id"] for row in added],
                "replaced": [row["time_entry_id"] for row in before],
            }
        )
    changed = [name for name in sorted(groups) if name not in unchanged]
    if not changes:
        return Imported(import_id, [], unchanged, 0, 0, 0)
    old_cost = _expert_costs(project, changed)
    with ledger.tx(actor, now) as tx:
        tx.insert_many("time_entry", rows)
        payload = {"import_id": import_id, "file_sha256": sha256_bytes(content), "annotations": changes}
        tx.event(IMPORTED, payload)
    corrections = _correct(project, import_id, old_cost, _expert_costs(project, changed), now=now, actor=actor)
    replaced = sum(len(change["replaced"]) for change in changes)
    return Imported(import_id, changed, unchanged, len(rows), replaced, corrections)


def _line(number: int, row: dict[Any, Any], structures: Sequence[str]) -> Line:
    if None in row or None in row.values():
        raise _wrong(number, "it has more or fewer fields than the header", "Mend the row.")
    values = {name: str(row.get(name, "")).strip() for name in COLUMNS}
    structure = values["structure"] or EXAM
    if structure != EXAM and structure not in structures:
        raise _wrong(number, f"unknown structure {structure!r}", f"Known are {', '.join([*structures, EXAM])}.")
    minutes = []
    for name in ("active", "idle", "away"):
        try:
            value = float(values[name] or ("nan" if name == "active" else "0"))
        except ValueError:
            value = math.nan
        if not 0 <= value <= MAX_MINUTES:
            raise _wrong(number, f"`{name}` is not a number of minutes", f"From 0 to {MAX_MINUTES:.0f}.")
        minutes.append(value)
    return Line(number, values["assignment_id"], structure, *minutes)


def _wrong(number: int, what: str, do: str) -> UsageError:
    return UsageError(f"Line {number}: {what}. Nothing was imported.", do, code="time.import")


def _same(before: Sequence[dict[str, Any]], lines: Sequence[Line]) -> bool:
    """Whether exactly these minutes were imported before and still stand."""
    have = {
        (row["structure"] or EXAM, row["active_minutes"], row["idle_minutes"], row["away_minutes"])
        for row in before
        if row["origin"] == "imported"
    }
    wanted = {(line.structure, line.active, line.idle, line.away) for line in lines}
    return have == wanted and len(before) == len(lines)


def _entry(import_id: str, annotation_id: str, line: Line) -> dict[str, Any]:
    return {
        "time_entry_id": sha256_json([import_id, annotation_id, line.structure])[:24],
        "annotation_id": annotation_id,
        "structure": None if line.structure == EXAM else line.structure,
        "active_minutes": line.active,
        "idle_minutes": line.idle,
        "away_minutes": line.away,
        "origin": "imported",
        "simulated": False,
    }


def _expert_costs(project: Project, annotations: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What these annotations' minutes cost, in rounds that were accounted already: annotation to cost entry."""
    accounted = {row["round"] for row in project.ledger.rows("cost_entry")}
    rows = [row for row in time_rows(project) if row.annotation_id in annotations and row.round in accounted]
    money = project.config.money
    entries = cost_entries(rows, [], [], project.rates, currency=money.currency, site=money.site)
    return {entry.what: entry.model_dump() for entry in entries}


def _correct(
    project: Project, import_id: str, old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]], *,
    now: datetime, actor: str,
) -> int:  # fmt: skip
    """Enter the differences as cost entries of their own; returns how many."""
    rows = []
    for what, entry in sorted(new.items()):
        before = old.get(what)
        amount = entry["amount"] - (before["amount"] if before else 0)
        minutes = exact(entry["minutes"]) - (exact(before["minutes"]) if before else 0)
        name = f"{what}+{import_id[:8]}"
        row = {**entry, "what": name, "amount": amount, "minutes": float(minutes), "at": now}
        rate = {**entry["rate"], "corrects": what, "import": import_id}
        rows.append({**row, "rate": rate, "cost_entry_id": sha256_json([entry["round"], entry["kind"], name])[:24]})
    if rows:
        with project.ledger.tx(actor, now) as tx:
            tx.insert_many("cost_entry", rows)
    return len(rows)
