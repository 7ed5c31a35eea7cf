"""Second looks, several readings, exams sent back, seeded errors: what counts afterwards; rows and files are real."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redraft import reviews, second_reads
from redraft.cohort import Cohort
from redraft.errors import ConflictError, IntegrityError, StateError, UsageError
from redraft.ledger import Ledger
from redraft.project import Project
from redraft.reviews import open_review
from redraft.volumes import read_volume, write_volume
from tests.tasks.validate.made_readings import (
    ASSISTED,
    DOUBLE,
    NOW,
    TINY,
    broken,
    copied,
    decide,
    dispatched,
    fresh,
    hand_in,
    label_for,
    note,
    pair,
    receive,
    rules,
    state,
    training,
)


@pytest.fixture(scope="module")
def dispatched_once(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two readers on every training exam."""
    project = dispatched(copied(made, tmp_path_factory.mktemp("doubles") / "kidneys", DOUBLE))
    project.ledger.engine.dispose()
    return project.root


@pytest.fixture
def doubles(dispatched_once: Path, tmp_path: Path) -> Project:
    """A copy of it."""
    return copied(dispatched_once, tmp_path / "doubles")


def test_readers_who_agree_make_a_consensus_that_trains(doubles: Project) -> None:
    """One reading counts alone; with the second the consensus of both does, its files are on record and stay the same
    when everything is asked again."""
    first, second = pair(doubles)
    exam = first["exam_id"]
    hand_in(doubles, first)
    receive(doubles)
    assert training(doubles)[exam].of == "reading" and not doubles.ledger.rows("consensus")
    hand_in(doubles, second)
    assert receive(doubles).consensus == 1
    (row,) = doubles.ledger.rows("consensus")
    label = training(doubles)[exam]
    assert (row["state"], row["method"], label.of, label.annotation_id) == (
        "agreed", "staple", "consensus", row["consensus_id"],
    )  # fmt: skip
    assert set(label.readings) == {note(doubles, w)["annotation_id"] for w in (first, second)}
    np.testing.assert_array_equal(read_volume(label.label).array, label_for(doubles, exam))
    assert not read_volume(doubles.root / row["disagreement_path"]).array.any()
    pairs = {r["structure"]: r["dice"] for r in doubles.ledger.rows("agreement")}
    assert pairs["kidney"] == 1.0 and pairs["kidney_tumor"] is None
    events = len(doubles.ledger.rows("audit_event"))
    assert receive(doubles).consensus == 0 and len(doubles.ledger.rows("audit_event")) == events
    assert broken(doubles) == []


@pytest.mark.parametrize(("choice", "shift"), [("reading", None), ("majority", None), ("own", 1)])
def test_readers_who_disagree_wait_for_a_person(doubles: Project, choice: Any, shift: int | None) -> None:
    """Too far apart, the exam trains nothing until a reviewer, who read it not, has chosen; then that label does."""
    first, second = pair(doubles)
    exam = first["exam_id"]
    hand_in(doubles, first)
    hand_in(doubles, second, shift=3)
    receive(doubles)
    (row,) = doubles.ledger.rows("consensus")
    assert row["state"] == "to_adjudicate" and row["agreement"]["disputed"] == ["kidney"]
    assert exam not in training(doubles) and Cohort(doubles).annotated(exam)
    assert exam not in {e["exam_id"] for e in Cohort(doubles).unlabelled_pool(3)}
    own = label_for(doubles, exam, shift) if shift is not None else None
    identity = row["consensus_id"]
    for account in ("ac-reader", "ac-nobody"):
        with pytest.raises(StateError):
            second_reads.settle(doubles, identity, account, choice, n=1, own=own)
    other = second_reads.settle(doubles, identity, "ac-reviewer", "staple")
    settled = second_reads.settle(doubles, identity, "ac-reviewer", choice, n=1, own=own)
    with doubles.ledger.tx("r", NOW) as tx:
        made = second_reads.adjudicate(tx, settled, NOW)
    with pytest.raises(ConflictError):
        second_reads.settle(doubles, identity, "ac-reviewer", choice, n=2, own=own)
    with pytest.raises(ConflictError), doubles.ledger.tx("r", NOW) as tx:  # somebody else was quicker
        second_reads.adjudicate(tx, other, NOW)
    readings = {w["annotation_id"]: w for w in (note(doubles, first), note(doubles, second))}
    expected = {
        "reading": lambda: read_volume(doubles.root / readings[min(readings)]["path"]).array,
        "majority": lambda: label_for(doubles, exam) & label_for(doubles, exam, 3),
        "own": lambda: own,
    }[choice]()
    label = training(doubles)[exam]
    assert label.annotation_id == made
    np.testing.assert_array_equal(read_volume(label.label).array, expected)
    states = {r["consensus_id"]: (r["state"], r["account_id"]) for r in doubles.ledger.rows("consensus")}
    assert states == {identity: ("superseded", None), made: ("adjudicated", "ac-reviewer")}
    assert receive(doubles).consensus == 0 and broken(doubles) == []


