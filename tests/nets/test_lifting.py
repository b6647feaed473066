"""From images to points of the volume and back to slices, along the true rays."""

import numpy as np
import pytest
import torch
from small_models import GRID, SETUP, SHAPE, rng

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.nets.lifting import along_rays, from_slices, lattice, pinholes, read_at, seen_at
from voxray.physics.sampling import on_detector

# Beams along the axes whose pixels are the voxels.
PARALLEL = ViewGeometry.parallel([0.0, 90.0], pixel_mm=10.0, shape=(32, 32))


def test_voxels_have_their_places_between_the_faces() -> None:
    places = lattice(SHAPE)
    assert torch.allclose(places[0, 0, 0], torch.tensor([-1.0, -1.0, -1.0]) + 1 / 32)
    assert torch.allclose(places[3, 7, 30], torch.tensor([61.0 / 32, 15.0 / 32, 7.0 / 32]) - 1)


def test_a_matrix_shows_points_where_the_view_shows_them() -> None:
    views = ViewGeometry.from_angles([35.0, -140.0], [10.0, -20.0], setup=SETUP).resized([(40, 64), (64, 48)])
    grid = VolumeGrid.centred(shape=(16, 24, 32), spacing_mm=10.0)
    points = 2 * torch.rand(50, 3, generator=rng()) - 1
    seen = seen_at(pinholes([views], grid), points)
    points_mm = points.double().numpy() * grid.size_mm / 2
    for n in range(2):
        expected, _ = on_detector(points_mm, views, n)
        assert torch.allclose(seen[0, n, :, :2], expected, atol=1e-4)
        axis = -views.source_mm[n] / np.linalg.norm(views.source_mm[n])
        depth = (points_mm - views.source_mm[n]) @ axis / np.linalg.norm(views.source_mm[n])
        assert seen[0, n, :, 2].numpy() == pytest.approx(depth, abs=1e-5)


def test_a_map_of_parallel_beams_is_copied_along_their_axis() -> None:
    """Of PA along y, of a left lateral along x; rows run towards the feet, seen from the detector."""
    maps = torch.rand(1, 2, 3, 32, 32, generator=rng())
    pa, lateral = along_rays(maps, pinholes([PARALLEL], GRID), SHAPE)[0]
    assert torch.allclose(pa, maps[0, 0].flip(1)[:, :, None].expand_as(pa), atol=2e-3)
    assert torch.allclose(lateral, maps[0, 1].flip(1)[..., None].expand_as(lateral), atol=2e-3)


def test_slices_of_parallel_beams_are_those_of_the_volume() -> None:
    """The nearest to the source comes first: of PA, that is the back, where y is largest."""
    slices = torch.rand(1, 32, 32, 32, generator=rng())
    volume = from_slices(slices, pinholes([PARALLEL], GRID)[:, 0], SHAPE)
    expected = slices[0].flip(1).transpose(0, 1).flip(1)
    assert torch.allclose(volume[0], expected, atol=5e-3)


def test_slices_follow_rays_that_diverge() -> None:
    """What is drawn at one place of all slices lies on one ray."""
    views = ViewGeometry.from_angles([30.0], setup=SETUP)
    shown = pinholes([views], GRID)
    slices = torch.zeros(1, 32, 32, 32)
    slices[0, :, 10:13, 20:23] = 1.0
    volume = from_slices(slices, shown[:, 0], SHAPE)[0]
    places = seen_at(shown, lattice(SHAPE)[volume > 0.99].reshape(-1, 3))[0, 0, :, :2]
    assert len(places) > 100
    middle = torch.tensor([(2 * 21 + 1) / 32 - 1, (2 * 11 + 1) / 32 - 1])
    assert (places - middle).abs().max() < 3 / 32


def test_nothing_is_read_beside_a_map() -> None:
    places = torch.tensor([[[[0.0, 0.0], [1.5, 0.0]]]])
    assert read_at(torch.ones(1, 1, 1, 4, 4), places).tolist() == [[[[1.0, 0.0]]]]
