"""Spheres in lungs."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from small_models import patient
from trial_maker import GRID, chest, make_trial

from voxray.data.store import Case
from voxray.errors import InputError
from voxray.evaluation.planting import APART_MM, MARGINS_MM, NODULE_HU, draw_sites, mean_in_sphere, sphere, with_nodules
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume

MIDDLE = np.array([1.0, 2.0, -3.0])


def turned(spacing_mm: tuple[float, float, float], degrees: float) -> VolumeGrid:
    """Return a grid of 200 mm about the origin, turned about x."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    shape = tuple(round(200 / mm) for mm in spacing_mm[::-1])
    affine = np.array(VolumeGrid.centred(shape=shape, spacing_mm=spacing_mm).affine)  # type: ignore[arg-type]
    affine[:3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3]
    return VolumeGrid(shape, affine)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing_mm", [(2.5, 2.5, 2.5), (1.0, 1.0, 3.0)])
@pytest.mark.parametrize("diameter_mm", [10.0, 32.0])
@pytest.mark.parametrize("degrees", [0, 20])
def test_a_sphere_has_its_volume_and_its_place(
    spacing_mm: tuple[float, float, float], diameter_mm: float, degrees: float
) -> None:
    grid = turned(spacing_mm, degrees)
    (z, y, x), share = sphere(grid, MIDDLE, diameter_mm)
    volume = float(share.double().sum()) * math.prod(spacing_mm)
    assert volume == pytest.approx(math.pi / 6 * diameter_mm**3, rel=0.02 if diameter_mm < 20 else 0.005)
    k, j, i = np.meshgrid(*(np.arange(s.start, s.stop) for s in (z, y, x)), indexing="ij")
    weights = share.double().numpy()[..., None]
    centre = (grid.index_to_mm(np.stack([i, j, k], -1)) * weights).sum((0, 1, 2)) / weights.sum()
    np.testing.assert_allclose(centre, MIDDLE, atol=0.1)


def test_the_surface_fills_voxels_by_half() -> None:
    grid = VolumeGrid.centred(shape=(21, 21, 21), spacing_mm=2.0)
    (z, y, x), share = sphere(grid, np.zeros(3), 8.0)
    row = share[10 - z.start, 10 - y.start]
    assert row[10 - x.start :].tolist() == pytest.approx([1, 1, 0.5])
    assert row.tolist() == row.flip(0).tolist()


def test_a_sphere_beyond_the_grid_fills_nothing_and_one_at_its_edge_half() -> None:
    grid = VolumeGrid.centred(shape=(20, 20, 20), spacing_mm=2.0)
    inside = sphere(grid, np.zeros(3), 10.0)[1].sum()
    assert sphere(grid, np.array([0.0, 0.0, 500.0]), 10.0)[1].sum() == 0
    assert sphere(grid, np.array([0.0, -500.0, 0.0]), 10.0)[1].sum() == 0
    assert float(sphere(grid, np.array([20.0, 0.0, 0.0]), 10.0)[1].sum()) == pytest.approx(float(inside) / 2, rel=1e-5)


def test_nodules_are_in_the_cube_and_in_the_scan_at_the_same_place() -> None:
    case = patient(20)
    before = case.volume.hu.clone(), case.scan.hu.clone()
    centres = [case.isocentre_mm + offset for offset in ((-70.0, 0.0, 0.0), (70.0, 10.0, 60.0))]
    changed = with_nodules(case, centres, 40.0)
    assert (changed.record, changed.volume.grid, changed.scan.grid) == (case.record, case.volume.grid, case.scan.grid)
    assert torch.equal(case.volume.hu, before[0])
    assert torch.equal(case.scan.hu, before[1])
    for old, new in ((case.volume, changed.volume), (case.scan, changed.scan)):
        k, j, i = np.indices(old.grid.shape)
        places = old.grid.index_to_mm(np.stack([i, j, k], -1))
        distance = np.min([np.linalg.norm(places - centre, axis=-1) for centre in centres], axis=0)
        assert (new.hu[torch.from_numpy(distance < 14)] == NODULE_HU).all()
        outside = torch.from_numpy(distance > 26)
        assert torch.equal(new.hu[outside], old.hu[outside])


