"""Admitting exams: what an intake finds is recorded in the ledger, and new subjects are drawn into splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

from redraft import __version__
from redraft.config.sources import FolderSource as FolderSection
from redraft.digest import sha256_json
from redraft.errors import ServiceError, StateError
from redraft.project import Project
from redraft.selection import Selection
from redraft.sources import open_source
from redraft.sources.archives import ArchiveLimits
from redraft.sources.folder import FolderSource, Scan
from redraft.sources.index import SourceIndex
from redraft.sources.protocol import SourceContext
from redraft.sources.unpacked import Judge, Unpacked
from redraft.splits import POOL, TEST, UNDRAWN, VALIDATION, draw_splits
from redraft.workers import Lost, Workers
from tasks.ingest.intake import Intake, Place, Settled
from tasks.ingest.jobs import SCANNER, Setup
from tasks.ingest.receipts import Receipt

# Receipts are committed in batches: a killed intake keeps what it has, and the next one goes on behind it.
BATCH = 25


def take_in(
    project: Project, paths: Sequence[Path] | None, now: datetime, actor: str, workers: int | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Receipt]:  # fmt: skip
    """Take in everything below `paths` (or what the configured sources hold), record it, and draw splits.

    Splits are drawn once all exams are in, over all undrawn subjects together: the draw does not depend on where an
    earlier intake was interrupted.

    Parameters
    ----------
    workers : int, optional
        Processes side by side; as project.yaml says when omitted. 0 reads in this process, unguarded.
    progress : function, optional
        Told how many series have been judged so far.

    Raises
    ------
    ServiceError
        When a source did not answer; what the others offered is in then.
    """
    config = project.config.ingest
    if workers is None:
        workers = config.workers or len(os.sched_getaffinity(0))
    index = SourceIndex(project.cache / "sources.db")
    try:
        project.checked_keys  # noqa: B018 - other keys are found before a worker writes with them
        setup = Setup.of(project, frozenset(row["exam_id"] for row in project.ledger.rows("exam")))
        intake = Intake(
            setup, index, project.vault_dir / "spool", project.config.splits.external, _rules(project), workers,
            config.limits.seconds, config.limits.memory_mb,
            frozenset(row["receipt_id"] for row in project.ledger.rows("receipt")),
        )  # fmt: skip
        places = _places(project, paths, index, workers)
        receipts: list[Receipt] = []
        batch: list[Settled] = []
        try:
            for settled in intake.run(places):
                receipts += settled.receipts
                progress(len(receipts))
                batch.append(settled)
                if len(batch) >= BATCH:
                    full, batch = batch, []  # one that fails is not recorded a second time below
                    _settle(project, intake, full, now, actor)
        finally:
            _settle(project, intake, batch, now, actor)
        intake.tidy(places, alone=paths is None)
    finally:
        index.close()
    _draw(project, now, actor)
    _forget_originals(project, now, actor)
    if intake.failures:
        first, others = intake.failures[0], len(intake.failures) - 1
        more = f" {others} more sources failed too." if others else ""
        what = f"{first} What the other sources offered is in.{more}" if receipts else f"{first}{more}"
        raise ServiceError(what, "Run the command again when it answers: it goes on where it stopped.", code=first.code)
    return receipts


def _forget_originals(project: Project, now: datetime, actor: str) -> None:
    """Remove quarantined originals older than security.vault_retention_days; the record says how many."""
    gone = project.vault.purge(now - timedelta(days=project.config.security.vault_retention_days))
    if gone:
        with project.ledger.tx(actor, now) as tx:
            tx.event("vault.purged", {"originals": gone})


def _rules(project: Project) -> str:
    """Digest of what decides verdicts: refused series are judged again when it changes."""
    config = project.config
    ingest = config.ingest.model_dump(mode="json", exclude={"workers", "sources"})
    return sha256_json([__version__, ingest, config.deid.model_dump(mode="json"), list(config.splits.external)])


def _places(project: Project, paths: Sequence[Path] | None, index: SourceIndex, workers: int) -> list[Place]:
    """The sources to look through. Folders are one source, so that a series may lie in several of them."""

    limits = ArchiveLimits.of(project.config.ingest.limits)
    unpacked = Unpacked(project.vault_dir / "unpacked" / "folder", limits, project.pseudonyms, index, _judge(project))

    def folder(found: Sequence[Path]) -> FolderSource:
        return FolderSource("folder", found, project.pseudonyms, index, _scan(project, workers), unpacked)

    if paths is not None:
        return [Place(folder(paths), "folder")]
    places = []
    context = SourceContext.of(project, index)
    sections = [section for section in project.config.ingest.sources if section.take_in]
    folders = [section for section in sections if isinstance(section, FolderSection)]
    for wanted, group in groupby(folders, lambda section: section.wanted):
        found = [project.resolve(section.path) for section in group]
        places.append(Place(folder(found), "folder", Selection.of(wanted, context.resolve)))
    for section in sections:
        if not isinstance(section, FolderSection):
            selection = Selection.of(section.wanted, context.resolve)
            places.append(Place(open_source(section, context), section.kind, selection))
    return places


def _judge(project: Project) -> Judge:
    """Reads the header of an unpacked member: a bounded walk in this process."""

    def judge(path: Path) -> tuple[str | None, str | None]:
        from redraft.sources.heads import judge_file

        return judge_file(path, pseudonyms=project.pseudonyms, selection=Selection())

    return judge


def _scan(project: Project, workers: int) -> Scan:
    limits, setup = project.config.ingest.limits, Setup.of(project)

    def scan(batches: Iterable[list[str]]) -> Iterator[list[tuple[str | None, str | None]]]:
        """Read headers in guarded processes. A file that takes its process with it costs its batch a second try."""

        def pool(count: int) -> Workers[list[str], list[str], list[tuple[str | None, str | None]]]:
            return Workers(count, SCANNER, (setup,), limits.memory_mb)

        with pool(workers) as several, pool(min(workers, 1)) as single:
            for batch, answers in several.map(batches, lambda paths: paths, lambda paths: limits.seconds):
                if isinstance(answers, Lost):
                    answers = []
                    for _, one in single.map([[path] for path in batch], lambda paths: paths, lambda _: limits.seconds):
                        answers += [(None, one.rule)] if isinstance(one, Lost) else one or []
                yield answers or []

    return scan


def _settle(project: Project, intake: Intake, batch: Sequence[Settled], now: datetime, actor: str) -> None:
    """Record first, then let the sources and the index know: a kill in between only costs time."""
    found = [(item.place.source.name, receipt) for item in batch if not item.known for receipt in item.receipts]
    _record(project, found, now, actor)
    for settled in batch:
        intake.settle(settled)
    intake.index.commit()


def _record(project: Project, found: Sequence[tuple[str, Receipt]], now: datetime, actor: str) -> None:
    fresh = [(source, receipt) for source, receipt in found if receipt.verdict != "duplicate"]
    if not fresh:
        return
    with project.ledger.tx(actor, now) as tx:
        for source, receipt in fresh:
            exam = receipt.exam
            if exam is not None:
                if tx.one("subject", subject_id=exam.subject_id) is None:
                    split = exam.external or UNDRAWN
                    drawn = now if exam.external else None
                    row = {"subject_id": exam.subject_id, "split": split, "stratum": exam.modality, "drawn_at": drawn}
                    tx.insert("subject", row)
                columns = {k: v for k, v in vars(exam).items() if k != "external"}
                tx.insert("exam", {**columns, "admitted_at": now})
            identity = receipt.receipt_id("")
            if tx.one("receipt", receipt_id=identity) is None:  # the same refusal again is nothing new
                record = receipt.record()
                tx.insert(
                    "receipt",
                    {
                        "receipt_id": identity,
                        "intake_id": source,
                        "series_id": record["series"],
                        "exam_id": record["exam_id"],
                        "verdict": record["verdict"],
                        "rule": record["rule"],
                        "measured": record["measured"],
                        "files": record["files"],
                        "at": now,
                    },
                )


def _draw(project: Project, now: datetime, actor: str) -> None:
    rows = project.ledger.rows("subject")
    inner = [row for row in rows if row["split"] in (POOL, VALIDATION, TEST, UNDRAWN)]
    drawn = {row["subject_id"]: row["split"] for row in inner if row["split"] != UNDRAWN}
    if len(drawn) == len(inner):
        return
    try:
        new = draw_splits(
            {row["subject_id"]: row["stratum"] for row in inner}, drawn, project.config.splits, project.config.seed
        )
    except StateError as error:
        if error.code != "state.too_few_subjects":
            raise
        return  # they wait, undrawn, until enough subjects are in; a round cannot open before
    with project.ledger.tx(actor, now) as tx:
        for subject, split in sorted(new.items()):
            tx.update("subject", {"subject_id": subject}, {"split": split, "drawn_at": now})
