"""A reader's work as an API: the list, the exam with its image and draft, autosaves, kept work, handing in.

Routes are plain functions: they run in the server's threads, so that reading and packing volumes never holds up others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from app.web.deps import Viewer, need, now_of
from app.web.errors import WebError
from app.web.people import minutes_so_far
from app.web.sweeper import request_sweep
from app.web.work_access import VERDICTS, Sitting, Work, is_handed_in, open_work
from redraft import work_leases
from redraft.desk.mask import Mask, pack, unpack
from redraft.desk.saves import Saved
from redraft.desk.work_list import return_reasons, waiting_work
from redraft.project import Project
from redraft.signing import same_token
from redraft.worktime.store import measure
from tasks.dispatch.contract import Task
from tasks.dispatch.packages import REJECTION
from tasks.dispatch.review.draft import draft_mask
from tasks.dispatch.review.facts import facts
from tasks.dispatch.review.image import Prepared, prepare
from tasks.dispatch.review.submit import Said, hand_in
from tasks.dispatch.review.upload import read_upload

router = APIRouter(prefix="/api/work")
Reader = Annotated[Viewer, Depends(need("reader"))]
Opened = Annotated[Work, Depends(open_work)]


class Chunked(FileResponse):
    """A file in pieces large enough that a volume is not a thousand hops between threads."""

    chunk_size = 1 << 20


class TabSaid(BaseModel):
    sitting: Sitting
    take: bool = False


class SubmitSaid(BaseModel):
    sitting: Sitting
    number: int | None = None
    verdict: Literal["accept", "correct", "reject", "scratch"]
    reason_code: str | None = Field(None, max_length=64)
    remark: str | None = None
    no_label: bool = False


class OfferSaid(BaseModel):
    merge: Literal["replace", "add", "drop"]
    sitting: Sitting | None = None


async def raw_body(request: Request) -> bytes:
    """The body as it came; the front has bounded it."""
    return await request.body()


Raw = Annotated[bytes, Depends(raw_body)]


@router.get("")
def work_list(request: Request, who: Reader) -> list[dict[str, Any]]:
    """What waits for this reader, in the order in which to do it."""
    project: Project = request.app.state.project
    items = waiting_work(project, project.desk, str(who.reader_id), minutes_so_far(project), now_of(request))
    for item in items:
        # Handed in, and not taken in yet: nothing to do about it.
        if item["state"] == "DISPATCHED" and is_handed_in(project, item["assignment_id"]):
            item["state"] = "RETURNED"
    return items


@router.get("/{a}")
def open_exam(work: Opened, sitting: Sitting | None = None) -> dict[str, Any]:
    """Everything that the workstation must know before it shows an exam."""
    project, row, name = work.project, work.row, work.name
    work.require_here()
    work.store.sweep(name)
    image = _image(work)
    exam = project.ledger.one("exam", exam_id=row["exam_id"])
    assert exam is not None  # a foreign key
    draft = project.ledger.one("draft", draft_id=row["draft_id"]) if work.task.mode == "assisted" else None
    profile = draft["scores"].get("profile") if draft else None
    saved, (mine, other) = work.store.latest(name), work.store.pen(name, sitting)
    return {
        **facts(work.task, project.config, image, exam["modality"], profile=profile),
        "round": row["round"],
        "token": work.token,
        "state": work.state,
        "due_at": row["due_at"],
        "autosave": None if saved is None else {"number": saved.number, "at": saved.at, "verdict": saved.verdict},
        "tab": {"mine": mine, "held_by_other": other},
        "lease": work.lease_view(),
        "returned": _returned(work),
        "offers": [
            {"number": item.offer_id, "from_assignment": item.from_assignment, "at": item.at, "voxels": item.voxels,
             "why": item.why}
            for item in work.store.offers(name, work.left_by())
        ],
    }  # fmt: skip


# -- pixels ---------------------------------------------------------------------------------------------------------
@router.get("/{a}/image")
def image_bytes(work: Opened, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The image as uncompressed NIfTI-1; ranges are served too."""
    work.require_here()
    image = _image(work)
    work.seen()
    headers = {"ETag": f'"{image.sha256}"', "Cache-Control": "private, no-cache"}
    if if_none_match is not None and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    return Chunked(image.path, media_type="application/octet-stream", headers=headers)


@router.get("/{a}/slice")
def slice_bytes(work: Opened, axis: int, index: int) -> Response:
    """Raw values of one slice, little-endian, for the first picture while the volume loads."""
    work.require_here()
    image = _image(work)
    content = image.slice_bytes(axis, index)
    work.seen()
    headers = {"X-Redraft-Dtype": image.dtype, "Cache-Control": "private, no-cache"}
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get("/{a}/draft")
def draft_bytes(work: Opened) -> Response:
    """The draft; 404 for exams that are worked from scratch."""
    work.require_here()
    path = draft_mask(work.package, work.task, work.cache)
    work.seen()
    return _mask_file(path)


