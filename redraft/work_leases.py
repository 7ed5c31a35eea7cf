"""How long work is kept for its reader, who gets it next, and what nobody has: told from the ledger's rows.

A lease that runs out withdraws its assignment; a replacement for another reader is a new assignment whose id names the
one that it replaces. So the rows alone tell which reading of an exam is whose turn: no state is kept beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from redraft.config.schema import Config, Dispatch, WorkLease
from redraft.digest import sha256_json
from redraft.errors import StateError

if TYPE_CHECKING:
    from redraft.ledger import Ledger

Row = Mapping[str, Any]
# With a reader, who can do something about it.
OUT = ("DISPATCHED", "RETURNED_TO_READER")
# Readings that count towards a round; `quality` work is beside it.
COUNTED = ("training", "reference")


def until(now: datetime, due: datetime, rules: Dispatch) -> datetime:
    """When a lease that begins now ends.

    Without pages nobody sees a lease or can extend it: work handed out as folders or through a PACS is kept for its
    reader until the round's deadline at least.
    """
    end = now + timedelta(hours=rules.lease.hours)
    return end if rules.backend == "review" else max(end, due)


def view(lease: Row, rules: WorkLease, now: datetime) -> dict[str, Any]:
    """A lease as its reader sees it: `expires_at`, `extensions_left`, `expired`."""
    over = lease["state"] == "expired" or datetime.fromisoformat(lease["expires_at"]) <= now
    left = max(0, rules.extensions - lease["extensions"])
    return {"expires_at": lease["expires_at"], "extensions_left": left, "expired": over}


def extend(ledger: Ledger, assignment_id: str, rules: WorkLease, now: datetime, actor: str) -> dict[str, Any]:
    """Keep work for its reader for `extension_hours` more; returns the lease's `view`.

    A lease that has run out can be extended too, as long as nobody else was given the work.

    Raises
    ------
    StateError
        The work is not out with this reader any more (`state.lease_over`), or was extended as often as allowed
        (`state.lease_extensions`).
    """
    with ledger.tx(actor, now) as tx:
        lease = tx.one("work_lease", assignment_id=assignment_id)
        state = tx.get("assignment", assignment_id=assignment_id)["state"]
        if lease is None or lease["state"] != "held" or state not in OUT:
            raise StateError(
                f"Assignment {assignment_id} is not kept for its reader any more.",
                "What was saved is kept; ask whoever runs the rounds.",
                code="state.lease_over",
            )
        if lease["extensions"] >= rules.extensions:
            raise StateError(
                f"Assignment {assignment_id} was extended {lease['extensions']} times, as often as allowed.",
                "Finish it, or ask whoever runs the rounds (dispatch.lease.extensions in project.yaml).",
                code="state.lease_extensions",
            )
        start = max(now, datetime.fromisoformat(lease["expires_at"]))
        changes = {
            "expires_at": start + timedelta(hours=rules.extension_hours),
            "extensions": lease["extensions"] + 1,
        }
        tx.update("work_lease", {"assignment_id": assignment_id}, changes)
        return view(tx.get("work_lease", assignment_id=assignment_id), rules, now)


def new_lease(assignment_id: str, expires: datetime) -> dict[str, Any]:
    """The row of a lease that begins."""
    return {"assignment_id": assignment_id, "expires_at": expires, "extensions": 0, "state": "held"}


def replacement_id(replaced: str, reader_id: str) -> str:
    """Id of the assignment that gives a reader what another assignment had: the same however often it is planned."""
    return sha256_json(["instead of", replaced, reader_id])[:20]


@dataclass(frozen=True)
class Opening:
    """A reading that nobody has: its assignment was withdrawn and not replaced.

    Attributes
    ----------
    expired : how often the lease of this reading ran out so far.
    escalated : whether a person must decide; it is not given away by itself any more.
    """

    last: Row
    expired: int
    escalated: bool


def replaced(assignments: Iterable[Row]) -> dict[str, str]:
    """Replacement's assignment id to the id of the withdrawn one that it stands for."""
    by_exam: dict[tuple[str, str], list[Row]] = {}
    for row in assignments:
        by_exam.setdefault((row["exam_id"], row["purpose"]), []).append(row)
    found = {}
    for rows in by_exam.values():
        gone = [row for row in rows if row["state"] == "WITHDRAWN"]
        for old in gone:
            for row in rows:
                if row["assignment_id"] == replacement_id(old["assignment_id"], row["reader_id"]):
                    found[row["assignment_id"]] = old["assignment_id"]
    return found


def openings(assignments: Sequence[Row], leases: Mapping[str, Row], escalate_after: int) -> list[Opening]:
    """Readings of one round that nobody has, in the order of the withdrawn assignments' ids.

    Parameters
    ----------
    assignments : rows of one round.
    leases : lease rows by assignment id.
    """
    before = replaced(assignments)
    stood_in_for = set(before.values())
    found = []
    for row in sorted(assignments, key=lambda row: row["assignment_id"]):
        if row["state"] != "WITHDRAWN" or row["assignment_id"] in stood_in_for or row["purpose"] not in COUNTED:
            continue
        expired, step = 0, row["assignment_id"]
        while step:
            expired += leases.get(step, {}).get("state") == "expired"
            step = before.get(step, "")
        # One that was withdrawn for another reason than time (its reader left) is given on like any other.
        found.append(Opening(row, expired, expired >= escalate_after))
    return found


@dataclass(frozen=True)
class Progress:
    """How far a round is.

    Attributes
    ----------
    exams : that are worked on in this round.
    complete : of these, how many have the readings that the rule asks for.
    done : whether the round may close by the rule.
    missing : exams that are not complete, by id.
    """

    exams: int
    complete: int
    done: bool
    missing: tuple[str, ...]


def progress(assignments: Sequence[Row], config: Config, undecided: Iterable[str] = ()) -> Progress:
    """Judge a round by `dispatch.completion`: n of m readings of an exam, for a share of the exams.

    m is how many readings of an exam were handed out; one that was given on counts once. n is `readings`, m at most. A
    reading counts when it is ACCEPTED. One that is REJECTED (sent back without a segmentation) is final: it counts
    neither among the n nor the m, and an exam that nobody could segment waits for nothing. Returned work, work in
    review and a reading that nobody has are not in. Work on known-wrong drafts (`quality`) never holds a round up.

    Parameters
    ----------
    assignments : rows of one round.
    undecided : exams whose readings disagree and wait for adjudication.
    """
    rules, waits = config.dispatch.completion, set(undecided)
    stood_in_for = set(replaced(assignments).values())
    exams: dict[str, list[str]] = {}
    for row in assignments:
        if row["purpose"] in COUNTED and row["assignment_id"] not in stood_in_for:
            exams.setdefault(row["exam_id"], []).append(row["state"])
    missing = []
    for exam, states in exams.items():
        planned = sum(state != "REJECTED" for state in states)
        wanted = planned if rules.readings is None else min(rules.readings, planned)
        if states.count("ACCEPTED") < wanted or exam in waits:
            missing.append(exam)
    complete = len(exams) - len(missing)
    done = bool(exams) and complete >= rules.share * len(exams) - 1e-9
    return Progress(len(exams), complete, done, tuple(sorted(missing)))
