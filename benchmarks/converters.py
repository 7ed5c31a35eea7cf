"""DICOM to NIfTI beside other converters, on the same series in one run.

python -m benchmarks.converters [DATA] [--rounds N]

Takes the regular CT, MR and PET series below DATA (real ones; optional) and phantom exams up to 70 series, each in a
folder of its own, and has every converter turn all of them into .nii.gz. redraft does more meanwhile: it judges,
de-identifies, hashes, writes receipts and the ledger. Every figure is a process of its own, start-up included; the
converters take turns, and the median of the rounds is printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERIES = 70

SIMPLEITK = """
import sys, pathlib, SimpleITK as sitk
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
source, out = map(pathlib.Path, sys.argv[1:])
for folder in sorted(source.iterdir()):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    sitk.WriteImage(reader.Execute(), str(out / f"{folder.name}.nii.gz"))
"""
HIGHDICOM = """
import sys, pathlib, highdicom, nibabel, pydicom
source, out = map(pathlib.Path, sys.argv[1:])
for folder in sorted(source.iterdir()):
    volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in sorted(folder.iterdir())])
    image = nibabel.Nifti1Image(volume.array.astype("float32"), volume.get_affine("RAS"))
    nibabel.save(image, out / f"{folder.name}.nii.gz")
"""


def main() -> None:
    """Prepare the series, run every converter in turns, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="redraft-bench-"))
    try:
        count, size = _prepare(arguments.data, work / "series")
        print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {datetime.now(UTC):%Y-%m-%d}")
        print(f"{count} series, {size:.0f} MB; median of {arguments.rounds}, lowest and highest")
        seconds: dict[str, list[float]] = defaultdict(list)
        for _ in range(arguments.rounds):
            for name, command in _commands(work).items():
                seconds[name].append(_timed(command))
        for name, taken in seconds.items():
            middle = statistics.median(taken)
            rates = ", ".join(f"{count / value:.1f}" for value in (max(taken), min(taken)))
            print(f"  {name:34} {middle:6.2f} s  {count / middle:6.1f} series/s ({rates})  {size / middle:6.1f} MB/s")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _prepare(data: Path | None, target: Path) -> tuple[int, float]:
    """Regular series, each in its own folder; how many, and their megabytes."""
    from redraft.dicom.scan import Foreign, files_below, read_header
    from redraft.dicom.series import ReadRules, open_series
    from redraft.errors import RedraftError
    from redraft.phantom import write_phantom

    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_below([data]) if data else ():
        header = read_header(path)
        if not isinstance(header, Foreign):
            found[header.text("SeriesInstanceUID")].append(path)
    rules = ReadRules(accept_secondary=True)
    count = 0
    for uid in sorted(found):
        try:
            series = open_series(found[uid], rules)
        except RedraftError:
            continue
        if len(found[uid]) > 3 and len(list(series.volumes())) == 1:
            _link(found[uid], target / f"{count:03d}")
            count += 1
    if count < SERIES:
        write_phantom(target.parent / "phantom", SERIES - count, 7, shape=(192, 160, 48), spacing=(1.9, 1.9, 4.5))
        for folder in sorted({path.parent for path in (target.parent / "phantom" / "images").rglob("*.dcm")}):
            _link(sorted(folder.iterdir()), target / f"{count:03d}")
            count += 1
    files = [path for path in target.rglob("*") if path.is_file()]
    return count, sum(path.stat().st_size for path in files) / 1e6


def _link(paths: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for n, path in enumerate(paths):
        shutil.copyfile(path, folder / f"{n:05d}.dcm")


def _commands(work: Path) -> dict[str, list[str]]:
    source = str(work / "series")
    out = str(_empty(work / "out"))
    python = [sys.executable, "-c"]
    commands = {}
    if shutil.which("dcm2niix"):
        for name, options in {"dcm2niix": ["-z", "i"], "dcm2niix, level 1": ["-z", "i", "-1"]}.items():
            commands[name] = ["dcm2niix", *options, "-b", "n", "-f", "%j_%s", "-o", out, source]
    commands["SimpleITK"] = [*python, SIMPLEITK, source, out]
    commands["highdicom"] = [*python, HIGHDICOM, source, out]
    for workers in (1, 4):
        project = str(_project(work / f"project{workers}", workers))
        for what in ("", ", again"):
            commands[f"redraft ingest, {workers} process{'es' if workers > 1 else ''}{what}"] = [
                sys.executable, "-m", "app.cli.main", "ingest", source, "--project", project,
            ]  # fmt: skip
    return commands


def _project(folder: Path, workers: int) -> Path:
    from redraft.create import create_project

    shutil.rmtree(folder, ignore_errors=True)
    settings = {"modalities: [CT]": f"modalities: [CT, MR, PT]\n  accept_secondary: true\n  workers: {workers}"}
    return create_project(folder, "kidney-ct", datetime.now(UTC), demo_keys=True, settings=settings).root


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _timed(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return seconds


if __name__ == "__main__":
    main()
