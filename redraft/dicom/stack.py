"""Frames into one volume: rescaled per slice in float64, typed once over the whole volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from redraft.dicom.frames import Frame
from redraft.errors import ReadError

LOW, HIGH = -32768, 32767


def real_values(frame: Frame) -> NDArray[np.float64]:
    """Real-world values of one frame (modality transformation, PS3.3 C.11.1), float64, shape (rows, columns)."""
    if frame.source is None:
        raise ReadError("A series is read once only.", "Open it again.", rule="read_twice")
    return frame.source.stored(frame.index).astype(np.float64) * frame.slope + frame.intercept


def stack(frames: Sequence[Frame]) -> NDArray[np.int16] | NDArray[np.float32]:
    """Values of the frames in the given order; each frame's stored bytes are let go once they are in.

    Returns
    -------
    ndarray, shape (columns, rows, frames)
        int16 where every value is an integer in its range, else float32. Laid out as NIfTI stores it.
    """
    rows, columns = frames[0].geometry.size
    volume: NDArray = np.empty((len(frames), rows, columns), dtype=np.int16)
    integral = True
    for index, frame in enumerate(frames):
        values = _integers(frame) if integral else None
        if values is None:
            if integral and (real := real_values(frame)) is not None and _fits(real):
                volume[index] = real
            else:
                if integral:
                    volume, integral = volume.astype(np.float32), False  # exact: what is in so far are small integers
                volume[index] = real_values(frame)
        else:
            volume[index] = values
        frame.source = None
    return volume.transpose(2, 1, 0)


def _integers(frame: Frame) -> NDArray | None:
    """A frame's values where slope one and a whole intercept make them integers of int16; None where not."""
    if frame.source is None or frame.slope != 1 or not frame.intercept.is_integer() or abs(frame.intercept) > 1e6:
        return None
    stored = frame.source.stored(frame.index)
    shift = int(frame.intercept)
    if int(stored.min()) + shift < LOW or int(stored.max()) + shift > HIGH:
        return None
    return stored if shift == 0 else stored.astype(np.int32) + shift


def _fits(values: NDArray[np.float64]) -> bool:
    return bool(values.min() >= LOW and values.max() <= HIGH and (values == np.rint(values)).all())
