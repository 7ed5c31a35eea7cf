"""Truth for simulated readers: an exam's masks in a folder of RTSTRUCT and SEG files or NIfTI label directories.

The index knows exams by pseudonym only, so the truth of an exam is found without the vault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from redraft.config.schema import Structure
from redraft.dicom.contours import open_rtstruct, referenced_series
from redraft.dicom.scan import Header, files_below, read_header
from redraft.errors import LabelError, ReadError, RedraftError
from redraft.file_names import is_label_file, is_nifti, nifti_stem
from redraft.security.pseudonyms import Pseudonyms
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.read import open_dicom, read_labels, read_segmentation
from redraft.segmentation.seg_in import SEG_CLASSES, seg_referenced_series

__all__ = ["TruthIndex", "read_labels"]


@dataclass(frozen=True)
class _Truth:
    kind: Literal["dicom", "nifti"]
    paths: tuple[Path, ...]


class TruthIndex:
    """Truth by series pseudonym; masks are read when asked for and not kept."""

    def __init__(self, found: Mapping[str, _Truth], structures: Sequence[Structure], uid: Callable[[str], str]):
        self._found = found
        self._structures = structures
        self._uid = uid

    @classmethod
    def scan(cls, root: Path, pseudonyms: Pseudonyms, structures: Sequence[Structure]) -> TruthIndex:
        """Index every truth file below `root`: NIfTI by its stem, DICOM by the series that it refers to."""
        if not root.is_dir():
            raise ReadError(
                "The truth folder is not there.", "Set simulation.oracle in project.yaml.", rule="no_oracle"
            )
        found: dict[str, _Truth] = {}
        for path in files_below([root]):
            if is_nifti(path):
                if is_label_file(path):
                    found[pseudonyms.series_id(f"nifti/{nifti_stem(path)}")] = _Truth("nifti", (path,))
                continue
            for uid in _series(path):
                known = found.get(pseudonyms.series_id(uid))
                # One file per structure is a habit of many archives: files of one series are read as one.
                paths = known.paths if known is not None and known.kind == "dicom" else ()
                found[pseudonyms.series_id(uid)] = _Truth("dicom", (*paths, path))
        return cls(found, structures, pseudonyms.uid)

    def __contains__(self, series_id: str) -> bool:
        return series_id in self._found

    def labels(self, series_id: str, exam: ExamGeometry) -> NDArray[np.uint8]:
        """Label array of one exam on its own grid; see `redraft.segmentation.structures.LabelMap` for overlaps.

        Raises
        ------
        LabelError
            No truth for this exam, another grid or frame of reference, or values that the project does not know.
        """
        truth = self._found.get(series_id)
        if truth is None:
            raise LabelError(f"There is no truth for series {series_id}.", "Check simulation.oracle.", rule="no_truth")
        if truth.kind == "nifti":
            try:
                return read_labels(truth.paths[0], exam.grid, {s.value for s in self._structures}, series_id)
            except ReadError as error:  # it names the file, and a file may be named after its patient
                what = f"Truth of series {series_id} cannot be read."
                raise LabelError(what, "Check simulation.oracle.", rule=error.rule) from None
        try:
            # Clinical structure sets hold couch, body and margins too.
            return read_segmentation(truth.paths, exam, self._structures, unknown="ignore", uid=self._uid)
        except RedraftError as error:
            raise LabelError(f"Truth of series {series_id}: {error.what}", error.do, rule=error.code) from error


def _series(path: Path) -> list[str]:
    """Series that a DICOM segmentation refers to; none for any other file."""
    header = read_header(path)
    if not isinstance(header, Header):
        return []
    if header.text("SOPClassUID") in SEG_CLASSES:
        return list(dict.fromkeys(seg_referenced_series(open_dicom(path))))
    if header.text("Modality") == "RTSTRUCT":
        return list(dict.fromkeys(referenced_series(open_rtstruct(path))))
    return []
