"""Who works on what: of the readers who fit (skill, conflict, hours) the one with the least expected work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from redraft.config.schema import Reader
from redraft.digest import sha256_json
from redraft.work_leases import replacement_id

Mode = Literal["assisted", "from_scratch"]
Purpose = Literal["training", "reference", "quality"]
# Why nobody gets an exam, in the order in which readers drop out, and in the words of `redraft status`.
WORDS = {
    "gone": "no reader takes work",
    "record": "its record (exam.json) cannot be read, and it would tell who reported it",
    "skill": "no reader works on all of its structures and on its modality",
    "conflict": "the readers who could work on it reported it",
    "blind": "every reader who could work on it has had it in this round",
    "lapsed": "nobody but the reader who let it lie could work on it",
    "hours": "the readers who could work on it have no minutes left in this round",
}


@dataclass(frozen=True)
class Item:
    """One exam to be read, once.

    Attributes
    ----------
    minutes : expected minutes of a reader.
    read_by : pseudonyms of the physicians who reported it; None where the record does not tell.
    draft_id : the draft that existed when the mode was drawn, shown or not.
    instead_of : the withdrawn assignment that this reading stands in for.
    not_to : a reader who does not get it.
    """

    exam_id: str
    purpose: Purpose
    mode: Mode
    mode_probability: float | None
    modality: str
    minutes: float
    read_by: frozenset[str] | None = frozenset()
    draft_id: str | None = None
    instead_of: str | None = None
    not_to: str | None = None


@dataclass(frozen=True)
class Plan:
    """One planned assignment."""

    assignment_id: str
    exam_id: str
    reader_id: str
    purpose: Purpose
    mode: Mode
    mode_probability: float | None
    expected_minutes: float
    draft_id: str | None = None
    instead_of: str | None = None


@dataclass(frozen=True)
class Unassigned:
    """A reading that fits nobody now, and why (a key of WORDS). It is not lost: it waits."""

    exam_id: str
    purpose: Purpose
    why: str
    second: bool = False
    instead_of: str | None = None


@dataclass
class Desk:
    """One reader, and what lies on the desk.

    Attributes
    ----------
    structures : of the project; the reader must work on all of them, for a label holds them all.
    load : expected minutes that are out with the reader, of whatever round.
    spent : expected minutes that this round has given the reader, of which `minutes_per_round` allows so many.
    has : exams that the reader has or has read in this round.
    had : exams that the reader had before, in earlier rounds or until it lapsed; others get them first.
    takes : whether the reader takes work at all; not without an account any more, say.
    """

    reader: Reader
    structures: frozenset[str]
    load: float = 0.0
    spent: float = 0.0
    has: set[str] = field(default_factory=set)
    had: set[str] = field(default_factory=set)
    takes: bool = True

    def why_not(self, item: Item) -> str | None:
        """Why the reader cannot have an exam; None where nothing is in the way."""
        reader = self.reader
        if not self.takes:
            return "gone"
        if reader.structures and not self.structures <= set(reader.structures):
            return "skill"
        if reader.modalities and item.modality not in {str(modality) for modality in reader.modalities}:
            return "skill"
        if reader.reader_of_record and item.read_by is None:
            return "record"
        if item.read_by and item.read_by & set(reader.reader_of_record):
            return "conflict"
        if item.exam_id in self.has:
            return "blind"
        if reader.id == item.not_to:
            return "lapsed"
        if reader.minutes_per_round is not None and self.spent + item.minutes > reader.minutes_per_round + 1e-9:
            return "hours"
        return None

    def take(self, item: Item) -> None:
        """Put an exam on the desk."""
        self.load += item.minutes
        self.spent += item.minutes
        self.has.add(item.exam_id)


def assignment_id(round_number: int, exam_id: str, reader_id: str, purpose: str) -> str:
    """Deterministic id: dispatching again after a crash is the same assignment.

    Everybody can compute it, so known-wrong drafts have the id that training work on the exam would have: no reader
    gets both, and nothing tells them apart.
    """
    shown = "training" if purpose == "quality" else purpose
    return sha256_json([round_number, exam_id, reader_id, shown])[:20]


def assign(
    items: Sequence[Item], desks: Sequence[Desk], *, round_number: int, double_share: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[list[Plan], list[Unassigned]]:  # fmt: skip
    """Give each item to a fitting reader: first all first readings in the given order, then the second ones.

    Parameters
    ----------
    desks : sequence of Desk
        Changed in place: afterwards they show what each reader has.
    double_share : mapping of purpose to float
        Share of its exams that a second, different reader works on too, in the same mode. Items that stand in for
        others are never doubled.

    Returns
    -------
    plans, unassigned
        Every item is in exactly one of them; so is every second reading that was drawn.
    """
    order = rng.permutation(len(desks))
    tie = {desk.reader.id: int(n) for desk, n in zip(desks, order, strict=True)}
    plans: list[Plan] = []
    unassigned: list[Unassigned] = []
    second = [
        item for item in items if item.instead_of is None and rng.random() < double_share.get(item.purpose, 0.0)
    ]  # drawn before anybody is asked: who is free has no part in it
    given: set[str] = set()

    def give(item: Item, again: bool) -> None:
        fitting = [desk for desk in desks if desk.why_not(item) is None]
        if not fitting:
            why = _why([desk.why_not(item) for desk in desks])
            unassigned.append(Unassigned(item.exam_id, item.purpose, why, again, item.instead_of))
            return
        desk = min(fitting, key=lambda desk: (item.exam_id in desk.had, desk.load, tie[desk.reader.id]))
        desk.take(item)
        given.add(item.exam_id)
        plans.append(plan(item, desk.reader.id, round_number))

    for item in items:
        give(item, again=False)
    for item in second:
        if item.exam_id in given:  # an exam without a first reader is named once
            give(item, again=True)
    return plans, unassigned


def plan(item: Item, reader_id: str, round_number: int) -> Plan:
    """An item as the work of a reader."""
    if item.instead_of is not None:
        identity = replacement_id(item.instead_of, reader_id)
    else:
        identity = assignment_id(round_number, item.exam_id, reader_id, item.purpose)
    return Plan(
        identity, item.exam_id, reader_id, item.purpose, item.mode, item.mode_probability, item.minutes,
        item.draft_id, item.instead_of,
    )  # fmt: skip


def _why(reasons: Iterable[str | None]) -> str:
    """What the readers who came furthest stumbled over: the one thing that would have to change."""
    known = list(WORDS)
    return max((reason for reason in reasons if reason is not None), key=known.index, default="gone")
