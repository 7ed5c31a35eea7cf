"""Work is kept for its reader as long as was said, then it is somebody else's, then a person's; nothing gets lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from redraft.config.schema import Dispatch
from redraft.errors import StateError
from redraft.ledger import AssignmentState, move_assignment
from redraft.project import Project
from redraft.steps import Context
from redraft.work_leases import extend, openings, replacement_id, until, view
from tasks.dispatch.leases import judge

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DUE = NOW + timedelta(days=14)
RULES = Dispatch(backend="review", readers=({"id": "a"}, {"id": "b"}))
TINY = Callable[..., Project]


def work(name: str = "w", state: str = "DISPATCHED", reader: str = "a", **more: Any) -> dict[str, Any]:
    row = {"assignment_id": name, "exam_id": "e", "purpose": "training", "reader_id": reader, "state": state}
    return {**row, **more}


def lease(name: str = "w", hours: float = 10, state: str = "held", extensions: int = 0) -> dict[str, Any]:
    ends = (NOW + timedelta(hours=hours)).isoformat()
    return {"assignment_id": name, "expires_at": ends, "extensions": extensions, "state": state}


@pytest.mark.parametrize(
    ("row", "kept", "sent_back", "what"),
    [
        (work(), lease(), None, None),
        (work(), lease(hours=0), None, "expire"),
        (work(), lease(hours=-5), None, "expire"),
        (work(), None, None, "renew"),
        (work(reader="gone"), lease(), None, "leave"),
        (work(reader="gone", state="RETURNED_TO_READER"), lease(), None, "leave"),
        (work(reader="gone", state="ACCEPTED"), lease(state="ended"), None, None),
        (work(reader="gone", state="IN_REVIEW"), lease(), None, "end"),
        (work(state="ACCEPTED"), lease(hours=-5), None, "end"),
        (work(state="REJECTED"), lease(), None, "end"),
        (work(state="WITHDRAWN"), lease(hours=-5, state="expired"), None, None),
        (work(state="CARRIED_OVER"), lease(hours=-5), None, None),
        # A review took days: the reader has as long again, from when it came back.
        (work(state="RETURNED_TO_READER"), lease(hours=-50, state="ended"), -1, "renew"),
        (work(state="RETURNED_TO_READER"), lease(hours=-50), -1, "renew"),
        (work(state="RETURNED_TO_READER"), lease(hours=-50), -73, "expire"),
        (work(state="RETURNED_TO_READER"), lease(hours=71), -1, None),
    ],
)
def test_what_becomes_of_work(row: dict[str, Any], kept: Any, sent_back: float | None, what: str | None) -> None:
    """Each case has one outcome, at the hour."""
    back = {} if sent_back is None else {"w": NOW + timedelta(hours=sent_back)}
    found = judge([row], {"w": kept} if kept else {}, back, {"gone"}, DUE, RULES, NOW)
    outcome = {key: list(value) for key, value in vars(found).items() if value}
    assert outcome == ({} if what is None else {what: ["w"]})
    if what == "renew" and sent_back is not None:
        assert found.renew["w"] == NOW + timedelta(hours=72 + sent_back)


def test_without_pages_work_is_kept_until_the_deadline() -> None:
    """Who works on a folder or in a PACS sees no lease and cannot extend one."""
    assert until(NOW, DUE, RULES) == NOW + timedelta(hours=72)
    folder = Dispatch(readers=({"id": "a"},))
    assert until(NOW, DUE, folder) == DUE and until(DUE, DUE, folder) == DUE + timedelta(hours=72)


def test_a_reading_is_followed_through_all_its_readers() -> None:
    """Each hand-over is one reading still; its lapses add up; two readings of one exam are two."""
    second = replacement_id("w1", "b")
    rows = [work("w1", "WITHDRAWN"), work(second, "WITHDRAWN", "b"), work("other", "DISPATCHED", "c")]
    leases = {name: lease(name, state="expired") for name in ("w1", second)}
    (opening,) = openings(rows, leases, 2)
    assert (opening.last["assignment_id"], opening.expired, opening.escalated) == (second, 2, True)
    assert [o.escalated for o in openings(rows, leases, 3)] == [False]
    leases["w1"] = lease("w1", state="ended")  # its reader left: that is nobody's fault
    assert [(o.expired, o.escalated) for o in openings(rows, leases, 2)] == [(1, False)]
    third = work(replacement_id(second, "d"), "DISPATCHED", "d")
    assert openings([*rows, third], leases, 2) == []


# -- on a project ------------------------------------------------------------------------------------------------------
@pytest.fixture
def out(tiny: TINY) -> Project:
    """A round that is out with two readers who work in the browser."""
    from tasks.dispatch.step import dispatch
    from tasks.select.step import select

    project = tiny(("backend: folder", "backend: review"), ("budget: {exams: 4}", "budget: {exams: 3}"))
    select.fn(str(project.root), 2, None)
    dispatch.fn(str(project.root), 2, None)
    return project


def keep(project: Project, hours: float) -> Any:
    from tasks.dispatch.step import keep_leases

    return keep_leases.fn(str(project.root), 2, None, lambda: datetime.now(UTC) + timedelta(hours=hours))


def rows(project: Project, **where: Any) -> dict[str, dict[str, Any]]:
    return {row["assignment_id"]: row for row in project.ledger.rows("assignment", round=2, **where)}


def chain(project: Project) -> int:
    return len(project.ledger.rows("audit_event"))


def test_everything_that_goes_out_is_kept_for_its_reader(out: Project) -> None:
    """A lease per assignment, the carried-over one's too; keeping leases then changes nothing."""
    held = {row["assignment_id"] for row in out.ledger.rows("work_lease", state="held")}
    assert held == set(rows(out))
    before = chain(out)
    kept = keep(out, 71)
    assert chain(out) == before and not (kept.expired or kept.handed or kept.escalated or kept.repaired)