def test_a_tampered_consensus_is_named(doubles: Project) -> None:
    """`audit verify` names an altered consensus file and an altered map, each by its record; training refuses it."""
    first, second = pair(doubles)
    hand_in(doubles, first)
    hand_in(doubles, second, shift=3)
    receive(doubles)
    (row,) = doubles.ledger.rows("consensus")
    for key in ("path", "disagreement_path"):
        path = doubles.root / row[key]
        array = np.array(read_volume(path).array)
        array[0, 0, 0] ^= 1
        write_volume(path, read_volume(path).like(array))
    assert broken(doubles) == [("consensus", row["consensus_id"]), ("disagreement", row["consensus_id"])]
    reading = doubles.root / note(doubles, first)["path"]
    reading.write_bytes(gzip.compress(b"other"))
    with pytest.raises(IntegrityError):
        second_reads.settle(doubles, row["consensus_id"], "ac-reviewer", "reading", n=1)


def test_work_comes_back_from_review_and_is_mended(tiny: TINY) -> None:
    """A sampled annotation counts for nothing until it is reviewed; returned, the reader hands in revision 2, which a
    reviewer sees again; all revisions stay."""
    project = dispatched(tiny(rules("review_share: 1.0")))
    work = fresh(project)[0]
    folder = hand_in(project, work, shift=1)
    assert receive(project).in_review == 1
    (review,) = project.ledger.rows("review")
    assert (review["why"], state(project, work)) == ("sample", "IN_REVIEW") and work["exam_id"] not in training(project)
    assert receive(project).in_review == 0  # what lies in the package is not taken in twice
    with pytest.raises(UsageError):
        decide(project, review["review_id"], "return", reason_code="because")
    with pytest.raises(StateError):
        decide(project, review["review_id"], "accept", "ac-nobody")
    decide(project, review["review_id"], "return", reason_code="border")
    assert state(project, work) == "RETURNED_TO_READER"
    assert reviews.RETURN_REASONS["border"] in (folder / "RETURNED.txt").read_text()
    assert not (folder / "result.json").exists() and (folder / "returned-1" / "label.nii.gz").exists()
    assert receive(project).valid == 0
    with pytest.raises(ConflictError):
        decide(project, review["review_id"], "accept")
    hand_in(project, work)
    assert receive(project).in_review == 1
    again = next(r for r in project.ledger.rows("review") if r["state"] == "open")
    assert again["rules"][0]["rule"] == "reworked"
    decide(project, again["review_id"], "accept")
    rows = project.ledger.rows("annotation", assignment_id=work["assignment_id"])
    assert sorted((r["revision"], r["state"]) for r in rows) == [(1, "valid"), (2, "valid")]
    assert training(project)[work["exam_id"]].annotation_id == note(project, work)["annotation_id"]
    np.testing.assert_array_equal(
        read_volume(training(project)[work["exam_id"]].label).array, label_for(project, work["exam_id"])
    )
    assert broken(project) == []


