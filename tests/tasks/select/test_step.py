"""The step offers the strategy exactly the free pool, and the ledger holds what was chosen and with which chances."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from redraft.cohort import Cohort
from redraft.project import Project

TINY = Callable[..., Project]


def chosen(project: Project) -> set[str]:
    from tasks.select.step import select

    select.fn(str(project.root), 2, None)
    return {row["exam_id"] for row in project.ledger.rows("selection", round=2)}


def test_only_free_pool_exams_are_selected(tiny: TINY) -> None:
    """With a budget for everything: no validation, test, external or undrawn exam, none annotated, none in work."""
    project = tiny(("budget: {exams: 4}", "budget: {exams: 100}"))
    assert chosen(project) == {"p03", *(f"p{n:02d}" for n in range(5, 14))}


def test_an_exam_whose_draft_failed_waits(tiny: TINY) -> None:
    """A pool exam without a draft of the champion cannot be scored and is not drawn either."""
    project = tiny(("budget: {exams: 4}", "budget: {exams: 100}"))
    with project.ledger.tx("test") as tx:
        tx.insert("subject", {"subject_id": "s-new", "split": "pool", "stratum": "", "drawn_at": None})
        old = tx.get("exam", exam_id="p05")
        tx.insert("exam", {**old, "exam_id": "undrafted", "subject_id": "s-new", "series_id": "q"})
    assert "undrafted" in {row["exam_id"] for row in Cohort(project).unlabelled_pool(2)}
    assert "undrafted" not in chosen(project)


def test_the_ledger_holds_the_choice_and_its_chances(tiny: TINY) -> None:
    """Every selection row carries rank, strategy, inclusion probability, mode, its probability and a sentence."""
    project = tiny()
    assert len(chosen(project)) == 4
    rows = sorted(project.ledger.rows("selection", round=2), key=lambda row: row["rank"])
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert [row["chosen_by"] for row in rows] == ["control", "strategy", "strategy", "strategy"]
    for row in rows:
        why = row["explanation"]
        assert why["mode_probability"] == pytest.approx({"from_scratch": 0.4, "assisted": 0.6}[why["mode"]])
        assert why["sentence"] and 0 < row["inclusion_probability"] <= 1
    control = rows[0]["exam_id"]
    free = [f"p{n:02d}" for n in range(13, 4, -1)]  # the highest entropies first
    assert [row["exam_id"] for row in rows[1:]] == [exam for exam in free if exam != control][:3]


def test_selecting_again_changes_nothing(tiny: TINY) -> None:
    """The step is recorded once per digest; two copies of a project select the same."""
    from tasks.select.step import select

    first, second = tiny(), tiny()
    ref = select.fn(str(first.root), 2, None)
    assert select.fn(str(first.root), 2, None) == ref == select.fn(str(second.root), 2, None)
    assert len(first.ledger.rows("selection", round=2)) == 4


def test_another_seed_is_another_draw(tiny: TINY) -> None:
    """The project's seed decides the control draw and the modes."""
    from tasks.select.step import select

    pairs = [("strategy: entropy", "strategy: random")]
    refs = [select.fn(str(tiny(*pairs, ("seed: 20261121", f"seed: {seed}")).root), 2, None) for seed in (1, 2)]
    assert refs[0].selection_sha256 != refs[1].selection_sha256
