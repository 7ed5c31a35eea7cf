"""`redraft time`, what it does to the cost report, and what `redraft audit verify` says of altered minutes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from redraft.project import Project
from redraft.worktime.contract import Batch
from redraft.worktime.store import append, measure
from tasks.account.imported import MAX_MINUTES

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
MODES = ["from_scratch", "assisted"]


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def add_work(project: Project, name: str, mode: str = "from_scratch") -> None:
    """An exam of a subject of its own, and one assignment."""
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("subject", {"subject_id": f"s-{name}", "split": "pool", "stratum": "", "drawn_at": None})
        tx.insert(
            "exam",
            {
                "exam_id": f"e-{name}", "subject_id": f"s-{name}", "series_id": f"x-{name}", "modality": "CT",
                "shape": [4, 4, 4], "spacing": [1.0, 1.0, 1.0], "affine": [], "image_path": f"data/{name}",
                "image_sha256": "a", "image_bytes": 1, "header_digest": "h", "source_kind": "dicom",
                "admitted_at": NOW,
            },
        )  # fmt: skip
        if tx.one("reader", reader_id="reader-1") is None:
            tx.insert("reader", {"reader_id": "reader-1", "role": "radiologist", "simulated": False, "added_at": NOW})
        tx.insert(
            "assignment",
            {
                "assignment_id": name, "round": 1, "exam_id": f"e-{name}", "reader_id": "reader-1",
                "purpose": "training", "mode": mode, "mode_probability": 0.5, "draft_id": None, "backend": "review",
                "state": "DISPATCHED", "expected_minutes": 10.0, "dispatched_at": NOW, "due_at": NOW,
                "package_sha256": "p", "attempt": 1,
            },
        )  # fmt: skip


def take_in(project: Project, name: str, minutes: dict[str, dict[str, float]], origin: str, seconds: float) -> None:
    """What validate does with accepted work."""
    with project.ledger.tx("test", at(seconds)) as tx:
        tx.insert(
            "annotation",
            {
                "annotation_id": f"n-{name}", "assignment_id": name, "exam_id": f"e-{name}", "reader_id": "reader-1",
                "revision": 1, "verdict": "scratch", "reason_code": None, "remark_present": False, "path": f"l-{name}",
                "sha256": "z", "draft_id": None, "voxels_changed": None, "origin": origin, "simulated": False,
                "state": "valid", "received_at": at(seconds),
            },
        )  # fmt: skip
        for structure, spent in minutes.items():
            tx.insert(
                "time_entry",
                {
                    "time_entry_id": f"t-{name}-{structure}", "annotation_id": f"n-{name}",
                    "structure": None if structure == "exam" else structure, "active_minutes": spent["active"],
                    "idle_minutes": spent["idle"], "away_minutes": spent["away"], "origin": origin,
                    "simulated": False,
                },
            )  # fmt: skip


def charge(project: Project) -> None:
    """The round was accounted: one entry is enough to say so."""
    with project.ledger.tx("test", NOW) as tx:
        tx.insert(
            "cost_entry",
            {
                "cost_entry_id": "c", "round": 1, "kind": "storage", "what": "dataset", "exam_id": None,
                "reader_id": None, "minutes": None, "amount": "0.000000", "currency": "USD",
                "rate": {"bytes": "0"}, "simulated": False, "at": NOW,
            },
        )  # fmt: skip


def work(project: Project, name: str, inputs: list[float], **changes: float) -> None:
    """Measured work: inputs at these seconds; what is recorded may be altered."""
    events = [{"kind": "open", "ms": 0.0}, {"kind": "structure", "ms": 0.0, "structure": "kidney"}]
    events += [{"kind": "input", "ms": s * 1000.0} for s in inputs]
    batch = Batch.model_validate({"sitting": name, "number": 0, "sent_ms": inputs[-1] * 1000.0, "events": events})
    append(project.ledger, name, "reader-1", batch, at=at(inputs[-1]), actor="test")
    record = measure(project.ledger, name, at=at(inputs[-1] + 1), actor="test")
    minutes = {key: {**value, **changes} for key, value in record.minutes.items()}
    take_in(project, name, minutes, "measured", inputs[-1] + 5)


@pytest.fixture
def project(copy: Callable[[str], Path]) -> Project:
    """A round with its readers."""
    return Project.open(copy("waiting"))


def csv(*lines: str) -> str:
    return "assignment_id,structure,active,idle,away\n" + "".join(f"{line}\n" for line in lines)


def test_import_gives_times_to_work_without(project: Project, redraft: Any, tmp_path: Path) -> None:
    """Work that came without times gets entries of origin `imported`; the same file again changes nothing."""
    add_work(project, "a")
    take_in(project, "a", {}, "imported", 10)
    file = tmp_path / "times.csv"
    file.write_text(csv("a,kidney,12.5,1,0", "a,,2,,"), encoding="utf-8")
    done = json.loads(redraft("time", "import", file, "--project", project.root, "--json").out)
    assert (done["annotations"], done["added"], done["replaced"]) == (["n-a"], 2, 0)
    rows = {row["structure"]: row for row in project.ledger.rows("time_entry")}
    assert rows["kidney"]["active_minutes"] == 12.5 and rows[None]["idle_minutes"] == 0
    assert {row["origin"] for row in rows.values()} == {"imported"}
    again = json.loads(redraft("time", "import", file, "--project", project.root, "--json").out)
    assert (again["annotations"], again["unchanged"]) == ([], ["n-a"]) and len(project.ledger.rows("time_entry")) == 2


def test_import_replaces_typed_minutes_openly(project: Project, redraft: Any, tmp_path: Path) -> None:
    """Typed entries stay on record and stop counting; an accounted round gets the difference as an entry of its own."""
    add_work(project, "a")
    take_in(project, "a", {"kidney": {"active": 30.0, "idle": 0.0, "away": 0.0}}, "typed", 10)
    charge(project)
    file = tmp_path / "times.csv"
    file.write_text(csv("a,kidney,20,0,0"), encoding="utf-8")
    assert json.loads(redraft("time", "import", file, "--project", project.root, "--json").out)["corrections"] == 1
    assert len(project.ledger.rows("time_entry")) == 2
    (correction,) = project.ledger.rows("cost_entry", kind="expert")
    assert correction["minutes"] == -10.0 and correction["amount"].startswith("-")
    assert correction["rate"]["corrects"] == "n-a"
    report = json.loads(redraft("cost", "report", "--project", project.root, "--json").out)
    assert report["origins"] == {"imported": {"annotations": 1, "exams": 1, "minutes": 20.0}}
    shown = json.loads(redraft("time", "show", "--assignment", "a", "--project", project.root, "--json").out)
    assert [(row["origin"], row["counts"]) for row in shown["entries"]] == [("imported", True), ("typed", False)]
    file.write_text(csv("a,kidney,25,0,0"), encoding="utf-8")  # a later import replaces the earlier one
    redraft("time", "import", file, "--project", project.root)
    assert sum(row["minutes"] for row in project.ledger.rows("cost_entry", kind="expert")) == -5.0
    checked = json.loads(redraft("audit", "verify", "--project", project.root, "--json").out)
    assert not [item for item in checked["broken"] if item["kind"] in ("time_entry", "cost_entry")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("assignment_id,minutes\na,5\n", "columns"),
        (csv("a,spleen,1,0,0"), "Line 2: unknown structure"),
        (csv("a,kidney,-1,0,0"), "`active`"),
        (csv("a,kidney,nan,0,0"), "`active`"),
        (csv("a,kidney,,0,0"), "`active`"),
        (csv("a,kidney,1e9,0,0"), "`active`"),
        (csv("a,kidney,1,0,zero"), "`away`"),
        (csv("a,kidney,1,0"), "fields"),
        (csv("a,kidney,1,0,0,0"), "fields"),
        (csv("a,kidney,1,0,0", "a,kidney,2,0,0"), "Line 3: kidney of this assignment stands in the file twice"),
        (csv("b,kidney,1,0,0"), "no annotation"),
        (csv("a,kidney,1,0,0", "m,kidney,1,0,0"), "Line 3: this work has measured minutes"),
        (csv(), "no rows"),
        ("\ud800", "CSV"),
    ],
)
def test_bad_files_import_nothing(project: Project, redraft: Any, tmp_path: Path, text: str, said: str) -> None:
    """A wrong line is named with what is wrong, and no line of its file is taken."""
    assert MAX_MINUTES < 1e9
    add_work(project, "a")
    take_in(project, "a", {}, "imported", 10)
    add_work(project, "m")
    work(project, "m", [0, 30])
    before = len(project.ledger.rows("time_entry"))
    file = tmp_path / "times.csv"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    answer = redraft("time", "import", file, "--project", project.root)
    assert answer.code == 2 and said in answer.err and "Traceback" not in answer.err
    assert len(project.ledger.rows("time_entry")) == before


def test_measured_minutes_are_taken_again_by_verify(project: Project, redraft: Any) -> None:
    """Untouched ones agree; an altered one is named with both numbers; one without events too."""
    add_work(project, "good")
    work(project, "good", [0, 30, 60])
    sound = json.loads(redraft("audit", "verify", "--project", project.root, "--json").out)
    assert sound["checked"]["measured_minutes"] == 1
    assert not [item for item in sound["broken"] if item["kind"] == "time_entry"]
    add_work(project, "more")
    work(project, "more", [0, 30, 60], active=45.0)
    add_work(project, "bare")
    take_in(project, "bare", {"exam": {"active": 5.0, "idle": 0.0, "away": 0.0}}, "measured", 10)
    answer = redraft("audit", "verify", "--project", project.root, "--json")
    broken = {i["record"]: i["why"] for i in json.loads(answer.out)["broken"] if i["kind"] == "time_entry"}
    assert broken == {
        "n-more": "kidney: 45.0 active minutes are recorded, the raw events give 1.0",
        "n-bare": "measured minutes without a record of the events they come from",
    }
    assert answer.code == 1


def test_cost_report_takes_measured_times_again(project: Project, redraft: Any) -> None:
    """The sensitivity table: inputs 20 s apart are active from a threshold of 30 s on, and idle at 15 s."""
    for n in range(8):
        add_work(project, f"w{n}", MODES[n % 2])
        work(project, f"w{n}", [float(s) for s in range(0, 101 if n % 2 == 0 else 61, 20)])
    charge(project)
    report = json.loads(redraft("cost", "report", "--project", project.root, "--json").out)
    assert report["origin"] == "measured" and report["origins"]["measured"]["annotations"] == 8
    rows = {row["idle_after_seconds"]: row for row in report["sensitivity"]["rows"]}
    assert sorted(rows) == [15, 30, 60, 100, 180] and [s for s, row in rows.items() if row["used"]] == [60]
    assert rows[15]["active_minutes"] == 0 and rows[60]["active_minutes"] == pytest.approx(
        4 * (100 + 60) / 60, abs=1e-3
    )
    assert rows[60]["saving_minutes"]["mean"] == pytest.approx(40 / 60, abs=1e-3)
    told = redraft("cost", "report", "--project", project.root).out
    assert "Sensitivity: 8 measured annotations" in told and "Where the minutes come from" in told


def test_show_tells_sittings(project: Project, redraft: Any) -> None:
    """Minutes by structure, sittings, the submission and what was recorded, as text and as JSON."""
    add_work(project, "a")
    work(project, "a", [0, 30, 200])
    text = redraft("time", "show", "--project", project.root).out
    assert "Assignment a" in text and "kidney" in text and "measured" in text
    (shown,) = json.loads(redraft("time", "show", "--project", project.root, "--json").out)
    assert shown["readers"][0]["minutes"]["kidney"] == {"active": 0.5, "idle": 0.0, "away": round(170 / 60, 4)}
    assert len(shown["readers"][0]["sittings"]) == len(shown["submissions"]) == 1
    assert redraft("time", "show", "--assignment", "none", "--project", project.root).code == 1
