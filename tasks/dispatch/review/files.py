"""Reading volumes that redraft itself wrote and whose SHA-256 is known: whole and at once, for a reader is waiting."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

from redraft.digest import sha256_bytes
from redraft.errors import IntegrityError
from redraft.volumes import Volume


def read_known(path: Path, sha256: str, what: str) -> Volume:
    """A `.nii.gz` of a work package, three times as fast as `read_volume`.

    Raises IntegrityError where the file is not the one that was handed out; `what` names it.
    """
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if sha256_bytes(content) != sha256:
        raise IntegrityError(
            f"The {what} of this work package is missing or not the one that was handed out.",
            "Tell who runs redraft: `redraft audit verify` names it.",
        )
    image = nib.Nifti1Image.from_bytes(igzip.decompress(content))
    return Volume(np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64))
