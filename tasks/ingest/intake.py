"""Taking exams in: every series that a source offers ends in one receipt (or one per volume that it holds).

    discover → known and unchanged? → fetch → read in a guarded process → receipt → (on record) → acknowledge

Nothing here knows the ledger: the caller records the receipts and then says so with `settle`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from redraft.digest import sha256_json
from redraft.errors import ExamError, RedraftError, ServiceError
from redraft.file_names import nifti_stem
from redraft.selection import Selection
from redraft.sources.index import SourceIndex
from redraft.sources.protocol import Offer, Source
from redraft.workers import Lost, Workers
from tasks.ingest.jobs import READER, Job, Setup, job_kind
from tasks.ingest.receipts import Receipt

# Refusals that say nothing of the series itself (the machine failed, a file beside it is damaged): it is read again.
TRANSIENT = frozenset({"read_failed", "folder_not_whole"})


@dataclass(frozen=True)
class Place:
    """A source that is looked through, and which of its series are wanted."""

    source: Source
    kind: str
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True)
class Settled:
    """What became of one offer."""

    place: Place
    offer: Offer
    receipts: tuple[Receipt, ...]
    # Whether the same offer need not be read again: not so where it never arrived whole.
    final: bool = True
    # Whether it was known from the index: nothing is new, nothing needs to be recorded.
    known: bool = False


@dataclass
class Intake:
    """One run over some sources.

    Parameters
    ----------
    setup : Setup
        What workers know.
    spool : Path
        Folder outside of the project where fetched series lie until they are on record.
    rules : str
        Digest of everything that decides a verdict; refused series are judged again when it changes.
    recorded : frozenset of str, optional
        Receipts (ids) that the ledger has; what the index remembers beyond them is read again.
    """

    setup: Setup
    index: SourceIndex
    spool: Path
    external: Sequence[str]
    rules: str
    workers: int
    seconds: float
    memory_mb: int
    recorded: frozenset[str] | None = None
    failures: list[RedraftError] = field(default_factory=list)
    _failed: set[str] = field(default_factory=set)
    _fresh: dict[str, frozenset[str]] = field(default_factory=dict)

    def run(self, places: Sequence[Place]) -> Iterator[Settled]:
        """Take in what the places offer. Sources that fail are in `failures` afterwards; the others go on."""
        self._claimed: set[str] = set()
        self._again: list[tuple[Place, Offer]] = []
        with Workers[_Work, Job, list[Receipt]](self.workers, READER, (self.setup,), self.memory_mb) as workers:
            yield from self._pass(workers, self._offers(places))
            # Offered twice in this run (by two sources, say): the second is judged when the first is on record.
            while self._again:
                later, self._again = self._again, []
                self._claimed = set()
                yield from self._pass(workers, iter(later))

    def settle(self, settled: Settled) -> None:
        """Call when the receipts of an offer are on record."""
        place, offer = settled.place, settled.offer
        if not settled.final:
            return  # the source keeps it, and the next intake tries again
        # Before the index: a source that could not be told (its disk is full) offers it again, and it is told then.
        place.source.acknowledge(offer, [receipt.verdict for receipt in settled.receipts])
        if settled.known:
            return
        shutil.rmtree(self._folder(place, offer), ignore_errors=True)
        if offer.refused is None:
            kept = [receipt.record() for receipt in settled.receipts]
            self.index.settle(offer.series_id, offer.version, self._rules(place), kept)

    def tidy(self, places: Sequence[Place], *, alone: bool) -> None:
        """Remove what killed intakes left in the spool of sources that were looked through whole: nobody will come back
        for a series that is offered otherwise now. `alone`: these are all sources there are."""
        looked = {place.source.name for place in places} - self._failed
        for folder in self.spool.iterdir() if self.spool.is_dir() else ():
            if folder.name in looked or (alone and folder.name not in self._failed):
                shutil.rmtree(folder, ignore_errors=True)

    def _pass(
        self, workers: Workers[_Work, Job, list[Receipt]], offers: Iterator[tuple[Place, Offer]]
    ) -> Iterator[Settled]:
        for work, result in workers.map(self._works(offers), lambda work: work.job, self._seconds):
            offer = work.offer
            settled = work.settled
            if isinstance(result, Lost):
                lost = Receipt(offer.series_id, "refused", result.rule, max(1, offer.files), measured=result.measured)
                settled = Settled(work.place, offer, (lost,), final=False)
            elif settled is None:
                assert result is not None
                final = not any(receipt.rule in TRANSIENT for receipt in result)
                settled = Settled(work.place, offer, tuple(result), final=final)
            exams = frozenset(r.exam_id for r in settled.receipts if r.verdict == "admitted" and r.exam_id)
            self._fresh[offer.series_id] = self._fresh.get(offer.series_id, frozenset()) | exams
            shown = tuple(Path(path) for path in offer.shown)
            yield replace(settled, receipts=tuple(replace(receipt, paths=shown) for receipt in settled.receipts))

    def _offers(self, places: Sequence[Place]) -> Iterator[tuple[Place, Offer]]:
        for place in places:
            try:
                for offer in place.source.discover():
                    if offer.series_id in self._claimed:
                        self._again.append((place, offer))
                    else:
                        self._claimed.add(offer.series_id)
                        yield place, offer
            except ServiceError as error:
                self.failures.append(error)
                self._failed.add(place.source.name)

    def _works(self, offers: Iterator[tuple[Place, Offer]]) -> Iterator[_Work]:
        """Offers as work: judged at once where nothing needs to be read, else fetched."""
        images: dict[str, Path] = {}
        labels: list[tuple[Place, Offer]] = []
        dead: set[str] = set()
        for place, offer in offers:
            if place.source.name in dead:
                continue
            if place.kind == "folder" and len(offer.shown) == 1 and job_kind(path := Path(offer.shown[0])) == "nifti":
                images.setdefault(nifti_stem(path), path)  # also where it is known: a label may be new
            settled = self._judged(place, offer)
            if settled is not None:
                yield _Work(place, offer, settled=settled)
                continue
            try:
                os.makedirs(self.spool, mode=0o700, exist_ok=True)
                paths = tuple(place.source.fetch(offer, self._folder(place, offer)))
            except ExamError as error:
                receipt = Receipt(offer.series_id, "refused", error.rule, offer.files, measured=error.measured)
                yield _Work(place, offer, settled=Settled(place, offer, (receipt,), final=False))
                continue
            except ServiceError as error:
                self.failures.append(error)
                dead.add(place.source.name)
                self._failed.add(place.source.name)
                continue
            kind = job_kind(paths[0]) if len(paths) == 1 else "dicom"
            if kind == "label":
                labels.append((place, replace(offer, handle=paths)))
                continue
            if kind == "nifti":
                images[nifti_stem(paths[0])] = paths[0]
            yield self._work(place, offer, paths, kind)
        for place, offer in labels:  # behind the images that they belong to
            paths = offer.handle
            yield self._work(place, offer, paths, "label", images.get(nifti_stem(paths[0])))

    def _judged(self, place: Place, offer: Offer) -> Settled | None:
        """What is known of an offer without reading it; None when it must be read."""
        if offer.refused is not None:
            return Settled(place, offer, (Receipt(offer.series_id, "refused", offer.refused, max(1, offer.files)),))
        outcome = self.index.outcome(offer.series_id, offer.version)
        if outcome is None:
            return None
        rules, kept = outcome
        receipts = []
        for record in kept:
            verdict, rule = record["verdict"], record["rule"]
            if record["verdict"] in ("admitted", "duplicate"):
                if record["exam_id"] not in self.setup.admitted:
                    return None  # the index is a memory, the ledger is the record
                verdict, rule = "duplicate", "known"
            elif rules != self._rules(place):
                return None
            receipt = Receipt(record["series"], verdict, rule, record["files"], record["exam_id"], record["measured"])
            if verdict != "duplicate" and self.recorded is not None and receipt.receipt_id("") not in self.recorded:
                return None  # the same: a ledger from a backup may have lost it
            receipts.append(receipt)
        return Settled(place, offer, tuple(receipts), known=True)

    def _work(
        self, place: Place, offer: Offer, paths: tuple[Path, ...], kind: Literal["dicom", "nifti", "label"],
        image: Path | None = None,
    ) -> _Work:  # fmt: skip
        names = {place.source.name, *(part for part in paths[0].parts if place.kind == "folder")}
        job = Job(
            series_id=offer.series_id,
            source=place.source.name,
            kind=kind,
            paths=paths,
            selection=place.selection,
            fresh=self._fresh.get(offer.series_id, frozenset()),
            image=image,
            doubt=offer.doubt,
            external=next((name for name in self.external if name in names), None),
        )
        return _Work(place, offer, job)

    def _rules(self, place: Place) -> str:
        return sha256_json([self.rules, place.selection.digest])

    def _seconds(self, job: Job) -> float:
        """A series gets the time of one file, and a second for each further one."""
        return self.seconds + len(job.paths) - 1

    def _folder(self, place: Place, offer: Offer) -> Path:
        return self.spool / place.source.name / f"{offer.series_id}-{sha256_json(offer.version)[:12]}"


@dataclass(frozen=True)
class _Work:
    """An offer on its way: a job for a worker, or settled already."""

    place: Place
    offer: Offer
    job: Job | None = None
    settled: Settled | None = None