def test_the_mean_in_a_sphere_by_hand() -> None:
    grid = VolumeGrid.centred(shape=(11, 11, 11), spacing_mm=1.0)
    hu = torch.zeros(grid.shape)
    hu[:, :, 6:] = 100.0  # half of the sphere, but for the middle plane
    _, share = sphere(grid, np.zeros(3), 6.0)
    plane = float(share[:, :, share.shape[2] // 2].sum() / share.sum())
    assert mean_in_sphere(hu, grid, np.zeros(3), 6.0) == pytest.approx(50 * (1 - plane), rel=1e-5)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sites_are_wholly_inside_the_lungs() -> None:
    """In lungs of boxes, 60 mm wide: a sphere of 24 mm has its centre 17 to 43 mm within."""
    case = make_trial(chest(), chest()).case
    rounds = draw_sites(case, 12, 24.0, rng())
    assert sum(map(len, rounds)) == 12
    whole = case.volume.hu == -850.0
    for centres in rounds:
        heights = sorted(float(centre[2]) for centre in centres)
        assert all(b - a >= APART_MM for a, b in itertools.pairwise(heights))
        for centre in centres:
            box, share = sphere(case.volume.grid, centre, 24.0)
            assert bool(whole[box][share > 0].all())
    sites = np.array([centre for centres in rounds for centre in centres])
    distances = np.linalg.norm(sites[:, None] - sites, axis=-1) + 1e9 * np.eye(12)
    assert distances.min() >= 12


def test_D2_sites_depend_on_the_seed() -> None:
    case = patient(20)
    first, again, other = (np.concatenate(draw_sites(case, 4, 16.0, rng(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_D2_sites_with_room_do_not_depend_on_the_diameter_and_others_come_after_them() -> None:
    case = one_cavity(80)
    few, most = (np.concatenate(draw_sites(case, 4, size, rng())) for size in (10.0, 32.0))
    np.testing.assert_array_equal(few, most)
    with pytest.raises(InputError, match="of 60 sites of 32 mm"):
        draw_sites(case, 60, 32.0, rng())
    many = np.concatenate(draw_sites(case, 60, 10.0, rng()))
    np.testing.assert_array_equal(many[:4], few)


@pytest.mark.parametrize("vessel_hu", [-450.0, 40.0])
def test_no_site_has_a_vessel_in_it(vessel_hu: float) -> None:
    """A plate of two voxels of 5 mm across the lungs, which their mask may hold (-450 HU) or not."""
    case = make_trial(chest(), chest()).case
    hu = chest()[4:28].repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    hu[:, 28:30, 14:50] = vessel_hu
    grid = VolumeGrid.centred(case.isocentre_mm, (48, 64, 64), 5.0)
    fine = dataclasses.replace(case, volume=CTVolume(hu, grid))
    y_mm = grid.index_to_mm((0, 28.5, 0))[1]
    sites = np.concatenate(draw_sites(fine, 40, 10.0, rng()))
    assert np.abs(sites[:, 1] - y_mm).min() >= 5 + 5 + 5  # half a plate, a margin, a radius
    for centre in sites:
        assert mean_in_sphere(hu, grid, centre, 10.0) == -850


def one_cavity(side_mm: float) -> Case:
    """Return a body on voxels of 5 mm with a single lung, a cube."""
    half = round(side_mm / 10)
    hu = torch.full((64, 64, 64), 40.0)
    hu[32 - half : 32 + half, 32 - half : 32 + half, 32 - half : 32 + half] = -850.0
    case = make_trial(chest(), chest()).case
    return dataclasses.replace(case, volume=CTVolume(hu, VolumeGrid.centred(case.isocentre_mm, hu.shape, 5.0)))


def test_the_margin_gives_way_where_lungs_are_small() -> None:
    """Middle voxels of a lung of 80 mm are 40 mm from the next other one, whose corner may be 4.33 mm nearer."""
    assert draw_sites(one_cavity(80), 1, 71.0, rng())
    with pytest.raises(InputError, match="room for 0 of 1 sites of 72 mm"):
        draw_sites(one_cavity(80), 1, 72.0, rng())


def test_sites_with_a_wide_margin_come_first_and_stay_when_more_are_asked_for() -> None:
    case = one_cavity(80)
    few, many = (np.concatenate(draw_sites(case, count, 24.0, rng())) for count in (3, 50))
    np.testing.assert_array_equal(many[:3], few)
    margins = 42.5 - 4.33 - 12 - np.abs(many - case.isocentre_mm).max(1)  # other voxels are 42.5 mm from the middle
    classes = [next(wide for wide in MARGINS_MM if margin >= wide - 0.01) for margin in margins]
    assert classes == sorted(classes, reverse=True)
    assert set(classes) == {5.0, 2.5}  # centres are 5 mm apart: none has less


def test_lungs_without_room_are_said() -> None:
    case = make_trial(chest(), chest()).case
    with pytest.raises(InputError, match=r"'phantom00' have room for 0 of 2 sites of 100 mm: give more cases"):
        draw_sites(case, 2, 100.0, rng())
    air = torch.full(GRID.shape, -1024.0)
    with pytest.raises(InputError, match=r"room for 0 of 1 sites"):
        draw_sites(make_trial(air, air).case, 1, 10.0, rng())
