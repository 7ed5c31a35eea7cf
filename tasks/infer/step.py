"""infer as a step: draft every unlabelled pool exam with the round's champion."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.cohort import Cohort
from redraft.digest import sha256_json
from redraft.errors import ExamError
from redraft.ledger import Tx
from redraft.lineage.verify import trusted_keys
from redraft.project import Project
from redraft.rounds import get
from redraft.steps import Context, Contract, Done, run_step


class InferInputs(Contract):
    """Model and exams."""

    model_digest: str | None
    exams: tuple[tuple[str, str], ...]  # exam_id, image_sha256
    settings: str


class InferRef(Contract):
    """Drafts of one model; `no_model` on a cold start."""

    model_digest: str | None
    no_model: bool
    drafts: int
    failed: tuple[str, ...]
    drafts_sha256: str


@task(name="infer", cache_policy=NO_CACHE, persist_result=False)
def infer(project_dir: str, number: int, token: int) -> InferRef:
    """Draft what (exam, champion) has no draft yet."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "infer")
    model_digest = get(project, number)["champion"]
    pool = Cohort(project).unlabelled_pool(number)
    inputs = InferInputs(
        model_digest=model_digest,
        exams=tuple((row["exam_id"], row["image_sha256"]) for row in pool),
        settings=sha256_json(project.config.infer.model_dump(mode="json")),
    )

    def body() -> Done:
        if model_digest is None:
            empty = InferRef(model_digest=None, no_model=True, drafts=0, failed=(), drafts_sha256=sha256_json([]))
            return Done(empty)
        from models.data import default_threads
        from models.package import load_package
        from models.training import choose_precision
        from tasks.infer.core import Draft, ToDraft, infer_exams

        have = {row["exam_id"]: row for row in project.ledger.rows("draft", model_digest=model_digest)}
        todo = [
            ToDraft(row["exam_id"], project.root / row["image_path"], row["image_sha256"])
            for row in pool
            if row["exam_id"] not in have or not (project.root / have[row["exam_id"]]["path"]).exists()
        ]
        failed: list[str] = []
        fresh: list[Draft] = []
        with ctx.timings.part("core"):
            if todo:
                ensemble = load_package(project.state / "models" / model_digest, trusted_keys(project))
                train = project.config.train

                def note(exam_id: str, error: ExamError) -> None:
                    failed.append(exam_id)

                fresh = list(
                    infer_exams(
                        ensemble,
                        todo,
                        project.root,
                        project.config.infer,
                        threads=train.threads or default_threads(),
                        precision=choose_precision(train.precision, "cpu"),
                        failed=note,
                    )
                )
        every = {row["exam_id"]: row["sha256"] for row in have.values()} | {d.exam_id: d.sha256 for d in fresh}

        def record(tx: Tx) -> None:
            rows = [
                {
                    "draft_id": sha256_json([draft.exam_id, draft.model_digest])[:24],
                    "exam_id": draft.exam_id,
                    "model_digest": draft.model_digest,
                    "path": draft.path,
                    "sha256": draft.sha256,
                    "scores": draft.scores,
                }
                for draft in fresh
                if draft.exam_id not in have
            ]
            tx.insert_many("draft", rows)

        wanted = sorted((row["exam_id"], every[row["exam_id"]]) for row in pool if row["exam_id"] in every)
        ref = InferRef(
            model_digest=model_digest,
            no_model=False,
            drafts=len(wanted),
            failed=tuple(sorted(failed)),
            drafts_sha256=sha256_json(wanted),
        )
        return Done(ref, record)

    return run_step(ctx, "infer", inputs, InferRef, body)