def test_nobody_reviews_their_own_work(tiny: TINY) -> None:
    """A reviewer who also reads decides others' work and not theirs, nor opens theirs again."""
    project = dispatched(tiny(DOUBLE, rules("review_share: 1.0")))
    for work in fresh(project):
        hand_in(project, work)
    receive(project)
    readers = {r["annotation_id"]: r["reader_id"] for r in project.ledger.rows("annotation")}
    for review in project.ledger.rows("review"):
        if readers[review["annotation_id"]] == "reader-1":
            with pytest.raises(StateError):
                decide(project, review["review_id"], "accept", "ac-reader")
        else:
            decide(project, review["review_id"], "accept", "ac-reader")
    assert {r["state"] for r in project.ledger.rows("review")} == {"open", "accepted"}


def test_accepted_work_that_is_opened_again_counts_no_more(doubles: Project) -> None:
    """Its exam leaves the training data until it is decided; accepted as it was, the same consensus counts again."""
    first, second = pair(doubles)
    hand_in(doubles, first)
    hand_in(doubles, second)
    receive(doubles)
    exam, before = first["exam_id"], doubles.ledger.rows("consensus")
    with doubles.ledger.tx("r", NOW) as tx:
        review = reviews.reopen(tx, note(doubles, first)["annotation_id"], "ac-reviewer", NOW)
    assert exam not in training(doubles)
    assert exam not in {e["exam_id"] for e in Cohort(doubles).unlabelled_pool(3)}
    decide(doubles, review, "accept")
    assert receive(doubles).consensus == 0 and training(doubles)[exam].annotation_id == before[0]["consensus_id"]
    with doubles.ledger.tx("r", NOW) as tx:
        review = reviews.reopen(tx, note(doubles, first)["annotation_id"], "ac-reviewer", NOW)
    decide(doubles, review, "return", reason_code="border")
    assert training(doubles)[exam].of == "reading"  # the other reading is accepted in its own right
    hand_in(doubles, first, shift=1)
    receive(doubles)
    (open_,) = doubles.ledger.rows("review", state="open")
    decide(doubles, open_["review_id"], "accept")
    assert receive(doubles).consensus == 1
    states = [r["state"] for r in doubles.ledger.rows("consensus")]
    assert sorted(states) == ["agreed", "superseded"] and training(doubles)[exam].of == "consensus"


@pytest.mark.parametrize("code", ["draft_unusable_redo", "poor_image"])
def test_an_exam_that_is_sent_back(tiny: TINY, code: str) -> None:
    """Without a segmentation the time still counts; `redo` comes first in the next round, `exclude` never again."""
    from redraft.reasons import BY_CODE
    from tasks.select.step import select

    project = dispatched(tiny(ASSISTED))
    work = next(row for row in fresh(project) if row["mode"] == "assisted")
    hand_in(project, work, no_label=True, verdict="reject", reason_code=code)
    assert receive(project).rejected == 1
    (row,) = project.ledger.rows("rejection")
    consequence = BY_CODE[code].consequence
    assert (state(project, work), row["consequence"], row["exam_id"]) == ("REJECTED", consequence, work["exam_id"])
    entry = note(project, work)
    assert (entry["state"], entry["path"], entry["sha256"]) == ("rejected", "", "")
    assert project.ledger.rows("time_entry", annotation_id=entry["annotation_id"])[0]["active_minutes"] == 3.0
    assert receive(project).rejected == 0 and broken(project) == []
    pool = {e["exam_id"] for e in Cohort(project).unlabelled_pool(3)}
    assert (work["exam_id"] in pool) is (consequence == "redo")
    with project.ledger.tx("test") as tx:  # the next round, with the same champion
        two = tx.get("round", number=2)
        for step in ("CLOSING", "AWAITING_APPROVAL", "HELD"):
            from redraft.ledger import RoundState, move_round

            move_round(tx, 2, RoundState(step))
        tx.insert("round", {**two, "number": 3, "state": "OPENING"})
    select.fn(str(project.root), 3, None)
    chosen = {r["exam_id"]: r for r in project.ledger.rows("selection", round=3)}
    if consequence == "exclude":
        assert work["exam_id"] not in chosen
        return
    first = chosen[work["exam_id"]]
    assert (first["rank"], first["chosen_by"], first["inclusion_probability"]) == (1, "rework", 1.0)
    assert code in first["explanation"]["sentence"] and first["explanation"]["mode"] == "from_scratch"
    assert len(chosen) == 4  # it uses the budget


