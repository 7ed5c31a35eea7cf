"""A label made elsewhere (NIfTI, NRRD, DICOM SEG, RTSTRUCT) as a mask of an exam: on its own grid or not at all.

What is uploaded is not to be trusted before it is read: it is unpacked to its exam's size and no further.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from redraft.config.schema import Structure
from redraft.desk.mask import Mask, pack
from redraft.errors import LabelError, ReadError, UsageError
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.read import kind_of, read_segmentation

_HEADER_BYTES = 1 << 20
_WIDEST = 8  # bytes per voxel that a label file may take
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def read_upload(content: bytes, exam: ExamGeometry, structures: Sequence[Structure], folder: Path) -> Mask:
    """The mask that a file holds.

    Parameters
    ----------
    folder : Path
        Where the file may lie while it is read; it is removed afterwards.

    Raises
    ------
    UsageError
        `work.not_a_label`, `work.too_large`.
    LabelError, ReadError
        With the rule that decided (grid, frame_of_reference, unknown_segment, …).
    """
    voxels = exam.shape[0] * exam.shape[1] * exam.shape[2]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".upload-") as made:
        path = Path(made) / "label"
        path.write_bytes(content)
        try:
            kind = kind_of(path)
        except ReadError as error:
            raise _no_label() from error
        if kind == "nifti":
            unpacked = unpack_nifti(content, voxels * _WIDEST + _HEADER_BYTES)
            path = path.rename(path.with_suffix(".nii"))
            path.write_bytes(unpacked)
            _require_grid(path, exam)
        elif kind == "nrrd":
            path = path.rename(path.with_suffix(".nrrd"))
        elif _DEFLATED in content[:1024]:  # its whole content would be inflated before anything could be checked
            raise UsageError(
                "This DICOM file is deflated.", "Export it with another transfer syntax.", code="work.not_a_label"
            )
        labels = read_segmentation(path, exam, structures)
    return pack(labels)


def unpack_nifti(content: bytes, limit: int) -> bytes:
    """A NIfTI file without its compression. Raises UsageError beyond `limit` bytes, or where it is damaged."""
    if content[:2] != b"\x1f\x8b":
        if len(content) > limit:
            raise _too_large()
        return content
    stream = zlib.decompressobj(wbits=31)
    try:
        found = stream.decompress(content, limit + 1)
    except zlib.error as error:
        raise _no_label() from error
    if len(found) > limit:
        raise _too_large()
    if not stream.eof:
        raise UsageError("The file is cut short.", "Export it again.", code="work.not_a_label")
    return found


def _require_grid(path: Path, exam: ExamGeometry) -> None:
    """Compare the shape that the header tells, before any voxel is read."""
    import nibabel as nib

    try:
        shape = tuple(int(n) for n in nib.load(path).shape)  # type: ignore[attr-defined]
    except Exception as error:  # what nibabel raises for damaged headers has no common base
        raise _no_label() from error
    if shape not in (exam.shape, (*exam.shape, 1)):
        raise LabelError(
            "The label is on another grid than this exam.", "Export it on the exam's own grid, without resampling.",
            rule="grid", measured={"shape": list(shape), "expected_shape": list(exam.shape)},
        )  # fmt: skip


def _no_label() -> UsageError:
    return UsageError(
        "The file is none of NIfTI, NRRD, DICOM SEG and RTSTRUCT, or it is damaged.",
        "Export the label again in one of these formats.",
        code="work.not_a_label",
    )


def _too_large() -> UsageError:
    return UsageError(
        "The file unpacks to far more than this exam.", "Upload the label of this exam.", code="work.too_large"
    )
