"""A whole round whose readers work in tools of their own: packages out, labels and typed minutes back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from redraft.project import Project
from redraft.volumes import read_volume
from tests.flows.conftest import make_project

MINUTES = {"kidney": 4.5, "kidney_tumor": 1.25}


@pytest.fixture
def project(tmp_path: Path, phantom: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A phantom project on the `folder` backend whose first round is out."""
    sys.path.insert(0, str(Path(__file__).parent))
    from plain import unwrap

    unwrap()
    import flows.open_round as opening
    import flows.sweep as sweeping

    closing: Any = sweeping.close_round
    monkeypatch.setattr(sweeping, "close_round", getattr(closing, "fn", closing))
    made = make_project(tmp_path / "kidneys", phantom, **{"backend: folder": "backend: folder", "gate:\n": "gate:\n"})
    opening.open_round(str(made.root))
    return Project.open(made.root)


def hand_in(package: Path, **changes: Any) -> None:
    """What a reader does: draw on the image's grid in a tool that knows NIfTI only, then fill in the template."""
    image = nib.load(package / "image.nii.gz")
    label = np.zeros(image.shape, np.uint8)
    label[12:17, 14:20, 6:9] = 1
    label[17:19, 14:17, 6:8] = 2
    nib.save(nib.Nifti1Image(label, image.affine), package / "label.nii.gz")
    result = json.loads((package / "result.template.json").read_text())
    result["minutes"] = {name: {"active": value} for name, value in MINUTES.items()}
    (package / "result.json").write_text(json.dumps({**result, **changes}))


def test_a_round_in_folders(project: Project) -> None:
    """A forged token is refused and mended, the last return closes the round at the next sweep, labels are what was
    drawn, and the report shows the typed minutes as typed."""
    from app.cli.main import app
    from flows.sweep import run_sweep

    packages = sorted(path.parent for path in project.work.glob("*/task.json"))
    rows = project.ledger.rows("assignment", round=1)
    assert {path.name for path in packages} == {row["assignment_id"] for row in rows} and len(rows) > 4
    for package in packages[1:]:
        hand_in(package)
    hand_in(packages[0], token="0" * 64)
    first = run_sweep(str(project.root))
    assert first.closed is None and first.received is not None
    assert (first.received.valid, first.received.unreadable) == (len(packages) - 1, {packages[0].name: "token"})
    hand_in(packages[0])
    second = run_sweep(str(project.root))
    assert second.closed == 1 and second.state == "AWAITING_APPROVAL"
    for note in project.ledger.rows("annotation"):
        drawn = read_volume(project.work / note["assignment_id"] / "label.nii.gz").array
        assert np.array_equal(read_volume(project.root / note["path"]).array, drawn) and drawn.any()
    times = project.ledger.rows("time_entry")
    assert {row["origin"] for row in times} == {"typed"} and not any(row["simulated"] for row in times)
    answer = CliRunner().invoke(app, ["cost", "report", "--json", "--project", str(project.root)])
    report = json.loads(answer.output)
    assert set(report["origins"]) == {"typed"} and report["simulated"] is False
    minutes = report["total"]["minutes_training"] + report["total"]["minutes_reference"]
    assert minutes == pytest.approx(len(rows) * sum(MINUTES.values()))
