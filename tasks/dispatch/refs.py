"""What the steps of dispatch take and give: ids, counts and digests, in words that stay on record."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import Field

from redraft.steps import Contract
from tasks.dispatch.assign import Unassigned


class DispatchInputs(Contract):
    """Who gets what."""

    selection: tuple[tuple[str, str], ...]
    reference: tuple[str, ...]
    carried_over: tuple[str, ...]
    readers: tuple[str, ...]
    rules: str


class UnassignedRef(Contract):
    """A reading that fitted nobody; `why` is a key of tasks.dispatch.assign.WORDS."""

    exam_id: str
    purpose: str
    why: str
    second: bool


class DispatchRef(Contract):
    """What went out in this round, and what did not.

    Attributes
    ----------
    quality : known-wrong drafts among it; beside `training`.
    quality_missing : of those planned, how many could not be made (no exam with a known truth that fits a reader).
    unassigned : readings that wait for a reader; their exams are not lost.
    """

    round: int
    training: int
    reference: int
    carried_over: int
    assignments_sha256: str
    quality: int = 0
    quality_missing: int = 0
    unassigned: tuple[UnassignedRef, ...] = ()


class KeptRef(Contract):
    """What became of leases and of readings that nobody had.

    Attributes
    ----------
    expired, left : assignments that were withdrawn: their time ran out, their reader takes no work any more.
    handed : new assignment id to the withdrawn one (or to the exam) that it stands for.
    escalated : exams that wait for a person.
    unassigned : readings that fit nobody.
    renewed, repaired : assignments whose lease began again, whose package was missing and is there again.
    """

    expired: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    handed: dict[str, str] = Field(default_factory=dict)
    escalated: tuple[str, ...] = ()
    unassigned: tuple[UnassignedRef, ...] = ()
    renewed: int = 0
    repaired: tuple[str, ...] = ()


class ReturnedRef(Contract):
    """One finished piece of work in its package; without label where the exam was sent back without one."""

    assignment_id: str
    label: str | None  # relative to the project where it lies inside, else absolute
    label_sha256: str | None
    result: dict[str, Any]


class CollectRef(Contract):
    """What came back and could be read."""

    items: tuple[ReturnedRef, ...]
    unreadable: dict[str, str]  # assignment_id to rule


def unassigned_ref(item: Unassigned) -> UnassignedRef:
    """A reading that fitted nobody, as it is recorded."""
    return UnassignedRef(**{key: value for key, value in asdict(item).items() if key != "instead_of"})
