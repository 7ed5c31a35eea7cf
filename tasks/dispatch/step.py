"""dispatch as a step: chosen and reference exams → assignments and work packages; and what collects them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.cohort import Cohort
from redraft.digest import sha256_json
from redraft.errors import StateError, UsageError
from redraft.ledger import AssignmentState, Tx, move_assignment
from redraft.project import Project
from redraft.rounds import get
from redraft.steps import Context, Done, run_step
from redraft.work_leases import COUNTED, OUT, new_lease, openings, until
from tasks.dispatch.assign import WORDS, Plan, assign, plan
from tasks.dispatch.hand_out import HandOut
from tasks.dispatch.leases import judge
from tasks.dispatch.open_backend import backend_for
from tasks.dispatch.planning import Expectations, away, desks, generator
from tasks.dispatch.quality import plan_quality
from tasks.dispatch.refs import CollectRef, DispatchInputs, DispatchRef, KeptRef, unassigned_ref
from tasks.dispatch.renew import renew_result
from tasks.dispatch.returns import hand_back, pick_up
from tasks.dispatch.unread import never_given, sent_back

Row = dict[str, Any]


def utc_now() -> datetime:
    return datetime.now(UTC)


@task(name="dispatch", cache_policy=NO_CACHE, persist_result=False)
def dispatch(project_dir: str, number: int, token: int) -> DispatchRef:
    """Assign work, write the packages, hand them out. Work that was carried over goes out again in this round."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "dispatch")
    runs = project.ledger.rows("step_run", round=number, step="dispatch", state="done")
    if runs:  # whatever has changed since (rules, code): what is out is out, and nothing goes out twice
        return DispatchRef.model_validate(max(runs, key=lambda run: run["finished_at"])["outputs"])
    config, cohort = project.config, Cohort(project)
    selection = sorted(project.ledger.rows("selection", round=number), key=lambda row: row["rank"])
    busy = cohort.in_work(number)
    waiting = [
        row["exam_id"]
        for row in cohort.reference_exams()
        if row["exam_id"] not in busy and not cohort.annotated(row["exam_id"])
    ]
    reference = sorted(waiting[: config.dispatch.reference_per_round])
    carried = sorted(
        a["assignment_id"]
        for a in cohort.assignments.values()
        if a["state"] == "CARRIED_OVER" or (a["round"] == number and a["attempt"] > 1)
    )
    gone = away(project)
    inputs = DispatchInputs(
        selection=tuple((row["exam_id"], row["explanation"]["mode"]) for row in selection),
        reference=tuple(reference),
        carried_over=tuple(carried),
        readers=tuple(reader.id for reader in config.dispatch.readers if reader.id not in gone),
        rules=sha256_json(config.dispatch.model_dump(mode="json", exclude={"folder", "pacs"})),
    )

    def body() -> Done:
        again = [cohort.assignments[name] for name in carried]
        stay = [row for row in again if row["reader_id"] not in gone]
        leave = [row for row in again if row["reader_id"] in gone]
        expected = Expectations(project, cohort, number)
        people = desks(project, cohort.assignments.values(), number, [row["assignment_id"] for row in stay])
        items = [expected.chosen(row) for row in selection] + [expected.reference(exam) for exam in reference]
        # What a reader who left had, but not known-wrong drafts: they were theirs alone.
        items += [expected.instead(row) for row in leave if row["purpose"] in COUNTED]
        share = {
            "training": config.dispatch.training_double_read_share,
            "reference": config.dispatch.double_read_share,
        }
        with ctx.timings.part("core"):
            plans, unassigned = assign(
                items, people, round_number=number, double_share=share,
                rng=generator(config.seed, number, "dispatch"),
            )  # fmt: skip
            seeded, missing = plan_quality(project, cohort, expected, people, plans, number)
            packages = HandOut(project)
            for item in seeded:
                packages.add_draft(item.draft)
            now, due = ctx.clock(), datetime.fromisoformat(get(project, number)["due_at"])
            drafts = {item.plan.assignment_id: item.draft["draft_id"] for item in seeded}
            rows = []
            # By id: were known-wrong drafts made last, the times of the packages' files would tell them.
            for planned in sorted([*plans, *(item.plan for item in seeded)], key=lambda p: p.assignment_id):
                row = _row(project, planned, number, now, due)
                row["draft_id"] = drafts.get(planned.assignment_id, row["draft_id"])
                rows.append({**row, "package_sha256": packages.package(row)})
            renewed = []
            for row in stay:
                before, row = row["attempt"], {**row, "round": number, "attempt": row["attempt"] + 1}
                renewed.append({**row, "package_sha256": packages.package(row)})
                # Handed in while nothing was taken in (the round was closing): it is taken in with this round's work.
                renew_result(
                    project.work / row["assignment_id"], project.checked_keys, before=before, after=row["attempt"]
                )  # fmt: skip

        def record(tx: Tx) -> None:
            _know_readers(tx, project, now)
            tx.insert_many("draft", [item.draft for item in seeded])
            for row in leave:
                move_assignment(tx, row["assignment_id"], AssignmentState.WITHDRAWN, round=number)
                _end(tx, row["assignment_id"], "ended")
            ends = until(now, due, config.dispatch)
            for row in rows:
                tx.insert("assignment", row)
                tx.insert("work_lease", new_lease(row["assignment_id"], ends))
            tx.insert_many("seeded_error", [item.error for item in seeded])
            for row in renewed:
                changes = {key: row[key] for key in ("round", "attempt", "package_sha256")}
                move_assignment(tx, row["assignment_id"], AssignmentState.DISPATCHED, due_at=due, **changes)
                _begin(tx, row["assignment_id"], ends)
            if unassigned:
                readings = [unassigned_ref(item).model_dump() for item in unassigned]
                tx.event("dispatch.unassigned", {"round": number, "readings": readings})

        ref = DispatchRef(
            round=number,
            training=sum(p.purpose == "training" for p in plans),
            reference=sum(p.purpose == "reference" for p in plans),
            carried_over=len(stay),
            assignments_sha256=sha256_json(sorted([p.assignment_id, p.exam_id, p.reader_id, p.mode] for p in plans)),
            quality=len(seeded),
            quality_missing=missing,
            unassigned=tuple(unassigned_ref(item) for item in unassigned),
        )
        return Done(ref, record)

    out = run_step(ctx, "dispatch", inputs, DispatchRef, body)
    _bring_out(project, number)
    return out


