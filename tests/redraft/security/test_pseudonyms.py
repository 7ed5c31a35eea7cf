"""Pseudonyms: stable, keyed, separated by kind."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms

P = Pseudonyms(KeyRing.published_demo())
KINDS = (P.subject_id, P.series_id, P.exam_id, P.source_tag)
# What a header or a file name can hold, bytes that are no UTF-8 included.
NAMES = st.text(max_size=64) | st.binary(max_size=16).map(lambda b: b.decode("utf-8", "surrogateescape"))


@given(NAMES)
def test_same_input_same_pseudonym_and_every_kind_its_own(name: str) -> None:
    """A second project handle with the same key agrees; a subject, series, exam and source of one name differ."""
    again = Pseudonyms(KeyRing.published_demo())
    tags = [kind(name) for kind in KINDS]
    assert tags == [again.subject_id(name), again.series_id(name), again.exam_id(name), again.source_tag(name)]
    assert len(set(tags)) == len(tags)
    assert all(re.fullmatch("[0-9a-f]{20}", tag) for tag in tags)


@given(NAMES, NAMES)
def test_different_inputs_differ(a: str, b: str) -> None:
    """Two patients never share a pseudonym (80 bits)."""
    assert (P.subject_id(a) == P.subject_id(b)) == (a == b)


def test_it_is_hmac_sha256() -> None:
    """The construction worked out with the standard library alone."""
    key = KeyRing.published_demo().derive("pseudonym")
    assert P.subject_id("4711") == hmac.new(key, b"subject\x004711", hashlib.sha256).hexdigest()[:20]


def test_another_key_another_pseudonym(tmp_path: Path) -> None:
    """Without the key nothing leads from the pseudonym back, and no two projects share one."""
    other = Pseudonyms(KeyRing.create(tmp_path / "key.json"))
    assert other.subject_id("4711") != P.subject_id("4711")
    assert other.uid("1.2.3") != P.uid("1.2.3")


@given(st.from_regex(r"1(\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True))
def test_uids_are_valid_dicom(original: str) -> None:
    """PS3.5 9.1 and B.2: 2.25 and a 128-bit integer, 64 characters at most, no leading zero."""
    uid = P.uid(original)
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", uid)
    assert len(uid) <= 64
    assert int(uid.removeprefix("2.25.")) < 2**128
    assert uid == P.uid(original) != original
