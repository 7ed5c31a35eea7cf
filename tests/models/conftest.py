"""Small synthetic exams that every model test shares: a bright ellipsoid organ with a brighter core."""

from __future__ import annotations

import numpy as np
import pytest

from models.data import Prepared, TrainingExam, prepare
from models.plan import Plan
from redraft.config.schema import Train
from redraft.digest import sha256_file
from redraft.volumes import Volume, write_volume

SHAPE, SPACING = (24, 20, 16), (2.0, 2.0, 3.0)
LABELS = {"organ": 1, "core": 4}


def ellipsoid(seed: int) -> tuple[Volume, Volume]:
    """An image and its label; centre and size vary with the seed."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    centre = np.array(SHAPE) / 2 + rng.uniform(-2, 2, 3)
    radius = np.array([7.0, 6.0, 5.0]) * rng.uniform(0.8, 1.1, 3)
    distance = (((grid - centre[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(axis=0)
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[distance < 1], label[distance < 0.2] = 1, 4
    image = np.array([0.0, 100.0, 0, 0, 180.0])[label] + rng.normal(0, 15, SHAPE)
    affine = np.diag([*SPACING, 1.0])
    return Volume(image.astype(np.int16), affine), Volume(label, affine)


@pytest.fixture(scope="session")
def exams(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingExam]:
    """Five labelled exams on disk."""
    folder = tmp_path_factory.mktemp("exams")
    result = []
    for n in range(5):
        image, label = ellipsoid(n)
        paths = folder / f"{n}.nii.gz", folder / f"{n}.label.nii.gz"
        write_volume(paths[0], image)
        write_volume(paths[1], label)
        result.append(TrainingExam(f"exam{n}", f"annotation{n}", *paths, *(sha256_file(path) for path in paths)))
    return result


@pytest.fixture(scope="session")
def plan() -> Plan:
    """A plan in the exams' own spacing, with a network that trains in milliseconds."""
    return Plan(
        modality="CT", labels=LABELS, spacing_mm=SPACING, patch=(16, 16, 16), intensity="clip_zscore",
        intensity_values=(0.0, 250.0, 100.0, 50.0), architecture="unet", channels=(4, 8), strides=((2, 2, 2),),
    )  # fmt: skip


@pytest.fixture(scope="session")
def train_config() -> Train:
    """Thirty steps of two patches."""
    return Train(
        steps=30, batch_size=2, channels=(4, 8), checkpoint_every=7, validate_every=10, precision="32", threads=1,
        members=2, learning_rate=5e-3,
    )  # fmt: skip


@pytest.fixture(scope="session")
def prepared(exams: list[TrainingExam], plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    """The exams as arrays."""
    return prepare(exams, plan, tmp_path_factory.mktemp("arrays"))
