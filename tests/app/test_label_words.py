"""Every rule by which finished work is left has words on the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.cli.label_words import WHY, why

ROOT = Path(__file__).resolve().parents[2]
# Where such rules are raised: collecting, the PACS, reading NRRD and DICOM labels.
SOURCES = (
    "tasks/dispatch/backends.py", "tasks/dispatch/dicomweb.py", "tasks/dispatch/pacs_work.py",
    "redraft/sources/dicomweb/returns.py", "redraft/segmentation/place.py", "redraft/segmentation/structures.py",
)  # fmt: skip
RULE = re.compile(r'(?:rule=|bad\(\s*)"([a-z_]+)"')


@pytest.mark.parametrize("source", SOURCES)
def test_every_rule_has_words(source: str) -> None:
    """The rule's name alone tells a reader nothing."""
    rules = set(RULE.findall((ROOT / source).read_text()))
    assert rules and rules <= set(WHY), rules - set(WHY)


def test_a_rule_without_words_is_still_named() -> None:
    """New rules show by their name."""
    assert why("something_new") == "something_new"
    assert why("token").endswith("[token]") and "handing-out" in why("token")
