"""The DICOM part of a work package: the image as a series and the draft as a segmentation of it, under pseudonyms."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.errors import ReadError
from redraft.files import write_bytes
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.origin import Origin, dicom_bytes
from redraft.volumes import Volume

SERIES, DRAFT_SEG = "dicom", "draft.dcm"


def write_series(folder: Path, image: Volume, exam: ExamGeometry) -> int:
    """Write the image's slices into `folder/dicom`; returns how many.

    Raises ReadError where the exam has no such form; nothing is left then. See redraft.segmentation.image_out.
    """
    from redraft.segmentation.image_out import build_series

    series = folder / SERIES
    series.mkdir()
    number = 0
    try:
        for number, dataset in enumerate(build_series(image, exam), 1):
            (series / f"image-{number:04d}.dcm").write_bytes(dicom_bytes(dataset))
    except ReadError:
        shutil.rmtree(series)
        raise
    return number


def write_draft(
    folder: Path, labels: NDArray[np.uint8], exam: ExamGeometry, structures: Sequence[Structure], origin: Origin
) -> None:
    """Write the draft as DICOM SEG that refers to the series. Raises UsageError where a structure has no code."""
    from redraft.segmentation.seg_out import build_seg

    write_bytes(folder / DRAFT_SEG, dicom_bytes(build_seg(labels, exam, structures, origin)))
