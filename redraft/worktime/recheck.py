"""Do recorded minutes still follow from the raw events? Asked by `redraft audit verify`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from redraft.ledger import Ledger
from redraft.worktime.contract import EXAM
from redraft.worktime.entries import counted
from redraft.worktime.store import again, measured

STATES = ("active", "idle", "away")


def recheck(ledger: Ledger) -> Iterator[tuple[str, list[str]]]:
    """Each annotation with measured minutes, and what does not agree with its raw events (nothing, as a rule)."""
    entries: dict[str, dict[str, dict[str, float]]] = {}
    for row in counted(ledger):
        if row["origin"] == "measured":
            spent = {state: row[f"{state}_minutes"] for state in STATES}
            entries.setdefault(row["annotation_id"], {})[row["structure"] or EXAM] = spent
    records = measured(ledger) if entries else {}
    for annotation in sorted(entries):
        record = records.get(annotation)
        if record is None:
            yield annotation, ["measured minutes without a record of the events they come from"]
            continue
        time, digest = again(ledger, record)
        wrong = []
        if digest != record.events_sha256:
            wrong.append("the raw events are not those that its minutes were taken from")
        found = entries[annotation]
        expected = _told_apart(time.minutes(), set(found))
        for name in sorted({*expected, *found}):
            for state in STATES:
                right, said = expected.get(name, {}).get(state, 0.0), found.get(name, {}).get(state, 0.0)
                if not math.isclose(said, right, abs_tol=1e-9):
                    wrong.append(f"{name}: {said} {state} minutes are recorded, the raw events give {right}")
        yield annotation, wrong


def _told_apart(minutes: dict[str, dict[str, float]], names: set[str]) -> dict[str, dict[str, float]]:
    """Minutes of structures that the work was not handed in under belong to the exam, as they did then."""
    result: dict[str, dict[str, float]] = {}
    for name, spent in minutes.items():
        into = result.setdefault(name if name in names else EXAM, dict.fromkeys(STATES, 0.0))
        for state in STATES:
            into[state] += spent[state]
    return result
