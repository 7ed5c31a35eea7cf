"""Where an exam lies: its grid, its frame of reference and the images that its slices came from, read from exam.json.

Everything here is pseudonymous, unless `ExamGeometry.named` put the originals of the export gateway in its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.dicom.geometry import LPS_TO_RAS, SHIFT_MM
from redraft.digest import canonical
from redraft.errors import ReadError
from redraft.volumes import Volume

IMAGE_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
PLANE_SHARE = 0.1  # of the slice distance
_AGAIN = "It was taken in by an older redraft; take it into a new project, or export as NIfTI or NRRD."


@dataclass(frozen=True)
class Plane:
    """The image of one slice: its SOP Instance UID, its frame number in a multi-frame object, and where it lies."""

    uid: str
    frame: int | None
    position_lps: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ExamGeometry:
    """Grid and references of one exam.

    Attributes
    ----------
    shape : (I, J, K)
        Columns, rows and slices.
    affine : float64, shape (4, 4)
        Voxel index to RAS+ mm.
    frame_of_reference : str
        UID of the space that the grid lies in; empty where the images did not say.
    orientation_lps : six floats
        Directions of i and j in LPS (PS3.3 C.7.6.2.1.1).
    images : tuple of Plane
        Images that the exam was made from, in slice order.
    on_grid : bool
        Whether image k is slice k. False where the exam was resampled: its slices lie between its images.
    study, series, sop_class : str or None
        None for exams that were taken in before these were recorded; see `complete`.
    header : mapping
        De-identified attributes as DICOM JSON (PS3.18 F).
    """

    exam_id: str
    subject_id: str
    modality: str
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    frame_of_reference: str
    orientation_lps: tuple[float, ...]
    images: tuple[Plane, ...]
    on_grid: bool
    study: str | None = None
    series: str | None = None
    sop_class: str | None = None
    header: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path) -> ExamGeometry:
        """Read an exam.json. Raises ReadError (rule exam_record) where it is absent or lacks geometry."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            what = "The record (exam.json) of an exam is missing or no JSON."
            raise ReadError(what, "Restore it with `dvc checkout`.", rule="exam_record") from error
        return cls.of(content)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ExamGeometry:
        """From the content of an exam.json. Raises ReadError (rule exam_record) where it lacks geometry."""
        try:
            i, j, k = (int(n) for n in content["shape"])
            affine = np.array(content["affine_ras"], dtype=np.float64)
            if affine.shape != (4, 4) or not np.isfinite(affine).all() or min(i, j, k) < 1:
                raise ValueError
            slices = content.get("slices") or {}
            common = {
                "exam_id": str(content["exam_id"]), "subject_id": str(content["subject_id"]),
                "modality": str(content["modality"]), "shape": (i, j, k), "affine": affine,
            }  # fmt: skip
            if slices:
                return cls._from_dicom(common, slices, content)
            return cls._from_nifti(common)
        except (KeyError, TypeError, ValueError) as error:
            what = f"The record of exam {content.get('exam_id', '?')} lacks its geometry."
            raise ReadError(what, "Restore exam.json with `dvc checkout`.", rule="exam_record") from error

    @classmethod
    def of_image(cls, exam_id: str, image: Volume) -> ExamGeometry:
        """The grid of an image whose record is not at hand: enough for NIfTI and NRRD, never for DICOM."""
        lps = LPS_TO_RAS @ image.affine
        return cls(exam_id, "", "", image.shape, image.affine, "", _orientation(lps), (), on_grid=False)

    @classmethod
    def _from_dicom(cls, common: dict[str, Any], slices: Mapping[str, Any], content: Mapping[str, Any]) -> ExamGeometry:
        images = tuple(
            Plane(str(item["uid"]), item.get("frame"), _three(item["position_lps"])) for item in slices["instances"]
        )
        orientation = tuple(float(value) for value in slices["orientation_lps"])
        lps = LPS_TO_RAS @ common["affine"]
        # Resampled ones may agree by chance in number and nearly in place; their voxels are still no image's.
        on_grid = not slices.get("resampled") and len(images) == common["shape"][2] and _fits(lps, images, orientation)
        if not on_grid:
            orientation = _orientation(lps)
        return cls(
            **common, frame_of_reference=str(slices["frame_of_reference"] or ""), orientation_lps=orientation,
            images=images, on_grid=on_grid, study=slices.get("study") or content.get("study"),
            series=slices.get("series") or content.get("series"),
            sop_class=slices.get("sop_class") or content.get("sop_class"),
            header=slices.get("header") or content.get("header") or {},
        )  # fmt: skip

    @classmethod
    def _from_nifti(cls, common: dict[str, Any]) -> ExamGeometry:
        """UIDs from the exam's pseudonym and geometry: a NIfTI file has none of its own."""
        grid = [list(common["shape"]), [[float(v) for v in row] for row in common["affine"]]]

        def uid(*role: object) -> str:
            return derived_uid(common["exam_id"], grid, *role)

        lps = LPS_TO_RAS @ common["affine"]
        images = tuple(
            Plane(uid("instance", k), None, _three(lps @ np.array([0, 0, k, 1.0]))) for k in range(common["shape"][2])
        )
        return cls(
            **common, frame_of_reference=uid("frame of reference"), orientation_lps=_orientation(lps), images=images,
            on_grid=True, study=uid("study"), series=uid("series"), sop_class=IMAGE_CLASSES[common["modality"]],
        )  # fmt: skip

    # -- the grid -----------------------------------------------------------------------------------------------------
    @property
    def lps(self) -> NDArray[np.float64]:
        """Voxel index to LPS mm."""
        return np.asarray(LPS_TO_RAS @ self.affine, dtype=np.float64)

    @property
    def grid(self) -> Volume:
        """The grid as a volume without content (its array takes no memory)."""
        return Volume(np.broadcast_to(np.zeros((), np.uint8), self.shape), self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm along (i, j, k)."""
        return self.grid.spacing

    def position(self, k: int) -> tuple[float, float, float]:
        """Position of slice k's first voxel in LPS mm; the image's own words where it is an image's slice."""
        if self.on_grid:
            return self.images[k].position_lps
        return _three(self.lps @ np.array([0, 0, k, 1.0]))

    def complete(self) -> tuple[str, str, str]:
        """Study, series and SOP class, which DICOM objects about the exam must name.

        Raises ReadError: rule exam_record where the exam's record lacks them, frame_of_reference where its images had
        no frame of reference.
        """
        if not self.frame_of_reference:
            what = f"The images of exam {self.exam_id} have no frame of reference."
            raise ReadError(what, "Export as NIfTI or NRRD.", rule="frame_of_reference")
        if not (self.study and self.series and self.sop_class):
            what = f"The record of exam {self.exam_id} does not name its study, series and SOP class."
            raise ReadError(what, _AGAIN, rule="exam_record")
        return self.study, self.series, self.sop_class

    def named(
        self, *, study: str, series: str, sop_class: str, frame_of_reference: str, originals: Sequence[str]
    ) -> ExamGeometry:
        """The same grid under original UIDs (one per image); for the export gateway alone."""
        images = tuple(replace(plane, uid=uid) for plane, uid in zip(self.images, originals, strict=True))
        return replace(
            self, study=study, series=series, sop_class=sop_class, frame_of_reference=frame_of_reference, images=images
        )


def derived_uid(*parts: Any) -> str:
    """A UID under `2.25.` (PS3.5 B.2) from JSON-like parts; the same parts give the same one."""
    digest = hashlib.sha256(b"redraft segmentation uid\x00" + canonical(list(parts))).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _three(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in list(values)[:3])
    return (x, y, z)


def _orientation(lps: NDArray[np.float64]) -> tuple[float, ...]:
    directions = lps[:3, :2] / np.linalg.norm(lps[:3, :2], axis=0)
    return tuple(float(value) for value in directions.T.ravel())


def _fits(lps: NDArray[np.float64], images: Sequence[Plane], orientation: Sequence[float]) -> bool:
    """Whether the images are the grid's slices: within what intake tolerates of a regular series."""
    if np.abs(np.subtract(orientation, _orientation(lps))).max() > 1e-3:
        return False
    places = np.array([lps[:3, 3] + k * lps[:3, 2] for k in range(len(images))])
    shift = np.array([plane.position_lps for plane in images]) - places
    edges = np.linalg.norm(lps[:3, :3], axis=0)
    inside, along = np.abs(shift @ (lps[:3, :2] / edges[:2])), np.abs(shift @ (lps[:3, 2] / edges[2]))
    # Half a voxel would do to tell slices apart; what is resampled lies farther off than a regular series may.
    return bool(inside.max() <= min(SHIFT_MM, 0.2 * edges[:2].min()) and along.max() <= PLANE_SHARE * edges[2])
