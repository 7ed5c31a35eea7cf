"""The pages: who sees which, and what is on them. Data comes from queries in redraft/, work itself from the API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.web.deps import Viewer, desk_of, need, project_of, viewer
from app.web.people import minutes_so_far, needs, trends
from app.web.render import HERE, LINKS, error_page, page
from app.web.words import work_means, work_title
from app.web.work_access import is_handed_in
from redraft.desk.work_list import DONE, WAITING, finished_work, waiting_work
from redraft.operations import live_round, operations
from redraft.people import reader_page
from redraft.project import Project
from redraft.queues import adjudication_queue, review_queue

router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
NOTICES = {
    "handed-in": {"kind": "good", "words": "Handed in. It is being checked; if it comes back, it appears here."},
    "decided": {"kind": "good", "words": "Your decision is on record."},
}
NOT_YOURS = {
    "code": "work.unknown",
    "what": "There is no such exam among those assigned to you.",
    "do": "Your work list shows what is. If a colleague sent you the link: exams open only for the reader they are "
    "assigned to.",
    "retry": False,
}


@router.get("/")
def start(request: Request, who: Annotated[Viewer, Depends(viewer)], said: str = "") -> Response:
    """The work list for readers; else the first page that the viewer's roles open."""
    if "reader" in who.roles and who.reader_id is not None:
        return _work_list(request, who, NOTICES.get(said))
    for role, href, _ in LINKS:
        if role in who.roles and role != "reader":
            return RedirectResponse(href, 303)
    return page(request, "home.html", who)


def _work_list(request: Request, who: Viewer, notice: Mapping[str, str] | None) -> HTMLResponse:
    project, reader = project_of(request), str(who.reader_id)
    now = request.app.state.clock()
    live = live_round(project.ledger)
    open_work = waiting_work(project, desk_of(request), reader, minutes_so_far(project), now)
    # Handed in, and not taken in yet: it lies finished in its package, and the ledger does not know.
    handed_in = [item for item in open_work if is_handed_in(project, item["assignment_id"])]
    waiting = [item for item in open_work if item not in handed_in]
    taken_in = finished_work(project.ledger, reader, live["number"]) if live else []
    on_its_way = {"state": "RETURNED", "verdict": None, "received_at": None}
    done = [{**item, **on_its_way} for item in handed_in] + taken_in
    for item in waiting:
        item["title"], item["means"] = work_title(item), work_means(item)
        item["late"] = datetime.fromisoformat(item["due_at"]) < now
        item["elsewhere"] = _elsewhere(item)
    left = sum(max(0.0, (item["expected_minutes"] or 0.0) - item["active_minutes"]) for item in waiting)
    return page(
        request, "work_list.html", who, waiting=waiting, done=done, total=len(done) + len(waiting), minutes_left=left,
        empty=empty_list(project, reader, live, bool(done)), notice=notice,
    )  # fmt: skip


def _elsewhere(item: Mapping[str, Any]) -> str:
    if item["backend"] == "dicomweb":
        return "This exam is worked in the viewer of your archive; hand the corrected segmentation back there."
    return f"This exam is worked in a program of your choice: its work package is {item['assignment_id']}."


def empty_list(project: Project, reader: str, live: Mapping[str, Any] | None, done: bool) -> dict[str, str]:
    """Why nothing waits for a reader, and what happens next."""
    if reader not in {known.id for known in project.config.dispatch.readers}:
        return {
            "heading": "You are not on this project's list of readers",
            "words": "Your earlier work is kept. If this is a mistake, tell whoever runs the project.",
        }
    if live is None:
        return {
            "heading": "No round is open",
            "words": "Exams appear here when the next round opens. You need not do anything until then.",
        }
    number, state = live["number"], live["failed_in"] or live["state"]
    if live["state"] == "FAILED":
        return {
            "heading": f"Round {number} stands still",
            "words": "Something went wrong on the server and whoever runs it has to look. Your work is kept.",
        }
    if state == "OPENING":
        return {
            "heading": f"Round {number} is being prepared",
            "words": "Exams are being chosen and drafts made. Yours appear here by themselves.",
        }
    if state in ("CLOSING", "AWAITING_APPROVAL"):
        return {
            "heading": f"Round {number} is closed",
            "words": "Annotation is over; a model learns from what was handed in. The next round brings new exams.",
        }
    if done:
        return {
            "heading": "You are done with this round",
            "words": f"Everything assigned to you in round {number} is handed in and being checked. An exam may come "
            "back with a reason, or one of another reader's may pass to you. The next round brings new ones.",
        }
    return {
        "heading": "Nothing is assigned to you in this round",
        "words": f"Round {number} is with other readers. An exam may pass to you when its time with somebody else is "
        "over.",
    }


