"""What dispatch starts from: the readers' desks, what is to be read, and what an exam is expected to take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from redraft.cohort import Cohort
from redraft.digest import sha256_bytes
from redraft.project import Project
from redraft.rounds import get
from redraft.work_leases import OUT, Opening
from redraft.worktime.entries import counted
from tasks.dispatch.assign import Desk, Item, Mode, Purpose
from tasks.dispatch.expected import Worked, expected_minutes

Row = Mapping[str, Any]


def away(project: Project) -> frozenset[str]:
    """Readers who take no work: not in project.yaml any more, or with accounts of which none is active."""
    known = {reader.id for reader in project.config.dispatch.readers}
    accounts: dict[str, set[str]] = {}
    for row in project.ledger.rows("account"):
        if row["reader_id"] is not None:
            accounts.setdefault(row["reader_id"], set()).add(row["state"])
    removed = {reader for reader, states in accounts.items() if "active" not in states}
    gone = {row["reader_id"] for row in project.ledger.rows("reader")} - known
    return frozenset(gone | removed)


def desks(project: Project, assignments: Iterable[Row], number: int, carried: Iterable[str] = ()) -> list[Desk]:
    """The readers of project.yaml with what they have, in its order.

    Parameters
    ----------
    assignments : all of the project's.
    carried : of these, those that are handed out again in this round, and count as its work.
    """
    structures = frozenset(s.name for s in project.config.structures)
    gone, again = away(project), set(carried)
    found = {
        reader.id: Desk(reader, structures, takes=reader.id not in gone) for reader in project.config.dispatch.readers
    }
    for row in assignments:
        desk = found.get(row["reader_id"])
        if desk is None:
            continue
        minutes = float(row["expected_minutes"] or 0)
        desk.had.add(row["exam_id"])
        if row["state"] in (*OUT, "CARRIED_OVER"):
            desk.load += minutes
        if row["state"] != "WITHDRAWN" and (row["round"] == number or row["assignment_id"] in again):
            desk.spent += minutes
            desk.has.add(row["exam_id"])
    for reader_id, exam_id in _looked_at(project):
        if reader_id in found:
            found[reader_id].has.add(exam_id)
    return list(found.values())


def _looked_at(project: Project) -> set[tuple[str, str]]:
    """(reader, exam) of second looks and adjudications: who saw others' readings of an exam is not blind to them."""
    readers = {row["account_id"]: row["reader_id"] for row in project.ledger.rows("account") if row["reader_id"]}
    return {
        (readers[event["payload"]["account_id"]], event["payload"]["exam_id"])
        for event in (project.ledger.rows("audit_event", kind="exam.viewed") if readers else ())
        if "second_look" in event["payload"] and event["payload"]["account_id"] in readers
    }


class Expectations:
    """Items as the project knows them: modality, who reported the exam, expected minutes."""

    def __init__(self, project: Project, cohort: Cohort, number: int):
        self._project, self._cohort = project, cohort
        self._matters = any(reader.reader_of_record for reader in project.config.dispatch.readers)
        self.minutes = _minutes(project, cohort)
        champion = get(project, number)["champion"]
        drafts = project.ledger.rows("draft", model_digest=champion) if champion else []
        self.drafts = {row["exam_id"]: row for row in drafts}

    def item(
        self, exam_id: str, purpose: Purpose, mode: Mode, probability: float | None, *, draft_id: str | None = None,
        instead_of: str | None = None, not_to: str | None = None,
    ) -> Item:  # fmt: skip
        """One exam to be read."""
        return Item(
            exam_id, purpose, mode, probability, self._cohort.exams[exam_id]["modality"], self.minutes[mode],
            self._read_by(exam_id), draft_id, instead_of, not_to,
        )  # fmt: skip

    def chosen(self, selection: Row) -> Item:
        """A selected exam. Its draft is named in either mode: it makes both arms comparable."""
        why, draft = selection["explanation"], self.drafts.get(selection["exam_id"])
        draft_id = draft["draft_id"] if draft else None
        return self.item(
            selection["exam_id"], "training", why["mode"], why["mode_probability"], draft_id=draft_id
        )  # fmt: skip

    def reference(self, exam_id: str) -> Item:
        """A validation or test exam: from scratch, whatever drafts there are."""
        return self.item(exam_id, "reference", "from_scratch", None)

    def instead(self, row: Row, *, not_to: str | None = None) -> Item:
        """The same reading as a withdrawn assignment's, for somebody else."""
        return self.item(
            row["exam_id"], row["purpose"], row["mode"], row["mode_probability"], draft_id=row["draft_id"],
            instead_of=row["assignment_id"], not_to=not_to,
        )  # fmt: skip

    def openings(self, found: Sequence[Opening]) -> list[Item]:
        """Readings that nobody has, for anybody but who had them last; those that wait for a person are left out."""
        return [self.instead(o.last, not_to=o.last["reader_id"]) for o in found if not o.escalated]

    def _read_by(self, exam_id: str) -> frozenset[str] | None:
        if not self._matters:
            return frozenset()
        try:
            path = self._project.image(exam_id).with_name("exam.json")
            return frozenset(map(str, json.loads(path.read_text(encoding="utf-8"))["read_by"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None  # a record of before readers were kept, say: not the same as read by nobody


def _minutes(project: Project, cohort: Cohort) -> dict[str, float]:
    config, ledger = project.config, project.ledger
    simulated = config.dispatch.backend == "simulated"
    annotations = {row["annotation_id"]: row for row in ledger.rows("annotation", state="valid")}
    history = []
    for entry in counted(ledger):
        annotation = annotations.get(entry["annotation_id"])
        if annotation is None or entry["simulated"] != simulated:
            continue
        work = cohort.assignments[annotation["assignment_id"]]
        if work["purpose"] == "quality":
            continue
        history.append(
            Worked(entry["annotation_id"], entry["structure"], work["mode"], entry["origin"], entry["active_minutes"])
        )
    names = [s.name for s in config.structures]
    return expected_minutes(history, names, config.select.prior_minutes, simulated=simulated)


def generator(seed: int, number: int, *purpose: str) -> np.random.Generator:
    """The random generator of one purpose in one round."""
    return np.random.default_rng(int(sha256_bytes("/".join([str(seed), str(number), *purpose]).encode())[:16], 16))
