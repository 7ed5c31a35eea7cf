"""Work in a PACS: how an assignment is known there, and whose work a segmentation that lies there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from redraft.errors import LabelError
from redraft.pacs_returns import Found
from redraft.segmentation.exam import ExamGeometry
from tasks.dispatch.contract import Task


@dataclass(frozen=True)
class Draft:
    """One assignment as the PACS sees it; all UIDs are pseudonyms.

    Attributes
    ----------
    code : str
        What descriptions call the assignment.
    instance : str or None
        Of the draft's object; None where nothing is stored (from scratch).
    marks : frozenset of str
        Of the draft's object and its segments' tracking UIDs: what refers to any of them was made from this draft.
    """

    assignment_id: str
    code: str
    instance: str | None = None
    marks: frozenset[str] = frozenset()


class Pacs(Protocol):
    """What this backend needs of a PACS; see tasks.dispatch.open_backend."""

    def draft(self, assignment_id: str, task: Task) -> Draft:
        """How an assignment is known there; asks nothing of the server."""
        ...

    def stored(self) -> tuple[set[str], set[str]]:
        """Assignments whose draft is there, and pseudonyms of every object that redraft ever stored."""
        ...

    def store(self, tasks: Sequence[Task]) -> Iterator[tuple[str, str | None, str]]:
        """Store drafts: assignment, the rule by which it is not there (None when it is), and why."""
        ...

    def look(self, exam: ExamGeometry) -> list[Found]:
        """Segmentations in the exam's study."""
        ...

    def elsewhere(self, exams: Iterable[ExamGeometry]) -> frozenset[str]:
        """Work codes that segmentations outside of these exams' studies name."""
        ...

    def labels(self, found: Found, exam: ExamGeometry) -> NDArray[np.uint8]:
        """Label values of one of them."""
        ...

    def took(self, task: Task, found: Found, label_sha256: str) -> None:
        """Record what was picked up."""
        ...


def owner(found: Found, drafts: Iterable[Draft]) -> str | None:
    """The assignment that a segmentation is the work of; None where it names none of these.

    Raises LabelError (rule ambiguous_assignment; `measured` lists them) where it could be the work of several.
    """
    drafts = list(drafts)
    made_from = {d.assignment_id for d in drafts if d.marks & found.refers_to}
    called = {d.assignment_id for d in drafts if d.code in found.codes}
    if not (named := made_from | called):
        return None
    if len(named) == 1:
        return named.pop()
    raise LabelError(
        "A segmentation in the PACS could be the work of several assignments.",
        "Store it again, made from one draft and with one work code in its series description.",
        rule="ambiguous_assignment", measured={"assignments": sorted(named)},
    )  # fmt: skip
