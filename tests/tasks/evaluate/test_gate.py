"""The gate passes what it should, fails what it should, and never passes what it could not evaluate."""

from __future__ import annotations

import numpy as np
import pytest

from redraft.config.schema import Gate, Structure
from redraft.digest import sha256_json
from redraft.errors import IntegrityError
from tasks.evaluate.gate import Criteria, criteria, judge

KIDNEY = Structure(name="kidney", value=1, kind="organ")
TUMOR = Structure(name="tumor", value=2, kind="tumor")
GATE = Gate(margin=0.05, alpha=0.05, default_floor=0.6, floor={"tumor": 0.2})
SUBJECTS = {f"e{i}": f"s{i // 2}" for i in range(24)}


def results(mean: float, spread: float = 0.02, seed: int = 0, names=("kidney",)):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    return {exam: {name: float(mean + spread * rng.standard_normal()) for name in names} for exam in SUBJECTS}


def test_criteria_are_fixed_and_have_one_digest() -> None:
    """What is recorded when the round opens comes back from JSON with the same digest and holds every number."""
    fixed = criteria(GATE, (KIDNEY, TUMOR), "c" * 64)
    again = Criteria.model_validate(fixed.model_dump(mode="json"))
    assert again == fixed and again.digest == fixed.digest == sha256_json(fixed.model_dump(mode="json"))
    assert fixed.alpha_per_structure == 0.025 and fixed.floor == {"kidney": 0.6, "tumor": 0.2}
    assert criteria(GATE, (KIDNEY,), None).digest != fixed.digest


def test_cold_start_needs_every_floor() -> None:
    """Without a champion each structure's mean Dice must reach its own floor."""
    fixed = criteria(GATE, (KIDNEY, TUMOR), None)
    good = {exam: {"kidney": 0.9, "tumor": 0.25} for exam in SUBJECTS}
    poor = {exam: {"kidney": 0.9, "tumor": 0.15} for exam in SUBJECTS}
    assert judge(fixed, good, None, SUBJECTS).passed
    failed = judge(fixed, poor, None, SUBJECTS)
    assert not failed.passed
    by_name = {c.structure: c for c in failed.criteria}
    assert by_name["kidney"].passed and by_name["tumor"].status == "failed"
    assert (by_name["tumor"].required, by_name["tumor"].measured) == (0.2, 0.15)


def test_clearly_better_and_slightly_worse_pass_and_much_worse_fails() -> None:
    """Non-inferiority: a loss inside the margin passes, one beyond fails; champion strength does not matter."""
    fixed = criteria(GATE, (KIDNEY,), "c")
    for new, passed in ((0.90, True), (0.79, True), (0.70, False)):
        verdict = judge(fixed, results(new, seed=1), results(0.80, seed=2), SUBJECTS)
        assert verdict.passed is passed, verdict.criteria
        assert verdict.criteria_digest == fixed.digest


def test_small_mean_loss_with_wide_spread_is_not_proven_harmless() -> None:
    """The bound decides, not the mean."""
    fixed = criteria(GATE, (KIDNEY,), "c")
    old = {exam: {"kidney": 0.5} for exam in SUBJECTS}
    new = {e: {"kidney": 0.49 + (0.3 if int(s[1:]) % 2 else -0.3)} for e, s in SUBJECTS.items()}
    verdict = judge(fixed, new, old, SUBJECTS).criteria[0]
    assert verdict.status == "failed" and verdict.mean_difference == pytest.approx(-0.01)


def test_exams_are_paired() -> None:
    """Exams that differ widely in difficulty do not hide that each one lost nothing."""
    fixed = criteria(GATE, (KIDNEY,), "c")
    old = results(0.5, 0.25, seed=3)
    new = {exam: {"kidney": (old[exam]["kidney"] or 0) + 0.01 * (i % 3)} for i, exam in enumerate(SUBJECTS)}
    assert judge(fixed, new, old, SUBJECTS).passed


def test_more_structures_make_each_bound_stricter() -> None:
    """Bonferroni: the same differences have a lower bound when two structures are judged."""
    one = judge(criteria(GATE, (KIDNEY,), "c"), results(0.8, seed=1), results(0.8, seed=2), SUBJECTS)
    names = ("kidney", "tumor")
    new, old = results(0.8, seed=1), results(0.8, seed=2)
    both = [{e: dict.fromkeys(names, r["kidney"]) for e, r in side.items()} for side in (new, old)]
    two = judge(criteria(GATE, (KIDNEY, TUMOR), "c"), both[0], both[1], SUBJECTS)
    assert two.criteria[0].measured < one.criteria[0].measured  # type: ignore[operator]


