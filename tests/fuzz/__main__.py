"""python -m tests.fuzz --seconds 600 [--seed N] [--only ct-rle] [--workers 2] [--keep FOLDER] | --replay FOLDER..."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.run import Report, fuzz, replay


def main() -> int:
    """Run, print what was seen; 1 where something must not have happened."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Altered input for every reader.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the names of the seeds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path, nargs="+", help="folders of kept inputs")
    options = parser.parse_args()
    if options.replay:
        for path, answer in replay(options.replay):
            sys.stdout.write(f"{path}\n  {answer}\n")
        return 0
    last = time.monotonic()

    def tell(report: Report) -> None:
        nonlocal last
        if time.monotonic() - last > 60:
            last = time.monotonic()
            _write(report.lines())

    report = fuzz(
        options.keep, seconds=options.seconds, seed=options.seed, only=options.only, workers=options.workers, tell=tell
    )
    _write(report.lines())
    _write(f"  {kind:8} {verdict:12} {rule:28} {n}" for (kind, verdict, rule), n in sorted(report.outcomes.items()))
    return 1 if report.findings else 0


def _write(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