def test_what_runs_out_is_the_other_reader_s_and_then_a_person_s(out: Project) -> None:
    """The same reading: exam, mode, draft; a token and a package of its own; what the first one did stays his."""
    first = rows(out)
    mine = next(name for name, row in first.items() if row["mode"] == "assisted")
    (out.work / mine / "label.nii.gz").write_bytes(b"half a day of work")
    kept = keep(out, 73)
    assert set(kept.expired) == set(first) == set(kept.handed.values())
    for new, old in kept.handed.items():
        a, b = first[old], rows(out)[new]
        assert b["reader_id"] != a["reader_id"] and rows(out)[old]["state"] == "WITHDRAWN"
        assert [b[k] for k in ("exam_id", "purpose", "mode", "draft_id")] == [
            a[k] for k in ("exam_id", "purpose", "mode", "draft_id")
        ]
        tasks = [json.loads((out.work / name / "task.json").read_text()) for name in (old, new)]
        assert tasks[0]["token"] != tasks[1]["token"] and tasks[1]["reader_id"] == b["reader_id"]
        assert not (out.work / new / "label.nii.gz").exists()
    assert (out.work / mine / "label.nii.gz").read_bytes() == b"half a day of work"
    before = chain(out)
    assert keep(out, 74).handed == {} and chain(out) == before
    last = keep(out, 146)
    assert set(last.escalated) == {row["exam_id"] for row in first.values()} and last.handed == {}
    before, count = chain(out), len(rows(out))
    assert keep(out, 147).escalated == last.escalated and (chain(out), len(rows(out))) == (before, count)


def test_a_person_decides_who_reads_what_lay_too_long(out: Project) -> None:
    """Given to a reader by name, once; not to nobody, not what nobody needs to read."""
    from redraft.status import project_status
    from tasks.dispatch.step import give

    keep(out, 73), keep(out, 146)
    exam = next(iter(rows(out).values()))["exam_id"]
    ctx = Context(out, 2, None, "test")
    identity = give(ctx, exam, "reader-1")
    assert rows(out)[identity]["state"] == "DISPATCHED" and (out.work / identity / "task.json").exists()
    for who in ("reader-1", "reader-2"):
        with pytest.raises(StateError, match="waits for a reader"):
            give(ctx, exam, who)
    assert exam not in keep(out, 1).escalated
    assert isinstance(project_status(out)["waiting_for"], list)


