"""Odd series through redraft and other converters, each written volume judged against what is known by construction.

python -m benchmarks.odd_series [DATA] [--markdown FILE]

The images of the phantom's series are one linear field over patient space, so that any volume, resampled ones too, can
be judged voxel by voxel: it is right where each value is the field's at the place that the affine says. Real series
(below DATA; optional) are made odd in turn and judged against themselves. Counted per tool and series:
`correct` (every volume right, none missing), `in part` (right, with something left out, or colour that is said to be
colour), `silently wrong` (a volume that puts values where they do not belong, or is none), `wrong, warned` (the same,
and a warning on the terminal), `refused` with a reason, `crashed` (a signal, or an error that is no reason: KeyError,
AttributeError, …). dicom2nifti takes part where DICOM2NIFTI names a Python that has it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.odd_cases import Truth, build_phantom, build_real

ROOT = Path(__file__).resolve().parent.parent
CORRECT, PART, REFUSED, CRASHED = "correct", "in part", "refused", "crashed"
WRONG, WARNED = "silently wrong", "wrong, warned"
RESAMPLED = "resampled"  # a real series: right by its header, which is what was made odd; the phantom tells
VERDICTS = (CORRECT, PART, WRONG, WARNED, REFUSED, CRASHED, RESAMPLED)
# What a library says by one of these is a reason; anything else is a mishap.
REASONS = {"ValueError", "RuntimeError", "NotImplementedError", "ConversionError", "ConversionValidationError"}
SECONDS = 60
PYTHON_TOOLS = ("SimpleITK", "highdicom", "dicom2nifti")


@dataclass(frozen=True)
class Outcome:
    """What a tool made of one series."""

    verdict: str
    why: str = ""


def main() -> None:
    """Build the series, run every tool over them, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--markdown", type=Path, help="also write the table there")
    parser.add_argument("--convert", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        tool, source, out = options.convert
        _convert_all(tool, Path(source), Path(out))
        return
    work = Path(tempfile.mkdtemp(prefix="redraft-odd-"))
    try:
        truths = build_phantom(work / "in")
        if options.data:
            truths |= build_real(options.data, work / "in")
        table = dict(_run(work, truths))
        text = "\n".join(_lines(truths, table))
        print(text)
        if options.markdown:
            options.markdown.write_text(text + "\n", encoding="utf-8")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(work: Path, truths: dict[str, Truth]) -> Iterator[tuple[str, dict[str, Outcome]]]:
    if shutil.which("dcm2niix"):
        yield "dcm2niix", {name: _dcm2niix(work, name, truth) for name, truth in truths.items()}
    for tool in PYTHON_TOOLS:
        python = os.environ.get("DICOM2NIFTI") if tool == "dicom2nifti" else sys.executable
        if python:
            out = work / tool
            command = [python, "-m", "benchmarks.odd_series", "--convert", tool, str(work / "in"), str(out)]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            yield tool, {name: _told(out / name, truth) for name, truth in truths.items()}
    for label, settings in {
        "redraft": "",
        "redraft, resampling": "\n  gantry_tilt: resample\n  uneven_spacing: resample\n  accept_secondary: true",
    }.items():
        yield label, _redraft(work, truths, settings)


# -- tools ------------------------------------------------------------------------------------------------------------
def _dcm2niix(work: Path, name: str, truth: Truth) -> Outcome:
    out = work / "dcm2niix" / name
    out.mkdir(parents=True)
    command = ["dcm2niix", "-z", "n", "-b", "n", "-f", "v%s", "-o", str(out), str(work / "in" / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    said = done.stdout + done.stderr
    error: dict[str, Any] = {"error": "ValueError", "says": said}
    if done.returncode < 0:
        error = {"signal": -done.returncode}
    (out / "said").write_text(said, encoding="utf-8")
    (out / "told.json").write_text(json.dumps(error), encoding="utf-8")
    return _told(out, truth)


def _convert_all(tool: str, source: Path, out: Path) -> None:
    """Convert every folder in a process of its own, forked from one that has imported the library."""
    convert = {"SimpleITK": _by_simpleitk, "highdicom": _by_highdicom, "dicom2nifti": _by_dicom2nifti}[tool]
    __import__(tool)
    for folder in sorted(source.iterdir()):
        target = out / folder.name
        target.mkdir(parents=True)
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS)
            said = os.open(target / "said", os.O_WRONLY | os.O_CREAT)
            os.dup2(said, 1), os.dup2(said, 2)
            told: dict[str, Any] = {"error": "ValueError", "says": "nothing was written"}
            try:
                convert(folder, target)
            except Exception as error:  # a converter's errors are what is measured
                told = {"error": type(error).__name__, "says": str(error).strip().splitlines()[-1:]}
            (target / "told.json").write_text(json.dumps(told), encoding="utf-8")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            (target / "told.json").write_text(json.dumps({"signal": os.WTERMSIG(status)}), encoding="utf-8")


def _by_simpleitk(folder: Path, target: Path) -> None:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    reader = sitk.ImageSeriesReader()
    for n, uid in enumerate(reader.GetGDCMSeriesIDs(str(folder))):
        names = reader.GetGDCMSeriesFileNames(str(folder), uid)
        reader.SetFileNames(names)
        image = sitk.ReadImage(names[0]) if len(names) == 1 else reader.Execute()
        sitk.WriteImage(image, str(target / f"{n}.nii"))


def _by_highdicom(folder: Path, target: Path) -> None:
    import highdicom
    import pydicom

    paths = sorted(folder.iterdir())
    if len(paths) == 1 and int(pydicom.dcmread(paths[0], stop_before_pixels=True).get("NumberOfFrames") or 1) > 1:
        volume = highdicom.imread(paths[0]).get_volume(dtype=np.float64)
    else:
        volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths], dtype=np.float64)
    array = volume.array if volume.array.ndim == 3 else volume.array[:, :, :, None]  # colour: a vector, as NIfTI has it
    nib.save(nib.Nifti1Image(array, volume.get_affine("RAS")), target / "0.nii")


