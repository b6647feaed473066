"""Variations of a volume: their covariance, and the exact adjoint."""

import pytest
import torch

from voxray.errors import GeometryError
from voxray.geometry import VolumeGrid
from voxray.physics.variation import Variation

GRID = VolumeGrid.centred((3, -2, 9), (5, 4, 6), (4.0, 5.0, 6.0))


def patterns(count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(count)
    return torch.randn(count, *GRID.shape, generator=rng, dtype=torch.float64)


def matrix(variation: Variation) -> torch.Tensor:
    """Return `synthesise` as a matrix (voxels, coefficients)."""
    count = torch.Size(variation.shape).numel()
    ones = torch.eye(count, dtype=torch.float64).reshape(count, *variation.shape)
    return torch.stack([variation.synthesise(one).flatten() for one in ones], dim=1)


@pytest.mark.parametrize("knot_mm", [None, 5.0, 12.0])
@pytest.mark.parametrize("count", [1, 3])
def test_N1_analyse_is_the_adjoint_of_synthesise(count: int, knot_mm: float | None) -> None:
    variation = Variation(patterns(count), GRID, 6.0, knot_mm)
    rng = torch.Generator().manual_seed(1)
    c = torch.randn(variation.shape, generator=rng, dtype=torch.float64)
    v = torch.randn(GRID.shape, generator=rng, dtype=torch.float64)
    forward, backward = (variation.synthesise(c) * v).sum(), (c * variation.analyse(v)).sum()
    assert abs(forward - backward) < 1e-12 * c.norm() * v.norm()


@pytest.mark.parametrize(("length_mm", "knot_mm"), [(1.0, None), (6.0, None), (50.0, None), (6.0, 6.0), (20.0, 20.0)])
def test_fields_have_unit_variance_everywhere_edges_included(length_mm: float, knot_mm: float | None) -> None:
    variation = Variation(torch.ones(1, *GRID.shape, dtype=torch.float64), GRID, length_mm, knot_mm)
    variance = matrix(variation).square().sum(1)
    assert variance == pytest.approx(torch.ones(variance.shape), abs=1e-12)


def test_the_covariance_is_that_of_the_patterns_localised() -> None:
    """Sum_n d_n d_n^T o L, with L the product of one-dimensional correlations."""
    d, length = patterns(3), 6.0
    synthesis = matrix(Variation(d, GRID, length))
    k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in GRID.shape), indexing="ij")
    correlation = torch.ones(k.numel(), k.numel(), dtype=torch.float64)
    for places, spacing in zip((k, j, i), GRID.spacing_mm[::-1], strict=True):
        axis = torch.arange(int(places.max()) + 1, dtype=torch.float64)
        weights = torch.exp(-((axis[:, None] - axis) ** 2) * spacing**2 / (2 * length**2))
        weights = weights / weights.square().sum(1, keepdim=True).sqrt()
        number = places.flatten().long()
        correlation = correlation * (weights @ weights.T)[number][:, number]
    flat = d.flatten(1)
    expected = sum(torch.outer(p, p) for p in flat) * correlation
    assert torch.allclose(synthesis @ synthesis.T, expected, atol=1e-12)


def test_inside_fields_correlate_as_a_gaussian_of_root_two_times_the_blur() -> None:
    grid = VolumeGrid.centred(shape=(1, 1, 41), spacing_mm=2.0)
    for knot_mm in (None, 8.0):
        blur = matrix(Variation(torch.ones(1, 1, 1, 41, dtype=torch.float64), grid, 8.0, knot_mm))
        distance = 2.0 * (torch.arange(41, dtype=torch.float64) - 20)
        expected = torch.exp(-0.25 * (distance / 8.0) ** 2)
        near = abs(distance) <= 16
        assert (blur @ blur[20])[near] == pytest.approx(expected[near], abs=5e-3)


def test_knots_fill_the_box_evenly() -> None:
    variation = Variation(torch.ones(2, *GRID.shape), GRID, 12.0, knot_mm=8.0)
    assert variation.shape == (2, 4, 2, 3)  # 30 x 20 x 24 mm
    assert Variation(torch.ones(2, *GRID.shape), GRID, 12.0).shape == (2, *GRID.shape)
    assert Variation(torch.ones(1, *GRID.shape), GRID, 500.0, knot_mm=500.0).shape == (1, 2, 2, 2)


def test_patterns_must_be_on_the_grid() -> None:
    with pytest.raises(GeometryError, match=r"Patterns of shape \(5, 4, 5\) on a grid of \(5, 4, 6\)"):
        Variation(torch.ones(1, 5, 4, 5), GRID, 5.0)
