"""What codes of the ledger are called on pages, in words of a reading room; and times as people say them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

VERDICTS = {
    "accept": "draft accepted",
    "correct": "draft corrected",
    "reject": "draft of no use, drawn anew",
    "scratch": "drawn from scratch",
}
# What becomes of work that a reader handed in.
NOW = {
    "RETURNED": "being checked",
    "IN_REVIEW": "a second person looks at it",
    "ACCEPTED": "taken in",
    "REJECTED": "sent back without a segmentation",
}
ROUND = {
    "OPENING": "is being opened",
    "AWAITING_ANNOTATION": "awaits annotation",
    "CLOSING": "is being closed",
    "AWAITING_APPROVAL": "awaits a decision on its model",
    "PROMOTED": "its model is in use",
    "HELD": "its model was held back",
    "FAILED": "failed",
    "ABORTED": "aborted",
}
WHERE = {
    "review": "on these pages",
    "folder": "in programs of their own, from folders",
    "dicomweb": "in the archive's viewer",
    "simulated": "as a simulation",
}
WHY = {"soft": "flagged", "sample": "drawn by chance", "reopened": "opened again"}
RULES = {
    "very_fast": "finished very quickly",
    "fast_accept": "accepted within seconds",
    "unchanged_correction": "a correction that changed nothing",
    "accept_streak": "accepted far more often than others do",
    "mostly_redrawn": "mostly redrawn",
    "structure_removed": "a structure removed",
    "components": "more pieces than expected",
    "volume": "unusual volume",
    "no_times": "came without minutes",
}
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def spoken(name: str) -> str:
    """A structure's name as people say it."""
    return name.replace("_", " ")


def rule(code: str) -> str:
    """A soft rule as people say it."""
    return RULES.get(code, spoken(code))


def minutes(value: float) -> str:
    """A time span: `40 s`, `12 min`, `2 h 05 min`."""
    if value < 1:
        return f"{round(value * 60)} s"
    whole = round(value)
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60:02d} min"


def relative(iso: str, now: datetime | None = None) -> str:
    """How far away a moment is: `in 3 days`, `2 hours ago`."""
    seconds = (datetime.fromisoformat(iso) - (now or datetime.now(UTC))).total_seconds()
    for unit, size in _UNITS:
        if abs(seconds) >= size:
            count = int(abs(seconds) // size)
            words = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"in {words}" if seconds > 0 else f"{words} ago"
    return "just now" if seconds < 0 else "in less than a minute"


def figure(value: float | None) -> str:
    """A measured share or distance with three decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def _looked_up(table: Mapping[str, str]) -> Callable[[str], str]:
    return lambda code: table.get(code, spoken(code.lower()))


FILTERS: dict[str, Callable[..., Any]] = {
    "spoken": spoken,
    "rule": rule,
    "minutes": minutes,
    "figure": figure,
    "relative": relative,
    "verdict": _looked_up(VERDICTS),
    "now": _looked_up(NOW),
    "state": _looked_up(ROUND),
    "why": _looked_up(WHY),
    "where": _looked_up(WHERE),
}


def work_title(item: Mapping[str, Any]) -> str:
    """What to do with an assignment, in a few words."""
    if item.get("returned") is not None:
        return "Look again, and hand in again"
    return "A draft to correct" if item["mode"] == "assisted" else "To draw from scratch"


def work_means(item: Mapping[str, Any]) -> str:
    """Why it is worked this way, for the person who does it."""
    if item["mode"] == "assisted":
        return "A model drew a draft. Correct it where it is wrong, or accept it as it is."
    if item["purpose"] == "reference":
        return "Models are tested against this exam. Draw with care; no draft is shown."
    return "No draft is shown: your time here is the yardstick for what drafts save."
