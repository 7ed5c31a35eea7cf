"""An exam's image as the browser loads it: uncompressed NIfTI-1, little-endian, in the smallest type that is exact.

Made once per image and kept in the cache folder; whoever opens the exam next gets the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from redraft.errors import UsageError
from redraft.files import atomic_path, write_text
from redraft.volumes import Volume
from tasks.dispatch.review.files import read_known

OFFSET = 352  # of the voxels, in bytes: NIfTI-1 header and four empty bytes for extensions
CACHE_BYTES = 32 << 30
_IN_USE_SECONDS = 900.0
_TYPES = ("uint8", "int16", "uint16", "int32", "uint32")
PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)
_SAMPLE = 2_000_000
_locks: dict[str, threading.Lock] = {}
_at_once = threading.Semaphore(2)  # an image takes several times its size while it is made


@dataclass(frozen=True)
class Prepared:
    """An image that is ready for browsers.

    Attributes
    ----------
    path : Path
        Uncompressed NIfTI-1 file; voxels begin at byte 352, first axis fastest.
    sha256 : str
        Of that file.
    affine : 4x4
        Voxel index to RAS+ mm, as in the package's image.
    low, high : float
        Smallest and largest value.
    percentiles : mapping
        Values at `PERCENTILES`, by their names.
    """

    path: Path
    sha256: str
    dtype: str
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    low: float
    high: float
    percentiles: dict[str, float]

    @property
    def spacing(self) -> list[float]:
        """Voxel edges in mm."""
        return [float(v) for v in np.sqrt((np.array(self.affine)[:3, :3] ** 2).sum(axis=0))]

    def slice_bytes(self, axis: int, index: int) -> bytes:
        """Values of one slice in the image's type, little-endian; of the two axes left, the first is fastest.

        Raises UsageError (`work.slice`) where there is no such slice.
        """
        if not (0 <= axis < 3 and 0 <= index < self.shape[axis]):
            raise UsageError("There is no such slice.", "Reload the page.", code="work.slice")
        kind = np.dtype(self.dtype).newbyteorder("<")
        voxels: NDArray[Any] = np.memmap(self.path, kind, mode="r", offset=OFFSET, shape=self.shape, order="F")
        # Not by `take`, which would copy the whole volume first.
        return voxels[(slice(None),) * axis + (index,)].tobytes(order="F")


def prepare(image: Path, image_sha256: str, cache: Path) -> Prepared:
    """The image of a package for browsers, made where it is not there yet.

    Raises
    ------
    IntegrityError
        The package's image is not the one that was handed out.
    StorageError
        There is no room for the copy.
    """
    target = cache / f"{image_sha256}.nii"
    with _locks.setdefault(image_sha256, threading.Lock()):
        known = _known(target)
        if known is not None:
            return known
        with _at_once:
            made = _make(read_known(image, image_sha256, "image"), target)
            _make_room(cache, target)
            return made


def exact_type(array: NDArray[Any]) -> str:
    """The smallest type that holds every value exactly: an integer type where all are whole numbers."""
    whole = array.dtype.kind in "iu" or (bool(np.isfinite(array).all()) and bool((array == np.rint(array)).all()))
    if whole:
        low, high = array.min(), array.max()
        for name in _TYPES:
            limits = np.iinfo(name)
            if limits.min <= low and high <= limits.max:
                return name
    with np.errstate(over="ignore"):
        single = array.dtype == np.float32 or bool((array.astype(np.float32) == array).all())
    return "float32" if single else "float64"


def _make(volume: Volume, target: Path) -> Prepared:
    array = volume.array
    kind = exact_type(array)
    header = nib.Nifti1Header(endianness="<")
    header.set_data_dtype(np.dtype(kind).newbyteorder("<"))
    header.set_data_shape(volume.shape)
    header.set_zooms(volume.spacing)
    header.set_xyzt_units("mm")
    header.set_sform(volume.affine, code=1)
    header.set_qform(None, code=0)  # one form, so that no viewer can prefer another one
    header["vox_offset"] = OFFSET
    header["magic"] = b"n+1"
    digest = hashlib.sha256()
    with atomic_path(target, mode=0o600) as partial, open(partial, "wb") as stream:
        for block in _blocks(header, array, kind):
            digest.update(block)
            stream.write(block)
    step = max(1, array.size // _SAMPLE)
    at = np.percentile(array.ravel(order="K")[::step], PERCENTILES)
    affine = tuple(tuple(float(v) for v in row) for row in volume.affine)
    made = Prepared(
        target, digest.hexdigest(), kind, volume.shape, affine, float(array.min()), float(array.max()),
        {str(p): float(v) for p, v in zip(PERCENTILES, at, strict=True)},
    )  # fmt: skip
    facts = {name: value for name, value in asdict(made).items() if name != "path"}
    write_text(target.with_suffix(".json"), json.dumps(facts), mode=0o600)
    return made


def _blocks(header: nib.Nifti1Header, array: NDArray[Any], kind: str) -> Any:
    yield header.binaryblock + bytes(OFFSET - len(header.binaryblock))
    wanted = np.dtype(kind).newbyteorder("<")
    for k in range(array.shape[2]):
        yield array[:, :, k].astype(wanted).tobytes(order="F")


def _known(target: Path) -> Prepared | None:
    try:
        facts = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        os.utime(target)  # in use: what nobody opened for long goes first
    except (FileNotFoundError, ValueError):
        return None
    facts["shape"] = tuple(facts["shape"])
    facts["affine"] = tuple(tuple(row) for row in facts["affine"])
    return Prepared(path=target, **facts)


def _make_room(cache: Path, keep: Path) -> None:
    """Remove what was not opened for longest until the cache is within its bounds."""
    files = sorted(cache.glob("*.nii"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= CACHE_BYTES or path.stat().st_mtime > time.time() - _IN_USE_SECONDS:
            return
        if path != keep:
            total -= path.stat().st_size
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
