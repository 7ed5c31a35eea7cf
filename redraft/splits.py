"""Drawing subjects into pool, validation, test and external sets: once per subject, for ever."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from redraft.config.schema import Splits
from redraft.digest import sha256_bytes
from redraft.errors import StateError

UNDRAWN = "undrawn"
POOL, VALIDATION, TEST = "pool", "validation", "test"


def draw_splits(strata: Mapping[str, str], drawn: Mapping[str, str], config: Splits, seed: int) -> dict[str, str]:
    """Draw every subject that has no split yet.

    Within each stratum subjects are taken in the order of SHA-256(seed, subject), so the draw depends on who is there
    and never on the order of arrival. Quotas are shares of all subjects, at least the configured minimum; what earlier
    draws gave counts. Filling goes round the strata in proportion, so that each set looks like the whole.

    Parameters
    ----------
    strata : mapping of subject_id to stratum
        Every known subject outside the external sets.
    drawn : mapping of subject_id to split
        Subjects drawn before; never drawn again.

    Returns
    -------
    dict of subject_id to split, for the new subjects only.

    Raises
    ------
    StateError
        When there are too few subjects for the minimum counts and one pool subject.
    """
    total = len(strata)
    need = config.min_test + config.min_validation + 1
    if total < need:
        raise StateError(
            f"{total} subjects are in; splits need at least {need} "
            f"({config.min_test} test, {config.min_validation} validation, 1 pool).",
            "Ingest more exams, or lower splits.min_test / splits.min_validation in project.yaml.",
            code="state.too_few_subjects",
        )
    quota = {
        TEST: max(config.min_test, round(config.test * total)),
        VALIDATION: max(config.min_validation, round(config.validation * total)),
    }
    if sum(quota.values()) >= total:
        raise StateError(
            f"Validation and test would take all {total} subjects.", "Lower splits.validation or splits.test."
        )
    waiting: dict[str, list[str]] = defaultdict(list)
    for subject, stratum in strata.items():
        if subject not in drawn:
            waiting[stratum].append(subject)
    for members in waiting.values():
        members.sort(key=lambda subject: sha256_bytes(f"{seed}/{subject}".encode()))
    new: dict[str, str] = {}
    for split in (TEST, VALIDATION):
        missing = quota[split] - sum(1 for value in drawn.values() if value == split)
        for subject in _interleave(waiting, max(0, missing)):
            new[subject] = split
    for members in waiting.values():
        new.update(dict.fromkeys(members, POOL))
    return new


def _interleave(waiting: dict[str, list[str]], count: int) -> Sequence[str]:
    """Take `count` subjects, each time from the stratum with the largest share still untaken; removes what it takes.

    Half a subject is set aside (Webster's method), else a stratum of one would always be taken whole.
    """
    size = {stratum: len(members) for stratum, members in waiting.items()}
    taken: list[str] = []
    while len(taken) < count and any(waiting.values()):
        stratum = max(sorted(waiting), key=lambda s: (len(waiting[s]) - 0.5) / size[s] if waiting[s] else -1.0)
        taken.append(waiting[stratum].pop(0))
    return taken
