"""Signs of too much trust in drafts. Each is a reason to look twice, none of them a fault.

`accept_streak`: a reader who takes drafts unchanged far more often than the others do in the same round. With K of N
such readings by all others, their true share is at most p (one-sided 95 % bound, Clopper and Pearson, Biometrika 26
(1934) 404); a reader with k of n is out of line when k or more would come about by chance in less than 1 % of cases at
that p. With fewer than five readings on either side nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FEWEST = 5
BOUND = 0.95
UNLIKELY = 0.01
# Origins of minutes that a clock took; typed and imported ones are no ground to call work fast.
CLOCKED = ("measured", "simulated")


def is_unchanged_accept(verdict: str, voxels_changed: int | None) -> bool:
    """Whether a draft was taken as it was."""
    return verdict == "accept" and voxels_changed == 0


def chance(k: int, n: int, others_k: int, others_n: int) -> float | None:
    """Probability of `k` unchanged accepts or more among `n`, at the bound of the others' share; None with too few."""
    from scipy import stats

    if n < FEWEST or others_n < FEWEST:
        return None
    bound = 1.0 if others_k == others_n else float(stats.beta.ppf(BOUND, others_k + 1, others_n - others_k))
    return float(stats.binom.sf(k - 1, n, bound))


def streaks(work: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """Per reader the chance of their unchanged accepts, where something can be said.

    Parameters
    ----------
    work : reader and whether the draft was taken unchanged, of every assisted training reading of the round.
    """
    counts: dict[str, list[int]] = {}
    for reader, unchanged in work:
        mine = counts.setdefault(reader, [0, 0])
        mine[0] += unchanged
        mine[1] += 1
    total = [sum(c[0] for c in counts.values()), sum(c[1] for c in counts.values())]
    found = {}
    for reader, (k, n) in sorted(counts.items()):
        p = chance(k, n, total[0] - k, total[1] - n)
        if p is not None:
            found[reader] = p
    return found


def mark(rows: Iterable[dict[str, Any]], found: Mapping[str, float]) -> None:
    """Give each unchanged accept its reader's chance (column `accept_chance`); other rows none."""
    for row in rows:
        if is_unchanged_accept(row["verdict"], row["voxels_changed"]) and row["reader_id"] in found:
            row["accept_chance"] = found[row["reader_id"]]
