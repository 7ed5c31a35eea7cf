"""Second looks and adjudications as an API, for accounts with the role reviewer."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, ValidationError

from app.web.deps import Viewer, need, now_of, project_of
from app.web.errors import WebError
from app.web.second_looks import Look, open_adjudication, open_review
from app.web.sweeper import request_sweep
from app.web.work_access import Sitting
from redraft import reviews, second_reads
from redraft.desk.mask import Mask
from redraft.look_times import append
from redraft.queues import adjudication_queue, review_queue
from redraft.worktime.contract import Batch
from redraft.worktime.entries import counted
from tasks.dispatch.open_backend import backend_for

router = APIRouter()
Reviewer = Annotated[Viewer, Depends(need("reviewer"))]
Review = Annotated[Look, Depends(open_review)]
Adjudication = Annotated[Look, Depends(open_adjudication)]
MAX_TIME_BYTES = 256 * 1024


class Decision(BaseModel):
    decision: Literal["accept", "return"]
    reason_code: str | None = Field(None, max_length=64)
    remark: str | None = Field(None, max_length=4000)


class Choice(BaseModel):
    choose: second_reads.Choice
    n: int | None = None


class Reopened(BaseModel):
    annotation_id: str = Field(max_length=64)


class TabSaid(BaseModel):
    sitting: Sitting
    take: bool = False


async def raw_body(request: Request) -> bytes:
    """The body as it came; the front has bounded it."""
    return await request.body()


Raw = Annotated[bytes, Depends(raw_body)]


# -- second looks ---------------------------------------------------------------------------------------------------
@router.get("/api/reviews")
def list_reviews(request: Request, who: Reviewer) -> list[dict[str, Any]]:
    """What waits for a second look, oldest first, without the viewer's own work."""
    return review_queue(project_of(request).ledger, who.reader_id)


@router.post("/api/reviews")
def reopen(request: Request, who: Reviewer, said: Annotated[Reopened, Body()]) -> dict[str, str]:
    """Open accepted work again."""
    now = now_of(request)
    with project_of(request).ledger.tx(who.account_id, now) as tx:
        return {"review_id": reviews.reopen(tx, said.annotation_id, who.account_id, now)}


@router.get("/api/reviews/{r}")
def one_review(look: Review) -> dict[str, Any]:
    """The exam, and what is known of the annotation but not whose it is."""
    (note,) = look.annotations
    minutes = [row for row in counted(look.project.ledger) if row["annotation_id"] == note["annotation_id"]]
    return {
        **look.facts(),
        "review_id": look.record_id,
        "why": look.record["why"],
        "label": True,
        "annotation": {
            "annotation_id": note["annotation_id"],
            "revision": note["revision"],
            "verdict": note["verdict"],
            "reason_code": note["reason_code"],
            "voxels_changed": note["voxels_changed"],
            "minutes": round(sum(row["active_minutes"] for row in minutes), 2) if minutes else None,
            "origin": note["origin"],
            "flags": look.record["rules"],
        },
    }


