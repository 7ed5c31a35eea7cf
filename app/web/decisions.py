"""Decisions about a round's model, for approvers: the gate's table, the act itself, and what became of it.

A session is not enough for an act that lasts: the password is asked for again. Where a trusted proxy signs people in,
its word comes with each request and is as fresh.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select

from app.web.deps import Viewer, address_of, desk_of, need, now_of, project_of
from app.web.errors import WebError, status_of
from app.web.render import page
from redraft import decisions, rounds
from redraft.accounts import Identity, authenticate, directory
from redraft.desk.store import credential
from redraft.errors import RedraftError, StateError, UsageError
from redraft.ledger import RoundState
from redraft.project import Project

router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
Approver = Annotated[Viewer, Depends(need("approver"))]
NOTICES = {
    "recorded": {"kind": "good", "words": "Your decision is on record and is being carried out."},
    "begun": {"kind": "good", "words": "The decision is being carried out."},
}
_SHOWN = 20
_DONE = {"approve": RoundState.PROMOTED, "hold": RoundState.HELD}


@router.get("/decisions")
def decisions_page(request: Request, who: Approver, said: str = "") -> HTMLResponse:
    """Rounds that await a decision, and decisions that were made."""
    return _page(request, who, notice=NOTICES.get(said))


@router.post("/decisions/{number}")
def decide(
    request: Request,
    number: int,
    who: Approver,
    decision: Annotated[Literal["approve", "hold"] | None, Form()] = None,
    reason: Annotated[str, Form(max_length=2000)] = "",
    password: Annotated[str, Form(max_length=4096)] = "",
) -> Response:
    """Record a decision as an authenticated act, then have it carried out."""
    project, now = project_of(request), now_of(request)
    reason = " ".join(reason.split())
    try:
        if decision is None:
            raise UsageError("A decision is to use the model, or to hold it back.", "Choose one.")
        approve = decision == "approve"
        decisions.check(project, number, approve=approve, reason=reason)  # before the password is looked at
        by = _fresh(request, who, password, f"decision about round {number}")
        made = decisions.decide(project, number, approve=approve, by=by, reason=reason, now=now)
    except RedraftError as error:
        return _page(request, who, status=status_of(error), error=_told(error), filled=(number, decision, reason))
    request.app.state.carry_out.start(number, made)
    return RedirectResponse("/decisions?said=recorded", 303)


@router.post("/decisions/{number}/carry-out")
def carry_out(request: Request, number: int, who: Approver) -> Response:
    """Carry out a recorded decision that was not, or not to its end."""
    project = project_of(request)
    rows = project.ledger.rows("decision", round=number)
    if not rows:
        raise WebError(404, "decision.none", f"Round {number} has no decision.", "Go back to the decisions.")
    decisions.verified(project, number, rows[-1]["decision_id"])
    request.app.state.carry_out.start(number, rows[-1]["decision_id"])
    return RedirectResponse("/decisions?said=begun", 303)


def _fresh(request: Request, who: Viewer, password: str, act: str) -> Identity:
    """The viewer, who has just shown again who they are. SignInError otherwise."""
    if who.how == "proxy":
        return who.identity
    project = project_of(request)
    with desk_of(request).read() as connection:
        login = connection.scalar(select(credential.c.login).where(credential.c.account_id == who.account_id))
    account = authenticate(
        project, str(login or ""), password, address=address_of(request), now=now_of(request), act=act
    )
    return Identity(account.account_id, account.roles, "password")


def _page(
    request: Request, who: Viewer, *, status: int = 200, notice: dict[str, str] | None = None,
    error: dict[str, Any] | None = None, filled: tuple[int, str | None, str] | None = None,
) -> HTMLResponse:  # fmt: skip
    project, carrying = project_of(request), request.app.state.carry_out
    return page(
        request, "decisions.html", who, status=status, waiting=awaiting(project), made=made(project),
        outcome=carrying.last, running=carrying.running, notice=notice, error=error, filled=filled,
        asks_password=who.how != "proxy",
    )  # fmt: skip


def awaiting(project: Project) -> list[dict[str, Any]]:
    """Rounds that wait for a decision that nobody has made: {number, challenger, champion, version, gate, exams}."""
    found = []
    decided = {row["round"] for row in project.ledger.rows("decision")}
    for row in project.ledger.rows("round", state=RoundState.AWAITING_APPROVAL):
        if row["number"] in decided:
            continue
        model = project.ledger.one("model", model_digest=row["challenger"]) or {}
        champion = rounds.champion(project)
        found.append(
            {
                "number": row["number"],
                "challenger": row["challenger"],
                "version": model.get("version"),
                "champion": champion["version"] if champion else None,
                "simulated": row["simulated"],
                "closed_at": row["closed_at"],
                "gate": decisions.gate_of(project, row["number"]),
            }
        )
    return found


def made(project: Project) -> list[dict[str, Any]]:
    """Decisions, newest first: who, when, why, and whether the round is where the decision puts it."""
    names = {account.account_id: account.name for account in directory.everybody(project)}
    states = {row["number"]: row["state"] for row in project.ledger.rows("round")}
    rows = sorted(project.ledger.rows("decision"), key=lambda row: (row["at"], row["decision_id"]), reverse=True)
    return [
        {
            **{key: row[key] for key in ("round", "kind", "identity", "reason", "at", "decision_id")},
            "by": names.get(row["by_whom"]) or row["by_whom"],
            "passed": bool(row["gate"].get("passed")),
            "done": states[row["round"]] == _DONE[row["kind"]],
            "waits": states[row["round"]] == RoundState.AWAITING_APPROVAL,
        }
        for row in rows[:_SHOWN]
    ]


def _told(error: RedraftError) -> dict[str, Any]:
    told = error.to_dict()
    if isinstance(error, StateError) and error.code == "state.gate_failed":
        told["do"] = "Hold the model back, with a reason."  # the command line's words name a command
    return dict(told)