@task(name="keep_leases", cache_policy=NO_CACHE, persist_result=False)
def keep_leases(project_dir: str, number: int, token: int | None, clock: Callable[[], datetime] = utc_now) -> KeptRef:
    """Withdraw work whose lease ran out or whose reader left, and give what nobody has to another reader.

    Rows come first and packages after them: a package that a kill kept from being made is made by the next call. What
    the reader has drawn stays where it is, below the desk or in the package, and nobody else is shown it.
    """
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "keep_leases", clock)
    config, ledger = project.config, project.ledger
    now, due = ctx.clock(), datetime.fromisoformat(get(project, number)["due_at"])
    every = ledger.rows("assignment")
    leases = {row["assignment_id"]: row for row in ledger.rows("work_lease")}
    found = judge(
        [row for row in every if row["round"] == number], leases, sent_back(project), away(project), due,
        config.dispatch, now,
    )  # fmt: skip
    # As the ledger will be once this is written: what is free then is given out in the same transaction.
    every = [{**row, "state": "WITHDRAWN"} if row["assignment_id"] in found.withdrawn else row for row in every]
    for state, names in (("expired", found.expire), ("ended", found.leave)):
        for name in names:
            leases[name] = {**leases.get(name, new_lease(name, now)), "state": state}
    rows = [row for row in every if row["round"] == number]
    free = openings(rows, leases, config.dispatch.lease.escalate_after)
    cohort = Cohort(project)
    expected = Expectations(project, cohort, number)
    items = [*expected.openings(free), *never_given(project, cohort, expected, rows, number)]
    plans, unassigned = assign(
        items, desks(project, every, number), round_number=number, double_share={},
        rng=generator(config.seed, number, "keep", *sorted(item.instead_of or item.exam_id for item in items)),
    )  # fmt: skip
    handed = _hand_over(ctx, plans, now, due, found)
    packages = HandOut(project)
    repaired = []
    for row in ledger.rows("assignment", round=number):
        if row["state"] in OUT and packages.is_missing(row):
            packages.package(row)
            repaired.append(row["assignment_id"])
    _bring_out(project, number)
    return KeptRef(
        expired=found.expire,
        left=found.leave,
        handed=handed,
        escalated=tuple(sorted({opening.last["exam_id"] for opening in free if opening.escalated})),
        unassigned=tuple(unassigned_ref(item) for item in unassigned),
        renewed=len(found.renew),
        repaired=tuple(name for name in repaired if name not in handed),
    )