def _by_dicom2nifti(folder: Path, target: Path) -> None:
    import dicom2nifti  # type: ignore[import-not-found]

    dicom2nifti.dicom_series_to_nifti(str(folder), str(target / "0.nii"), reorient_nifti=False)


def _told(out: Path, truth: Truth) -> Outcome:
    """Judge what lies in a folder; where nothing does, what the tool said."""
    told = json.loads((out / "told.json").read_text(encoding="utf-8"))
    volumes = [volume for path in sorted(out.glob("*.nii*")) for volume in _volumes(path)]
    if told.get("signal"):
        return Outcome(CRASHED, f"signal {told['signal']}")
    if volumes:
        found = _judge(volumes, truth)
        # What is said of the regular series too is no warning.
        warned = _warnings(out) - _warnings(min(path for path in out.parent.iterdir() if path.is_dir()))
        return Outcome(WARNED, found.why) if warned and found.verdict == WRONG else found
    says = told["says"] if isinstance(told["says"], str) else " ".join(told["says"])
    return Outcome(REFUSED if told["error"] in REASONS else CRASHED, f"{told['error']}: {says[:70]}")


def _warnings(out: Path) -> set[str]:
    said = (out / "said").read_text(encoding="utf-8", errors="replace")
    words = (re.sub(r"[\d.]+|/\S*", "", line).strip().lower() for line in said.splitlines())
    return {line for line in words if "warn" in line}


def _volumes(path: Path) -> Iterator[tuple[Any, Any]]:
    """The volumes of a file: one for each place along a fourth axis."""
    image = nib.load(path)
    affine = image.affine  # type: ignore[attr-defined]
    colour = image.get_data_dtype().names is not None  # type: ignore[attr-defined]
    array = np.asarray(None if colour else image.dataobj)  # type: ignore[attr-defined]
    if array.ndim not in (3, 4):
        yield None, affine
    else:
        frames = array[..., None] if array.ndim == 3 else array
        for n in range(frames.shape[3]):
            yield frames[..., n].astype(np.float64), affine


