"""Masks on the wire: what was drawn is what arrives, and nothing else is taken for a mask."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from redraft.desk.mask import pack, unpack
from redraft.errors import UsageError
from redraft.volumes import Volume, write_volume
from tests.bombs import gzip_bomb

SHAPES = st.tuples(*(st.integers(1, 9),) * 3)
VALUES = (1, 2, 250)
MASKS = SHAPES.flatmap(lambda shape: arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, *VALUES])))


@st.composite
def affines(draw: Any) -> NDArray[np.float64]:
    """Any grid in patient space: axes permuted and flipped, oblique, with any spacing and origin."""
    angles = draw(st.tuples(*(st.floats(-3.1, 3.1),) * 3))
    a, b, c = angles
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    turned = z @ y @ x if draw(st.booleans()) else np.eye(3)
    order = np.eye(3)[list(draw(st.permutations(range(3))))]
    flips = np.diag(draw(st.tuples(*(st.sampled_from([-1.0, 1.0]),) * 3)))
    spacing = np.diag(draw(st.tuples(*(st.floats(0.2, 9.0),) * 3)))
    affine = np.eye(4)
    affine[:3, :3] = turned @ order @ flips @ spacing
    affine[:3, 3] = draw(st.tuples(*(st.floats(-900, 900),) * 3))
    return affine.astype(np.float32).astype(np.float64)


@settings(max_examples=150, deadline=None)
@given(mask=MASKS, affine=affines())
def test_the_stored_label_is_what_was_sent(
    mask: NDArray[np.uint8], affine: NDArray[np.float64], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From a browser's bytes to label.nii.gz on any grid, read back by nibabel: each voxel, and where it lies."""
    sent = bytearray()
    i, j, k = mask.shape
    for z in range(k):  # the wire's order, spelled out
        for y in range(j):
            for x in range(i):
                sent.append(int(mask[x, y, z]))
    arrived = unpack(gzip.compress(bytes(sent)), mask.shape, VALUES)
    path = tmp_path_factory.mktemp("label") / "label.nii.gz"
    write_volume(path, Volume(arrived.array(mask.shape), affine))
    label = nib.load(path)
    np.testing.assert_array_equal(np.asanyarray(label.dataobj), mask)
    np.testing.assert_array_equal(label.affine, affine)
    assert arrived.voxels == int((mask > 0).sum())


@settings(max_examples=100, deadline=None)
@given(mask=MASKS, level=st.integers(0, 9))
def test_packing_is_undone_by_unpacking_and_by_others(mask: NDArray[np.uint8], level: int) -> None:
    """One drawing has one name, whoever packed it; Python's gzip reads what we pack."""
    ours = pack(mask)
    raw = mask.tobytes(order="F")
    assert gzip.decompress(ours.packed) == raw and pack(mask).packed == ours.packed
    theirs = unpack(gzip.compress(raw, level), mask.shape, VALUES)
    assert (theirs.raw, theirs.sha256, theirs.voxels) == (ours.raw, ours.sha256, ours.voxels)


@settings(max_examples=100, deadline=None)
@given(mask=MASKS, data=st.data())
def test_a_damaged_stream_is_never_a_mask(mask: NDArray[np.uint8], data: st.DataObject) -> None:
    """Cut anywhere, with anything behind it, or with a flipped bit: refused, or the very same mask."""
    packed = pack(mask).packed
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    behind = packed + data.draw(st.binary(min_size=1, max_size=40))
    for broken in (cut, behind):
        with pytest.raises(UsageError) as caught:
            unpack(broken, mask.shape, VALUES)
        assert caught.value.code == "work.not_gzip"
    at = data.draw(st.integers(0, len(packed) - 1))
    flipped = bytearray(packed)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert unpack(bytes(flipped), mask.shape, VALUES).raw == mask.tobytes(order="F")  # a bit of the header
    except UsageError as error:
        assert error.code in ("work.not_gzip", "work.grid")


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, more=st.integers(-5, 5).filter(bool))
def test_another_number_of_voxels_is_another_image(mask: NDArray[np.uint8], more: int) -> None:
    """Too few and too many are told as such."""
    raw = mask.tobytes() + bytes(more) if more > 0 else mask.tobytes()[:more]
    with pytest.raises(UsageError) as caught:
        unpack(gzip.compress(raw), mask.shape, VALUES)
    assert caught.value.code == "work.grid"


def test_values_are_the_structures_or_nothing() -> None:
    """0 and the listed values; the message names a stranger."""
    mask = np.array([0, 1, 2, 3], np.uint8).reshape(4, 1, 1)
    assert unpack(gzip.compress(mask.tobytes()), mask.shape, {1, 2, 3}).voxels == 3
    with pytest.raises(UsageError, match=r"\[3\]") as caught:
        unpack(gzip.compress(mask.tobytes()), mask.shape, {1, 2})
    assert caught.value.code == "work.values"


def test_a_bomb_takes_no_more_memory_than_its_image(tmp_path: Path) -> None:
    """10 GiB behind 10 MB: refused, in a process whose memory ends at 1 GiB."""
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip_bomb(10 << 30))
    code = (
        "import resource, sys\n"
        "from redraft.desk.mask import unpack\n"
        "from redraft.errors import UsageError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try:\n"
        "    unpack(open(sys.argv[1], 'rb').read(), (256, 256, 100), {1})\n"
        "except UsageError as error:\n"
        "    print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "work.grid", done.stderr[-1000:]
