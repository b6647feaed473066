"""Resampling: places, smoothing, and the published pipeline."""

from pathlib import Path

import numpy as np
import pytest
import torch

from voxray.data.body_mask import body_mask, without_couch
from voxray.data.one_case import x2ct_box, x2ct_cube
from voxray.data.resample import resample, upright
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume
from voxray.images.read_ct import read_ct


def ramp(grid: VolumeGrid) -> CTVolume:
    """HU = 0.5 x + 2 y - z, so that a value tells its place."""
    k, j, i = np.indices(grid.shape)
    xyz = grid.index_to_mm(np.stack([i, j, k], -1))
    return CTVolume(torch.from_numpy(xyz @ (0.5, 2.0, -1.0)), grid)


def test_places_are_kept() -> None:
    volume = ramp(VolumeGrid.centred((10, 20, 30), (40, 50, 60), (2.0, 1.5, 3.0)))
    out = resample(volume, VolumeGrid.centred((12, 18, 33), (8, 8, 8), 4.0))
    assert torch.allclose(out.hu, ramp(out.grid).hu, atol=0.05)


def test_outside_is_air() -> None:
    out = resample(ramp(VolumeGrid.centred(shape=(8, 8, 8))), VolumeGrid.centred((500, 0, 0), (8, 8, 8)))
    assert (out.hu == -1024).all()


def test_thin_slices_do_not_alias() -> None:
    grid = VolumeGrid.centred(shape=(64, 8, 8), spacing_mm=(2.5, 2.5, 0.625))
    stripes = torch.zeros(grid.shape)
    stripes[::2] = 100.0
    volume, target = CTVolume(stripes, grid), VolumeGrid.centred((0, 0, 0.3), (8, 8, 8), 2.5)
    assert resample(volume, target).hu.std() < 2
    assert resample(volume, target, smoothing=0).hu.std() < 100
    assert (resample(volume, target).hu - 50).abs().max() < 5


def test_turned_arrays_become_upright_without_moving_anything() -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, -2.0], [-3.0, 0, 0], [0, 4.0, 0]])
    volume = ramp(VolumeGrid((5, 6, 7), affine))
    out = upright(volume)
    assert out.grid.direction == pytest.approx(np.eye(3))
    assert out.grid.shape == (6, 7, 5)
    assert torch.allclose(out.hu, ramp(out.grid).hu, atol=1e-3)


def test_the_reference_chest_is_reproduced_from_its_thin_slices(shared_data: Path) -> None:
    truth = read_ct(shared_data / "reference" / "lidc0004" / "ct.nii.gz")
    scan = read_ct(shared_data / "ct_native" / "lidc0004.nii.gz")
    bare = without_couch(scan, body_mask(scan))
    assert (resample(bare, truth.grid).hu - truth.hu).square().mean().sqrt() < 5
    assert (resample(bare, truth.grid, smoothing=0).hu - truth.hu).square().mean().sqrt() > 15


@pytest.mark.parametrize(("slices", "first"), [(400, 80), (325, 5), (320, 0), (301, -9), (300, -10)])
def test_x2ct_keeps_the_last_320_slices_or_pads_both_ends(slices: int, first: int) -> None:
    grid = VolumeGrid((slices, 327, 281), np.eye(4))
    box = x2ct_box(grid)
    assert box.shape == (320, 320, 320)
    assert box.origin_mm.tolist() == [-19, 3, first]


def test_x2ct_gives_a_cube_of_320_mm_with_air_around_the_scan() -> None:
    volume = ramp(VolumeGrid((60, 60, 60), np.diag([4.0, 4, 4, 1])))
    cube = x2ct_cube(volume, (32, 32, 32))
    assert cube.grid.size_mm == pytest.approx([320, 320, 320])
    assert cube.grid.centre_mm == pytest.approx(volume.grid.centre_mm)
    assert (cube.hu[0] == -1024).all()
    inner = slice(8, 24)
    assert torch.allclose(cube.hu[inner, inner, inner], ramp(cube.grid).hu[inner, inner, inner], atol=1)


def test_I8_the_x2ct_cube_of_an_oblique_scan_is_upright() -> None:
    affine = np.array(VolumeGrid.centred(shape=(20, 20, 20), spacing_mm=20.0).affine)
    angle = np.deg2rad(10)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine[:3] = turn @ affine[:3]
    cube = x2ct_cube(ramp(VolumeGrid((20, 20, 20), affine)), (16, 16, 16))
    assert cube.grid.is_close(VolumeGrid.centred(cube.grid.centre_mm, (16, 16, 16), 20.0))
    inner = (slice(2, -2),) * 3
    assert torch.allclose(cube.hu[inner], ramp(cube.grid).hu[inner], atol=1.5)