@router.get("/work/{assignment_id}")
def work(request: Request, assignment_id: str, who: Annotated[Viewer, Depends(need("reader"))]) -> HTMLResponse:
    """The workstation on one exam. Another reader's exam is as unknown as one that does not exist."""
    row = project_of(request).ledger.one("assignment", assignment_id=assignment_id)
    if row is None or row["reader_id"] != who.reader_id:
        return error_page(request, NOT_YOURS, 404, who, heading="Not among your exams")
    if row["state"] not in WAITING:
        return error_page(request, over(row["state"]), 410, who, heading="This exam is not open")
    return workstation(request, who, "work", assignment_id)


def over(state: str) -> dict[str, Any]:
    """Why an assignment is not open any more."""
    if state in DONE:
        what, do = "You handed this exam in already.", "If it has to be changed, ask a reviewer to send it back to you."
    else:
        what = "This exam is not with you any more: its time was over, or the round was closed."
        do = "What you drew is kept and is not lost. Your work list shows what is yours now."
    return {"code": "work.over", "what": what, "do": do, "retry": False}


def workstation(request: Request, who: Viewer, kind: str, identity: str) -> HTMLResponse:
    """The page of the viewer, or what to do where it was not built."""
    if not (HERE / "static" / "dist" / "work.js").exists():
        return page(request, "no_ui.html", who, status=503)
    return page(request, "work.html", who, kind=kind, identity=identity)


@router.get("/reviews")
def reviews(request: Request, who: Annotated[Viewer, Depends(need("reviewer"))], said: str = "") -> HTMLResponse:
    """Annotations that wait for a second look."""
    queue = review_queue(project_of(request).ledger, who.reader_id)
    return page(request, "reviews.html", who, queue=queue, notice=NOTICES.get(said))


@router.get("/reviews/{review_id}")
def review(request: Request, review_id: str, who: Annotated[Viewer, Depends(need("reviewer"))]) -> HTMLResponse:
    """The workstation on one annotation that waits for a second look."""
    if review_id not in {row["review_id"] for row in review_queue(project_of(request).ledger, who.reader_id)}:
        return error_page(request, _decided("second look", "/reviews"), 404, who, heading="Not in your queue")
    return workstation(request, who, "review", review_id)


@router.get("/adjudications")
def adjudications(request: Request, who: Annotated[Viewer, Depends(need("reviewer"))], said: str = "") -> HTMLResponse:
    """Exams whose readers disagree."""
    queue = adjudication_queue(project_of(request).ledger, who.reader_id)
    return page(request, "adjudications.html", who, queue=queue, notice=NOTICES.get(said))


@router.get("/adjudications/{consensus_id}")
def adjudication(
    request: Request, consensus_id: str, who: Annotated[Viewer, Depends(need("reviewer"))]
) -> HTMLResponse:
    """The workstation on an exam whose readers disagree."""
    if consensus_id not in {
        row["consensus_id"] for row in adjudication_queue(project_of(request).ledger, who.reader_id)
    }:
        return error_page(request, _decided("decision", "/adjudications"), 404, who, heading="Not in your queue")
    return workstation(request, who, "adjudication", consensus_id)


def _decided(what: str, queue: str) -> dict[str, Any]:
    return {
        "code": "review.unknown",
        "what": f"This {what} does not wait for you: somebody decided it already, or it is your own reading.",
        "do": f"What waits is listed at {queue}.",
        "retry": False,
    }


@router.get("/me")
def me(request: Request, who: Annotated[Viewer, Depends(need("reader"))]) -> HTMLResponse:
    """A reader's own page."""
    own = reader_page(project_of(request).ledger, str(who.reader_id))
    drafts = sum(own["verdicts"].values())
    return page(request, "me.html", who, page=own, drafts=drafts, trends=trends(own["agreement"]))


@router.get("/ops")
def ops(request: Request, who: Annotated[Viewer, Depends(need("ops"))]) -> HTMLResponse:
    """What whoever runs the rounds must see."""
    state = operations(project_of(request), request.app.state.clock())
    sweeper = request.app.state.sweeper
    return page(request, "ops.html", who, ops=state, needs=needs(state, sweeper.last), sweep=sweeper.last)