def test_same_model_again_passes() -> None:
    """Equal results have no spread; they are not inferior."""
    same = results(0.7)
    verdict = judge(criteria(GATE, (KIDNEY,), "c"), same, same, SUBJECTS).criteria[0]
    assert verdict.passed and verdict.measured == 0 and "equal" in verdict.detail


@pytest.mark.parametrize("side", ["challenger", "champion"])
@pytest.mark.parametrize("damage", ["exam", "structure", "nan", "foreign", "everything"])
def test_incomplete_results_never_pass(side: str, damage: str) -> None:
    """A missing exam, a missing structure, a NaN or a foreign exam on either side is `not_evaluable` and fails."""
    both = {"challenger": results(0.9), "champion": results(0.5, seed=1)}
    hurt = both[side]
    if damage == "exam":
        del hurt["e3"]
    elif damage == "structure":
        hurt["e3"] = {}
    elif damage == "nan":
        hurt["e3"] = {"kidney": float("nan")}
    elif damage == "foreign":
        hurt["other"] = {"kidney": 0.9}
    else:
        hurt.clear()
    verdict = judge(criteria(GATE, (KIDNEY,), "c"), both["challenger"], both["champion"], SUBJECTS)
    assert not verdict.passed
    assert verdict.criteria[0].status == "not_evaluable" and side in verdict.criteria[0].detail


def test_cold_start_with_missing_exam_or_absent_structure_never_passes() -> None:
    """The floor too refuses to judge what is not there."""
    fixed = criteria(GATE, (KIDNEY,), None)
    short = results(0.9)
    del short["e0"]
    nowhere = {exam: {"kidney": None} for exam in SUBJECTS}
    for given, subjects in ((short, SUBJECTS), (nowhere, SUBJECTS), ({}, {})):
        verdict = judge(fixed, given, None, subjects)
        assert not verdict.passed and verdict.criteria[0].status == "not_evaluable"


def test_exams_without_the_structure_are_left_out_and_counted() -> None:
    """In neither mask: no Dice, not a Dice of 1 that would lift the mean."""
    some = {exam: {"kidney": None if i % 2 else 0.5} for i, exam in enumerate(SUBJECTS)}
    verdict = judge(criteria(GATE, (KIDNEY,), None), some, None, SUBJECTS).criteria[0]
    assert (verdict.measured, verdict.n, verdict.excluded) == (0.5, 12, 12) and not verdict.passed


def test_challenger_that_invents_tumors_is_found() -> None:
    """Where the champion rightly drew nothing and the challenger draws something, that counts as 0 against 1."""
    old: dict[str, dict[str, float | None]] = {exam: {"kidney": None} for exam in SUBJECTS}
    new: dict[str, dict[str, float | None]] = {
        exam: {"kidney": 0.0 if i % 3 == 0 else None} for i, exam in enumerate(SUBJECTS)
    }
    old.update({"e1": {"kidney": 0.8}, "e5": {"kidney": 0.8}})
    new.update({"e1": {"kidney": 0.8}, "e5": {"kidney": 0.8}})
    verdict = judge(criteria(GATE, (KIDNEY,), "c"), new, old, SUBJECTS)
    assert not verdict.passed and verdict.criteria[0].status == "failed"


def test_too_few_subjects_are_not_evaluable_and_few_are_named() -> None:
    """Two subjects carry no bound; five carry one that says it is optimistic."""
    fixed = criteria(GATE, (KIDNEY,), "c")
    for exams, status in ((4, "not_evaluable"), (10, "passed")):
        subjects = dict(list(SUBJECTS.items())[:exams])
        new, old = ({e: r[e] for e in subjects} for r in (results(0.9, seed=1), results(0.8, seed=2)))
        verdict = judge(fixed, new, old, subjects).criteria[0]
        assert verdict.status == status
    assert "optimistic" in verdict.detail


def test_criteria_and_results_must_belong_together() -> None:
    """A champion's result without criteria for one, or the other way round, is a broken record."""
    with pytest.raises(IntegrityError):
        judge(criteria(GATE, (KIDNEY,), None), results(0.9), results(0.9), SUBJECTS)
    with pytest.raises(IntegrityError):
        judge(criteria(GATE, (KIDNEY,), "c"), results(0.9), None, SUBJECTS)


def test_false_promotion_rate_at_the_margin() -> None:
    """Twenty subjects exactly at the margin: the gate lets through about alpha of them, not many more."""
    fixed = criteria(GATE, (KIDNEY,), "c").model_copy(update={"resamples": 500})
    rng = np.random.default_rng(8)
    subjects = {f"e{i}": f"s{i}" for i in range(20)}
    old = {exam: {"kidney": 0.8} for exam in subjects}
    passed = sum(
        judge(fixed, {e: {"kidney": 0.75 + 0.05 * rng.standard_normal()} for e in subjects}, old, subjects).passed
        for _ in range(400)
    )
    assert passed / 400 < 0.10