def _redraft(work: Path, truths: dict[str, Truth], settings: str) -> dict[str, Outcome]:
    from redraft.create import create_project
    from redraft.volumes import read_volume
    from tasks.ingest.admit import take_in

    now = datetime.now(UTC)
    root = Path(tempfile.mkdtemp(dir=work)) / "odd"
    changes = {"modalities: [CT]": f"modalities: [CT, MR, PT]{settings}"}
    project = create_project(root, "kidney-ct", now, demo_keys=True, settings=changes)
    receipts = defaultdict(list)
    for receipt in take_in(project, [work / "in"], now, "benchmark", workers=2):
        receipts[receipt.paths[0].relative_to(work / "in").parts[0]].append(receipt)
    outcomes = {}
    for name, truth in truths.items():
        rules = sorted({receipt.rule for receipt in receipts[name] if receipt.verdict != "admitted"})
        exams = [receipt.exam_id for receipt in receipts[name] if receipt.verdict == "admitted"]
        volumes = [read_volume(project.image(exam or "")) for exam in exams]
        if {"reader_died", "reader_failed", "time_limit", "memory_limit"} & set(rules) or not receipts[name]:
            outcomes[name] = Outcome(CRASHED, " ".join(rules))
        elif truth.real and any("resampled" in receipt.measured for receipt in receipts[name]):
            outcomes[name] = Outcome(RESAMPLED)
        elif volumes:
            found = _judge([(volume.array.astype(np.float64), volume.affine) for volume in volumes], truth)
            # What is left out has a receipt, so nothing is left out without a word.
            told = found.verdict == PART and rules
            outcomes[name] = Outcome(CORRECT, " ".join(rules)) if told else found
        else:
            outcomes[name] = Outcome(REFUSED, " ".join(rules))
    return outcomes


# -- judging ----------------------------------------------------------------------------------------------------------
def _judge(volumes: Iterable[tuple[Any, Any]], truth: Truth) -> Outcome:
    found: set[int] = set()
    for array, affine in volumes:
        if array is None:
            return Outcome(PART, "colour, as such")
        part = truth.part_of(array, affine)
        if part is None:
            return Outcome(WRONG, truth.why)
        found.add(part)
    return Outcome(CORRECT) if found >= set(truth.offsets) else Outcome(PART, f"{len(found)} of {len(truth.offsets)}")


# -- telling ----------------------------------------------------------------------------------------------------------
def _lines(truths: dict[str, Truth], table: dict[str, dict[str, Outcome]]) -> Iterator[str]:
    yield f"{len(truths)} series, {datetime.now(UTC):%Y-%m-%d}; {_versions()}"
    yield ""
    yield "| tool | " + " | ".join(VERDICTS) + " |"
    yield "|---|" + "---:|" * len(VERDICTS)
    for tool, outcomes in table.items():
        counts = Counter(outcome.verdict for outcome in outcomes.values())
        yield f"| {tool} | " + " | ".join(str(counts[v]) for v in VERDICTS) + " |"
    yield ""
    yield "| series | " + " | ".join(table) + " | rule of redraft |"
    yield "|---|" + "---|" * (len(table) + 1)
    for name in truths:
        yield (
            f"| {name} | " + " | ".join(_shown(o[name]) for o in table.values()) + f" | {table['redraft'][name].why} |"
        )


def _shown(outcome: Outcome) -> str:
    return f"**{outcome.verdict}**" if outcome.verdict in (WRONG, WARNED, CRASHED) else outcome.verdict


def _versions() -> str:
    from importlib.metadata import version

    found = [f"{name} {version(name)}" for name in ("SimpleITK", "highdicom")]
    if shutil.which("dcm2niix"):
        done = subprocess.run(["dcm2niix", "--version"], capture_output=True, text=True, check=False)
        found.insert(0, f"dcm2niix {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    return ", ".join(found)


if __name__ == "__main__":
    main()
