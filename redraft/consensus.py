"""One label out of several readings of one exam: STAPLE or majority, and a map of where the readers differ.

Readings are label arrays (I, J, K) on one grid; one value per voxel, 0 is background. Every function gives the same
result for any order of the readings.

- Majority: the value that most readings give; of tied values the smallest, so that a tie between background and a
  structure is background (of two readers, what both drew).
- STAPLE: per structure, on the box around everything that any reading gives this structure, widened by two voxels (the
  estimate depends on how much background it sees; the box makes it independent of the field of view). A voxel gets the
  structure with the highest probability that is at least 1/2, of equal ones the smallest value, else background. What
  all readings agree on stays as it is: readers who contradict one another can make the estimate call their errors
  right, and with it mark voxels that nobody drew.
  With two readers STAPLE cannot know who is right where they differ; that is what adjudication is for.

Source of STAPLE: Warfield, Zou, Wells, IEEE Trans Med Imaging 23 (2004) 903; SimpleITK's implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from redraft.digest import sha256_bytes
from redraft.errors import LabelError
from redraft.metrics.grid import bounding_box, grow

Labels = NDArray[np.uint8]
Method = Literal["staple", "majority"]
MARGIN = 2
ITERATIONS = 200


def consensus(readings: Sequence[Labels], values: Iterable[int], method: Method) -> Labels:
    """The label that several readings make together.

    Parameters
    ----------
    readings : two or more arrays (I, J, K)
    values : label values of the structures

    Raises
    ------
    LabelError
        Fewer than two readings, or not all on one grid.
    """
    _checked(readings)
    return staple(readings, values) if method == "staple" else majority(readings)


def majority(readings: Sequence[Labels]) -> Labels:
    """The most frequent value per voxel; of tied values the smallest."""
    _checked(readings)
    result = np.array(readings[0], dtype=np.uint8)
    differ = np.zeros(result.shape, bool)
    for other in readings[1:]:
        differ |= other != readings[0]
    votes = np.stack([reading[differ] for reading in readings])
    best = np.zeros(votes.shape[1], np.uint8)
    count = np.zeros(votes.shape[1], np.int64)
    for value in np.unique(votes):
        mine = (votes == value).sum(axis=0)
        better = mine > count  # values come in rising order: a tie leaves the smaller one
        best[better], count[better] = value, mine[better]
    result[differ] = best
    return result


def staple(readings: Sequence[Labels], values: Iterable[int]) -> Labels:
    """STAPLE per structure, put together by the highest probability; see the module."""
    _checked(readings)
    # Sums over readings are in floating point: a fixed order makes the last digit independent of who came first.
    ordered = sorted(readings, key=lambda reading: sha256_bytes(np.ascontiguousarray(reading).tobytes()))
    result = np.zeros(ordered[0].shape, np.uint8)
    highest = np.zeros(result.shape, np.float32)
    for value in sorted(set(values)):
        masks = [reading == value for reading in ordered]
        box = bounding_box(np.logical_or.reduce(masks))
        if box is None:
            continue
        box = grow(box, (MARGIN,) * 3, result.shape)
        inside = [mask[box] for mask in masks]
        probability = staple_probability(inside)
        probability[~np.logical_or.reduce(inside)] = 0.0
        probability[np.logical_and.reduce(inside)] = 1.0
        wins = (probability >= 0.5) & (probability > highest[box])
        result[box][wins] = value
        highest[box][wins] = probability[wins]
    return result


def staple_probability(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """Probability of the structure per voxel, from masks (I, J, K) of two or more readers."""
    import SimpleITK as sitk

    if all((mask == masks[0]).all() for mask in masks[1:]):
        return np.asarray(masks[0], dtype=np.float32)  # nothing to estimate, and a mask that fills its box has no prior
    images = [sitk.GetImageFromArray(np.ascontiguousarray(mask, dtype=np.uint8)) for mask in masks]
    estimate = sitk.STAPLEImageFilter()
    estimate.SetForegroundValue(1.0)
    estimate.SetMaximumIterations(ITERATIONS)
    found = sitk.GetArrayFromImage(estimate.Execute(images)).astype(np.float32)
    return np.nan_to_num(found, nan=0.0)  # 0/0: neither structure nor background is possible by the estimate


def disagreement(readings: Sequence[Labels]) -> Labels:
    """How many different values the readings give a voxel, less one: 0 where all agree (I, J, K), uint8."""
    _checked(readings)
    ordered = [np.asarray(reading) for reading in readings]
    count = np.zeros(ordered[0].shape, np.uint8)
    for n, reading in enumerate(ordered[1:], 1):
        new = np.ones(count.shape, bool)
        for earlier in ordered[:n]:
            new &= reading != earlier
        count += new
    return count


def _checked(readings: Sequence[Labels]) -> None:
    if len(readings) < 2:
        raise LabelError("A consensus needs two readings or more.", rule="readings", measured={"n": len(readings)})
    shapes = {reading.shape for reading in readings}
    if len(shapes) > 1 or len(readings[0].shape) != 3:
        raise LabelError(
            "The readings do not lie on one grid.", "All must be on the exam's grid.", rule="shape",
            measured={"shapes": sorted(map(list, shapes))},
        )  # fmt: skip
