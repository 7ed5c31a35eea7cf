"""Frames into one array: rescaled per slice in float64, stacked in float32, typed once over the whole volume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.dicom.elements import AGAIN
from redraft.dicom.frames import Frame
from redraft.errors import ReadError

LOW, HIGH = -32768, 32767


def real_values(frame: Frame) -> NDArray[np.float64]:
    """Real-world values of one frame (modality transformation, PS3.3 C.11.1), float64, shape (rows, columns)."""
    return _stored(frame).astype(np.float64) * frame.slope + frame.intercept


def values_digest(frame: Frame) -> str:
    """SHA-256 of a frame's real-world values: two copies of one slice agree in it."""
    return hashlib.sha256(real_values(frame).tobytes()).hexdigest()


def stack(frames: Sequence[Frame]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Values of the frames in the given order; each frame's stored bytes are let go once they are in.

    Values that stand for no measurement (PixelPaddingValue) stay what they are, as other converters leave them: what
    is shown and learnt from them is for those to decide who see them counted.

    Returns
    -------
    ndarray, shape (columns, rows, frames)
        int16 where every value is an integer in its range, else float32. Laid out as NIfTI stores it.
    measured : dict
        Where there is padding: its range in real-world values and the number of voxels.
    """
    rows, columns = frames[0].geometry.size
    volume: NDArray[Any] = np.empty((len(frames), rows, columns), dtype=np.int16)
    padded, ranges = 0, set()
    for index, frame in enumerate(frames):
        stored = _stored(frame)
        if frame.padding is not None:
            low, high = frame.padding
            count = int(np.count_nonzero((stored >= low) & (stored <= high)))
            if count:
                padded += count
                ranges |= {low * frame.slope + frame.intercept, high * frame.slope + frame.intercept}
        values = _small_integers(stored, frame)
        if values is None and volume.dtype == np.int16:
            volume = volume.astype(np.float32)  # exact: what is in so far are small integers
        with np.errstate(over="ignore"):  # what float32 does not hold is refused below
            volume[index] = stored.astype(np.float64) * frame.slope + frame.intercept if values is None else values
        frame.source = None
    if volume.dtype == np.float32 and not np.isfinite(volume).all():
        raise ReadError("Rescaling leads to values that are no numbers.", AGAIN, rule="rescale")
    measured = {"padding": {"low": min(ranges), "high": max(ranges), "voxels": padded}} if padded else {}
    return volume.transpose(2, 1, 0), measured


def _stored(frame: Frame) -> NDArray[Any]:
    if frame.source is None:
        raise ReadError("The pixels of this series were taken before.", "Open it again.", rule="read_twice")
    return frame.source.stored(frame.index)


def _small_integers(stored: NDArray[Any], frame: Frame) -> NDArray[Any] | None:
    """A frame's values where all are integers in int16's range; None where not."""
    if frame.slope == 1 and frame.intercept.is_integer() and abs(frame.intercept) < 1 << 30:
        shift = int(frame.intercept)
        if int(stored.min()) + shift < LOW or int(stored.max()) + shift > HIGH:
            return None
        return stored if shift == 0 else stored.astype(np.int32) + np.int32(shift)
    values = stored.astype(np.float64) * frame.slope + frame.intercept
    fits = values.min() >= LOW and values.max() <= HIGH and (values == np.rint(values)).all()
    return values if fits else None