# -- autosaves ------------------------------------------------------------------------------------------------------
@router.get("/{a}/mask")
def mask_bytes(work: Opened, number: int | None = None) -> Response:
    """The latest autosave, or number N; 404 where there is none."""
    work.require_here()
    saved = work.store.latest(work.name, number)
    if saved is None:
        raise WebError(404, "work.no_mask", "There is no such autosave.", "Earlier ones are thinned out after a while.")
    return _mask_file(saved.path, {"X-Redraft-Number": str(saved.number), "ETag": f'"{saved.sha256}"'})


@router.put("/{a}/mask")
def save_mask(
    work: Opened, body: Raw, base: Annotated[int, Query(ge=0)], sitting: Sitting,
    x_redraft_reading: Annotated[str | None, Header(max_length=400)] = None,
) -> dict[str, Any]:  # fmt: skip
    """Keep what was drawn after autosave `base`. Whatever cannot be the next autosave is kept as an offer."""
    mask = unpack(body, _image(work).shape, work.values)
    return _saved(_save(work, mask, base, sitting, _verdict(x_redraft_reading)))


@router.post("/{a}/tab")
def tab(work: Opened, said: TabSaid) -> dict[str, bool]:
    """Ask for the pen, or take it."""
    mine = work.store.take_pen(work.name, said.sitting, work.who.account_id, take=said.take)
    return {"mine": mine}


@router.post("/{a}/upload")
def upload(
    work: Opened, body: Raw, base: Annotated[int | None, Query(ge=0)] = None, sitting: Sitting | None = None,
    x_redraft_token: Annotated[str | None, Header(max_length=200)] = None,
) -> dict[str, Any]:  # fmt: skip
    """A label made elsewhere becomes the next autosave."""
    if x_redraft_token is not None and not same_token(x_redraft_token, work.token):
        raise WebError(
            403, "work.token", "The token is not of this exam as it was handed out to you last.",
            "Upload the label with the token of its own work package.",
        )  # fmt: skip
    geometry = work.geometry()
    mask = read_upload(body, geometry, work.project.config.structures, work.store.folder / work.name)
    latest = work.store.latest(work.name)
    if latest is not None and latest.sha256 == mask.sha256:
        return _saved(latest)
    number = (latest.number if latest else 0) if base is None else base
    return _saved(_save(work, mask, number, _tab_of(work, sitting), None))


# -- kept work ------------------------------------------------------------------------------------------------------
@router.get("/{a}/offers/{n}")
def offer_bytes(work: Opened, n: int) -> Response:
    """A mask of kept work."""
    work.require_here()
    found = work.store.offer(work.name, n)
    if found is None:
        raise _no_offer()
    return _mask_file(found.path)


@router.post("/{a}/offers/{n}")
def settle_offer(work: Opened, n: int, said: OfferSaid, sitting: Sitting | None = None) -> dict[str, Any]:
    """Take kept work in place of the drawing (`replace`), where nothing is drawn yet (`add`), or not at all."""
    found = work.store.offer(work.name, n)
    if found is None:
        raise _no_offer()
    latest = work.store.latest(work.name)
    if said.merge == "drop":
        work.store.settle(work.name, n, "dropped")
        return {"number": latest.number if latest else 0, "sha256": latest.sha256 if latest else None}
    shape = _image(work).shape
    theirs = unpack(found.path.read_bytes(), shape, work.values)
    if said.merge == "add":
        mine = _drawn(work, latest)
        theirs = pack(np.where(mine > 0, mine, theirs.array(shape)))
    base = latest.number if latest else 0
    saved = _save(work, theirs, base, _tab_of(work, said.sitting or sitting), latest.verdict if latest else None)
    work.store.settle(work.name, n, "merged")
    return _saved(saved)


# -- the end --------------------------------------------------------------------------------------------------------
@router.post("/{a}/extend")
def extend(work: Opened) -> dict[str, Any]:
    """Keep the exam for this reader a while longer."""
    rules = work.project.config.dispatch.lease
    return work_leases.extend(work.project.ledger, work.name, rules, work.now, work.who.account_id)


