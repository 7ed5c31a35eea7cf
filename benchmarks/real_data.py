"""Campaigns on real images with SIMULATED readers: one command each; report and picture as in docs/results.

python -m benchmarks.real_data hippocampus DATA [OUT]    173 NIfTI exams, two seeds
python -m benchmarks.real_data sarcoma DATA [OUT]        24 DICOM series with RTSTRUCT, one seed

DATA holds the folders `hippocampus` and `sts_dicom_rtstruct`. An interrupted run goes on when started again.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

ROUNDS = 3
STRATEGIES = ("random", "entropy")


@dataclass(frozen=True)
class Run:
    """One run: where its images and its truth lie below DATA, its template, and how often it is repeated."""

    template: str
    modalities: str
    images: str
    truth: str
    seeds: int


RUNS = {
    "hippocampus": Run("hippocampus-mr", "MR", "hippocampus/imagesTr", "hippocampus", 2),
    "sarcoma": Run("sarcoma-mr", "MR", "sts_dicom_rtstruct/dicom", "sts_dicom_rtstruct/dicom", 1),
}


def main(name: str, data: Path, out: Path) -> None:
    """Run the campaign `name` below `out` and write its report and picture into `out`."""
    from app.cli.campaign import draw, print_campaign, summarise
    from flows.runtime import prefect_for
    from redraft.create import create_project

    run = RUNS[name]
    images, truth = (data / run.images).resolve(), (data / run.truth).resolve()
    for folder in (images, truth):
        if not folder.is_dir():
            raise SystemExit(f"{folder} is not there. DATA must hold {run.images} and {run.truth}.")
    start, report = time.perf_counter(), out / f"{name}.md"
    resumed = " (resumed: the last part only)" if (out / f"{name}-arms").exists() else ""
    settings = {f"modalities: [{run.modalities}]": f"modalities: [{run.modalities}]\n  sources: ['{images}']"}
    base = create_project((out / name).resolve(), run.template, datetime.now(UTC), demo_keys=True, settings=settings)
    with prefect_for(base):
        from flows.campaign import as_rows, run_campaign

        def say(text: str) -> None:
            print(f"[{time.perf_counter() - start:7.1f} s] {text}", flush=True)

        points = run_campaign(base, (out / f"{name}-arms").resolve(), STRATEGIES, run.seeds, ROUNDS, truth, say)
    seconds = time.perf_counter() - start
    rows, summary = as_rows(points), summarise(points)
    text = StringIO()
    with redirect_stdout(text):
        print_campaign(rows, summary, base.config.money.currency)
    draw(points, out / f"{name}.png")
    lines = [
        f"# {name}: {run.template}, {', '.join(STRATEGIES)}, {ROUNDS} rounds, {run.seeds} seed{'s' * (run.seeds > 1)}",
        "",
        "Expert minutes and money are SIMULATED by the effort model of redraft/reader_model; no person annotated here.",
        "",
        f"Command: `make {name} DATA=../shared/data`. Wall-clock {seconds / 60:.1f} min{resumed} on {_machine()}.",
        "",
        f"![learning curves]({name}.png)",
        "",
        "```text",
        text.getvalue().strip(),
        "```",
        "",
        "## Intake",
        "",
        *_intake(out / f"{name}-arms" / f"{STRATEGIES[0]}-seed0"),
        "",
        "## Decisions and savings (SIMULATED)",
        "",
        *_decisions(out / f"{name}-arms"),
        "",
    ]
    report.write_text("\n".join(lines), encoding="utf-8")
    (out / f"{name}.json").write_text(
        json.dumps({"simulated": True, "summary": summary, "points": rows}, indent=1) + "\n", encoding="utf-8"
    )
    print(f"{report} and {out / f'{name}.png'} are written.")


def _machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, no GPU"


def _intake(arm: Path) -> list[str]:
    from redraft.project import Project

    count = Counter((r["verdict"], r["rule"] or "") for r in Project.open(arm).ledger.rows("receipt"))
    table = ["| outcome | rule | inputs |", "|---|---|---|"]
    return table + [f"| {outcome} | {rule} | {n} |" for (outcome, rule), n in sorted(count.items())]


def _decisions(arms: Path) -> list[str]:
    from app.cli.cost import print_report
    from redraft.project import Project
    from tasks.account.records import reports

    lines = []
    for arm in sorted(path for path in arms.iterdir() if (path / "project.yaml").exists()):
        project = Project.open(arm)
        states = ", ".join(f"round {row['number']} {row['state']}" for row in project.ledger.rows("round"))
        text = StringIO()
        with redirect_stdout(text):
            for report in reports(project):
                print_report(report.model_dump(mode="json"))
        lines += [f"### {arm.name}: {states}", "", "```text", text.getvalue().strip(), "```", ""]
    return lines


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in RUNS:
        raise SystemExit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else "build/results"))
