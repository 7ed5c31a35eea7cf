"""What goes out to a reader and what comes back: task.json and result.json, schema version 1. No identity in either."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Form(BaseModel):
    """Base of both: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1


class TaskStructure(Form):
    """One structure to segment."""

    name: str
    value: int
    kind: str
    protocol: str = ""


class Task(Form):
    """task.json of a work package."""

    assignment_id: str
    exam_id: str
    round: int
    purpose: Literal["training", "reference", "quality"]
    mode: Literal["assisted", "from_scratch"]
    reader_id: str
    structures: tuple[TaskStructure, ...]
    image_sha256: str
    draft_sha256: str | None
    # Given back in result.json: shows that the answer is to this package, of this reader, in this attempt.
    token: str = ""
    instructions: str = (
        "Save the segmentation as label.nii.gz on the grid of image.nii.gz (values as listed under structures), then "
        "write result.json; it marks the work as finished. See docs/readers.md."
    )


class Minutes(Form):
    """Time on one structure, minutes."""

    active: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    idle: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    away: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Result(Form):
    """result.json: what the reader says of the work. `exam` in `minutes` is time that belongs to no structure."""

    assignment_id: str
    reader_id: str
    verdict: Literal["accept", "correct", "reject", "scratch"]
    reason_code: str | None = None
    remark: str | None = None
    # Sent back without a segmentation: the reason says what becomes of the exam.
    no_label: bool = False
    token: str = ""
    # By the backend that measured the minutes (redraft.signing over all other fields and the label's SHA-256).
    signature: str | None = None
    minutes: dict[str, Minutes]
    origin: Literal["measured", "typed", "imported", "simulated"]
    simulated: bool = False
    voxels_changed: int | None = None
