"""Alterations of valid input that know its structure: what comes out is mostly well formed, and wrong in one place.

Random bytes are refused by the first check of every reader. These alterations keep the lengths around a change
consistent most of the time, so that what is behind the checks is reached too.
"""

from __future__ import annotations

from random import Random

from tests.fuzz import other_bytes as other
from tests.fuzz.dicom_bytes import dicom
from tests.fuzz.noise import noise
from tests.fuzz.seeds import Seed


def mutate(seed: Seed, rng: Random) -> dict[str, bytes]:
    """Files of a seed with one to four alterations, most often all in one file."""
    files = dict(seed.files)
    name = rng.choice(sorted(files))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if rng.random() < 0.1:
            name = rng.choice(sorted(files))
        files[name] = _file(name, files[name], rng)
    if rng.random() < 0.03 and len(files) > 1:
        files[rng.choice(sorted(files))] = files[name]  # one file's content in another's place
    return files


def _file(name: str, data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.12:
        return noise(data, rng)
    try:
        if name.endswith(".dcm"):
            return dicom(data, rng)
        if name.endswith((".nii", ".nii.gz")):
            return other.within_gzip(data, rng, other.nifti_bytes)
        if name.endswith(".nrrd"):
            return other.nrrd_bytes(data, rng)
        if name.endswith(".zip"):
            return other.zip_bytes(data, rng)
        if name.endswith((".tar", ".tar.gz")):
            return other.within_gzip(data, rng, other.tar_bytes)
        if name.endswith(".json"):
            return other.json_bytes(data, rng)
        return other.multipart_bytes(data, rng)
    except Exception:  # an earlier alteration took the structure away, and libraries stumble over it in many ways
        return noise(data, rng)