def _bring_out(project: Project, number: int) -> None:
    """Bring packages to where readers work, where that is not the folder that they lie in.

    What cannot be brought now (a PACS that is silent) is brought, or named, when work is collected.
    """
    if project.config.dispatch.backend == "dicomweb":
        out = [row["assignment_id"] for row in project.ledger.rows("assignment", round=number) if row["state"] in OUT]
        backend_for(project).hand_out(out, lambda assignment, error: None)


def give(ctx: Context, exam_id: str, reader_id: str) -> str:
    """Give a reading that nobody has to a reader, as a person decided; returns the new assignment's id.

    Escalation, lapsed leases and the reader's minutes do not stand in the way; conflict, skill and blindness do.

    Raises
    ------
    UsageError
        The project has no such reader.
    StateError
        Nobody needs to read the exam, or the reader must not.
    """
    project, number = ctx.project, ctx.number
    config, ledger = project.config, project.ledger
    every = ledger.rows("assignment")
    rows = [row for row in every if row["round"] == number]
    leases = {row["assignment_id"]: row for row in ledger.rows("work_lease")}
    cohort = Cohort(project)
    expected = Expectations(project, cohort, number)
    people = {desk.reader.id: desk for desk in desks(project, every, number)}
    if reader_id not in people:
        raise UsageError(f"There is no reader {reader_id}.", f"Readers: {', '.join(people)}.")
    items = [
        expected.instead(opening.last)
        for opening in openings(rows, leases, config.dispatch.lease.escalate_after)
        if opening.last["exam_id"] == exam_id
    ]
    items += [
        item for item in never_given(project, cohort, expected, rows, number) if item.exam_id == exam_id
    ]  # fmt: skip
    if not items:
        raise StateError(f"No reading of exam {exam_id} waits for a reader.", "See `redraft round status`.")
    why = people[reader_id].why_not(items[0])
    if why not in (None, "hours"):
        raise StateError(
            f"Reader {reader_id} cannot get exam {exam_id}: {WORDS[str(why)]}.", "Choose another reader.",
            code=f"state.{why}",
        )  # fmt: skip
    now, due = ctx.clock(), datetime.fromisoformat(get(project, number)["due_at"])
    (identity,) = _hand_over(ctx, [plan(items[0], reader_id, number)], now, due)
    HandOut(project).package(ledger.rows("assignment", assignment_id=identity)[0])
    _bring_out(project, number)
    return identity


