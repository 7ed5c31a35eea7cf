"""What it costs to look again through a place that did not change: a folder, and a PACS.

python -m benchmarks.unchanged [--series 10000] [--pacs]

Writes that many CT series of three small slices, takes them in, and takes them in again. `--pacs` does the same with an
Orthanc on loopback (the Debian package) that holds them, over DICOMweb.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.__main__ import REDRAFT, _timed


def main() -> None:
    """Make the series, take them in twice from each place, print seconds and memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--pacs", action="store_true")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, {datetime.now(UTC):%Y-%m-%d}, {arguments.series} series of 3 files")
    work = Path(tempfile.mkdtemp(prefix="redraft-bench-"))
    try:
        with ProcessPoolExecutor() as pool:
            list(pool.map(_write, [(work / "series", n) for n in range(arguments.series)], chunksize=100))
        _both("folder", _project(work / "folder", str(work / "series")))
        if arguments.pacs:
            from tests.servers.orthanc import running_orthanc

            with running_orthanc(work / "orthanc") as server:
                server.put(sorted((work / "series").rglob("*.dcm")))
                source = {
                    "kind": "dicomweb", "name": "pacs", "url": server.dicomweb_url,
                    "basic": {"user": {"env": "PACS_USER"}, "password": {"env": "PACS_PASSWORD"}},
                }  # fmt: skip
                os.environ["PACS_USER"], os.environ["PACS_PASSWORD"] = server.user, server.password
                _both("PACS", _project(work / "pacs", json.dumps(source)))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _both(name: str, project: Path) -> None:
    for what in ("first", "again"):
        seconds, peak = _timed([*REDRAFT, "ingest", "--project", str(project)])
        print(f"  {name}, {what}: {seconds:.1f} s, {peak:.0f} MB resident", flush=True)


def _write(job: tuple[Path, int]) -> None:
    from redraft.phantom.identities import draw_identity
    from redraft.phantom.series import Uids, exam_header, write_series

    top, n = job
    identity = draw_identity(np.random.default_rng(n), n, f"ACC{n}")
    uids = Uids.of(0, n, 3)
    hu = np.random.default_rng(n).integers(-1000, 1000, (8, 8, 3)).astype(np.int16)
    folder = top / f"{n // 100:04d}" / f"{n:06d}"
    write_series(folder, exam_header(identity, uids, n, 0), identity, uids, hu, np.diag([2.0, 2.0, 3.0, 1.0]))


def _project(folder: Path, source: str) -> Path:
    from redraft.create import create_project

    settings = {"modalities: [CT]": f"modalities: [CT]\n  sources: [{source}]"}
    return create_project(folder, "kidney-ct", datetime.now(UTC), demo_keys=True, settings=settings).root


if __name__ == "__main__":
    main()
