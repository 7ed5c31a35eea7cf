"""The rules for returned labels: which breach sends work back, which is flagged; and the result is reproducible."""

from __future__ import annotations

import json
from typing import Any

import pytest

from redraft.config.schema import Structure, Validate
from redraft.digest import sha256_json
from tasks.validate.expectations import Finding, Verdict, validate_rows

STRUCTURES = (
    Structure(name="kidney", value=1, kind="organ", required=True, max_components=2, volume_ml=(20, 900)),  # type: ignore[arg-type]
    Structure(name="tumor", value=2, kind="tumor", max_components=3, volume_ml=(0.5, 400)),  # type: ignore[arg-type]
    Structure(name="vessel", value=3, kind="vessel"),  # type: ignore[arg-type]
)
CONFIG = Validate(max_minutes=120, min_seconds=5)
NAN = float("nan")


def row(name: str = "a", **changes: Any) -> dict[str, Any]:
    """A row that breaks no rule."""
    minutes = changes.get("minutes", 6.0)
    return {
        "assignment_id": name, "exam_id": "e", "reader_id": "r", "same_grid": True, "flipped": False, "integral": True,
        "unknown_values": 0, "verdict": "correct", "origin": "typed", "minutes": minutes, "seconds": minutes * 60.0,
        "foreground_voxels": 9, "voxels_changed": None, "kidney_ml": 150.0, "kidney_components": 2, "tumor_ml": 0.0,
        "tumor_components": 0, "vessel_ml": 0.0, "vessel_components": 0, "accept_seconds": NAN,
        "corrected_voxels": NAN, "changed_share": NAN, "accept_chance": NAN, "kidney_lost_ml": 0.0,
        "tumor_lost_ml": 0.0, "vessel_lost_ml": 0.0, **changes,
    }  # fmt: skip


# Name of the case, what is changed, hard rules, soft rules.
CASES: list[tuple[str, dict[str, Any], set[str], set[str]]] = [
    ("good", {}, set(), set()),
    ("other_grid", {"same_grid": False}, {"grid"}, set()),
    ("mirrored", {"same_grid": False, "flipped": True}, {"grid", "flipped"}, set()),
    ("not_integral", {"integral": False}, {"not_integer"}, set()),
    ("not_finite", {"integral": False, "unknown_values": -1}, {"not_integer", "unknown_values"}, set()),
    ("unknown", {"unknown_values": 2}, {"unknown_values"}, set()),
    ("required_empty", {"kidney_ml": 0.0, "kidney_components": 0}, {"required_empty"}, {"volume"}),
    ("optional_empty", {"tumor_ml": 0.0}, set(), set()),
    ("too_small", {"kidney_ml": 19.9}, set(), {"volume"}),
    ("too_large", {"kidney_ml": 900.1}, set(), {"volume"}),
    ("at_the_bounds", {"kidney_ml": 900.0, "tumor_ml": 0.5}, set(), set()),
    ("optional_small", {"tumor_ml": 0.4}, set(), {"volume"}),
    ("both_volumes", {"kidney_ml": 5.0, "tumor_ml": 401.0}, set(), {"volume"}),
    ("pieces", {"kidney_components": 3}, set(), {"components"}),
    ("tumour_pieces", {"tumor_ml": 3.0, "tumor_components": 4}, set(), {"components"}),
    ("no_rule_for_it", {"vessel_ml": 5000.0, "vessel_components": 99}, set(), set()),
    ("negative_minutes", {"minutes": -0.1}, {"minutes"}, {"very_fast"}),
    ("too_many_minutes", {"minutes": 120.1}, {"minutes"}, set()),
    ("all_the_minutes", {"minutes": 120.0}, set(), set()),
    ("endless_minutes", {"minutes": float("inf")}, {"minutes"}, set()),
    ("no_minutes", {"minutes": NAN}, {"minutes"}, set()),
    ("no_timer", {"minutes": NAN, "origin": "imported"}, set(), {"no_times"}),
    ("a_timer", {"origin": "imported"}, set(), set()),
    ("accepted_fast", {"accept_seconds": 9.9}, set(), {"fast_accept"}),
    ("accepted_in_time", {"accept_seconds": 10.0}, set(), set()),
    ("corrected_nothing", {"corrected_voxels": 0.0}, set(), {"unchanged_correction"}),
    ("corrected_a_voxel", {"corrected_voxels": 1.0}, set(), set()),
    ("out_of_line", {"accept_chance": 0.001}, set(), {"accept_streak"}),
    ("in_line", {"accept_chance": 0.2}, set(), set()),
    ("drawn_anew", {"changed_share": 0.51}, set(), {"mostly_redrawn"}),
    ("half_of_it", {"changed_share": 0.5}, set(), set()),
    ("lost", {"tumor_lost_ml": 2.5}, set(), {"structure_removed"}),
    ("in_no_time", {"minutes": 0.0}, set(), {"very_fast"}),
    ("in_five_seconds", {"minutes": 5 / 60}, set(), set()),
    ("hard_and_soft", {"unknown_values": 1, "kidney_components": 9}, {"unknown_values"}, {"components"}),
]
ROWS = [row(name, **changes) for name, changes, _, _ in CASES]


