"""Images for browsers hold every value exactly, in the smallest type, on the same grid; and are made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from redraft.digest import sha256_file
from redraft.errors import IntegrityError
from redraft.volumes import Volume, write_volume
from tasks.dispatch.review import image as module
from tasks.dispatch.review.image import OFFSET, exact_type, prepare
from tasks.dispatch.review.windows import windows

SHAPES = st.tuples(*(st.integers(1, 6),) * 3)
ARRAYS = st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]).flatmap(
    lambda kind: arrays.arrays(
        kind, SHAPES, elements=arrays.from_dtype(np.dtype(kind), allow_nan=False, allow_infinity=False)
    )
)
AFFINE = np.array([[0, -1.5, 0.25, 5], [2, 0, 0, -3], [0, 0.5, -3, 7], [0, 0, 0, 1]])


@settings(max_examples=120, deadline=None)
@given(array=ARRAYS)
def test_every_value_arrives(array: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """nibabel reads the voxels and the affine that were put in, little-endian; each slice is the array's."""
    folder = tmp_path_factory.mktemp("image")
    write_volume(folder / "image.nii.gz", Volume(array, AFFINE))
    made = prepare(folder / "image.nii.gz", sha256_file(folder / "image.nii.gz"), folder / "cache")
    read = nib.load(made.path)
    np.testing.assert_array_equal(np.asanyarray(read.dataobj), array)
    np.testing.assert_array_equal(read.affine, AFFINE)
    assert read.header.endianness == "<" and read.dataobj.offset == OFFSET and read.dataobj.slope == 1
    assert made.sha256 == sha256_file(made.path)
    assert (made.low, made.high) == (array.min(), array.max())
    for axis in range(3):
        index = array.shape[axis] - 1
        wanted = array.take(index, axis).astype(np.dtype(made.dtype).newbyteorder("<")).tobytes(order="F")
        assert made.slice_bytes(axis, index) == wanted


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([-1024.0, 3071.0], "int16"), ([0, 255], "uint8"), ([0, 40_000], "uint16"), ([-1, 40_000], "int32"),
        ([0.5, 1.0], "float32"), ([0.1, 1.0], "float64"), ([0, 2**31], "uint32"), ([-1, 2**31], "float32"),
        ([-1, 2**31 + 1], "float64"),
    ],
)  # fmt: skip
def test_the_smallest_type(values: list[float], kind: str) -> None:
    """Whole numbers become integers; what single precision cannot hold stays in double."""
    assert exact_type(np.array(values)) == kind


def test_made_once_and_only_from_what_was_handed_out(tmp_path: Path) -> None:
    """The second reader gets the same file; an image that was changed is refused, and nothing is made of it."""
    path = tmp_path / "image.nii.gz"
    write_volume(path, Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE))
    sha256 = sha256_file(path)
    first = prepare(path, sha256, tmp_path / "cache")
    written = first.path.stat().st_ino
    path.unlink()
    assert prepare(path, sha256, tmp_path / "cache") == first and first.path.stat().st_ino == written
    with pytest.raises(IntegrityError):
        prepare(path, "0" * 64, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.nii"))) == 1


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody opened for longest goes; what is in use stays."""
    import os

    monkeypatch.setattr(module, "CACHE_BYTES", 1000)
    made = []
    for n in range(4):
        path = tmp_path / f"{n}.nii.gz"
        write_volume(path, Volume(np.full((4, 4, 4), 1000 + n, np.int16), AFFINE))
        made.append(prepare(path, sha256_file(path), tmp_path / "cache").path)
        if n < 2:
            os.utime(made[n], (n, n))
    assert [path.exists() for path in made] == [False, False, True, True]


def test_windows_fit_what_is_looked_for() -> None:
    """The first one by the structure's kind on CT; shares of the image's own values elsewhere; none of no width."""
    some = {"0.5": 1.0, "5.0": 2.0, "50.0": 10.0, "95.0": 50.0, "99.5": 60.0}
    assert windows("CT", ["vessel"], -1000, 3000, some)[0]["name"] == "vessels"
    assert windows("CT", ["organ"], -1000, 3000, some)[0]["name"] == "soft tissue"
    assert windows("MR", ["organ"], 0, 90, some)[0] == {"name": "whole", "low": 1.0, "high": 60.0}
    for modality in ("CT", "MR", "PT"):
        found = windows(modality, ["tumor"], 7, 7, dict.fromkeys(some, 7.0))
        assert found and all(item["low"] < item["high"] for item in found)
