"""Tokens and signatures hold for one package, one reader, one attempt, one result, one label: and for nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from redraft.reasons import REASONS, reasons_for
from redraft.security.keys import KeyRing
from redraft.signing import same_token, sign_result, token, verify_result

KEYS = KeyRing.published_demo()
OTHERS = KeyRing(bytes(32), 1)
RESULT: dict[str, Any] = {
    "assignment_id": "a", "reader_id": "r", "verdict": "correct", "reason_code": None, "no_label": False,
    "minutes": {"kidney": {"active": 6.5, "idle": 0.25, "away": 0.0}}, "origin": "measured", "signature": None,
}  # fmt: skip
LABEL = "ab" * 32
PACKAGES = st.tuples(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8), st.integers(1, 9))


@given(one=PACKAGES, other=PACKAGES)
def test_a_token_names_one_package(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    """The same package has one token; another assignment, reader, attempt or key has another."""
    assert same_token(token(KEYS, *one), token(KEYS, *one))
    assert not same_token(token(KEYS, *one), token(OTHERS, *one))
    assume(one != other)
    assert not same_token(token(KEYS, *one), token(KEYS, *other))


def test_what_was_signed_verifies() -> None:
    """With the signature in its field, whatever stood there before; without a label too."""
    for label in (LABEL, None):
        signed = {**RESULT, "signature": sign_result(KEYS, RESULT, label)}
        assert verify_result(KEYS, signed, label)
        assert sign_result(KEYS, signed, label) == signed["signature"]


@pytest.mark.parametrize("field", sorted(RESULT))
def test_no_field_can_be_changed(field: str) -> None:
    """Any other value of any field breaks the signature; so do another label, another key, and no signature."""
    signed = {**RESULT, "signature": sign_result(KEYS, RESULT, LABEL)}
    changed = copy.deepcopy(signed)
    changed[field] = "another"
    assert not verify_result(KEYS, changed, LABEL)
    assert not verify_result(KEYS, signed, "cd" * 32) and not verify_result(KEYS, signed, None)
    assert not verify_result(OTHERS, signed, LABEL)
    for nothing in (None, "", "xyz", 7):
        assert not verify_result(KEYS, {**signed, "signature": nothing}, LABEL)


def test_reasons_say_what_follows() -> None:
    """A consequence where no label comes, none where one does; who draws from scratch is not asked about a draft."""
    assert all((reason.consequence is not None) == reason.no_label for reason in REASONS)
    assert len({reason.code for reason in REASONS}) == len(REASONS)
    assert set(reasons_for("assisted")) == set(REASONS)
    assert not any("draft" in reason.code for reason in reasons_for("from_scratch"))
