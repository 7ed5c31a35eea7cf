"""Which times a saving may compare: those of one origin, never a mixture.

A clock and a memory err differently, and readers who type their minutes round them: a saving between measured and typed
times would be a difference between two ways of telling time. So measured times stand alone where both arms have any;
otherwise times that somebody stated (typed or imported) stand together and are named so. What is left over is reported
on lines of its own. Work whose revisions were timed in different ways is a line of its own too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tasks.account.rows import Case

Group = Literal["measured", "stated", "simulated", "mixed"]


def group_of(case: Case) -> Group:
    """The group in which a case may be compared."""
    if case.origins == {"measured"}:
        return "measured"
    if case.origins == {"simulated"}:
        return "simulated"
    return "stated" if case.origins <= {"typed", "imported"} else "mixed"


def choose(found: Sequence[Case]) -> tuple[tuple[Case, ...], ...]:
    """Cases by group: first those that the report's savings come from, then the others."""
    groups: dict[Group, list[Case]] = {}
    for case in found:
        groups.setdefault(group_of(case), []).append(case)
    order: list[Group] = ["simulated", "measured", "stated", "mixed"]
    if "stated" in groups and {case.mode for case in groups.get("measured", ())} != {"assisted", "from_scratch"}:
        order = ["simulated", "stated", "measured", "mixed"]
    if set(groups) == {"mixed"}:
        return ((), tuple(groups["mixed"]))  # a mixture is never the report's own number
    chosen = tuple(tuple(groups[group]) for group in order if group in groups)
    return chosen or ((),)


def name_of(found: Sequence[Case]) -> str:
    """The origins of a group in words; `none` where it is empty."""
    return " and ".join(sorted({origin for case in found for origin in case.origins})) or "none"
