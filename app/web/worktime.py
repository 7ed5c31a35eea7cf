"""What a page says of its reader's work, taken in as it is: POST /api/work/{assignment_id}/time.

Sendable by `navigator.sendBeacon` from a page that is being closed: text/plain, the CSRF token as a field of the JSON.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import anyio.lowlevel
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError

from app.web.deps import Viewer, need, now_of, project_of
from app.web.errors import WebError, not_found
from redraft.errors import ConflictError
from redraft.ledger.values import plain
from redraft.project import Project
from redraft.worktime.contract import EXAM, Batch
from redraft.worktime.store import append

router = APIRouter(prefix="/api/work", tags=["time"])
MAX_BYTES = 256 * 1024
LATE = "This work has ended: what was done before its submission is kept, and the submitted minutes stay as they are."
# Threads that may wait for the ledger at a time. Batches queue here, never in front of saving and submitting.
_WAITING = anyio.lowlevel.RunVar[CapacityLimiter]("redraft_time_limiter")
THREADS = 4


@router.post("/{assignment_id}/time")
async def take_time(
    request: Request, assignment_id: str, who: Annotated[Viewer, Depends(need("reader"))]
) -> dict[str, Any]:
    """Keep one batch of events; the same batch again changes nothing.

    Answers {received: number}, with `again` or `late` (and a sentence) where it is so. The page sends a batch until it
    is answered; 503 and no answer mean again later, any other refusal means never again.
    """
    batch = _read(await request.body())
    project, at = project_of(request), now_of(request)

    def keep() -> str:
        _require_own(project, assignment_id, who.reader_id, batch)
        return append(project.ledger, assignment_id, str(who.reader_id), batch, at=at, actor=who.account_id)

    try:
        kept = await to_thread.run_sync(keep, limiter=_limiter())
    except ConflictError as error:
        if error.retry:  # the ledger is busy
            raise WebError(503, "time.busy", error.what, "The page sends it again by itself.", retry=True) from error
        raise
    answer: dict[str, Any] = {"received": batch.number, "at": plain(at)}
    if kept == "again":
        answer["again"] = True
    elif kept == "late":
        answer |= {"late": True, "note": LATE}
    return answer


def _read(body: bytes) -> Batch:
    if len(body) > MAX_BYTES:
        raise WebError(413, "time.too_large", "A batch of events is larger than 256 KiB.", "Send smaller batches.")
    try:
        content = json.loads(body)
        if not isinstance(content, dict):
            raise ValueError("no object")
        content.pop("csrf", None)
        # From JSON text again: there a whole number is a number, and NaN (which Python's json lets in) is none.
        return Batch.model_validate_json(json.dumps(content))
    except ValidationError as error:
        places = sorted({".".join(str(part) for part in item["loc"]) for item in error.errors(include_input=False)})
        what = f"A batch of events is not as it should be: {', '.join(places[:4])}."
        raise WebError(422, "time.form", what, "Reload the page.") from None
    except (ValueError, RecursionError):
        raise WebError(422, "time.form", "A batch of events is not JSON.", "Reload the page.") from None


def _require_own(project: Project, assignment_id: str, reader_id: str | None, batch: Batch) -> None:
    work = project.ledger.one("assignment", assignment_id=assignment_id)
    if reader_id is None or work is None or work["reader_id"] != reader_id:
        raise not_found("There is no such work for you.")
    known = {EXAM, *(structure.name for structure in project.config.structures)}
    unknown = sorted({event.structure for event in batch.events if event.structure is not None} - known)
    if unknown:
        raise WebError(422, "time.structure", f"Unknown structure: {unknown[0]}.", "Reload the page.")


def _limiter() -> CapacityLimiter:
    """One per event loop."""
    try:
        return _WAITING.get()
    except LookupError:
        limiter = CapacityLimiter(THREADS)
        _WAITING.set(limiter)
        return limiter
