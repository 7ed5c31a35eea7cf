"""`make demo`: three rounds on synthetic CT exams with simulated readers, from DICOM to money, in one process."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

EXAMS, ROUNDS, SEED = 34, 3, 7
SETTINGS = {
    "modalities: [CT]": "modalities: [CT]\n  sources: [../phantom/images]",
    "test: 0.25, min_validation: 2, min_test: 4": "test: 0.3, min_validation: 2, min_test: 8",
    "budget: {exams: 5}": "budget: {exams: 6}",
    "from_scratch_probability: 0.4": "from_scratch_probability: 0.4\n  prior_minutes: 20",
    "backend: folder": "backend: simulated",
    "    - {id: reader-1, role: radiologist}": (
        "    - {id: reader-1, role: radiologist}\n"
        "    - {id: reader-2, role: radiologist, speed: 1.3}\n"
        "    - {id: reader-3, role: radiologist, speed: 0.8, sloppiness_mm: 1.0}"
    ),
    "train:\n  members: 2\n  steps: 400": "train:\n  channels: [16, 32, 64]\n  members: 2\n  steps: 160",
    "gate:\n": "simulation: {oracle: ../phantom/truth}\n\ngate:\n",
    "floor: {kidney: 0.6, kidney_tumor: 0.05}": "floor: {kidney: 0.6, kidney_tumor: 0.0}",
}


def main(folder: Path) -> None:
    """Run the demo below `folder`; an earlier demo there is replaced."""
    from app.cli.cost import print_report
    from app.cli.status import print_status
    from flows.runtime import prefect_for
    from redraft.create import create_project
    from redraft.phantom import write_phantom
    from redraft.status import project_status

    start = time.perf_counter()
    if (folder / "project" / "project.yaml").exists() or (folder / "phantom").exists():
        shutil.rmtree(folder)

    def say(text: str) -> None:
        sys.stdout.write(f"[{time.perf_counter() - start:6.1f} s] {text}\n")
        sys.stdout.flush()

    say(f"writing {EXAMS} synthetic CT exams as DICOM, with invented names in their headers")
    write_phantom(folder / "phantom", EXAMS, SEED)
    say("making a project (git, DVC, ledger; the published demo key)")
    project = create_project(folder / "project", "kidney-ct", datetime.now(UTC), demo_keys=True, settings=SETTINGS)
    say("starting Prefect in this process")
    with prefect_for(project):
        from flows.campaign import run_rounds

        for number in range(1, ROUNDS + 1):
            say(f"round {number}: ingest → draft → select → simulated readers → validate → train → evaluate → account")
            run_rounds(str(project.root), number)
    say("done")
    print_status(project_status(project))
    from tasks.account.records import reports

    for report in reports(project):
        print_report(report.model_dump(mode="json"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    sys.stdout.write(f"\n{time.perf_counter() - start:.0f} s, {peak:.1f} GB resident at most.\n")
    where = f"--project {folder / 'project'}"
    sys.stdout.write(
        "Where to look next:\n"
        f"  .venv/bin/redraft audit trace champion {where}   why this model can be trusted\n"
        f"  .venv/bin/redraft audit verify {where}           that nothing was altered\n"
        f"  .venv/bin/redraft cost report {where}            what it cost and saved\n"
        f"  .venv/bin/redraft up {where}                     Prefect and MLflow in the browser\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