@router.get("/api/reviews/{r}/image")
def review_image(look: Review, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The image as uncompressed NIfTI-1."""
    return _image(look, if_none_match)


@router.get("/api/reviews/{r}/slice")
def review_slice(look: Review, axis: int, index: int) -> Response:
    """Raw values of one slice."""
    return _slice(look, axis, index)


@router.get("/api/reviews/{r}/draft")
def review_draft(look: Review) -> Response:
    """The draft that the reader was shown; 404 where there was none."""
    if look.draft is None:
        raise WebError(404, "work.no_draft", "This exam was drawn from scratch: there was no draft.", "")
    look.seen()
    return _mask(look.mask(look.draft))


@router.get("/api/reviews/{r}/label")
def review_label(look: Review) -> Response:
    """What the reader handed in."""
    look.seen()
    return _mask(look.mask(look.annotations[0]))


@router.post("/api/reviews/{r}")
def decide(request: Request, look: Review, said: Annotated[Decision, Body()]) -> dict[str, str]:
    """Accept, or return to the reader: the package goes back with the reason and the remark.

    The package moves within the transaction, before it is committed: after a crash in between the review is open still,
    and deciding it again does what is left.
    """
    remark = " ".join((said.remark or "").split())
    with look.project.ledger.tx(look.who.account_id, look.now) as tx:
        done = reviews.decide_review(
            tx, look.record_id, look.who.account_id, said.decision, reason_code=said.reason_code,
            remark_present=bool(remark), now=look.now,
        )  # fmt: skip
        if done["reasons"]:
            told = [*done["reasons"], *([f"The reviewer's remark: {remark}"] if remark else [])]
            backend_for(look.project).send_back(done["assignment_id"], told)
    request_sweep(request.app)
    return {"state": "accepted" if said.decision == "accept" else "returned"}


@router.post("/api/reviews/{r}/time")
def review_time(look: Review, body: Raw) -> dict[str, Any]:
    """Keep a batch of events of the reviewer at work."""
    return _time(look, body)


# -- adjudications --------------------------------------------------------------------------------------------------
@router.get("/api/adjudications")
def list_adjudications(request: Request, who: Reviewer) -> list[dict[str, Any]]:
    """Exams whose readers disagree, oldest first, without those that the viewer read."""
    return adjudication_queue(project_of(request).ledger, who.reader_id)


@router.get("/api/adjudications/{c}")
def one_adjudication(look: Adjudication, sitting: Sitting | None = None) -> dict[str, Any]:
    """The exam and its readings, numbered from 1."""
    saved, (mine, other) = look.store.latest(look.name), look.store.pen(look.name, sitting)
    return {
        **look.facts(),
        "consensus_id": look.record_id,
        "purpose": look.record["purpose"],
        "consensus": {"method": look.record["method"], **look.record["agreement"]},
        "readings": [{"n": n, "revision": row["revision"]} for n, row in enumerate(look.annotations, 1)],
        "autosave": None if saved is None else {"number": saved.number, "at": saved.at, "verdict": None},
        "tab": {"mine": mine, "held_by_other": other},
    }


@router.get("/api/adjudications/{c}/image")
def adjudication_image(look: Adjudication, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The image as uncompressed NIfTI-1."""
    return _image(look, if_none_match)


@router.get("/api/adjudications/{c}/slice")
def adjudication_slice(look: Adjudication, axis: int, index: int) -> Response:
    """Raw values of one slice."""
    return _slice(look, axis, index)


@router.get("/api/adjudications/{c}/reading/{n}")
def reading(look: Adjudication, n: int) -> Response:
    """Reading `n`, from 1."""
    if not 1 <= n <= len(look.annotations):
        raise WebError(
            404, "review.no_reading", f"There are readings 1 to {len(look.annotations)}.", "Reload the page."
        )
    look.seen()
    return _mask(look.mask(look.annotations[n - 1]))


@router.get("/api/adjudications/{c}/consensus")
def consensus(look: Adjudication) -> Response:
    """What the readings make together."""
    look.seen()
    return _mask(look.mask(look.record))


@router.get("/api/adjudications/{c}/disagreement")
def disagreement(look: Adjudication) -> Response:
    """Per voxel the number of different values that the readings give it, less one."""
    row = {"exam_id": look.record["exam_id"], "path": look.record["disagreement_path"],
           "sha256": look.record["disagreement_sha256"]}  # fmt: skip
    look.seen()
    return _mask(look.mask(row))


@router.get("/api/adjudications/{c}/mask")
def own_mask(look: Adjudication, number: int | None = None) -> Response:
    """The adjudicator's own label as it was saved last, or as number N."""
    saved = look.store.latest(look.name, number)
    if saved is None:
        raise WebError(404, "work.no_mask", "There is no such autosave.", "Draw, and it is saved.")
    return Response(saved.path.read_bytes(), media_type="application/gzip", headers=_PRIVATE)


@router.put("/api/adjudications/{c}/mask")
def save_own(look: Adjudication, body: Raw, base: Annotated[int, Query(ge=0)], sitting: Sitting) -> dict[str, Any]:
    """Keep what the adjudicator drew after autosave `base`."""
    mask = look.unpack(body)
    saved = look.store.save(look.name, mask, base=base, sitting=sitting, account=look.who.account_id)
    return {"number": saved.number, "sha256": saved.sha256, "at": saved.at, "voxels": saved.voxels}


@router.post("/api/adjudications/{c}/tab")
def tab(look: Adjudication, said: TabSaid) -> dict[str, bool]:
    """Ask for the pen, or take it."""
    return {"mine": look.store.take_pen(look.name, said.sitting, look.who.account_id, take=said.take)}


@router.post("/api/adjudications/{c}")
def settle(request: Request, look: Adjudication, said: Annotated[Choice, Body()]) -> dict[str, str]:
    """Decide which label counts: a reading, STAPLE, majority, or what was saved last as the adjudicator's own."""
    own = None
    if said.choose == "own":
        saved = look.store.latest(look.name)
        if saved is None:
            raise WebError(409, "work.nothing_drawn", "There is no own label yet.", "Draw one, or choose a reading.")
        own = look.unpack(saved.path.read_bytes()).array(look.shape)
    settled = second_reads.settle(look.project, look.record_id, look.who.account_id, said.choose, n=said.n, own=own)
    with look.project.ledger.tx(look.who.account_id, look.now) as tx:
        identity = second_reads.adjudicate(tx, settled, look.now)
    request_sweep(request.app)
    return {"state": "adjudicated", "consensus_id": identity}


@router.post("/api/adjudications/{c}/time")
def adjudication_time(look: Adjudication, body: Raw) -> dict[str, Any]:
    """Keep a batch of events of the adjudicator at work."""
    return _time(look, body)


# -- helpers --------------------------------------------------------------------------------------------------------
_PRIVATE = {"Cache-Control": "private, no-store"}


def _image(look: Look, if_none_match: str | None) -> Response:
    look.seen()
    headers = {"ETag": f'"{look.image.sha256}"', "Cache-Control": "private, no-cache"}
    if if_none_match is not None and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    return FileResponse(look.image.path, media_type="application/octet-stream", headers=headers)


def _slice(look: Look, axis: int, index: int) -> Response:
    content = look.image.slice_bytes(axis, index)
    look.seen()
    headers = {"X-Redraft-Dtype": look.image.dtype, "Cache-Control": "private, no-cache"}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _mask(mask: Mask) -> Response:
    return Response(mask.packed, media_type="application/gzip", headers=_PRIVATE)


def _time(look: Look, body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body) if len(body) <= MAX_TIME_BYTES else None
        if isinstance(content, dict):
            content.pop("csrf", None)
        batch = Batch.model_validate(content)
    except (ValueError, RecursionError, ValidationError) as error:
        raise WebError(422, "time.batch", "These events are not as they should be.", "Reload the page.") from error
    append(look.project.ledger, look.record_id, look.who.account_id, batch, look.now)
    return {"received": batch.number}