@router.post("/{a}/submit")
def submit(request: Request, work: Opened, said: Annotated[SubmitSaid, Body()]) -> dict[str, Any]:
    """Hand in what was saved last. The same sent again is one submission."""
    store, name = work.store, work.name
    words = Said(said.verdict, said.reason_code, said.remark, said.no_label)
    with store.alone(name):
        work.require_package()
        if work.handed_in() is None:
            work.require_open()
            if store.pen(name, said.sitting)[1]:
                raise WebError(
                    409, "work.tab", "Another tab or computer is working on this exam.", "Take over here, then hand in."
                )
        latest = store.latest(name)
        if not said.no_label and (said.number or 0) != (latest.number if latest else 0):
            raise WebError(
                409, "work.stale", "This page does not show what was saved last.", "Reload it, look, and hand in then."
            )
        labels = _labels(work, latest) if latest is not None and not said.no_label else None
        result = hand_in(
            work.package, work.task, words, labels, keys=work.project.checked_keys, attempt=work.row["attempt"],
            minutes=lambda: _minutes(work),
        )  # fmt: skip
    request_sweep(request.app)
    return {
        "state": "returned",
        "verdict": result.verdict,
        "voxels_changed": result.voxels_changed,
        "minutes": {
            structure: item.model_dump(exclude={"schema_version"}) for structure, item in result.minutes.items()
        },
    }


# -- helpers --------------------------------------------------------------------------------------------------------
def _image(work: Work) -> Prepared:
    work.require_package()
    return prepare(work.package / "image.nii.gz", work.task.image_sha256, work.cache)


def _save(work: Work, mask: Mask, base: int, sitting: str, verdict: str | None) -> Saved:
    with work.store.alone(work.name):  # not while it is being handed in
        return work.store.save(
            work.name, mask, base=base, sitting=sitting, account=work.who.account_id, verdict=verdict,
            closed=work.closed(),
        )  # fmt: skip


def _tab_of(work: Work, sitting: str | None) -> str:
    """The tab on whose behalf a mask is saved that no tab drew; the reader's one at work where none is named."""
    return sitting or work.store.holder(work.name, work.who.account_id) or work.session


def _saved(saved: Saved) -> dict[str, Any]:
    return {"number": saved.number, "sha256": saved.sha256, "at": saved.at, "voxels": saved.voxels}


def _labels(work: Work, saved: Saved) -> np.ndarray:
    shape = _image(work).shape
    return unpack(saved.path.read_bytes(), shape, work.values).array(shape)


def _drawn(work: Work, latest: Saved | None) -> np.ndarray:
    """What stands now: the last autosave, else the draft, else nothing."""
    if latest is not None:
        return _labels(work, latest)
    shape = _image(work).shape
    if work.task.mode == "assisted":
        return unpack(draft_mask(work.package, work.task, work.cache).read_bytes(), shape, work.values).array(shape)
    return np.zeros(shape, np.uint8)


def _mask_file(path: Path, headers: dict[str, str] | None = None) -> Response:
    try:
        content = path.read_bytes()  # whole: a file that is thinned out meanwhile is a clear 404, not half an answer
    except FileNotFoundError as error:
        raise WebError(404, "work.no_mask", "This work is not kept any more.", "Reload the page.") from error
    return Response(
        content, media_type="application/gzip", headers={"Cache-Control": "private, no-store", **(headers or {})}
    )


def _no_offer() -> WebError:
    return WebError(404, "work.no_offer", "This kept work is not here, or was merged or dropped.", "Reload the page.")


def _verdict(header: str | None) -> str | None:
    if not header:
        return None
    try:
        verdict = json.loads(header).get("verdict_so_far")
    except (ValueError, AttributeError, RecursionError) as error:
        raise WebError(422, "work.reading", "X-Redraft-Reading is no JSON object.", "Reload the page.") from error
    return verdict if verdict in VERDICTS else None


def _returned(work: Work) -> list[str] | None:
    if work.row["state"] != "RETURNED_TO_READER":
        return None
    try:
        lines = (work.package / REJECTION).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = [line[2:] for line in lines if line.startswith("- ")]
    return told or return_reasons(work.project.ledger, [work.name]).get(work.name, [])


def _minutes(work: Work) -> dict[str, dict[str, float]]:
    """Minutes from the raw events, recorded as measured; time on what the task does not list belongs to the exam."""
    record = measure(work.project.ledger, work.name, at=work.now, actor=work.who.account_id)
    return fold(record.minutes, work.task)


def fold(minutes: dict[str, dict[str, float]], task: Task) -> dict[str, dict[str, float]]:
    """Put time of structures that the task does not list (any more) to the exam's."""
    known = {structure.name for structure in task.structures}
    result: dict[str, dict[str, float]] = {}
    for name, values in minutes.items():
        into = result.setdefault(name if name in known else "exam", {"active": 0.0, "idle": 0.0, "away": 0.0})
        for state in into:
            into[state] += float(values.get(state, 0.0))
    return result
