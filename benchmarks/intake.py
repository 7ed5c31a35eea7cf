"""What becomes of every series of a folder of collections: counts and receipts, as a Markdown report.

python -m benchmarks.intake DATA [OUT]

Every collection (folder below DATA) is offered to a project of its own that takes CT, MR and PET, derived images too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"modalities: [CT]": "modalities: [CT, MR, PT]\n  accept_secondary: true\n  nameless_series: by_folder"}


def main(data: Path, out: Path) -> None:
    """Offer each collection, write `intake.md` into `out`, and print it."""
    lines = [
        "# What becomes of every series", "",
        f"`make intake DATA=…`, {datetime.now(UTC):%Y-%m-%d}. Each collection was offered whole, with all that",
        "lies in it, to a project that takes CT, MR and PET (`accept_secondary: true`, `nameless_series: by_folder`).",
        "NIfTI images are refused here, for nothing says their modality: a project of one modality takes them.", "",
        "| collection | offered | admitted | set aside or refused, by rule | seconds |", "|---|---|---|---|---|",
    ]  # fmt: skip
    notable: list[str] = []
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        receipts, seconds = _offer(folder)
        rules = Counter((r["verdict"], r["rule"]) for r in receipts)
        admitted = sum(n for (verdict, _), n in rules.items() if verdict == "admitted")
        others = ", ".join(f"{rule} {n}" for (verdict, rule), n in sorted(rules.items()) if verdict != "admitted")
        lines.append(f"| {folder.name} | {len(receipts)} | {admitted} | {others or '–'} | {seconds:.1f} |")
        for receipt in receipts:
            if receipt["measured"] and receipt["rule"] not in ("modality_unknown",):
                places = sorted({str(Path(path).parent.relative_to(data)) for path in receipt["paths"]})
                notable.append(f"| {', '.join(places)} | {receipt['rule']} | `{json.dumps(receipt['measured'])}` |")
    lines += [
        "",
        "## Receipts with measured values",
        "",
        "| where | rule | measured |",
        "|---|---|---|",
        *sorted(notable),
        "",
    ]
    text = "\n".join(lines)
    out.mkdir(parents=True, exist_ok=True)
    (out / "intake.md").write_text(text, encoding="utf-8")
    print(text)


def _offer(folder: Path) -> tuple[list[dict[str, Any]], float]:
    from redraft.create import create_project

    with tempfile.TemporaryDirectory(prefix="redraft-intake-") as work:
        project = create_project(
            Path(work) / "project", "kidney-ct", datetime.now(UTC), demo_keys=True, settings=SETTINGS
        )
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "app.cli.main", "ingest", str(folder), "--project", str(project.root), "--json"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{folder.name}: {done.stderr[-2000:]}")
    receipts: list[dict[str, Any]] = json.loads(done.stdout)
    return receipts, seconds


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "build/results"))