def test_a_reader_who_leaves_is_replaced_at_once(out: Project) -> None:
    """Without an active account nobody keeps work; it does not count as let lie."""
    account = {"roles": ["reader"], "added_at": datetime.now(UTC), "added_by": "test"}
    with out.ledger.tx("test") as tx:
        for n, state in (("1", "removed"), ("2", "active")):
            tx.insert("account", {"account_id": f"ac-{n}", "reader_id": f"reader-{n}", "state": state, **account})
    gone = {name for name, row in rows(out).items() if row["reader_id"] == "reader-1"}
    kept = keep(out, 0)
    assert set(kept.left) == gone and set(kept.handed.values()) == gone and not kept.expired
    assert {row["reader_id"] for row in rows(out, state="DISPATCHED").values()} == {"reader-2"}
    # Now the other one lets it lie: nobody is left, and `keep` says so instead of giving it back.
    last = keep(out, 80)
    assert last.handed == {} and not last.escalated and {u.why for u in last.unassigned} == {"lapsed"}


def test_finished_work_is_not_taken_away(out: Project) -> None:
    """What came back before the time ran out is its reader's, however late the leases are looked at."""
    name = next(iter(rows(out)))
    with out.ledger.tx("test") as tx:
        move_assignment(tx, name, AssignmentState.RETURNED)
        move_assignment(tx, name, AssignmentState.ACCEPTED)
    assert name not in keep(out, 500).expired and rows(out)[name]["state"] == "ACCEPTED"
    assert out.ledger.one("work_lease", assignment_id=name)["state"] == "ended"


def test_extensions_are_counted_and_end(out: Project) -> None:
    """Twice a day more each; then no more; and not for what somebody else has."""
    name = next(iter(rows(out)))
    rules, now = out.config.dispatch.lease, datetime.now(UTC)
    ends = datetime.fromisoformat(out.ledger.one("work_lease", assignment_id=name)["expires_at"])
    for n in (1, 2):
        found = extend(out.ledger, name, rules, now, "test")
        assert datetime.fromisoformat(found["expires_at"]) == ends + timedelta(hours=24 * n)
        assert (found["extensions_left"], found["expired"]) == (2 - n, False)
    with pytest.raises(StateError, match="as often as allowed"):
        extend(out.ledger, name, rules, now, "test")
    other = next(n for n in rows(out) if n != name)
    kept = keep(out, 100)
    assert name not in kept.expired and other in kept.expired
    with pytest.raises(StateError, match="not kept"):
        extend(out.ledger, other, rules, now, "test")
    assert view(out.ledger.one("work_lease", assignment_id=other), rules, now)["expired"]


def test_killed_between_rows_and_packages(out: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are there, packages are not: the next call makes them, with the tokens that the rows stand for."""
    from tasks.dispatch.hand_out import HandOut

    made = HandOut.package

    def dies(self: HandOut, row: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(HandOut, "package", dies)
    with pytest.raises(KeyboardInterrupt):
        keep(out, 73)
    new = {name: row for name, row in rows(out).items() if row["state"] == "DISPATCHED"}
    assert new and not any((out.work / name).exists() for name in new)
    monkeypatch.setattr(HandOut, "package", made)
    kept = keep(out, 73.5)
    assert set(kept.repaired) == set(new) and kept.handed == {}
    for name, row in new.items():
        task = json.loads((out.work / name / "task.json").read_text())
        assert (task["assignment_id"], task["reader_id"]) == (name, row["reader_id"])
        assert HandOut(out).digest(row) == row["package_sha256"]


def test_a_package_that_somebody_removed_is_made_again(out: Project) -> None:
    """As it was handed out, to the byte of its task.json."""
    name = next(iter(rows(out)))
    before = (out.work / name / "task.json").read_bytes()
    shutil.rmtree(out.work / name)
    assert keep(out, 1).repaired == (name,)
    assert (out.work / name / "task.json").read_bytes() == before
