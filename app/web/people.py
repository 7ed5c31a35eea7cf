"""A reader's own figures and the state of operations, as JSON and for pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from sqlalchemy import select

from app.web.deps import Viewer, need, project_of
from app.web.sweeper import Sweep
from redraft.ledger.tables import metadata
from redraft.operations import operations
from redraft.people import reader_page
from redraft.project import Project

router = APIRouter(prefix="/api")


@router.get("/people/me")
def own_figures(request: Request, who: Annotated[Viewer, Depends(need("reader"))]) -> dict[str, Any]:
    """The reader's own page as data; there is no address under which anybody else gets it."""
    return reader_page(project_of(request).ledger, str(who.reader_id))


@router.get("/ops")
def state_of_operations(request: Request, who: Annotated[Viewer, Depends(need("ops"))]) -> dict[str, Any]:
    """Work by reader, leases, escalations, the last sweep, failures."""
    last = request.app.state.sweeper.last
    state = operations(project_of(request), request.app.state.clock())
    return {**state, "sweep": {**state["sweep"], "last": None if last is None else asdict(last)}}


def minutes_so_far(project: Project) -> Callable[[Sequence[str]], Mapping[str, float]]:
    """Active minutes of open assignments, from their raw events."""
    from redraft.worktime.store import minutes_of

    def active(assignments: Sequence[str]) -> dict[str, float]:
        batch = metadata.tables["time_batch"]
        query = select(batch.c.assignment_id).where(batch.c.assignment_id.in_(assignments)).distinct()
        with project.ledger.engine.connect() as connection:
            begun = connection.scalars(query).all()
        return {name: minutes_of(project.ledger, name).total.minutes()["active"] for name in begun}

    return active


def trends(agreement: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Agreement by structure as points of a small chart, 36 to 632 wide and 10 (Dice 1) to 120 (Dice 0) high."""
    by_structure: dict[str, list[Mapping[str, Any]]] = {}
    for row in agreement:
        if row["dice"] is not None:
            by_structure.setdefault(str(row["structure"]), []).append(row)
    result = []
    for structure, rows in sorted(by_structure.items()):
        dice = [float(row["dice"]) for row in rows]
        step = 596 / max(1, len(dice) - 1)
        result.append(
            {
                "structure": structure,
                "n": len(dice),
                "first": dice[0],
                "latest": dice[-1],
                "median": median(dice),
                "points": [(round(36 + n * step, 1), round(120 - 110 * value, 1)) for n, value in enumerate(dice)],
                "from_at": rows[0]["at"],
                "to_at": rows[-1]["at"],
            }
        )
    return result


def needs(state: Mapping[str, Any], sweep: Sweep | None) -> list[dict[str, str]]:
    """What on the operations page asks for a person, in the order of urgency."""
    found = []
    if sweep is not None and sweep.exit_code:
        found.append(
            {
                "kind": "bad",
                "what": f"The last sweep failed (exit code {sweep.exit_code}).",
                "do": "It is tried again by itself. `redraft sweep` in a terminal says what is wrong.",
            }
        )
    live = state["round"]
    for failure in state["failures"]:
        found.append(
            {
                "kind": "bad",
                "what": f"The step {failure['step']} of round {live['number']} failed ({failure['error']}).",
                "do": "`redraft status` says where the round stands; the same command again goes on from there.",
            }
        )
    for exam in state["escalations"]:
        found.append(
            {
                "kind": "bad",
                "what": f"Nobody has exam {exam['exam_id'][:8]}: its time ran out {exam['expired']} times.",
                "do": f"Last with {exam['reader_id']}. A person decides what becomes of it; `redraft status` says how.",
            }
        )
    if live and live["state"] == "AWAITING_APPROVAL":
        found.append(
            {
                "kind": "warn",
                "what": f"Round {live['number']} awaits a decision on its model.",
                "do": f"An approver decides at /decisions, or with `redraft promote {live['number']}`.",
            }
        )
    return found