@pytest.fixture(scope="module")
def judged() -> tuple[dict[str, Verdict], dict[str, Any]]:
    """All cases in one batch, as a round's returns are."""
    verdicts, outcome = validate_rows(ROWS, STRUCTURES, CONFIG)
    assert [v.assignment_id for v in verdicts] == [name for name, *_ in CASES]
    return {v.assignment_id: v for v in verdicts}, outcome


def rules(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.mark.parametrize(("name", "changes", "hard", "soft"), CASES, ids=[case[0] for case in CASES])
def test_each_breach_and_only_it_is_found(
    judged: tuple[dict[str, Verdict], dict[str, Any]], name: str, changes: dict[str, Any], hard: set[str],
    soft: set[str],
) -> None:  # fmt: skip
    """Hard rules refuse, soft ones flag, and one return's breach is never another's."""
    verdict = judged[0][name]
    assert (rules(verdict.hard), rules(verdict.soft)) == (hard, soft)
    assert verdict.ok is (not hard)


def test_findings_speak_to_the_reader(judged: tuple[dict[str, Verdict], dict[str, Any]]) -> None:
    """Each names the structure, the bound or the allowed values, and what was measured; all of it is plain JSON."""
    verdicts = judged[0]
    small = verdicts["both_volumes"].soft
    assert sorted((f.measured, "kidney" in f.message, "tumor" in f.message) for f in small) == [
        (5.0, True, False), (401.0, False, True),
    ]  # fmt: skip
    assert "1 = kidney, 2 = tumor, 3 = vessel" in verdicts["unknown"].hard[0].message
    assert verdicts["unknown"].hard[0].measured == 2 and "120" in verdicts["too_many_minutes"].hard[0].message
    for verdict in verdicts.values():
        for finding in (*verdict.hard, *verdict.soft):
            sha256_json([finding.rule, finding.measured, finding.message])


def test_one_return_alone_is_judged_as_in_a_batch(judged: tuple[dict[str, Verdict], dict[str, Any]]) -> None:
    """Who else is in the batch plays no part, also where a whole column is missing."""
    for name in ("good", "no_minutes", "optional_small", "mirrored"):
        alone = validate_rows([r for r in ROWS if r["assignment_id"] == name], STRUCTURES, CONFIG)[0]
        assert alone == [judged[0][name]]


def test_the_result_is_the_same_every_time(judged: tuple[dict[str, Verdict], dict[str, Any]]) -> None:
    """Twice the same digest, without run ids or times, whatever the order of the rows."""
    outcome = judged[1]
    assert sha256_json(outcome) == sha256_json(validate_rows(ROWS, STRUCTURES, CONFIG)[1])
    assert sha256_json(outcome) == sha256_json(validate_rows(ROWS[::-1], STRUCTURES, CONFIG)[1])
    assert json.loads(json.dumps(outcome, allow_nan=False)) == outcome


def test_the_result_lists_every_rule_with_who_broke_it(judged: tuple[dict[str, Verdict], dict[str, Any]]) -> None:
    """The kept JSON has one entry per rule and column, with level, count and broken assignments."""
    results = judged[1]["results"]
    assert judged[1]["success"] is False
    by_key = {(r["rule"], r["column"]): r for r in results}
    assert len(results) == len({(r["rule"], r["column"], r["checked"]) for r in results})
    assert by_key["grid", "same_grid"]["broken"] == ["mirrored", "other_grid"]
    assert by_key["required_empty", "kidney_ml"]["level"] == "hard"
    assert by_key["components", "tumor_components"] == {
        "rule": "components", "level": "soft", "column": "tumor_components", "success": False, "checked": len(ROWS),
        "broken": ["tumour_pieces"],
    }  # fmt: skip
    for name, _, hard, soft in CASES:
        assert {r["rule"] for r in results if name in r["broken"]} == hard | soft


def test_a_clean_batch_succeeds_and_an_empty_one_too() -> None:
    """Nothing broken is success; nothing returned is no error."""
    verdicts, outcome = validate_rows([row("a"), row("b")], STRUCTURES, CONFIG)
    assert outcome["success"] is True and all(v.ok and not v.soft for v in verdicts)
    assert validate_rows([], STRUCTURES, CONFIG) == ([], {"results": [], "success": True})
