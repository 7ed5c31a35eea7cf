"""The promotion gate: criteria written down when a round opens, and a challenger judged by them when it closes.

Cold start (no champion): the challenger's mean Dice of every structure must reach its floor.
With a champion: for every structure the one-sided lower bound of the mean difference in Dice (challenger − champion),
paired by exam and clustered by subject, must exceed −margin (non-inferiority). With m structures each bound is taken at
alpha / m (Bonferroni), because all must hold and each is looked at.

An exam in which a structure is in neither mask carries no Dice. A floor leaves it out. A pair leaves it out when both
models agree on that; when only one model drew something where nothing is, the other agrees with the reference and
counts as Dice 1: a challenger that starts to invent tumours is found.

What cannot be evaluated fails: a missing exam or structure is a failed criterion with status `not_evaluable`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from redraft.config.schema import Gate, Structure
from redraft.digest import sha256_json
from redraft.errors import IntegrityError
from redraft.intervals import bca_interval

DicePerExam = Mapping[str, Mapping[str, float | None]]
# A bound from fewer subjects would be an artefact of resampling two values.
MIN_SUBJECTS = 3
# Measured on normal differences at alpha .05: the bound errs in 11 % of cases with three subjects, 7 % with four and
# five, 5 % from six on. Below six the criterion says so.
FEW_SUBJECTS = 6
RESAMPLES = 10_000
SEED = 20261121


class Criteria(BaseModel):
    """Everything that decides, fixed before a challenger exists. JSON; its digest goes into the round's record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    rule: Literal["floor", "non_inferiority"]
    test_set: str
    champion: str | None
    structures: tuple[str, ...]
    floor: dict[str, float]
    margin: float
    alpha: float
    alpha_per_structure: float
    min_subjects: int = MIN_SUBJECTS
    resamples: int = RESAMPLES
    seed: int = SEED
    method: str = "BCa bootstrap with levels expanded for few subjects; subjects resampled, exams paired"

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return sha256_json(self.model_dump(mode="json"))


class CriterionResult(BaseModel):
    """One criterion: `measured` must reach `required` (floor) or exceed it (non-inferiority)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["mean_dice_floor", "dice_non_inferiority"]
    structure: str
    required: float
    measured: float | None
    passed: bool
    status: Literal["passed", "failed", "not_evaluable"]
    detail: str
    n: int
    subjects: int
    excluded: int
    mean_difference: float | None = None


class GateResult(BaseModel):
    """The gate's verdict; it passes when every criterion passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    passed: bool
    rule: Literal["floor", "non_inferiority"]
    test_set: str
    champion: str | None
    criteria_digest: str
    criteria: tuple[CriterionResult, ...]


def criteria(gate: Gate, structures: Sequence[Structure], champion: str | None) -> Criteria:
    """The criteria of a round that opens now.

    Parameters
    ----------
    champion : digest of the model in use, or None on a cold start.
    """
    names = tuple(structure.name for structure in structures)
    return Criteria(
        rule="floor" if champion is None else "non_inferiority",
        test_set=gate.test_set,
        champion=champion,
        structures=names,
        floor={name: gate.floor.get(name, gate.default_floor) for name in names},
        margin=gate.margin,
        alpha=gate.alpha,
        alpha_per_structure=gate.alpha / len(names),
    )


def judge(
    fixed: Criteria, challenger: DicePerExam, champion: DicePerExam | None, subjects: Mapping[str, str]
) -> GateResult:
    """Judge a challenger.

    Parameters
    ----------
    fixed : the criteria recorded when the round opened.
    challenger, champion : exam to structure to Dice (None: in neither mask), as `dice_per_exam` gives it.
    subjects : exam to subject, for every exam of the test set: an exam that is here must be in both results.

    Raises
    ------
    IntegrityError
        The criteria name a champion and no result of it is given, or the other way round.
    """
    if (fixed.rule == "non_inferiority") != (champion is not None):
        raise IntegrityError(
            f"The round's criteria were fixed for {'a champion' if fixed.champion else 'a cold start'}; "
            f"{'no' if champion is None else 'a'} champion's result was given.",
            "Evaluate the champion that the round's record names.",
        )
    judged = _floor if champion is None else _non_inferiority
    results = tuple(judged(fixed, name, challenger, champion or {}, subjects) for name in fixed.structures)
    return GateResult(
        passed=bool(results) and all(result.passed for result in results),
        rule=fixed.rule,
        test_set=fixed.test_set,
        champion=fixed.champion,
        criteria_digest=fixed.digest,
        criteria=results,
    )


