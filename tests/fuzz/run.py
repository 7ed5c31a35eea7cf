"""The loop: draw a seed, alter it, have a guarded process take it in, keep what must not have happened."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from redraft.create import create_project
from redraft.workers import Lost, Workers
from tests.fuzz.mutate import mutate
from tests.fuzz.seeds import AT, Seed, build
from tests.fuzz.target import Answer, Case

TARGET = "tests.fuzz.target:start"
# GDCM ends its process on some wrong streams and no other library here reads them: such a series is refused by
# reader_died, which is what the guard is for.
BY_GDCM = (b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.51", b"1.2.840.10008.1.2.4.57", b"1.2.840.10008.1.2.4.70")
KEPT_OF_EACH = 3


@dataclass
class Report:
    """What a run saw. `findings` counts what must not happen by its kind; the inputs are kept in `folder`."""

    folder: Path
    cases: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield f"{self.cases} inputs in {self.seconds:.0f} s, the slowest took {self.slowest:.2f} s"
        admitted = sum(n for (_, verdict, _), n in self.outcomes.items() if verdict == "admitted")
        rules = {rule for _, verdict, rule in self.outcomes if verdict != "admitted"}
        yield f"{admitted} volumes or label maps admitted; refusals by {len(rules)} rules"
        yield from (f"  excused {what}: {n}" for what, n in self.excused.most_common())
        yield from (f"  FINDING {what}: {n}" for what, n in self.findings.most_common())
        yield f"inputs of findings are in {self.folder}" if self.findings else "no findings"


def fuzz(
    folder: Path, *, seconds: float | None = None, count: int | None = None, seed: int = 0, workers: int = 2,
    memory_mb: int = 1024, limit_seconds: float = 20.0, only: str = "", target: str = TARGET,
    tell: Callable[[Report], None] | None = None,
) -> Report:  # fmt: skip
    """Alter and take in until the time is over or the count is reached.

    Parameters
    ----------
    folder : Path
        Where inputs of findings are kept, each in a folder of its own with what must not have happened.
    only : str
        Part of the names of the seeds to use.
    """
    with tempfile.TemporaryDirectory(prefix="redraft-fuzz-") as scratch:
        work = Path(scratch)
        seeds = [one for one in build(work / "seeds") if only in one.name]
        root = create_project(work / "project", "kidney-ct", AT, demo_keys=True).root
        report, began = Report(folder), time.monotonic()

        def cases() -> Iterator[tuple[int, Case]]:
            for n in range(count if count is not None else 1 << 62):
                if seconds is not None and time.monotonic() - began > seconds:
                    return
                yield n, drawn(seeds, seed, n)

        with Workers[tuple[int, Case], Case, Answer](workers, target, (str(root), str(work)), memory_mb) as guarded:
            for (n, case), answer in guarded.map(cases(), lambda item: item[1], lambda _: limit_seconds):
                assert answer is not None
                _note(report, n, case, answer)
                report.seconds = time.monotonic() - began
                if tell is not None:
                    tell(report)
        return report


def replay(paths: Sequence[Path], memory_mb: int = 1024, limit_seconds: float = 20.0) -> Iterator[tuple[Path, str]]:
    """Take kept inputs in again; each with what came of it."""
    with tempfile.TemporaryDirectory(prefix="redraft-fuzz-") as scratch:
        root = create_project(Path(scratch) / "project", "kidney-ct", AT, demo_keys=True).root
        with Workers[Path, Case, Answer](1, TARGET, (str(root), scratch), memory_mb) as guarded:
            for path, answer in guarded.map(paths, _loaded, lambda _: limit_seconds):
                yield path, str(answer)


def drawn(seeds: Sequence[Seed], seed: int, number: int) -> Case:
    """The input of this number: the same for the same seed on every machine."""
    rng = Random(f"{seed}/{number}")
    chosen = rng.choice(seeds)
    return Case(chosen.name, chosen.kind, mutate(chosen, rng), chosen.names, rng.random() < 0.3)


def _note(report: Report, number: int, case: Case, answer: Answer | Lost) -> None:
    report.cases += 1
    if isinstance(answer, Lost):
        what = f"{answer.rule} {json.dumps(answer.measured, sort_keys=True)}"
        if answer.rule == "reader_died" and _by_gdcm(case):
            report.excused["reader_died (GDCM)"] += 1
            return
        _found(report, number, case, what)
        return
    report.slowest = max(report.slowest, answer.seconds)
    for verdict, rule in answer.outcomes:
        report.outcomes[(case.kind, verdict, rule)] += 1
    for problem in answer.problems:
        _found(report, number, case, problem)


def _found(report: Report, number: int, case: Case, what: str) -> None:
    kind = "".join("#" if letter.isdigit() else letter for letter in what) if "at" not in what else what
    report.findings[kind] += 1
    if report.findings[kind] > KEPT_OF_EACH:
        return
    folder = report.folder / f"{number:07d}-{case.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    about = {"what": what, "seed": case.seed, "kind": case.kind, "tolerant": case.tolerant}
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _loaded(folder: Path) -> Case:
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "about.json"}
    return Case(about["seed"], about["kind"], files, (), about["tolerant"])


def _by_gdcm(case: Case) -> bool:
    return any(uid in data for data in case.files.values() for uid in BY_GDCM)
