"""select as a step: candidates with scores → chosen exams with mode and explanation."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.cohort import Cohort
from redraft.digest import sha256_bytes, sha256_json
from redraft.ledger import Tx
from redraft.project import Project
from redraft.rounds import get
from redraft.steps import Context, Contract, Done, run_step
from redraft.worktime.entries import counted


class SelectInputs(Contract):
    """Candidates with their scores, and the rules."""

    champion: str | None
    candidates_sha256: str
    candidates: int
    rules: str
    seed: int


class SelectRef(Contract):
    """What was chosen; rows are in the ledger."""

    chosen: int
    control: int
    assisted: int
    modes: dict[str, str]
    selection_sha256: str


@task(name="select", cache_policy=NO_CACHE, persist_result=False)
def select(project_dir: str, number: int, token: int) -> SelectRef:
    """Spend the round's budget."""
    from tasks.select.core import select as choose
    from tasks.select.strategies import Candidate, Rework

    project = Project.open(project_dir)
    ctx = Context(project, number, token, "select")
    champion = get(project, number)["champion"]
    drafts = {row["exam_id"]: row for row in project.ledger.rows("draft", model_digest=champion)} if champion else {}
    expected, cohort = expected_minutes(project), Cohort(project)
    shown = {row["draft_id"]: row["model_digest"] for row in project.ledger.rows("draft")}

    def rework(exam_id: str) -> Rework | None:
        row = cohort.rework(exam_id)
        if row is None:
            return None
        work = cohort.assignments[row["assignment_id"]]
        seen = shown.get(work["draft_id"]) if work["mode"] == "assisted" else None
        return Rework(row["round"], row["reason_code"], champion is not None and seen == champion)

    candidates = [
        Candidate(
            row["exam_id"],
            row["subject_id"],
            drafts[row["exam_id"]]["scores"] if row["exam_id"] in drafts else None,
            champion if row["exam_id"] in drafts else None,
            expected,
            rework(row["exam_id"]),
        )
        for row in cohort.unlabelled_pool(number)
        # An exam whose draft failed was reported by infer; it cannot be scored and waits.
        if champion is None or row["exam_id"] in drafts
    ]
    rules = project.config.select
    inputs = SelectInputs(
        champion=champion,
        candidates_sha256=sha256_json(
            [[c.exam_id, c.scores, c.expected_minutes, asdict(c.rework) if c.rework else None] for c in candidates]
        ),
        candidates=len(candidates),
        rules=sha256_json(rules.model_dump(mode="json")),
        seed=project.config.seed,
    )

    def body() -> Done:
        rng = generator(project.config.seed, number, "select")
        with ctx.timings.part("core"):
            chosen = choose(candidates, rules, champion=champion, rng=rng)

        def record(tx: Tx) -> None:
            tx.insert_many(
                "selection",
                [
                    {
                        "selection_id": sha256_json([number, item.exam_id])[:24],
                        "round": number,
                        "exam_id": item.exam_id,
                        "rank": item.rank,
                        "chosen_by": item.chosen_by,
                        "strategy": item.strategy,
                        "score": item.score,
                        "inclusion_probability": item.inclusion_probability,
                        "explanation": {
                            **item.explanation,
                            "mode": item.mode,
                            "mode_probability": item.mode_probability,
                        },
                    }
                    for item in chosen
                ],
            )

        ref = SelectRef(
            chosen=len(chosen),
            control=sum(item.chosen_by == "control" for item in chosen),
            assisted=sum(item.mode == "assisted" for item in chosen),
            modes={item.exam_id: item.mode for item in chosen},
            selection_sha256=sha256_json([item.model_dump(mode="json") for item in chosen]),
        )
        return Done(ref, record)

    return run_step(ctx, "select", inputs, SelectRef, body)


def generator(seed: int, number: int, purpose: str) -> np.random.Generator:
    """The random generator of one purpose in one round."""
    return np.random.default_rng(int(sha256_bytes(f"{seed}/{number}/{purpose}".encode())[:16], 16))


def expected_minutes(project: Project) -> float:
    """Mean active minutes per training annotation so far; the configured prior before any came back."""
    cohort = Cohort(project)
    per: dict[str, float] = {}
    training = {
        row["annotation_id"]
        for row in project.ledger.rows("annotation")
        if cohort.assignments[row["assignment_id"]]["purpose"] == "training" and row["state"] != "rejected"
    }
    for row in counted(project.ledger):
        if row["annotation_id"] in training:
            per[row["annotation_id"]] = per.get(row["annotation_id"], 0.0) + row["active_minutes"]
    return float(np.mean(sorted(per.values()))) if per else project.config.select.prior_minutes
