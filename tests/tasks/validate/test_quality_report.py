"""The report on reading: shares with exact intervals, agreement by round, and nobody's name in it."""

from __future__ import annotations

import json

import pytest
from scipy import stats
from typer.testing import CliRunner

from redraft.quality import exact_interval, quality_report
from tasks.validate.flags import chance, streaks
from tests.tasks.validate.made_readings import DOUBLE, TINY, dispatched, hand_in, pair, receive


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 7), (7, 7), (1, 100)])
def test_intervals_are_the_exact_ones(k: int, n: int) -> None:
    """Those of scipy's own binomial test."""
    theirs = stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    assert exact_interval(k, n) == pytest.approx((theirs.low, theirs.high))
    assert exact_interval(0, 0) is None


def test_who_is_out_of_line() -> None:
    """A reader with 10 of 10 beside others with 1 of 20 is; with few readings, or where all accept, nobody is."""
    work = [("a", True)] * 10 + [("b", n == 0) for n in range(10)] + [("c", False)] * 10
    found = streaks(work)
    assert found["a"] < 0.01 and found["b"] > 0.05 and found["c"] == 1.0
    assert streaks([("a", True)] * 4 + [("b", False)] * 20) == {}
    assert streaks([("a", True)] * 20 + [("b", False)] * 4) == {}
    assert streaks([("a", True)] * 9 + [("b", True)] * 9) == {"a": 1.0, "b": 1.0}
    bound = stats.binomtest(1, 20).proportion_ci(0.90, method="exact").high  # one side of 95 %
    assert chance(6, 8, 1, 20) == pytest.approx(stats.binom.sf(5, 8, bound))


def test_the_report_of_a_round(tiny: TINY) -> None:
    """Agreement and detection of what is on record; the command prints it as tables and as JSON."""
    from app.cli.main import app

    project = dispatched(tiny(DOUBLE))
    first, second = pair(project)
    hand_in(project, first)
    hand_in(project, second, shift=3)
    receive(project)
    with project.ledger.tx("test") as tx:
        for n, (assignment, outcome) in enumerate(((first, "detected"), (second, "missed"))):
            tx.insert("seeded_error", {
                "assignment_id": assignment["assignment_id"], "exam_id": first["exam_id"], "round": 2,
                "structure": "kidney", "kind": "removed", "truth_annotation_id": "x", "wrong_voxels": 20,
                "corrected": 1.0 - n, "outcome": outcome,
            })  # fmt: skip
    report = quality_report(project, 2)
    kidney = next(row for row in report["detection"] if row["structure"] == "kidney")
    theirs = stats.binomtest(1, 2).proportion_ci(0.95, method="exact")
    assert (kidney["n"], kidney["rate"], kidney["kinds"]) == (2, 0.5, {"removed": 1})
    assert (kidney["lo"], kidney["hi"]) == pytest.approx((theirs.low, theirs.high))
    rows = {row["structure"]: row for row in report["agreement"]}
    assert rows["kidney"]["dice"]["mean"] == 0.5 and rows["kidney_tumor"]["absent"] == 1
    assert quality_report(project, 1)["agreement"] == []
    runner = CliRunner()
    out = runner.invoke(app, ["quality", "report", "--json", "--project", str(project.root)])
    assert json.loads(out.output)["detection"] == report["detection"]
    text = runner.invoke(app, ["quality", "report", "--project", str(project.root)]).output
    assert "Agreement between readers" in text and "0.50 (no interval)" in text
