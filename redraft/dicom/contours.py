"""RTSTRUCT contours to masks (PS3.3 C.8.8.6).

A voxel belongs to a structure when its centre lies inside an odd number of the slice's closed contours: holes and
keyholes come out right. Contours must lie in the image's slices; anything else is refused, never moved. That they are
of the image's frame of reference is the caller's to see to: `TruthIndex` matches by the series that they refer to.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from redraft.dicom.geometry import LPS_TO_RAS
from redraft.errors import LabelError, ReadError
from redraft.volumes import Volume

PLANE_TOLERANCE = 0.1  # of a slice's thickness
CONTOURS = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR"}


def open_rtstruct(path: Path) -> pydicom.Dataset:
    """Read a structure set; raises ReadError when the file is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
    except Exception as error:  # what pydicom raises for damaged bytes has no common base
        raise ReadError("A structure set cannot be read.", "Export it again.", rule="unreadable") from error
    if dataset.get("Modality") != "RTSTRUCT":
        raise ReadError("A file offered as structure set is none.", rule="not_rtstruct")
    return dataset


def referenced_series(dataset: pydicom.Dataset) -> list[str]:
    """Series Instance UIDs that a structure set refers to."""
    found = []
    for frame in dataset.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            found += [str(item.SeriesInstanceUID) for item in study.get("RTReferencedSeriesSequence", [])]
    return found


def rtstruct_masks(
    dataset: pydicom.Dataset, reference: Volume, structures: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.bool_]]:
    """Masks of the wanted structures on the reference's grid.

    Parameters
    ----------
    structures : mapping
        Structure name to the ROI names that mean it (compared without case).

    Returns
    -------
    dict of structure name to bool array, shape of the reference; structures without an ROI are absent.

    Raises
    ------
    LabelError
        Contours that do not lie in the image's slices, or are not closed and planar.
    """
    names = {int(roi.ROINumber): str(roi.ROIName).strip().lower() for roi in dataset.StructureSetROISequence}
    wanted = {alias.lower(): name for name, aliases in structures.items() for alias in (name, *aliases)}
    to_voxel = np.asarray(np.linalg.inv(LPS_TO_RAS @ reference.affine), dtype=np.float64)
    masks: dict[str, NDArray[np.bool_]] = {}
    for roi in dataset.get("ROIContourSequence", []):
        structure = wanted.get(names.get(int(roi.ReferencedROINumber), ""))
        if structure is None:
            continue
        mask = np.zeros(reference.shape, dtype=bool)
        for contour in roi.get("ContourSequence", []):
            _fill(mask, contour, to_voxel)
        masks[structure] = mask | masks[structure] if structure in masks else mask
    return masks


def _fill(mask: NDArray[np.bool_], contour: Any, to_voxel: NDArray[np.float64]) -> None:
    kind = str(contour.ContourGeometricType)
    if kind == "POINT":
        return  # a marker, no area
    if kind not in CONTOURS:
        raise LabelError(f"A contour is {kind}, not closed and planar.", rule="open_contour", measured={"type": kind})
    values = np.atleast_1d(np.array(contour.get("ContourData") or (), dtype=float))
    if len(values) % 3 or not np.isfinite(values).all():
        raise LabelError(
            "A contour's coordinates are no points.", rule="bad_contour", measured={"numbers": len(values)}
        )
    points = values.reshape(-1, 3)
    if len(points) < 3:
        return
    voxels = (np.c_[points, np.ones(len(points))] @ to_voxel.T)[:, :3]
    k = voxels[:, 2]
    plane = int(np.rint(k.mean()))
    if np.ptp(k) > PLANE_TOLERANCE or abs(k.mean() - plane) > PLANE_TOLERANCE:
        measured: dict[str, object] = {"slice": round(float(k.mean()), 3), "spread": round(float(np.ptp(k)), 3)}
        raise LabelError("A contour lies between or across the image's slices.", rule="off_plane", measured=measured)
    if not 0 <= plane < mask.shape[2]:
        raise LabelError("A contour lies outside of the image.", rule="outside", measured={"slice": plane})
    low = np.maximum(np.floor(voxels[:, :2].min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(voxels[:, :2].max(axis=0)).astype(int) + 1, mask.shape[:2])
    if (high <= low).any():
        raise LabelError("A contour lies outside of the image.", rule="outside", measured={"slice": plane})
    from skimage.draw import polygon2mask

    inside = polygon2mask(tuple(high - low), voxels[:, :2] - low)
    mask[low[0] : high[0], low[1] : high[1], plane] ^= inside
