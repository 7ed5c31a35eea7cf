"""Truth for simulated readers: finds an exam's masks in a folder of RTSTRUCT files or NIfTI label directories.

The index knows exams by pseudonym only, so the truth of an exam is found without the vault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from redraft.dicom.contours import open_rtstruct, referenced_series, rtstruct_masks
from redraft.dicom.scan import Header, files_below, read_header
from redraft.errors import LabelError, ReadError, RedraftError
from redraft.security.pseudonyms import Pseudonyms
from redraft.volumes import Volume, grid_difference, read_volume

LABEL_FOLDERS = re.compile(r"^labels?(Tr|Ts)?$", re.IGNORECASE)


def is_nifti(path: Path) -> bool:
    """Whether a file name is NIfTI's."""
    return path.name.endswith((".nii", ".nii.gz"))


def nifti_stem(path: Path) -> str:
    """File name without .nii or .nii.gz; MSD's channel suffix _0000 is dropped."""
    return re.sub(r"(_0000)?\.nii(\.gz)?$", "", path.name)


def is_label_file(path: Path) -> bool:
    """Whether a NIfTI file lies in a label directory of the MSD layout (labelsTr, labels, …)."""
    return bool(LABEL_FOLDERS.match(path.parent.name))


@dataclass(frozen=True)
class _Truth:
    kind: Literal["rtstruct", "nifti"]
    path: Path


class TruthIndex:
    """Truth by series pseudonym; masks are read when asked for and not kept."""

    def __init__(self, found: Mapping[str, _Truth], structures: Mapping[str, tuple[int, Sequence[str]]]):
        self._found = found
        self._structures = structures

    @classmethod
    def scan(
        cls, root: Path, pseudonyms: Pseudonyms, structures: Mapping[str, tuple[int, Sequence[str]]]
    ) -> TruthIndex:
        """Index every truth file below `root`.

        Parameters
        ----------
        structures : mapping
            Structure name to (label value, ROI aliases).
        """
        if not root.is_dir():
            raise ReadError(
                "The truth folder is not there.", "Set simulation.oracle in project.yaml.", rule="no_oracle"
            )
        found: dict[str, _Truth] = {}
        for path in files_below([root]):
            if is_nifti(path):
                if is_label_file(path):
                    found[pseudonyms.series_id(f"nifti/{nifti_stem(path)}")] = _Truth("nifti", path)
                continue
            header = read_header(path)
            if isinstance(header, Header) and header.text("Modality") == "RTSTRUCT":
                for uid in referenced_series(open_rtstruct(path)):
                    found[pseudonyms.series_id(uid)] = _Truth("rtstruct", path)
        return cls(found, structures)

    def __contains__(self, series_id: str) -> bool:
        return series_id in self._found

    def labels(self, series_id: str, reference: Volume) -> NDArray[np.uint8]:
        """Label array of one exam on its own grid; later structures win where two overlap.

        Raises
        ------
        LabelError
            No truth for this exam, another grid, or values the project does not know.
        """
        truth = self._found.get(series_id)
        if truth is None:
            raise LabelError(f"There is no truth for series {series_id}.", "Check simulation.oracle.", rule="no_truth")
        if truth.kind == "nifti":
            return read_labels(truth.path, reference, {value for value, _ in self._structures.values()}, series_id)
        try:
            names = {name: aliases for name, (_, aliases) in self._structures.items()}
            masks = rtstruct_masks(open_rtstruct(truth.path), reference, names)
        except RedraftError as error:
            raise LabelError(f"Truth of series {series_id}: {error.what}", error.do, rule=error.code) from error
        labels = np.zeros(reference.shape, dtype=np.uint8)
        for name, (value, _) in self._structures.items():
            if name in masks:
                labels[masks[name]] = value
        return labels


def read_labels(path: Path, reference: Volume, values: set[int], name: str) -> NDArray[np.uint8]:
    """Read a NIfTI label file for one exam. Raises LabelError naming `name` for another grid or unknown values."""
    volume = read_volume(path)
    difference = grid_difference(reference, volume)
    if difference is not None:
        raise LabelError(f"The label of {name} is on another grid.", "Export it on the image's own grid.",
                         rule="grid", measured=difference)  # fmt: skip
    array = volume.array
    if not np.isfinite(array).all() or (array != np.rint(array)).any():
        raise LabelError(f"The label of {name} holds values that are no integers.", rule="not_integer")
    unknown = sorted(set(np.unique(array).astype(int).tolist()) - values - {0})
    if unknown:
        raise LabelError(
            f"The label of {name} holds unknown values {unknown[:5]}.", f"Allowed: 0 and {sorted(values)}.",
            rule="unknown_values", measured={"values": unknown[:10]},
        )  # fmt: skip
    return array.astype(np.uint8)
