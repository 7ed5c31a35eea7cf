from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.sources.dicomweb.multipart import BrokenOff, Malformed, boundary_of, parts

BOUNDARY = b"ffe21012-fb33"
# Bytes that look like delimiters without being one are the hard case.
BODIES = st.lists(
    st.one_of(st.binary(max_size=80), st.sampled_from([b"", b"\r\n", b"\r\n--", b"\r\n--ffe21012", b"--", b"\r\n\r"])),
    min_size=1, max_size=5,
)  # fmt: skip


def encode(bodies: list[bytes], *, lengths: bool = True, preamble: bytes = b"", epilogue: bytes = b"\r\n") -> bytes:
    out = preamble
    for number, body in enumerate(bodies):
        out += (b"\r\n" if number or preamble else b"") + b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom"
        out += (b"\r\nContent-Length: %d" % len(body) if lengths else b"") + b"\r\n\r\n" + body
    return out + b"\r\n--" + BOUNDARY + b"--" + epilogue


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def read(chunks: list[bytes]) -> list[bytes]:
    return [b"".join(body) for body in parts(chunks, BOUNDARY)]


@given(BODIES, st.booleans(), st.sampled_from([b"", b"to be skipped"]), st.lists(st.integers(0, 10_000), max_size=8))
def test_bodies_come_back_however_the_network_cuts_them(
    bodies: list[bytes], lengths: bool, preamble: bytes, cuts: list[int]
) -> None:
    """What was encoded is decoded, byte for byte, for every way to cut the stream into pieces."""
    assert read(split(encode(bodies, lengths=lengths, preamble=preamble), cuts)) == bodies


@given(BODIES, st.booleans(), st.integers(1, 10_000), st.lists(st.integers(0, 10_000), max_size=3))
def test_a_body_that_ends_early_is_never_whole(bodies: list[bytes], lengths: bool, end: int, cuts: list[int]) -> None:
    """Cut off anywhere before its closing delimiter ends, a body raises, and gives no part that it did not hold."""
    whole = encode(bodies, lengths=lengths, epilogue=b"")
    arrived: list[bytes] = []
    with pytest.raises(BrokenOff):
        for body in parts(split(whole[: len(whole) - 1 - end % len(whole)], cuts), BOUNDARY):
            arrived.append(b"".join(body))
    assert arrived == bodies[: len(arrived)]


def test_a_part_shorter_than_it_says_is_broken_off() -> None:
    """A server that ends a part early and goes on is found out by the part's own length."""
    data = encode([b"12345678"]).replace(b"Content-Length: 8", b"Content-Length: 9")
    with pytest.raises(BrokenOff):
        read([data])


def test_parts_left_unread_are_skipped() -> None:
    """Who looks at the second part only still finds where it starts."""
    seen = [
        b"".join(body) if number else b"" for number, body in enumerate(parts([encode([b"one", b"two"])], BOUNDARY))
    ]
    assert seen == [b"", b"two"]


def test_little_is_held_at_a_time() -> None:
    """A part of 64 MB passes through in the pieces it came in."""
    piece = bytes(1 << 18)
    start = b"--" + BOUNDARY + b"\r\n\r\n"
    stream = [start, *[piece] * 256, b"\r\n--" + BOUNDARY + b"--"]
    (sizes,) = [[len(one) for one in body] for body in parts(iter(stream), BOUNDARY)]
    assert sum(sizes) == 256 * len(piece) and max(sizes) <= len(piece) + len(start)


@pytest.mark.parametrize(
    "data", [b"--" + BOUNDARY + b"junk\r\n\r\nbody", b"--" + BOUNDARY + b"\r\n" + b"a: b\r\n" * 9999]
)
def test_nonsense_is_refused(data: bytes) -> None:
    """A delimiter with text behind it, and a header without end, are no multipart body."""
    with pytest.raises(Malformed):
        read([data])


def test_boundaries_are_read_as_mime_says() -> None:
    """Quoted or not, whatever the case of the names; anything else is refused."""
    assert boundary_of('Multipart/Related; type="application/dicom"; Boundary="a b;c"') == b"a b;c"
    assert boundary_of("multipart/related; boundary=abc; type=application/dicom") == b"abc"
    for wrong in ("", "text/html; charset=utf-8", "multipart/related", "application/dicom; boundary=x"):
        with pytest.raises(Malformed):
            boundary_of(wrong)
