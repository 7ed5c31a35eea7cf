"""Volumes: an array on a grid in patient space, and the one NIfTI form in which redraft stores it.

Axis order everywhere in redraft is NIfTI's ``(i, j, k)``: for DICOM exams i runs along columns, j along rows, k along
slices. The affine maps voxel indices to patient millimetres in RAS+ (DICOM's LPS is converted once, at ingest).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from redraft.errors import LabelError, ReadError
from redraft.files import atomic_path

AFFINE_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or a mask.

    Attributes
    ----------
    array : ndarray, shape (I, J, K)
    affine : ndarray, shape (4, 4)
        Voxel index to RAS+ millimetres.
    """

    array: NDArray
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        i, j, k = self.array.shape
        return (i, j, k)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm along (i, j, k)."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return (float(x), float(y), float(z))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def like(self, array: NDArray) -> Volume:
        """Another array on this grid; raises LabelError when the shape differs."""
        if array.shape != self.array.shape:
            raise LabelError(
                f"Array shape {array.shape} is not the grid's {self.array.shape}.",
                rule="shape",
                measured={"shape": list(array.shape), "expected": list(self.array.shape)},
            )
        return Volume(array, self.affine)


def grid_difference(a: Volume, b: Volume) -> dict[str, object] | None:
    """None when both lie on one grid, else what differs (shape, or the largest corner displacement in mm)."""
    if a.shape != b.shape:
        return {"shape": list(b.shape), "expected_shape": list(a.shape)}
    corners = np.array(
        [[i, j, k, 1] for i in (0, a.shape[0] - 1) for j in (0, a.shape[1] - 1) for k in (0, a.shape[2] - 1)], float
    )
    # A corner's displacement is in mm and catches what a comparison of affine entries misses on long axes.
    shift = float(np.abs(corners @ (a.affine - b.affine).T)[:, :3].max())
    if shift > AFFINE_TOLERANCE_MM * max(1.0, max(a.shape) / 100):
        return {"corner_shift_mm": round(shift, 4)}
    return None


def read_volume(path: str | Path) -> Volume:
    """Read a 3D NIfTI file. Raises ReadError for what is not one; scaling (slope, intercept) is applied."""
    path = Path(path)
    try:
        image = nib.load(path)
        # Data that would begin in the header: nibabel takes the header's own bytes for voxels.
        if image.dataobj.offset < image.header.sizeof_hdr:  # type: ignore[attr-defined]
            raise ValueError
        array = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, dtype=np.float64)  # type: ignore[attr-defined]
    except Exception as error:  # nibabel, gzip, zlib and mmap raise unrelated types for damaged bytes
        raise ReadError(
            f"{path.name} cannot be read as NIfTI ({type(error).__name__}).",
            "Export it again; it may be truncated or of another format.",
            rule="unreadable",
            measured={"error": type(error).__name__},
        ) from error
    if array.dtype.kind not in "biuf":  # colours and complex numbers are kinds of NIfTI too
        raise ReadError(
            f"{path.name} does not hold one number per voxel.",
            "Export values or labels, not colours or complex numbers.",
            rule="not_scalar",
        )
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise ReadError(
            f"{path.name} has {array.ndim} dimensions.",
            "redraft takes one 3D volume per file; split series first.",
            rule="dimensions",
            measured={"shape": list(array.shape)},
        )
    return Volume(array, affine)


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write `.nii.gz` atomically; the same volume gives the same bytes (no time, no name in the gzip header)."""
    image = nib.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    with (
        atomic_path(path) as partial,
        open(partial, "wb") as raw,
        igzip.IGzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as stream,
    ):
        stream.write(image.to_bytes())
