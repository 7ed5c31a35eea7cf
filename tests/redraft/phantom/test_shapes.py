"""Shapes and fields live in millimetres of the body."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.phantom.shapes import Grid, ellipsoid, paint, paint_tube, smooth_field


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@given(st.tuples(*[st.floats(-60, 60)] * 3), st.tuples(*[st.floats(0.5, 40)] * 3), st.tuples(*[st.integers(2, 14)] * 3))
@settings(max_examples=60, deadline=None)
def test_painting_in_a_box_is_painting_everywhere(centre, radii, shape):
    """Looking only at the bounding box fills the very voxels that looking everywhere does, empty boxes included."""
    grid = Grid.centred(shape, (7.0, 6.0, 9.0))
    painted = np.zeros(shape)
    paint(painted, grid, centre, radii, 5.0)
    assert np.array_equal(painted == 5, ellipsoid(grid, centre, radii) < 1)


def test_a_tube_is_the_points_near_its_axis():
    """A tube holds exactly the voxels nearer to its axis than its radius."""
    grid = Grid.centred((20, 18, 16), (2.0, 2.0, 3.0))
    a, b = np.array([-9.0, 4.0, -12.0]), np.array([8.0, -6.0, 10.0])
    painted = np.zeros(grid.shape)
    paint_tube(painted, grid, tuple(a), tuple(b), 5.0, 1.0)
    points = np.stack(np.broadcast_arrays(grid.x, grid.y, grid.z), -1)
    way = np.linspace(0, 1, 4001)[:, None] * (b - a) + a
    nearest = np.array([np.linalg.norm(way - p, axis=1).min() for p in points.reshape(-1, 3)]).reshape(grid.shape)
    clear = np.abs(nearest - 5.0) > 1e-2  # the oracle samples the axis
    assert np.array_equal((painted > 0)[clear], (nearest < 5)[clear])


def test_field_has_zero_mean_and_unit_deviation():
    """The closed-form normalisation holds over many draws."""
    grid = Grid.centred((9, 9, 9), (7.3, 7.9, 6.1))
    draws = np.stack([smooth_field(rng(n), grid, 9.0, (0, 0, 0), (40, 40, 40)) for n in range(400)])
    assert abs(draws.mean()) < 0.03
    assert draws.std() == pytest.approx(1.0, abs=0.03)


def test_field_correlates_over_its_length():
    """Voxels one correlation length apart still agree, four lengths apart no longer."""
    grid = Grid(np.array([0.0, 10.0, 40.0]).reshape(-1, 1, 1), np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))
    draws = np.array([smooth_field(rng(n), grid, 10.0, (0, 0, 0), (60, 20, 20)).ravel() for n in range(600)])
    correlation = np.corrcoef(draws.T)[0]
    assert correlation[1] == pytest.approx(np.exp(-0.25), abs=0.08)  # two Gaussians overlap
    assert abs(correlation[2]) < 0.12


def test_field_depends_on_neither_voxels_nor_position():
    """Finer voxels or a moved patient show the same field at the same place of the body, and draw as many numbers."""
    place = ((3.0, -2.0, 5.0), (50.0, 50.0, 50.0))
    coarse, fine = Grid.centred((5, 5, 5), (8, 8, 8)), Grid.centred((9, 9, 9), (4, 4, 4))
    moved = Grid.centred((7, 5, 5), (8, 8, 8), (16, 0, 0))
    generators = [rng(3), rng(3), rng(3)]
    a, b, c = (
        smooth_field(generator, grid, 12.0, *place)
        for generator, grid in zip(generators, (coarse, fine, moved), strict=True)
    )
    np.testing.assert_allclose(a, b[::2, ::2, ::2], atol=1e-12)
    np.testing.assert_allclose(a[1:], c[:4], atol=1e-12)
    assert len({generator.integers(2**60) for generator in generators}) == 1
