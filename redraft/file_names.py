"""What file names say: which exam a NIfTI file belongs to, whether it holds labels, and what is no image at all."""

from __future__ import annotations

import re
from pathlib import PurePath

NIFTI = (".nii", ".nii.gz")
# What lies beside images in every archive, and is no image.
ASIDE = re.compile(r"^(DICOMDIR|SHA256SUMS|SOURCE\.md|\..*)$")
LABEL_FOLDERS = re.compile(r"^labels?(Tr|Ts)?$", re.IGNORECASE)


def is_nifti(path: PurePath) -> bool:
    """Whether a file name is NIfTI's."""
    return path.name.endswith(NIFTI)


def nifti_stem(path: PurePath) -> str:
    """File name without .nii or .nii.gz; MSD's channel suffix _0000 is dropped."""
    return re.sub(r"(_0000)?\.nii(\.gz)?$", "", path.name)


def is_label_file(path: PurePath) -> bool:
    """Whether a NIfTI file lies in a label directory of the MSD layout (labelsTr, labels, …)."""
    return bool(LABEL_FOLDERS.match(path.parent.name))
