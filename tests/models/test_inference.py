"""Drafts: on the exam's own grid, probabilities averaged, the same every time."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch

from models.inference import member_probabilities, predict
from models.networks import build_network, network_arguments
from models.package import Ensemble
from models.plan import Plan
from redraft.errors import ReadError
from redraft.volumes import Volume

ORIENTATIONS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


class Threshold(torch.nn.Module):
    """A network whose answer is known: the class follows from the voxel's value (0, 1, 2 after normalisation)."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([-40 * (image - value) ** 2 for value in (0.0, 1.0, 2.0)], dim=1)


class Constant(torch.nn.Module):
    """A network that answers the same probabilities everywhere."""

    def __init__(self, *probabilities: float):
        super().__init__()
        self.logits = torch.log(torch.tensor(probabilities))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits[None, :, None, None, None].expand(len(image), -1, *image.shape[2:])


@pytest.fixture
def simple(plan: Plan) -> Plan:
    """A plan that leaves values 0, 1, 2 alone."""
    return plan.model_copy(update={"intensity_values": (0.0, 2.0, 0.0, 1.0)})


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::3])
def test_drafts_lie_on_the_exam_s_own_grid(simple: Plan, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """However an exam is stored, the draft agrees with it voxel for voxel; exams larger and smaller than a window."""
    rng = np.random.default_rng(0)
    affine = np.zeros((4, 4))
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * simple.spacing_mm[order[axis]]
    affine[:, 3] = (5, -6, 7, 1)
    image = rng.integers(0, 3, (25, 9, 18)).astype(np.int16)
    found = predict(
        Ensemble("d", simple, [Threshold(), Threshold()]), Volume(image, affine), overlap=0.5, batch_size=3, threads=1
    )
    assert found.labels.dtype == np.uint8
    np.testing.assert_array_equal(found.labels, np.array([0, 1, 4])[image])
    volume = found.scores["structures"]["core"]["volume_ml"]  # type: ignore[index]
    assert volume == pytest.approx((image == 2).sum() * np.prod(simple.spacing_mm) / 1000)


def test_probabilities_are_averaged_not_logits(simple: Plan) -> None:
    """Of two members that contradict each other, the mean of probabilities is near even, of logits far from it."""
    ensemble = Ensemble("d", simple, [Constant(0.40, 0.59, 0.01), Constant(0.30, 0.01, 0.69)])
    image = Volume(np.zeros((8, 8, 8), np.int16), np.diag([*simple.spacing_mm, 1.0]))
    found = predict(ensemble, image, overlap=0.25, batch_size=2, threads=1)
    # The mean of logits would give .68, .15, .16.
    probabilities = member_probabilities(ensemble, image, overlap=0.25, batch_size=2, precision="32", device="cpu")
    np.testing.assert_allclose(probabilities[0, :, 3, 3, 3], [0.40, 0.59, 0.01], atol=1e-6)
    np.testing.assert_allclose(probabilities.mean(axis=0)[:, 3, 3, 3], [0.35, 0.30, 0.35], atol=1e-6)
    mean = np.array([0.35, 0.30, 0.35])
    assert found.scores["entropy_image"] == pytest.approx(-(mean * np.log(mean)).sum(), rel=1e-5)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_drafts_repeat(plan: Plan, precision: str) -> None:
    """The same exam gives the same labels and scores to the last digit."""
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(build_network(plan.architecture, network_arguments(plan)).eval())
    ensemble = Ensemble("d", plan, networks)
    image = Volume(np.random.default_rng(1).normal(100, 60, (30, 26, 18)).astype(np.float32), np.diag([1.9, 2.2, 3, 1]))
    arguments = {"overlap": 0.5, "batch_size": 4, "threads": 1, "precision": precision}
    first, second = (predict(ensemble, image, **arguments) for _ in range(2))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.scores == second.scores and first.labels.shape == image.shape


def test_probabilities_sum_to_one(plan: Plan) -> None:
    """Overlapping windows blend into probabilities, each voxel's summing to 1."""
    torch.manual_seed(0)
    ensemble = Ensemble("d", plan, [build_network(plan.architecture, network_arguments(plan)).eval()])
    image = Volume(np.random.default_rng(1).normal(100, 60, (40, 20, 10)).astype(np.float32), np.diag([2.0, 2, 3, 1]))
    found = member_probabilities(ensemble, image, overlap=0.5, batch_size=2, precision="32", device="cpu")
    assert found.shape == (1, 3, 40, 20, 10)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_an_exam_that_holds_no_numbers_is_not_drafted(plan: Plan) -> None:
    """A NaN is an error, not an empty draft."""
    image = Volume(np.full((8, 8, 8), np.nan, np.float32), np.eye(4))
    with pytest.raises(ReadError, match="not finite"):
        predict(Ensemble("d", plan, [Threshold()]), image, overlap=0.5, batch_size=1, threads=1)
