"""Pixels of a single-frame series as one volume: rescaled per slice in float64, typed once over the whole volume."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import UID

from redraft.dicom.geometry import SeriesGeometry
from redraft.dicom.scan import Header
from redraft.errors import ReadError
from redraft.volumes import Volume

_AGAIN = "Send the series again; the file may be damaged or half copied."


def check_size(headers: Sequence[Header], max_voxels: int) -> None:
    """Refuse absurd or impossible sizes before a byte is allocated. Raises ReadError."""
    total = 0
    for header in headers:
        rows, columns = header.integer("Rows"), header.integer("Columns")
        frames = header.integer("NumberOfFrames") or 1
        if not rows or not columns or rows < 1 or columns < 1 or frames < 1:
            raise ReadError("A slice declares no rows or columns.", _AGAIN, rule="no_size")
        total += rows * columns * frames
        bits = header.integer("BitsAllocated") or 16
        declared = rows * columns * frames * bits // 8
        plain = UID(header.transfer_syntax) in (pydicom.uid.ImplicitVRLittleEndian, pydicom.uid.ExplicitVRLittleEndian)
        if plain and declared > header.size:
            raise ReadError(
                f"A slice declares {declared} bytes of pixels in a file of {header.size} bytes.", _AGAIN,
                rule="truncated", measured={"declared_bytes": declared, "file_bytes": header.size},
            )  # fmt: skip
    if total > max_voxels:
        raise ReadError(
            f"The series declares {total} voxels.", f"project.yaml allows {max_voxels} (ingest.max_voxels).",
            rule="too_large", measured={"voxels": total},
        )  # fmt: skip


def read_series(headers: Sequence[Header], geometry: SeriesGeometry) -> Volume:
    """Read the slices in the geometry's order.

    Returns
    -------
    Volume
        Shape (columns, rows, slices); int16 where every value is an integer in its range, else float32.
    """
    ordered = [headers[n] for n in geometry.order]
    rows, columns = ordered[0].integer("Rows"), ordered[0].integer("Columns")
    assert rows and columns
    stack = np.empty((columns, rows, len(ordered)), dtype=np.float32)
    integral = True
    for index, header in enumerate(ordered):
        values = read_slice(header.path)
        if values.shape != (rows, columns):
            measured: dict[str, object] = {"pixels": list(values.shape), "declared": [rows, columns]}
            raise ReadError("A slice's pixels are not of the declared size.", _AGAIN, rule="size", measured=measured)
        if integral:
            integral = bool((values == np.rint(values)).all() and values.min() >= -32768 and values.max() <= 32767)
        stack[:, :, index] = values.T
    return Volume(stack.astype(np.int16) if integral else stack, geometry.affine)


def read_slice(path: Path) -> NDArray[np.float64]:
    """One slice in real-world values (rescale slope and intercept applied), float64, shape (rows, columns)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
            if "PixelData" not in dataset:
                raise ReadError("A file of the series has no pixels.", _AGAIN, rule="no_pixels")
            stored = dataset.pixel_array
            slope = float(dataset.get("RescaleSlope", 1) or 1)
            intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    except ReadError:
        raise
    except (EOFError, OSError) as error:
        raise ReadError("A file of the series is truncated.", _AGAIN, rule="truncated") from error
    except Exception as error:  # decoders and converters raise a dozen unrelated types for wrong bytes
        syntax = "unknown"
        # The name only makes the message better; the refusal stands without it.
        with contextlib.suppress(Exception):
            syntax = UID(str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)).name
        rule = "truncated" if "bytes" in str(error) or "length" in str(error) else "undecodable"
        measured: dict[str, object] = {"transfer_syntax": syntax, "error": type(error).__name__}
        raise ReadError(
            f"A slice's pixels cannot be decoded ({syntax}).", _AGAIN, rule=rule, measured=measured
        ) from error
    if stored.ndim != 2:
        raise ReadError(
            "A slice has more than one frame or colour.", rule="not_single_frame", measured={"ndim": stored.ndim}
        )
    if not np.isfinite([slope, intercept]).all():
        raise ReadError("Rescale slope or intercept is not a number.", _AGAIN, rule="rescale")
    return stored.astype(np.float64) * slope + intercept


def pixel_digest(path: Path) -> str:
    """SHA-256 of a slice's real-world values: two copies of one slice agree in it."""
    return hashlib.sha256(np.ascontiguousarray(read_slice(path)).tobytes()).hexdigest()
