"""Who read an exam in the hospital is not asked to segment it: from the DICOM header to the assignment."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from redraft import rounds
from redraft.create import create_project
from redraft.deid.check import Identifiers, check
from redraft.phantom.identities import draw_identity
from redraft.phantom.series import Uids, exam_header, write_series
from redraft.project import Project

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
READ_BY = ("Lindqvist^Åsa^Maria^Dr.", "LINDQVIST^ÅSA", "Okafor^Chidi", None)


def offer(folder: Path) -> None:
    """Eight patients' series; every fourth of one reader, of the same one in other letters, of another, of nobody."""
    for n in range(8):
        identity = draw_identity(np.random.default_rng(n), n, f"ACC{n}")
        uids = Uids.of(0, n, 4)
        hu = np.random.default_rng(n).integers(-1000, 1000, (7, 5, 4)).astype(np.int16)
        place = folder / f"{n}"
        write_series(place, exam_header(identity, uids, n, 0), identity, uids, hu, np.diag([2.0, 1.5, 3.0, 1.0]))
        for path in place.glob("*.dcm"):
            dataset = pydicom.dcmread(path)
            if READ_BY[n % 4]:
                dataset.NameOfPhysiciansReadingStudy = READ_BY[n % 4]
            dataset.PerformingPhysicianName = "Okafor^Chidi"  # administered the series: reads what he likes
            dataset.save_as(path)


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Eight exams, and a reader who reported four of them, beside one whose name no header holds."""
    from tasks.ingest.admit import take_in

    root = tmp_path_factory.mktemp("who")
    offer(root / "offered")
    settings = {
        "min_validation: 2, min_test: 4": "min_validation: 1, min_test: 2",
        "budget: {exams: 5}": "budget: {exams: 8}",
    }
    project = create_project(root / "kidneys", "kidney-ct", NOW, demo_keys=True, settings=settings)
    her = project.pseudonyms.person_id("Lindqvist^Åsa")
    text = (project.root / "project.yaml").read_text()
    one = "    - {id: reader-1, role: radiologist}\n"
    two = one.replace("}", f", reader_of_record: ['{her}']}}") + one.replace("reader-1", "reader-2")
    assert one in text
    (project.root / "project.yaml").write_text(text.replace(one, two))
    project = Project.open(project.root)
    take_in(project, [root / "offered"], NOW, "test", workers=0)
    return project


def records(project: Project) -> dict[str, dict[str, Any]]:
    return {
        row["exam_id"]: json.loads(project.image(row["exam_id"]).with_name("exam.json").read_text())
        for row in project.ledger.rows("exam")
    }


def test_exams_keep_who_read_them_without_a_name(taken_in: Project) -> None:
    """Pseudonyms of readers, of one person however the name is written; no name in any file, none for deid check."""
    her = taken_in.pseudonyms.person_id("Lindqvist^Åsa")
    found = records(taken_in)
    assert sum(her in record["read_by"] for record in found.values()) == 4
    assert sum(not record["read_by"] for record in found.values()) == 2
    names = Identifiers.of(enumerate(("Lindqvist", "Lindqvist^Åsa", "Okafor", "Chidi", "Maria")), "list")
    report = check([taken_in.data, taken_in.state], names)
    assert report.identifiers == 5 and report.found == [] and report.searched
    assert check([taken_in.data.parents[1] / "offered"], names).found  # they are there where they should be


def test_a_record_without_readers_is_not_a_record_of_none(taken_in: Project, tmp_path: Path) -> None:
    """Where exam.json does not tell who read the exam, whoever has a list of own reports is not given it."""
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    taken_in.ledger.engine.dispose()  # the last connection empties the log into the file
    project = Project.open(shutil.copytree(taken_in.root, tmp_path / taken_in.root.name, symlinks=True))
    for path in project.data.rglob("exam.json"):
        record = json.loads(path.read_text())
        del record["read_by"]
        path.chmod(0o644)
        path.write_text(json.dumps(record))
    rounds.begin(project, NOW, "test", lambda champion: {})
    select.fn(str(project.root), 1, None)
    dispatch.fn(str(project.root), 1, None)
    assert {row["reader_id"] for row in project.ledger.rows("assignment")} == {"reader-2"}


def test_nobody_gets_what_they_reported(taken_in: Project) -> None:
    """A round over all exams: hers are the other reader's, each of them; the others are shared."""
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    rounds.begin(taken_in, NOW, "test", lambda champion: {})
    select.fn(str(taken_in.root), 1, None)
    ref = dispatch.fn(str(taken_in.root), 1, None)
    her, found = taken_in.pseudonyms.person_id("Lindqvist^Åsa"), records(taken_in)
    work = taken_in.ledger.rows("assignment")
    assert len(work) == 8 and not ref.unassigned
    assert {row["reader_id"] for row in work} == {"reader-1", "reader-2"}
    assert {row["reader_id"] for row in work if her in found[row["exam_id"]]["read_by"]} == {"reader-2"}
