"""RTSTRUCT contours to masks (PS3.3 C.8.8.5, C.8.8.6).

A voxel belongs to a structure when its centre lies inside an odd number of the slice's closed contours, so that
holes by exclusive or, holes by a second contour and keyholes all come out right. Contours must lie in the image's
slices and on its frame of reference; anything else is refused, never moved.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pydicom
from numpy.typing import NDArray

from redraft.dicom.geometry import LPS_TO_RAS
from redraft.errors import LabelError, ReadError

PLANE_TOLERANCE = 0.1  # of a slice's thickness
CONTOURS = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR"}


class Grid(Protocol):
    """What contours are filled on: a Volume, or an exam's geometry. The affine maps (i, j, k) to RAS mm."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def affine(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Roi:
    """One ROI of a structure set. Its name may hold an identity: it is never shown.

    Attributes
    ----------
    frame_of_reference : str
        UID of the space that its contours lie in; empty where the file does not say.
    codes : sequence of Dataset
        RT ROI Identification Code Sequence, where there is one.
    """

    number: int
    name: str = field(repr=False)
    frame_of_reference: str
    contours: Sequence[Any] | None = field(repr=False)
    codes: Sequence[Any] = field(repr=False, default=())


def open_rtstruct(path: Path) -> pydicom.Dataset:
    """Read a structure set; raises ReadError when the file is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
    except Exception:  # what pydicom raises for damaged bytes has no common base, and can quote values
        raise ReadError("A structure set cannot be read.", "Export it again.", rule="unreadable") from None
    if dataset.get("Modality") != "RTSTRUCT":
        raise ReadError("A file offered as structure set is none.", rule="not_rtstruct")
    return dataset


def referenced_series(dataset: pydicom.Dataset) -> list[str]:
    """Series Instance UIDs that a structure set refers to."""
    found = []
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            found += [str(item.get("SeriesInstanceUID", "")) for item in study.get("RTReferencedSeriesSequence") or ()]
    return [uid for uid in found if uid]


def rois(dataset: pydicom.Dataset) -> list[Roi]:
    """Every ROI with its contours.

    Raises
    ------
    LabelError
        Rule no_rois: the list of ROIs is missing, or a number of one is missing or used twice.
    """
    frames = {
        str(item.get("FrameOfReferenceUID", "")) for item in dataset.get("ReferencedFrameOfReferenceSequence") or ()
    }
    frames |= {str(dataset.get("FrameOfReferenceUID") or "")}
    frames.discard("")
    only = frames.pop() if len(frames) == 1 else ""
    try:
        drawn: dict[int, list[Any]] = {}
        for item in dataset.get("ROIContourSequence") or ():
            drawn.setdefault(int(item.ReferencedROINumber), []).extend(item.get("ContourSequence") or ())
        codes = {
            int(item.ReferencedROINumber): item.get("RTROIIdentificationCodeSequence") or ()
            for item in dataset.get("RTROIObservationsSequence") or ()
            if item.get("ReferencedROINumber") is not None
        }
        found = []
        for item in dataset.get("StructureSetROISequence") or ():
            number = int(item.ROINumber)
            frame = str(item.get("ReferencedFrameOfReferenceUID") or only)
            contours = drawn.get(number)
            found.append(Roi(number, str(item.get("ROIName", "")), frame, contours, codes.get(number, ())))
        whole = "StructureSetROISequence" in dataset and len({roi.number for roi in found}) == len(found)
    except (AttributeError, TypeError, ValueError):
        whole = False
    if not whole:
        raise LabelError(
            "A structure set lacks its list of ROIs, or numbers two of them alike.", "Export it again.", rule="no_rois"
        )
    return found


def rtstruct_masks(
    dataset: pydicom.Dataset,
    reference: Grid,
    structures: Mapping[str, Sequence[str]],
    frame_of_reference: str | None = None,
) -> dict[str, NDArray[np.bool_]]:
    """Masks of the wanted structures on the reference's grid, by ROI names.

    Parameters
    ----------
    structures : mapping
        Structure name to the ROI names that mean it (compared without case).
    frame_of_reference : str, optional
        UID that the wanted ROIs must lie on; not compared when omitted.

    Returns
    -------
    dict of structure name to bool array, shape of the reference; structures without an ROI are absent.

    Raises
    ------
    LabelError
        Contours that do not lie in the image's slices, are not closed and planar, or of another frame of reference.
    """
    wanted = {alias.strip().lower(): name for name, aliases in structures.items() for alias in (name, *aliases)}
    masks: dict[str, NDArray[np.bool_]] = {}
    for roi in rois(dataset):
        structure = wanted.get(roi.name.strip().lower())
        if structure is None or roi.contours is None:
            continue
        if frame_of_reference is not None:
            require_frame(roi.frame_of_reference, frame_of_reference)
        mask = roi_mask(roi, reference)
        masks[structure] = mask | masks[structure] if structure in masks else mask
    return masks


def require_frame(found: str, expected: str) -> None:
    """Raise LabelError (rule frame_of_reference) where a segmentation lies on another frame of reference."""
    if not found or found != expected:
        raise LabelError(
            "The segmentation is not on the frame of reference of its exam.",
            "Draw or export it on the exam's own images.", rule="frame_of_reference",
            measured={"stated": bool(found)},
        )  # fmt: skip


def roi_mask(roi: Roi, reference: Grid) -> NDArray[np.bool_]:
    """Fill the contours of one ROI on a grid. Raises LabelError for contours that are none of the image's slices."""
    to_voxel = np.asarray(np.linalg.inv(LPS_TO_RAS @ reference.affine), dtype=np.float64)
    mask = np.zeros(reference.shape, dtype=bool)
    for contour in roi.contours or ():
        _fill(mask, contour, to_voxel)
    return mask


def _fill(mask: NDArray[np.bool_], contour: Any, to_voxel: NDArray[np.float64]) -> None:
    kind = str(contour.get("ContourGeometricType", "")).strip().upper()
    if kind == "POINT":
        return  # a marker, no area
    if kind not in CONTOURS:
        kind = kind if kind in ("OPEN_PLANAR", "OPEN_NONPLANAR") else "of an unknown type"
        raise LabelError(f"A contour is {kind}, not closed and planar.", rule="open_contour", measured={"type": kind})
    try:
        values = np.atleast_1d(np.array(contour.get("ContourData") or (), dtype=float))
    except (TypeError, ValueError):  # its message would quote the text
        values = np.array([np.nan])
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
    low = np.maximum(np.floor(voxels[:, :2].min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(voxels[:, :2].max(axis=0)) + 1, mask.shape[:2]).astype(int)
    if (high <= low).any():
        raise LabelError("A contour lies outside of the image.", rule="outside", measured={"slice": plane})
    from skimage.draw import polygon2mask

    inside = polygon2mask(tuple(high - low), voxels[:, :2] - low)
    mask[low[0] : high[0], low[1] : high[1], plane] ^= inside
