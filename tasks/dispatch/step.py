"""dispatch as a step: chosen and reference exams → assignments and work packages; and what collects them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.cohort import OPEN_STATES, Cohort
from redraft.digest import sha256_bytes, sha256_file, sha256_json
from redraft.errors import LabelError
from redraft.ledger import AssignmentState, Tx, move_assignment
from redraft.project import Project
from redraft.rounds import get
from redraft.steps import Context, Contract, Done, run_step
from tasks.dispatch.assign import Plan, assign
from tasks.dispatch.backends import FolderBackend
from tasks.dispatch.contract import Task, TaskStructure
from tasks.dispatch.open_backend import backend_for
from tasks.dispatch.packages import RESULT, make_package


class DispatchInputs(Contract):
    """Who gets what."""

    selection: tuple[tuple[str, str], ...]
    reference: tuple[str, ...]
    carried_over: tuple[str, ...]
    readers: tuple[str, ...]
    rules: str


class DispatchRef(Contract):
    """What went out in this round."""

    round: int
    training: int
    reference: int
    carried_over: int
    assignments_sha256: str


class ReturnedRef(Contract):
    """One finished piece of work in its package."""

    assignment_id: str
    label: str  # relative to the project where it lies inside, else absolute
    label_sha256: str
    result: dict[str, Any]


class CollectRef(Contract):
    """What came back and could be read."""

    items: tuple[ReturnedRef, ...]
    unreadable: dict[str, str]  # assignment_id to rule


@task(name="dispatch", cache_policy=NO_CACHE, persist_result=False)
def dispatch(project_dir: str, number: int, token: int) -> DispatchRef:
    """Assign work, write the packages, hand them out. Work that was carried over goes out again in this round."""
    import numpy as np

    project = Project.open(project_dir)
    ctx = Context(project, number, token, "dispatch")
    config, cohort = project.config, Cohort(project)
    selection = sorted(project.ledger.rows("selection", round=number), key=lambda row: row["rank"])
    busy = cohort.in_work(number)
    waiting = [
        row["exam_id"]
        for row in cohort.reference_exams()
        if row["exam_id"] not in busy and not cohort.annotated(row["exam_id"])
    ]
    reference = waiting[: config.dispatch.reference_per_round]
    carried = sorted(
        a["assignment_id"]
        for a in cohort.assignments.values()
        if a["state"] == "CARRIED_OVER" or (a["round"] == number and a["attempt"] > 1)
    )
    readers = tuple(reader.id for reader in config.dispatch.readers)
    inputs = DispatchInputs(
        selection=tuple((row["exam_id"], row["explanation"]["mode"]) for row in selection),
        reference=tuple(reference),
        carried_over=tuple(carried),
        readers=readers,
        rules=sha256_json([config.dispatch.double_read_share, config.dispatch.backend]),
    )

    def body() -> Done:
        load: dict[str, float] = {}
        for row in cohort.assignments.values():
            if row["state"] in OPEN_STATES:
                load[row["reader_id"]] = load.get(row["reader_id"], 0.0) + float(row["expected_minutes"] or 0)
        rng = np.random.default_rng(int(sha256_bytes(f"{config.seed}/{number}/dispatch".encode())[:16], 16))
        chosen: list[tuple[str, Literal["assisted", "from_scratch"], float]] = [
            (row["exam_id"], row["explanation"]["mode"], row["explanation"]["mode_probability"]) for row in selection
        ]
        plans = assign(
            chosen, reference, readers, load, round_number=number, expected_minutes=config.select.prior_minutes,
            double_read_share=config.dispatch.double_read_share, rng=rng,
        )  # fmt: skip
        champion = get(project, number)["champion"]
        drafts = {r["exam_id"]: r for r in project.ledger.rows("draft", model_digest=champion)} if champion else {}
        with ctx.timings.part("core"):
            digests = {plan.assignment_id: _package(project, number, plan, cohort, drafts) for plan in plans}
        due = get(project, number)["due_at"]
        now = ctx.clock()

        def record(tx: Tx) -> None:
            for reader in config.dispatch.readers:
                if tx.one("reader", reader_id=reader.id) is None:
                    simulated = config.dispatch.backend == "simulated"
                    row = {"reader_id": reader.id, "role": reader.role, "simulated": simulated, "added_at": now}
                    tx.insert("reader", row)
            for plan in plans:
                draft = drafts.get(plan.exam_id)
                tx.insert(
                    "assignment",
                    {
                        "assignment_id": plan.assignment_id,
                        "round": number,
                        "exam_id": plan.exam_id,
                        "reader_id": plan.reader_id,
                        "purpose": plan.purpose,
                        "mode": plan.mode,
                        "mode_probability": plan.mode_probability,
                        # The draft that existed when the mode was drawn, shown or not: it makes both arms comparable.
                        "draft_id": draft["draft_id"] if draft and plan.purpose == "training" else None,
                        "backend": config.dispatch.backend,
                        "state": AssignmentState.DISPATCHED,
                        "expected_minutes": plan.expected_minutes,
                        "dispatched_at": now,
                        "due_at": due,
                        "package_sha256": digests[plan.assignment_id],
                        "attempt": 1,
                    },
                )
            for assignment in carried:
                attempt = tx.get("assignment", assignment_id=assignment)["attempt"] + 1
                changes = {"round": number, "due_at": due, "attempt": attempt}
                move_assignment(tx, assignment, AssignmentState.DISPATCHED, **changes)

        ref = DispatchRef(
            round=number,
            training=sum(plan.purpose == "training" for plan in plans),
            reference=sum(plan.purpose == "reference" for plan in plans),
            carried_over=len(carried),
            assignments_sha256=sha256_json(sorted([p.assignment_id, p.exam_id, p.reader_id, p.mode] for p in plans)),
        )
        return Done(ref, record)

    return run_step(ctx, "dispatch", inputs, DispatchRef, body)


def _package(project: Project, number: int, plan: Plan, cohort: Cohort, drafts: dict[str, dict[str, Any]]) -> str:
    exam = cohort.exams[plan.exam_id]
    draft = drafts[plan.exam_id] if plan.mode == "assisted" else None
    work = Task(
        assignment_id=plan.assignment_id,
        exam_id=plan.exam_id,
        round=number,
        purpose=plan.purpose,
        mode=plan.mode,
        reader_id=plan.reader_id,
        structures=tuple(TaskStructure(name=s.name, value=s.value, kind=s.kind) for s in project.config.structures),
        image_sha256=exam["image_sha256"],
        draft_sha256=draft["sha256"] if draft else None,
    )
    path = project.root / draft["path"] if draft else None
    return make_package(project.work, work, project.root / exam["image_path"], path)


@task(name="collect", cache_policy=NO_CACHE, persist_result=False)
def collect(project_dir: str, number: int, token: int) -> CollectRef:
    """Pick up finished work. Unreadable work stays where it is and is named; strangers in the folder are named too."""
    project = Project.open(project_dir)
    backend = backend_for(project)
    rows = {row["assignment_id"]: row for row in project.ledger.rows("assignment")}
    open_now = [name for name, row in rows.items() if row["state"] in OPEN_STATES and row["state"] != "RETURNED"]
    unreadable: dict[str, str] = {}

    def failed(assignment: str, error: LabelError) -> None:
        unreadable[assignment] = error.rule

    refuse = _rejected(project, backend)
    items = []
    for item in backend.collect(open_now, failed):
        if refuse(item.assignment_id, item.label_sha256):
            continue
        label = item.label
        inside = label.is_relative_to(project.root)
        items.append(
            ReturnedRef(
                assignment_id=item.assignment_id,
                label=label.relative_to(project.root).as_posix() if inside else str(label),
                label_sha256=item.label_sha256,
                result=item.result.model_dump(mode="json"),
            )
        )
    for stranger in backend.strangers(set(rows)):
        unreadable[f"unknown-{sha256_json(stranger)[:12]}"] = "never_dispatched"
    return CollectRef(items=tuple(items), unreadable=unreadable)


def _rejected(project: Project, backend: FolderBackend) -> Callable[[str, str], bool]:
    """Whether exactly this work was refused before; then it is sent back (again, after a crash) instead of judged."""
    refused = {
        (row["assignment_id"], row["sha256"]): row["annotation_id"]
        for row in project.ledger.rows("annotation", state="invalid")
    }
    why = {row["annotation_id"]: row["hard"] for row in project.ledger.rows("validation")}

    def check(assignment: str, label_sha256: str) -> bool:
        annotation = refused.get((assignment, label_sha256))
        if annotation is None:
            return False
        backend.send_back(assignment, [item["message"] for item in why.get(annotation, [])])
        return True

    return check


@task(name="send_back", cache_policy=NO_CACHE, persist_result=False)
def send_back(project_dir: str, number: int, token: int) -> int:
    """Send refused work back to its reader with the reasons; returns how many packages went back."""
    project = Project.open(project_dir)
    backend = backend_for(project)
    check = _rejected(project, backend)
    count = 0
    for row in project.ledger.rows("assignment", state="RETURNED_TO_READER"):
        folder = backend.work / row["assignment_id"]
        label = backend.label_of(row["assignment_id"])
        if (folder / RESULT).exists() and label is not None:
            count += check(row["assignment_id"], sha256_file(label))
    return count


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
