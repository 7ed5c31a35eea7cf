"""The manifest of intake: every series that was ever offered, what became of it, and why; totals that add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

VERDICTS = ("admitted", "quarantined", "refused")


def intake_report(receipts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Receipts of the ledger as one manifest.

    A series counts once: as admitted if it ever was (its exam is there, whatever was offered later under its name),
    else by its last receipt. What is offered again unchanged leaves no receipt.

    Returns
    -------
    dict
        `series` (one entry each, ordered by pseudonym, with `others`, its further receipts), `rules` (verdict, rule,
        source, number of series and files) and `totals` (series and files, in all and by verdict). The counts of
        `rules` add up to `totals`, and those to the length of `series`.
    """
    by_series: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(receipts, key=lambda row: (row["at"], row["receipt_id"])):
        by_series.setdefault(row["series_id"], []).append(row)
    series = []
    rules: dict[tuple[str, str, str], list[int]] = {}
    for series_id, rows in sorted(by_series.items()):
        last = next((row for row in reversed(rows) if row["verdict"] == "admitted"), rows[-1])
        series.append({**_entry(last), "series": series_id, "others": [_entry(row) for row in rows if row is not last]})
        count = rules.setdefault((last["verdict"], last["rule"], last["intake_id"]), [0, 0])
        count[0] += 1
        count[1] += last["files"]
    table = [
        {"verdict": verdict, "rule": rule, "source": source, "series": n, "files": files}
        for (verdict, rule, source), (n, files) in sorted(rules.items())
    ]

    def total(*verdicts: str) -> dict[str, int]:
        counts = [count for (verdict, _, _), count in rules.items() if verdict in verdicts]
        return {"series": sum(n for n, _ in counts), "files": sum(files for _, files in counts)}

    totals = {**total(*VERDICTS), **{verdict: total(verdict) for verdict in VERDICTS}}
    return {"series": series, "rules": table, "totals": totals}


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("verdict", "rule", "measured", "files", "exam_id", "at")
    return {**{name: row[name] for name in names}, "source": row["intake_id"]}
