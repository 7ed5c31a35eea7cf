"""How well reading goes: seeded errors noticed, readers' agreement, flags, what second looks decided and took.

Readers are named by their ids, accounts by theirs. Intervals of shares are exact (Clopper and Pearson 1934), of mean
agreement BCa over subjects (redraft.intervals). A structure that neither reader of a pair drew has no agreement and is
counted as `absent`.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Any

from redraft.config.schema import RateCard
from redraft.intervals import bca_interval
from redraft.look_times import look_minutes, looks, roles
from redraft.project import Project

Row = dict[str, Any]


def exact_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """The exact binomial interval of k of n; None where nothing was tried."""
    from scipy import stats

    if n == 0:
        return None
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(stats.beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(stats.beta.ppf(1 - tail, k + 1, n - k))
    return low, high


def quality_report(project: Project, number: int | None = None) -> Row:
    """The report of all rounds, or of one. Keys: detection, agreement, flags, reviews, rejections, second_looks."""
    ledger = project.ledger

    def of(table: str) -> list[Row]:
        return [row for row in ledger.rows(table) if number is None or row["round"] == number]

    return {
        "round": number,
        "confidence": project.config.bootstrap.confidence,
        "detection": _detection(of("seeded_error"), project),
        "agreement": _agreement(project, of("agreement")),
        "flags": _flags(project, of("validation")),
        "reviews": _reviews(of("review")),
        "rejections": dict(sorted(Counter(row["reason_code"] for row in of("rejection")).items())),
        "second_looks": _second_looks(project, number),
    }


def _detection(rows: list[Row], project: Project) -> list[Row]:
    """Per structure, and over all: of the seeded errors that came back, how many were noticed."""
    found = []
    for name in [*(s.name for s in project.config.structures), None]:
        mine = [row for row in rows if name is None or row["structure"] == name]
        back = [row for row in mine if row["outcome"] != "pending"]
        hits = sum(row["outcome"] == "detected" for row in back)
        bounds = exact_interval(hits, len(back), project.config.bootstrap.confidence)
        shares = [row["corrected"] for row in back if row["corrected"] is not None]
        found.append(
            {
                "structure": name,
                "n": len(back),
                "pending": len(mine) - len(back),
                "detected": hits,
                "rate": hits / len(back) if back else None,
                "lo": bounds[0] if bounds else None,
                "hi": bounds[1] if bounds else None,
                "mean_corrected": sum(shares) / len(shares) if shares else None,
                "kinds": dict(sorted(Counter(row["kind"] for row in back if row["outcome"] == "missed").items())),
            }
        )
    return found


def _agreement(project: Project, rows: list[Row]) -> list[Row]:
    """Per round and structure, mean Dice and surface Dice of all pairs of readings."""
    config = project.config
    subjects = {row["exam_id"]: row["subject_id"] for row in project.ledger.rows("exam")}
    found = []
    for number in sorted({row["round"] for row in rows}):
        for structure in config.structures:
            mine = [row for row in rows if row["round"] == number and row["structure"] == structure.name]
            drawn = [row for row in mine if row["dice"] is not None]
            entry: Row = {
                "round": number, "structure": structure.name, "tolerance_mm": structure.tolerance_mm,
                "absent": len(mine) - len(drawn),
            }  # fmt: skip
            for metric in ("dice", "surface_dice"):
                interval = bca_interval(
                    [row[metric] for row in drawn], [subjects[row["exam_id"]] for row in drawn],
                    resamples=config.bootstrap.resamples, confidence=config.bootstrap.confidence, seed=config.seed,
                )  # fmt: skip
                keys = {"mean", "lo", "hi", "n", "clusters", "method", "reason"}
                entry[metric] = interval.model_dump(mode="json", include=keys)
            found.append(entry)
    return found


def _flags(project: Project, rows: list[Row]) -> list[Row]:
    """How often each soft rule was broken, by rule and reader; judged again at close it is one flag still."""
    reader = {row["annotation_id"]: row["reader_id"] for row in project.ledger.rows("annotation")}
    seen = {(item["rule"], reader[row["annotation_id"]], row["annotation_id"]) for row in rows for item in row["soft"]}
    counts = Counter((rule, who) for rule, who, _ in seen)
    return [{"rule": rule, "reader_id": who, "annotations": n} for (rule, who), n in sorted(counts.items())]


def _reviews(rows: list[Row]) -> list[Row]:
    """Outcomes by why there was a second look."""
    found = []
    for why in ("soft", "sample", "reopened"):
        mine = [row for row in rows if row["why"] == why]
        states = Counter(row["state"] for row in mine)
        done = states["accepted"] + states["returned"]
        bounds = exact_interval(states["returned"], done)
        found.append(
            {
                "why": why, "open": states["open"], "accepted": states["accepted"], "returned": states["returned"],
                "returned_lo": bounds[0] if bounds else None, "returned_hi": bounds[1] if bounds else None,
                "reasons": dict(sorted(Counter(r["reason_code"] for r in mine if r["reason_code"]).items())),
            }
        )  # fmt: skip
    return found


def _second_looks(project: Project, number: int | None) -> Row:
    """Minutes and money of decided reviews and adjudications; those whose page sent no times are counted apart."""
    ledger, card = project.ledger, project.rates
    minutes = look_minutes(ledger, project.config.time)
    paid_as = roles(ledger, project.config)
    found: Row = {"currency": card.currency, "decided": 0, "timed": 0, "active_minutes": 0.0, "unpriced": 0}
    money = Decimal(0)
    for look in looks(ledger):
        if number is not None and look["round"] != number:
            continue
        found["decided"] += 1
        spent = minutes.get((look["record_id"], look["account_id"]))
        if spent is None:
            continue
        found["timed"] += 1
        found["active_minutes"] += spent["active"]
        rate = _rate(card, paid_as[look["account_id"]], project.config.money.site, datetime.fromisoformat(look["at"]))
        if rate is None:
            found["unpriced"] += 1
        else:
            money += Decimal(repr(spent["active"])) / 60 * rate
    found["active_minutes"] = round(found["active_minutes"], 2)
    return {**found, "cost": str(money.quantize(Decimal("0.01")))}


def _rate(card: RateCard, role: str, site: str, at: datetime) -> Decimal | None:
    """The hourly rate of that day, or None where the card has none: a second look is never priced by a guess."""
    valid = [r for r in card.rates if (r.role, r.site) == (role, site) and r.valid_from <= at.date()]
    return max(valid, key=lambda rate: rate.valid_from).per_hour if valid else None
