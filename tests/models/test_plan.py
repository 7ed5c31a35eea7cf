"""Plans from fingerprints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.networks import build_network, network_arguments
from models.plan import Fingerprint, Plan, make_plan, take_fingerprint
from redraft.config.schema import Train
from redraft.errors import ModelPackageError, StateError
from redraft.volumes import Volume


def fingerprint(shape: tuple[int, int, int], spacing: tuple[float, float, float], modality: str = "CT") -> Fingerprint:
    return Fingerprint(
        modality=modality, exams=3, spacing_mm=spacing, shape=shape, foreground=(-50.0, 200.0, 80.0, 30.0)
    )


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(*[st.integers(1, 600)] * 3),
    st.tuples(*[st.floats(0.3, 8.0)] * 3),
    st.integers(2, 6),
    st.integers(4096, 400_000),
)
def test_patches_fit_network_and_memory(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], levels: int, limit: int
) -> None:
    """Every patch divides by its strides, keeps more than one voxel at the bottom, and stays within its limit."""
    train = Train(channels=tuple(4 * 2**n for n in range(levels)), max_patch_voxels=limit)
    plan = make_plan(fingerprint(shape, spacing), train, {"organ": 1})
    factor = np.prod(np.array(plan.strides).reshape(-1, 3), axis=0)
    patch = np.array(plan.patch)
    assert (patch % factor == 0).all() and np.prod(patch // factor) > 1
    smallest = np.maximum(factor, 16) + factor
    assert np.prod(patch) <= max(limit, np.prod(smallest))


def test_anisotropic_axes_even_out() -> None:
    """Slices ten times thicker than pixels are halved only when the pixels have become as coarse."""
    plan = make_plan(fingerprint((320, 320, 30), (0.6, 0.6, 6.0)), Train(channels=(8, 16, 32, 64, 128)), {"organ": 1})
    assert plan.strides == ((2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))


def test_thin_stacks_keep_their_slices() -> None:
    """Six slices are not halved away, and do not hold the other axes back."""
    plan = make_plan(fingerprint((200, 200, 6), (1.0, 1.0, 1.0)), Train(channels=(8, 16, 32)), {"organ": 1})
    assert plan.strides == ((2, 2, 1), (2, 2, 1)) and plan.patch[2] == 6


def test_project_yaml_wins() -> None:
    """Patch and spacing that project.yaml gives are used, the patch rounded up to what the network divides by."""
    train = Train(channels=(8, 16, 32), patch=(30, 33, 16), spacing_mm=(2.0, 2.0, 2.0))
    plan = make_plan(fingerprint((100, 100, 100), (1.0, 1.0, 1.0)), train, {"organ": 1})
    assert plan.patch == (32, 36, 16) and plan.spacing_mm == (2.0, 2.0, 2.0)


def test_intensity_rule_follows_the_modality() -> None:
    """CT is in Hounsfield units and takes the training set's range; MR has no unit and is normalised by itself."""
    for modality, rule in (("CT", "clip_zscore"), ("MR", "exam_zscore"), ("PT", "exam_zscore")):
        plan = make_plan(fingerprint((64, 64, 64), (1.0, 1.0, 1.0), modality), Train(), {"organ": 1})
        assert plan.intensity == rule


def test_a_plan_is_frozen_and_survives_json() -> None:
    """A plan cannot be changed, refuses unknown keys, and has the same digest after a round trip."""
    plan = make_plan(fingerprint((64, 64, 64), (1.0, 1.0, 1.2)), Train(), {"b": 7, "a": 3})
    again = Plan.model_validate_json(plan.model_dump_json())
    assert again == plan and again.digest == plan.digest and plan.classes == [0, 3, 7]
    with pytest.raises(ValidationError):
        plan.patch = (8, 8, 8)  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Plan.model_validate({**plan.model_dump(), "more": 1})
    assert plan.model_copy(update={"patch": (8, 8, 8)}).digest != plan.digest


def test_differences_name_what_changed() -> None:
    """A project.yaml that moved away from the frozen plan is told apart from one that did not."""
    train = Train(channels=(8, 16))
    plan = make_plan(fingerprint((64, 64, 64), (1.0, 1.0, 1.0)), train, {"organ": 1})
    assert plan.differences(train, {"organ": 1}) == []
    told = plan.differences(Train(channels=(8, 32), spacing_mm=(2, 2, 2)), {"organ": 2})
    assert [line.split(" is ")[0] for line in told] == ["structures", "train.channels", "train.spacing_mm"]


def test_fingerprint_does_not_depend_on_storage_order() -> None:
    """The same exam stored with other axes gives the same spacing, shape and range; the statistics are numpy's."""
    rng = np.random.default_rng(0)
    image = rng.normal(50, 10, (20, 24, 12)).astype(np.float32)
    label = (rng.random((20, 24, 12)) < 0.3).astype(np.uint8)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    turned = affine[:, [2, 0, 1, 3]].copy()
    turned[:3, 0] *= -1
    stored = [np.flip(array.transpose(2, 0, 1), axis=0) for array in (image, label)]
    first = take_fingerprint([(Volume(image, affine), Volume(label, affine))], "CT")
    second = take_fingerprint([(Volume(stored[0], turned), Volume(stored[1], turned))], "CT")
    assert first == second
    assert first.shape == (20, 24, 12) and first.spacing_mm == (1.0, 2.0, 3.0)
    np.testing.assert_allclose(first.foreground[:2], np.percentile(image[label > 0], [0.5, 99.5]), rtol=1e-6)


def test_a_plan_needs_something_to_learn() -> None:
    """Labelled exams without a single marked voxel are an error that says what to do."""
    empty = Volume(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    with pytest.raises(StateError, match="None of the 2 labelled exams"):
        take_fingerprint([(empty, empty)] * 2, "CT")


@settings(max_examples=12, deadline=None)
@given(st.tuples(*[st.integers(4, 40)] * 3), st.tuples(*[st.floats(0.5, 5.0)] * 3), st.integers(2, 4))
def test_planned_networks_run(shape: tuple[int, int, int], spacing: tuple[float, float, float], levels: int) -> None:
    """The network of any plan takes its patch in training mode and returns one channel per class on the same grid."""
    train = Train(channels=tuple(2 * 2**n for n in range(levels)), max_patch_voxels=4096)
    plan = make_plan(fingerprint(shape, spacing), train, {"a": 1, "b": 2})
    network = build_network(plan.architecture, network_arguments(plan)).train()
    assert network(torch.zeros(1, 1, *plan.patch)).shape == (1, 3, *plan.patch)


def test_unknown_architectures_are_refused() -> None:
    """A package that names a network this version does not have is an error that lists those it has."""
    with pytest.raises(ModelPackageError, match="Known: unet"):
        build_network("transformer", {})