def _hand_over(ctx: Context, plans: Sequence[Plan], now: datetime, due: datetime, found: Any = None) -> dict[str, str]:
    """Write what was judged and planned, in one transaction; new assignment id to what it stands for."""
    if not plans and (found is None or not (found.renew or found.end or found.withdrawn)):
        return {}
    project = ctx.project
    packages = HandOut(project)
    rows = []
    for planned in plans:
        row = _row(project, planned, ctx.number, now, due)
        rows.append({**row, "package_sha256": packages.digest(row)})
    ends = until(now, due, project.config.dispatch)
    ctx.check_lease()
    with ctx.ledger.tx(ctx.actor, now) as tx:
        _know_readers(tx, project, now)
        if found is not None:
            for name, expires in found.renew.items():
                _begin(tx, name, expires)
            for name in found.end:
                _end(tx, name, "ended")
            for state, names in (("expired", found.expire), ("ended", found.leave)):
                for name in names:
                    move_assignment(tx, name, AssignmentState.WITHDRAWN)
                    _end(tx, name, state)
        for row in rows:
            tx.insert("assignment", row)
            tx.insert("work_lease", new_lease(row["assignment_id"], ends))
    return {planned.assignment_id: planned.instead_of or planned.exam_id for planned in plans}


def _row(project: Project, planned: Plan, number: int, now: datetime, due: datetime) -> Row:
    return {
        "assignment_id": planned.assignment_id,
        "round": number,
        "exam_id": planned.exam_id,
        "reader_id": planned.reader_id,
        "purpose": planned.purpose,
        "mode": planned.mode,
        "mode_probability": planned.mode_probability,
        # The draft that existed when the mode was drawn, shown or not: it makes both arms comparable.
        "draft_id": planned.draft_id,
        "backend": project.config.dispatch.backend,
        "state": AssignmentState.DISPATCHED,
        "expected_minutes": planned.expected_minutes,
        "dispatched_at": now,
        "due_at": due,
        "package_sha256": "",
        "attempt": 1,
    }


def _know_readers(tx: Tx, project: Project, now: datetime) -> None:
    simulated = project.config.dispatch.backend == "simulated"
    for reader in project.config.dispatch.readers:
        if tx.one("reader", reader_id=reader.id) is None:
            row = {"reader_id": reader.id, "role": reader.role, "simulated": simulated, "added_at": now}
            tx.insert("reader", row)


def _begin(tx: Tx, assignment_id: str, expires: datetime) -> None:
    row = new_lease(assignment_id, expires)
    if tx.one("work_lease", assignment_id=assignment_id) is None:
        tx.insert("work_lease", row)
    else:
        tx.update("work_lease", {"assignment_id": row.pop("assignment_id")}, row)


def _end(tx: Tx, assignment_id: str, state: str) -> None:
    if tx.one("work_lease", assignment_id=assignment_id) is not None:
        tx.update("work_lease", {"assignment_id": assignment_id}, {"state": state})


@task(name="collect", cache_policy=NO_CACHE, persist_result=False)
def collect(project_dir: str, number: int, token: int) -> CollectRef:
    """Pick up finished work. Unreadable work stays where it is and is named; strangers in the folder are named too."""
    return pick_up(Project.open(project_dir))


@task(name="send_back", cache_policy=NO_CACHE, persist_result=False)
def send_back(project_dir: str, number: int, token: int) -> int:
    """Send refused work back to its reader with the reasons; returns how many packages went back."""
    return hand_back(Project.open(project_dir))


@task(name="carry_over", cache_policy=NO_CACHE, persist_result=False)
def carry_over(project_dir: str, number: int, token: int) -> int:
    """What is still out goes to the next round; returns how many assignments."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "carry_over")
    out = [
        row["assignment_id"]
        for row in project.ledger.rows("assignment", round=number)
        if row["state"] in ("DISPATCHED", "RETURNED_TO_READER")
    ]
    if out:
        ctx.check_lease()
        with ctx.ledger.tx(ctx.actor, ctx.clock()) as tx:
            for assignment in out:
                move_assignment(tx, assignment, AssignmentState.CARRIED_OVER)
    return len(out)
