"""What accounting starts from: minutes worked, seconds computed, bytes stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from redraft.errors import UsageError

# Where minutes come from: a backend's events, a reader's own word, another tool's export, an effort model.
Origin = Literal["measured", "typed", "imported", "simulated"]


class Row(BaseModel):
    """Base: frozen, unknown keys refused, no NaN or infinity; every row says whether its times are simulated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    simulated: bool


class TimeRow(Row):
    """Active expert minutes on one annotation (and structure, where they were kept apart).

    Attributes
    ----------
    purpose : `quality` is work on drafts that are wrong on purpose; it is paid for and tells nothing of drafts.
    drafted_by : digest of the model whose draft existed when the mode was drawn, for both modes; None on a cold start.
    mode_probability : probability with which this row's own mode was drawn; None where nothing was drawn.
    structure : None when minutes were kept per exam only.
    worked_on : the day whose rate applies.
    finished : whether the work led to an accepted annotation; work that was refused and is not mended yet is paid for,
        but says nothing about how long an exam takes.
    rejected : the reader sent the exam back without a segmentation; its minutes are paid for all the same.
    """

    round: int
    annotation_id: str
    exam_id: str
    subject_id: str
    reader_id: str
    role: str
    purpose: Literal["training", "reference", "quality"]
    mode: Literal["assisted", "from_scratch"]
    mode_probability: Annotated[float, Field(gt=0, le=1)] | None = None
    drafted_by: str | None = None
    structure: str | None = None
    active_minutes: Annotated[float, Field(ge=0)]
    origin: Origin
    worked_on: date
    finished: bool = True
    rejected: bool = False

    @model_validator(mode="after")
    def _simulated_says_so(self) -> TimeRow:
        if self.simulated != (self.origin == "simulated"):
            raise ValueError("times are simulated exactly where their origin is")
        return self

    @property
    def randomised(self) -> bool:
        """Whether chance decided between both modes while a draft existed."""
        return self.drafted_by is not None and self.mode_probability is not None and self.mode_probability < 1


class LookRow(Row):
    """A reviewer's or an adjudicator's active minutes on one review or consensus, in the round that pays for them.

    `active_minutes` is None where the page sent no times: such a look is counted and never estimated.
    """

    round: int
    record_id: str
    account_id: str
    look: Literal["review", "adjudication"]
    exam_id: str
    role: str
    active_minutes: Annotated[float, Field(ge=0)] | None
    worked_on: date
    simulated: Literal[False] = False

    @property
    def what(self) -> str:
        """Name of its cost entry."""
        return f"look/{self.record_id}/{self.account_id}"


class ComputeUse(Row):
    """Machine seconds of one step of a round."""

    round: int
    step: str
    seconds: Annotated[float, Field(ge=0)]


class StorageUse(Row):
    """Bytes that a round added for good."""

    round: int
    what: str
    bytes: Annotated[int, Field(ge=0)]
    exam_id: str | None = None


@dataclass(frozen=True)
class Case:
    """One reader's work on one exam in one round, all revisions together.

    `origins` are those of its minutes: one, unless revisions were timed in different ways. `minutes` and `money` are
    per structure; the key None holds what was not kept apart. Money is per exam a float here: it only enters
    statistics.
    """

    round: int
    exam_id: str
    subject_id: str
    reader_id: str
    purpose: str
    mode: str
    weight: float
    randomised: bool
    finished: bool
    rejected: bool
    origins: frozenset[str]
    minutes: dict[str | None, float]
    money: dict[str | None, float]


Flagged = TypeVar("Flagged", TimeRow, LookRow, ComputeUse, StorageUse)


def of_kind(rows: Iterable[Flagged], simulated: bool) -> list[Flagged]:
    """Rows of one kind only."""
    return [row for row in rows if row.simulated == simulated]


def only_kind(rows: Sequence[TimeRow], simulated: bool | None) -> bool:
    """Which kind of times a report is about; they are never pooled.

    Raises
    ------
    UsageError
        Rows of both kinds, and no kind was asked for.
    """
    kinds = {row.simulated for row in rows}
    if simulated is not None:
        return simulated
    if len(kinds) > 1:
        raise UsageError(
            "Simulated and measured times are never pooled, and this report would hold both.",
            "Ask for one kind, or for one report per kind.",
            code="usage.mixed_times",
        )
    return kinds.pop() if kinds else False
