"""ingest as a step: sources of project.yaml → exams, receipts, splits."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.cohort import Cohort
from redraft.digest import sha256_json
from redraft.errors import StateError
from redraft.project import Project
from redraft.splits import POOL, UNDRAWN
from redraft.steps import Context, Contract, Done, run_step
from tasks.ingest.admit import take_in


class IngestInputs(Contract):
    """What decides an intake."""

    rules: str
    key_fingerprint: str


class IngestRef(Contract):
    """The exams that are in now."""

    exams: int
    subjects: int
    exams_sha256: str
    splits_sha256: str


@task(name="ingest", cache_policy=NO_CACHE, persist_result=False)
def ingest(project_dir: str, number: int, token: int) -> IngestRef:
    """Take in the project's sources and draw splits for new subjects."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "ingest")
    config = project.config
    rules = sha256_json(
        [config.ingest.model_dump(mode="json", exclude={"sources"}), config.splits.model_dump(mode="json")]
    )
    inputs = IngestInputs(rules=rules, key_fingerprint=project.checked_keys.fingerprint)

    def body() -> Done:
        with ctx.timings.part("core"):
            take_in(project, None, ctx.clock(), "ingest")
        cohort = Cohort(project)
        if UNDRAWN in cohort.split.values() or not cohort.exams_in(POOL):
            raise StateError(
                f"{len(cohort.split)} subjects are in: too few for a round.",
                f"Validation and test sets need {config.splits.min_validation} and {config.splits.min_test} subjects, "
                "the pool at least one. Ingest more exams (`redraft ingest PATH`).",
                code="state.too_few_subjects",
            )
        exams = sorted([row["exam_id"], row["image_sha256"]] for row in cohort.exams.values())
        return Done(
            IngestRef(
                exams=len(exams),
                subjects=len(cohort.split),
                exams_sha256=sha256_json(exams),
                splits_sha256=sha256_json(sorted(cohort.split.items())),
            )
        )

    return run_step(ctx, "ingest", inputs, IngestRef, body, always=True)