def _floor(
    fixed: Criteria, name: str, challenger: DicePerExam, _: DicePerExam, subjects: Mapping[str, str]
) -> CriterionResult:
    required = fixed.floor[name]
    missing = _missing(name, challenger, subjects)
    if missing:
        return _not_evaluable("mean_dice_floor", name, required, f"challenger: {missing}")
    values = {exam: challenger[exam][name] for exam in subjects}
    known = {exam: value for exam, value in values.items() if value is not None}
    if not known:
        return _not_evaluable("mean_dice_floor", name, required, "the structure is in no exam of the test set")
    mean = sum(known[exam] for exam in sorted(known)) / len(known)
    passed = mean >= required
    return CriterionResult(
        name="mean_dice_floor",
        structure=name,
        required=required,
        measured=round(mean, 6),
        passed=passed,
        status="passed" if passed else "failed",
        detail="mean Dice over exams",
        n=len(known),
        subjects=len({subjects[exam] for exam in known}),
        excluded=len(values) - len(known),
    )


def _non_inferiority(
    fixed: Criteria, name: str, challenger: DicePerExam, champion: DicePerExam, subjects: Mapping[str, str]
) -> CriterionResult:
    kind: Literal["dice_non_inferiority"] = "dice_non_inferiority"
    required = -fixed.margin
    for who, results in (("challenger", challenger), ("champion", champion)):
        missing = _missing(name, results, subjects)
        if missing:
            return _not_evaluable(kind, name, required, f"{who}: {missing}")
    differences: dict[str, float] = {}
    for exam in sorted(subjects):
        new, old = challenger[exam][name], champion[exam][name]
        if new is not None or old is not None:
            differences[exam] = (1.0 if new is None else new) - (1.0 if old is None else old)
    clusters = [subjects[exam] for exam in differences]
    count = len(set(clusters))
    if count < fixed.min_subjects:
        why = f"{count} subjects hold the structure; at least {fixed.min_subjects} are needed"
        return _not_evaluable(kind, name, required, why, len(differences), count)
    values = list(differences.values())
    interval = bca_interval(
        values,
        clusters,
        resamples=fixed.resamples,
        confidence=1 - 2 * fixed.alpha_per_structure,  # its lower end is the one-sided bound
        seed=fixed.seed,
    )
    detail = f"one-sided lower bound at {1 - fixed.alpha_per_structure:.4g}"
    if count < FEW_SUBJECTS:
        detail += f"; {count} subjects only, the bound is optimistic"
    bound = interval.lo
    if bound is None:
        if max(values) - min(values) > 1e-12:
            return _not_evaluable(kind, name, required, str(interval.reason), len(values), count)
        # Equal differences have no spread to resample; the same model again must not fail for being the same.
        bound, detail = values[0], "all paired differences are equal; the bound is their value"
    passed = bound > required
    return CriterionResult(
        name=kind,
        structure=name,
        required=required,
        measured=round(bound, 6),
        passed=passed,
        status="passed" if passed else "failed",
        detail=detail,
        n=len(values),
        subjects=count,
        excluded=len(subjects) - len(values),
        mean_difference=None if interval.mean is None else round(interval.mean, 6),
    )


def _missing(name: str, results: DicePerExam, subjects: Mapping[str, str]) -> str | None:
    """What is not as it must be for an evaluation, or None."""
    if not subjects:
        return "the test set is empty"
    absent = sorted(exam for exam in subjects if not _known(results.get(exam, {}), name))
    if absent:
        return f"no result for {len(absent)} of {len(subjects)} exams ({', '.join(absent[:3])})"
    foreign = sorted(set(results) - set(subjects))
    if foreign:
        return f"results for {len(foreign)} exams outside the test set ({', '.join(foreign[:3])})"
    return None


def _known(result: Mapping[str, float | None], name: str) -> bool:
    if name not in result:
        return False
    value = result[name]
    return value is None or math.isfinite(value)


def _not_evaluable(
    kind: Literal["mean_dice_floor", "dice_non_inferiority"],
    name: str,
    required: float,
    why: str,
    n: int = 0,
    subjects: int = 0,
) -> CriterionResult:
    return CriterionResult(
        name=kind,
        structure=name,
        required=required,
        measured=None,
        passed=False,
        status="not_evaluable",
        detail=why,
        n=n,
        subjects=subjects,
        excluded=0,
    )