def test_a_stop_in_the_middle_of_arriving_takes_nothing_twice(
    doubles: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after files were written and before their rows, and again before the consensus' rows, the next call ends
    where an undisturbed one would."""
    first, second = pair(doubles)
    hand_in(doubles, first)
    hand_in(doubles, second, shift=3)
    whole = Ledger.tx
    for stop in (1, 2):
        calls = {"n": 0}

        def dying(self: Ledger, *args: Any, stop: int = stop, calls: dict[str, int] = calls, **kw: Any) -> Any:
            calls["n"] += 1
            if calls["n"] == stop:
                raise KeyboardInterrupt
            return whole(self, *args, **kw)

        monkeypatch.setattr(Ledger, "tx", dying)
        with pytest.raises(KeyboardInterrupt):
            receive(doubles)
        monkeypatch.setattr(Ledger, "tx", whole)
        assert not doubles.ledger.rows("consensus")
        assert len(doubles.ledger.rows("annotation", exam_id=first["exam_id"])) == (0 if stop == 1 else 2)
    assert receive(doubles).consensus == 1
    assert len(doubles.ledger.rows("consensus")) == 1 and broken(doubles) == []
    assert len(list((doubles.data / "labels").rglob("*.nii.gz"))) == 4


def test_a_flagged_annotation_waits_only_where_that_is_wanted(tiny: TINY) -> None:
    """A correction that changed nothing is flagged either way, and waits for a reviewer where flagged work does."""
    for wanted in (True, False):
        flagged = rules(f"review_flagged: {str(wanted).lower()}")
        project = dispatched(tiny(flagged, ASSISTED))
        work = next(row for row in fresh(project) if row["mode"] == "assisted")
        hand_in(project, work, draft=True, verdict="correct")
        receive(project)
        (judged,) = project.ledger.rows("validation")
        assert "unchanged_correction" in {f["rule"] for f in judged["soft"]}
        assert state(project, work) == ("IN_REVIEW" if wanted else "ACCEPTED")
        assert len(project.ledger.rows("review", why="soft")) == int(wanted)


def test_the_sample_is_the_planned_share() -> None:
    """Drawn by assignment: the same every time, about the share of many, none at 0 and all at 1."""
    names = [f"a{n}" for n in range(4000)]
    drawn = [reviews.in_sample(7, name, 0.1) for name in names]
    assert drawn == [reviews.in_sample(7, name, 0.1) for name in names] and 330 < sum(drawn) < 470
    assert drawn != [reviews.in_sample(8, name, 0.1) for name in names]
    assert not any(reviews.in_sample(7, name, 0.0) for name in names)
    assert all(reviews.in_sample(7, name, 1.0) for name in names)


def test_reviews_of_one_annotation_have_ids_of_their_own(doubles: Project) -> None:
    """A second review of the same annotation is another record."""
    first, _ = pair(doubles)
    hand_in(doubles, first)
    receive(doubles)
    with doubles.ledger.tx("test", NOW) as tx:
        ids = {open_review(tx, note(doubles, first)["annotation_id"], 2, "sample", [], NOW) for _ in range(2)}
    assert len(ids) == 2
