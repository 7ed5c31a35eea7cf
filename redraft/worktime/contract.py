"""What a page may say of its reader's work: events in numbered batches. Anything else is refused before it is kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_EVENTS = 1000
# About 285 years: far beyond any page's life, and still an exact whole number of microseconds in a float.
MAX_MS = 9.0e12
EXAM = "exam"  # work that belongs to no structure

Kind = Literal["open", "close", "visible", "hidden", "input", "heartbeat", "structure", "offline", "online"]
Milliseconds = Annotated[float, Field(ge=0, le=MAX_MS, allow_inf_nan=False)]


class Form(BaseModel):
    """Base of both: frozen, unknown keys refused, no text for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Event(Form):
    """One thing that happened on the page.

    Attributes
    ----------
    ms : the page's own monotonic clock (`performance.now()`), milliseconds.
    structure : with kind `structure`, what is worked on from now on: a structure's name, or `exam`.
    """

    kind: Kind
    ms: Milliseconds
    structure: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)] | None = None

    @model_validator(mode="after")
    def _named(self) -> Event:
        if (self.kind == "structure") != (self.structure is not None):
            raise ValueError("`structure` is given with events of the kind `structure`, and with no other")
        return self


class Batch(Form):
    """Events of one sitting (one page load), in the order they happened; sent again unchanged until it is received.

    Attributes
    ----------
    sitting : random name that the page gave itself.
    number : counts the sitting's batches.
    sent_ms : the page's clock when the batch was made up, and the same when it is sent again.
    """

    sitting: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    number: Annotated[int, Field(ge=0, le=10_000_000)]
    sent_ms: Milliseconds
    events: Annotated[list[Event], Field(max_length=MAX_EVENTS)]
