"""NIfTI exams and their label directories. A NIfTI file knows no patient: its file stem is its subject."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Ingest
from redraft.errors import GeometryError, ReadError
from redraft.file_names import nifti_stem
from redraft.security.pseudonyms import Pseudonyms
from redraft.volumes import Volume, grid_difference, read_volume
from tasks.ingest.receipts import Receipt

FORM_CONFLICT_MM = 0.1
SHEAR = 1e-3  # largest cosine between two axes


@dataclass(frozen=True)
class NiftiSource:
    """Pseudonyms of a NIfTI file, by its stem: the same name is the same exam."""

    series_id: str
    exam_id: str
    subject_id: str


def identify(path: Path, pseudonyms: Pseudonyms) -> NiftiSource:
    """Pseudonyms of a NIfTI file."""
    uid = f"nifti/{nifti_stem(path)}"
    return NiftiSource(pseudonyms.series_id(uid), pseudonyms.exam_id(uid), pseudonyms.subject_id(uid))


def read_nifti_exam(path: Path, config: Ingest) -> Volume:
    """Read and check a NIfTI image.

    Raises
    ------
    ReadError
        Unreadable, not 3D, too large, without voxels, or values that are no finite real numbers.
    GeometryError
        Singular or sheared affine, q-form and s-form that place the voxels differently or are both absent, or lengths
        in other units than millimetres.
    """
    try:
        header = nib.load(path).header
        shape = header.get_data_shape()
    except Exception as error:  # nibabel, gzip and zlib raise unrelated types for damaged bytes
        raise ReadError("The file cannot be read as NIfTI.", "Export it again.", rule="unreadable") from error
    if int(np.prod([max(1, n) for n in shape], dtype=np.int64)) > config.max_voxels:
        raise ReadError("The image is too large.", rule="too_large", measured={"shape": list(map(int, shape))})
    _placed(header)
    volume = read_volume(path)
    if not volume.array.size:
        raise ReadError("The image holds no voxels.", rule="no_voxels", measured={"shape": list(map(int, shape))})
    volume = Volume(_storable(volume.array), volume.affine)
    if not np.isfinite(volume.array).all():
        bad = int((~np.isfinite(volume.array)).sum())
        raise ReadError("The image holds NaN or infinity.", rule="not_finite", measured={"voxels": bad})
    if not np.isfinite(volume.affine).all() or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-9:
        raise GeometryError("The affine is singular.", rule="singular_affine")
    directions = volume.affine[:3, :3] / np.array(volume.spacing)
    if (shear := float(np.abs(directions.T @ directions - np.eye(3)).max())) > SHEAR:
        measured: dict[str, object] = {"cosine": round(shear, 5)}
        raise GeometryError("The axes are not at right angles.", rule="sheared_affine", measured=measured)
    _forms_agree(header, volume)
    if max(volume.spacing) > config.max_spacing_mm:
        measured = {"spacing_mm": [round(v, 4) for v in volume.spacing]}
        raise GeometryError("Voxels are too far apart.", rule="spacing_too_large", measured=measured)
    return volume


def _storable(array: NDArray) -> NDArray:
    """The array in a type that every tool reads: no 64-bit integers, no doubles. ReadError for what is no number."""
    if array.dtype.kind not in "iuf":
        measured: dict[str, object] = {"dtype": str(array.dtype)}
        raise ReadError("The image holds no real numbers.", rule="not_scalar", measured=measured)
    if array.dtype.itemsize < 8:
        return array
    whole = array.dtype.kind != "f" and int(array.min()) >= -(2**31) and int(array.max()) < 2**31
    with np.errstate(over="ignore"):  # what overflows is refused as not finite
        return array.astype(np.int32 if whole else np.float32)


def _placed(header: nib.Nifti1Header) -> None:
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        # nibabel would guess, and left and right with it.
        raise GeometryError("Neither q-form nor s-form says where the voxels lie.", rule="no_orientation")
    if (units := int(header["xyzt_units"]) & 7) in (1, 3):  # those that do not say mean millimetres
        measured: dict[str, object] = {"units": {1: "m", 3: "µm"}[units]}
        raise GeometryError("Lengths are not in millimetres.", "Export it again.", rule="units", measured=measured)


def _forms_agree(header: nib.Nifti1Header, volume: Volume) -> None:
    if not int(header["sform_code"]) or not int(header["qform_code"]):
        return
    try:
        sform, qform = header.get_sform(), header.get_qform()
    except ValueError:  # the quaternion is none
        raise GeometryError("The q-form is no rotation.", "Export it again.", rule="form_conflict") from None
    corner = np.array([*volume.shape, 1.0])
    shift = float(max(np.abs((sform - qform) @ corner).max(), np.abs((sform - qform)[:, 3]).max()))
    if not shift <= FORM_CONFLICT_MM:  # also where it is no number
        measured: dict[str, object] = {"shift_mm": round(shift, 3)}
        raise GeometryError("q-form and s-form place the voxels differently.", rule="form_conflict", measured=measured)


def label_receipt(path: Path, image: Path | None, pseudonyms: Pseudonyms) -> Receipt:
    """Receipt of a label file: never taken for an image; says when its image is missing or on another grid."""
    series_id = identify(path, pseudonyms).series_id
    if image is None:
        return Receipt(series_id, "refused", "label_without_image", 1, paths=(path,))
    try:
        difference = grid_difference(read_volume(image), read_volume(path))
    except ReadError as error:
        return Receipt(series_id, "refused", f"label_{error.rule}", 1, measured=error.measured, paths=(path,))
    if difference is not None:
        return Receipt(series_id, "refused", "label_on_another_grid", 1, measured=difference, paths=(path,))
    return Receipt(series_id, "refused", "label_not_an_image", 1, paths=(path,))
