"""`make bench`: start-up of the command line, ingest, a round's orchestration, and the demo, measured on this machine.

python -m benchmarks [startup] [ingest] [orchestration] [demo]      all of them when none is named

Every figure is the work of a process of its own, as a user's command is. Compare figures of one run only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable]
REDRAFT = [*PYTHON, "-m", "app.cli.main"]
CONFIG = {
    "modalities: [CT]": "modalities: [CT]\n  sources: [../phantom/images]",
    "backend: folder": "backend: simulated",
    "train:\n  members: 2\n  steps: 400": "train:\n  channels: [8, 16]\n  members: 2\n  steps: 40",
    "gate:\n": "simulation: {oracle: ../phantom/truth}\n\ngate:\n",
    "floor: {kidney: 0.6, kidney_tumor: 0.05}": "floor: {kidney: 0.0, kidney_tumor: 0.0}",
}


def startup(work: Path) -> None:
    """Median seconds of `redraft --help` and `redraft status`."""
    project = _project(work / "startup", 8)
    for name, command in (("--help", ["--help"]), ("status", ["status", "--project", str(project)])):
        seconds = [_timed([*REDRAFT, *command])[0] for _ in range(7)]
        spread = f"median of 7, {min(seconds):.2f} to {max(seconds):.2f}"
        print(f"  redraft {name:8} {statistics.median(seconds):.2f} s ({spread})")


def ingest(work: Path) -> None:
    """Exams and megabytes per second, and memory over the number of exams: it must not grow."""
    from redraft.phantom import write_phantom

    for exams in (10, 40, 160):
        folder = work / f"ingest{exams}"
        write_phantom(folder / "phantom", exams, 5)
        size = sum(path.stat().st_size for path in (folder / "phantom/images").rglob("*.dcm")) / 1e6
        project = _project(folder, 0)
        for what in ("first", "again"):
            seconds, peak = _timed([*REDRAFT, "ingest", str(folder / "phantom/images"), "--project", str(project)])
            print(
                f"  {exams:4d} exams, {size:6.1f} MB, {what}: {seconds:6.2f} s, {exams / seconds:6.1f} exams/s, "
                f"{size / seconds:6.1f} MB/s, {peak:.0f} MB resident"
            )


def orchestration(work: Path) -> None:
    """What Prefect, ledger, DVC and MLflow add to the steps' own work, in-process and against `redraft up`."""
    for place in ("in-process", "server"):
        project = _project(work / place, 16)
        password = _approver(project, work / place)
        if place == "server":
            seconds, _ = _timed([*REDRAFT, "up", "--project", str(project)])
            print(f"  redraft up: {seconds:.1f} s")
        try:
            for number in (1, 2):
                print(f"  {place}, round {number}: {_round(project)}")
                _timed([*REDRAFT, "promote", str(number), "--hold", "--by", "benchmark", "--reason", "benchmark",
                        "--password-file", str(password), "--project", str(project)])  # fmt: skip
        finally:
            if place == "server":
                _timed([*REDRAFT, "down", "--project", str(project)])


def demo(work: Path) -> None:
    """Wall-clock and memory of `make demo` after installation."""
    seconds, peak = _timed([*PYTHON, "-m", "app.demo", str(work / "demo")])
    print(f"  make demo: {seconds:.0f} s, {peak / 1000:.2f} GB resident at most")


def _approver(project: Path, folder: Path) -> Path:
    """Add the account `benchmark`; returns the file with its password, which is nobody's and goes with the folder."""
    import secrets

    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16))
    _timed([*REDRAFT, "user", "add", "benchmark", "--name", "Benchmark", "--role", "approver", "--password-file",
            str(password), "--project", str(project)])  # fmt: skip
    return password


def _project(folder: Path, exams: int) -> Path:
    from redraft.create import create_project
    from redraft.phantom import write_phantom

    if exams:
        write_phantom(folder / "phantom", exams, 5)
    return create_project(folder / "project", "kidney-ct", datetime.now(UTC), demo_keys=True, settings=CONFIG).root


def _round(project: Path) -> str:
    start = time.perf_counter()
    done = subprocess.run(
        [*PYTHON, "-m", "benchmarks.one_round", str(project)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wall = time.perf_counter() - start
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(found["parts_s"].items()))
    return (
        f"orchestration {found['orchestration_s']:.1f} s ({parts}) beside {found['steps_s']:.1f} s of the steps' own; "
        f"once per process: imports {found['imports_s']:.1f} s, Prefect's start {found['prefect_start_s']:.1f} s; "
        f"whole process {wall:.1f} s"
    )


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident megabytes of a command."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{output.read().decode()[-3000:]}")
    return seconds, usage.ru_maxrss / 1000


BENCHMARKS: dict[str, Callable[[Path], None]] = {
    "startup": startup, "ingest": ingest, "orchestration": orchestration, "demo": demo,
}  # fmt: skip


def main(names: list[str]) -> None:
    """Run the named benchmarks below a directory that is removed afterwards."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"Unknown: {', '.join(unknown)}. Known: {', '.join(BENCHMARKS)}.")
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}")
    work = Path(tempfile.mkdtemp(prefix="redraft-bench-"))
    try:
        for name in names or list(BENCHMARKS):
            print(f"{name}: {(BENCHMARKS[name].__doc__ or '').strip()}")
            BENCHMARKS[name](work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
