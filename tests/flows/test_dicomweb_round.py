"""Two whole rounds whose readers never leave the PACS: drawn there, trained, drafted into it, corrected, taken in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from redraft import rounds
from redraft.decisions import decide_by_policy
from redraft.project import Project
from redraft.segmentation.export import geometry
from redraft.segmentation.truth import TruthIndex
from redraft.volumes import read_volume
from tests.servers.orthanc import Orthanc
from tests.tasks.dispatch.test_dicomweb import READER, House

pytestmark = pytest.mark.slow


@pytest.fixture
def house(tmp_path: Path, phantom: Path, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A project that takes its exams from Orthanc and has its readers work there; its first round is open."""
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import make_project
    from plain import unwrap

    unwrap()
    import flows.open_round as opening
    import flows.promote_model as promoting
    import flows.sweep as sweeping

    for module, name in ((sweeping, "close_round"), (promoting, "promote_model")):
        flow: Any = getattr(module, name)
        monkeypatch.setattr(module, name, getattr(flow, "fn", flow))
    orthanc.clear()
    orthanc.put(sorted((phantom / "images").rglob("*.dcm")))
    monkeypatch.setenv("PACS_USER", orthanc.user)
    monkeypatch.setenv("PACS_PASSWORD", orthanc.password)
    source = (
        f"{{kind: dicomweb, name: pacs, url: '{orthanc.dicomweb_url}', wanted: {{modalities: [CT]}}, "
        "basic: {user: {env: PACS_USER}, password: {env: PACS_PASSWORD}}, retry: {attempts: 2, wait_seconds: 0.05}}"
    )
    project = make_project(
        tmp_path / "kidneys", phantom,
        **{
            "modalities: [CT]": f"modalities: [CT]\n  sources:\n    - {source}",
            "backend: folder": "backend: dicomweb\n  pacs: pacs", "gate:\n": "gate:\n  approval: automatic\n",
        },
    )  # fmt: skip
    opening.open_round(str(project.root))
    project = Project.open(project.root)
    yield House(project, orthanc, phantom, [])
    project.ledger.engine.dispose()


def sweep(house: House) -> Any:
    from flows.sweep import run_sweep

    return run_sweep(str(house.project.root))


def draw(house: House, number: int) -> dict[str, np.ndarray]:
    """Readers store the truth in the PACS, each as a segmentation of their own; label by assignment."""
    project = house.project
    truth = TruthIndex.scan(house.phantom / "truth", project.pseudonyms, project.config.structures)
    series = {row["exam_id"]: row["series_id"] for row in project.ledger.rows("exam")}
    drawn = {}
    for row in project.ledger.rows("assignment", round=number):
        if row["state"] != "DISPATCHED":
            continue
        name, exam = row["assignment_id"], row["exam_id"]
        drawn[name] = truth.labels(series[exam], geometry(project, exam))
        options: dict[str, Any] = {"description": f"redraft {house.code(name)}"}
        if row["mode"] == "assisted":  # made from the draft, and called as the tool pleases
            (draft,) = [one for one in house.segs() if house.code(name) in str(one.get("SeriesDescription"))]
            options = {"tracking": {str(s.SegmentLabel): s.TrackingUID for s in draft.SegmentSequence}}
        house.store(house.seg(drawn[name], exam, **options))
    return drawn


def came_back(house: House, drawn: dict[str, np.ndarray]) -> None:
    """Every label is in, voxel for voxel, without minutes."""
    ledger = house.project.ledger
    for name, labels in drawn.items():
        (row,) = ledger.rows("annotation", assignment_id=name)
        assert (row["state"], row["origin"]) == ("valid", "imported")
        np.testing.assert_array_equal(read_volume(house.project.root / row["path"]).array, labels)
        assert ledger.rows("time_entry", annotation_id=row["annotation_id"]) == []


def test_rounds_are_worked_in_the_pacs(house: House) -> None:
    """Round 1 from scratch and round 2 with drafts close by themselves; nobody's name gets into the project."""
    import flows.open_round as opening
    import flows.promote_model as promoting

    root = str(house.project.root)
    first = draw(house, 1)
    assert len(first) >= 4
    out = sweep(house)
    assert out.closed == 1 and out.received.unreadable == {}, out
    came_back(house, first)
    decision = decide_by_policy(house.project, 1, now=datetime.now(UTC))
    promoting.promote_model(root, 1, decision)
    opening.open_round(root)
    rows = house.project.ledger.rows("assignment", round=2)
    assisted = {row["assignment_id"] for row in rows if row["mode"] == "assisted"}
    assert assisted
    said = [
        str(one.get("SeriesDescription"))
        for one in house.segs()
        if str(one.get("SeriesDescription")).startswith("redraft draft")
    ]
    assert sorted(said) == sorted(f"redraft draft {house.code(name)}" for name in assisted)
    second = draw(house, 2)
    out = sweep(house)
    assert out.closed == 2 and out.received.unreadable == {}, out
    came_back(house, second)
    verdicts = {row["verdict"] for row in house.project.ledger.rows("annotation") if row["assignment_id"] in assisted}
    assert verdicts <= {"accept", "correct"} and rounds.get(house.project, 2)["state"] == "AWAITING_APPROVAL"
    _nothing_clear(house)


def _nothing_clear(house: House) -> None:
    from app.cli.main import app

    listed = house.project.root.parent / "list.txt"
    planted = json.loads((house.phantom / "planted_identifiers.json").read_text())
    listed.write_text("\n".join([*planted, READER, *(str(one.SOPInstanceUID) for one in house.segs())]))
    answer = CliRunner().invoke(
        app, ["deid", "check", str(house.project.root), "--against", str(listed), "--project", str(house.project.root),
              "--json"],
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output[-2000:]
    assert json.loads(answer.stdout)["ok"]
