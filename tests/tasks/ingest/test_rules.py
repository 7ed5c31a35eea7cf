"""Every rule that a receipt can name is explained, and nothing is explained that no code says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tasks.ingest.rules import RULES, explain

REPOSITORY = Path(__file__).resolve().parents[3]
ROOMS = ("redraft/dicom", "redraft/sources", "redraft/deid", "tasks/ingest")
# Rooms whose rules are about labels, truths and names of keys, not about what is offered.
OTHERS = {"redraft/dicom/contours.py", "tasks/ingest/rules.py"}
RAISES = {"ReadError", "GeometryError", "SetAside", "TransferError", "Refused", "not_as_announced"}


def sources() -> list[Path]:
    found = [path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py")] + [REPOSITORY / "redraft/workers.py"]
    return [path for path in found if str(path.relative_to(REPOSITORY)) not in OTHERS]


def raised() -> set[str]:
    """Rules that errors of one exam are raised with."""
    rules = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in RAISES:
                for keyword in node.keywords:
                    if keyword.arg == "rule" and isinstance(keyword.value, ast.Constant):
                        rules.add(str(keyword.value.value))
    return rules


def test_every_rule_is_explained() -> None:
    """A receipt never names a rule that the terminal cannot put into words."""
    rules = raised()
    assert len(rules) > 40
    assert rules - set(RULES) == set()


def test_no_rule_is_made_up() -> None:
    """What is explained stands in the code that judges."""
    texts = "\n".join(path.read_text(encoding="utf-8") for path in sources())
    assert [rule for rule in RULES if rule not in texts] == []


@pytest.mark.parametrize("rule", ["derived_mip", "label_unreadable", "derived_secondary", "missing_slices"])
def test_rules_with_a_kind_are_explained_too(rule: str) -> None:
    """What was computed, or what is wrong with a label, is part of the rule's name."""
    meaning, do = explain(rule)
    assert meaning and do.endswith(".")
