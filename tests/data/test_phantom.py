"""The random thorax: anatomy on the right side, sizes of real chests, the same thorax on every grid."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from voxray.data.phantom import Phantom, ThoraxParameters, draw_parameters, thorax_phantom
from voxray.data.phantom.chest import Chest
from voxray.data.phantom.parameters import RANGES
from voxray.data.phantom.skeleton import rib
from voxray.errors import InputError
from voxray.geometry import VolumeGrid

FINE = VolumeGrid.centred((5, -10, 900), (128, 128, 128), 2.5)
COARSE = VolumeGrid.centred((5, -10, 900), (64, 64, 64), 5.0)
SEEDS = range(8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def upright_parameters(seed: int) -> ThoraxParameters:
    """A drawn thorax in a straight pose, without contrast agent: body coordinates are LPS about the middle."""
    drawn = draw_parameters(seeded(seed))
    return replace(drawn, turn=0.0, tilt=0.0, lean=0.0, shift=(0.0, 0.0, 0.0), contrast_hu=0.0)


def upright(seed: int, grid: VolumeGrid) -> Phantom:
    return thorax_phantom(grid, rng=seeded(seed), parameters=upright_parameters(seed), max_nodules=0)


@pytest.fixture(scope="module", params=[1, 2, 3])
def chest_and_hu(request: pytest.FixtureRequest) -> tuple[Chest, Tensor]:
    phantom = upright(request.param, FINE)
    return Chest(phantom.parameters), phantom.volume.hu


def region(hu: Tensor, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> Tensor:
    """The voxels of FINE between body coordinates."""
    low = np.rint(FINE.mm_to_index(np.add((x[0], y[0], z[0]), FINE.centre_mm))).astype(int).clip(0)
    high = np.rint(FINE.mm_to_index(np.add((x[1], y[1], z[1]), FINE.centre_mm))).astype(int) + 1
    return hu[low[2] : high[2], low[1] : high[1], low[0] : high[0]]


def at(hu: Tensor, x: float, y: float, z: float) -> float:
    return float(region(hu, (x, x), (y, y), (z, z)).mean())


def test_N4_heart_is_at_the_left(chest_and_hu: tuple[Chest, Tensor]) -> None:
    chest, hu = chest_and_hu
    z = chest.dome_right_z + 8
    soft = region(hu, (-90, 90), (-70, 10), (z, z + 40)) > 0
    x = torch.linspace(-90, 90, soft.shape[2])
    assert float((soft * x).sum() / soft.sum()) > 8


def test_N4_liver_is_at_the_right_and_the_gas_of_the_stomach_at_the_left(chest_and_hu: tuple[Chest, Tensor]) -> None:
    chest, hu = chest_and_hu
    p = chest.parameters
    right = region(hu, (-0.6 * p.half_width, -0.4 * p.half_width), (-20, 0), (chest.dome_right_z - 60,) * 2)
    assert float(right.mean()) == pytest.approx(p.tissues.liver, abs=15)
    low = region(hu, (-100, 100), (-90, 40), (chest.dome_left_z - 60, chest.dome_left_z - 30))
    gas = (low < -700).sum(dim=(0, 1))
    assert int(gas[: len(gas) // 2].sum()) < 0.1 * int(gas[len(gas) // 2 :].sum())


def test_N4_right_dome_is_the_higher_one(chest_and_hu: tuple[Chest, Tensor]) -> None:
    chest, hu = chest_and_hu
    x, z = 0.5 * chest.parameters.half_width, 0.5 * (chest.dome_left_z + chest.dome_right_z)
    y = -0.15 * chest.parameters.half_depth
    assert at(hu, -x, y, chest.dome_left_z - 6) > -100 > -500 > at(hu, x + 14, y, chest.dome_right_z + 10)
    assert chest.dome_right_z > z > chest.dome_left_z


def test_N4_aorta_descends_left_of_the_spine(chest_and_hu: tuple[Chest, Tensor]) -> None:
    chest, hu = chest_and_hu
    z = chest.z(0.4)
    x, y = 27 * chest.parameters.width_scale, chest.spine_y.at(z) - 10
    assert at(hu, x, y, z) == pytest.approx(chest.parameters.tissues.blood, abs=30)
    assert at(hu, -x - 3, y, z) < -600


def test_N4_trachea_is_in_the_middle_in_front_of_the_spine(chest_and_hu: tuple[Chest, Tensor]) -> None:
    chest, hu = chest_and_hu
    z = chest.z(0.9)
    assert at(hu, 0, 8, z) < -900
    assert chest.spine_y.at(z) > 8 + 15


def test_N4_ribs_fall_to_the_front_and_are_bone(chest_and_hu: tuple[Chest, Tensor]) -> None:
    chest, hu = chest_and_hu
    for n in range(12):
        for side in (-1.0, 1.0):
            points = rib(chest, n, side)[0].points
            back, front = points[3], points[-1]
            assert back[2] - front[2] > 10
            assert n >= 10 or back[1] > front[1] + 60
            assert np.sign(points[:, 0]).tolist() == [side] * len(points)
            inside = [q for q in points[3:-1] if FINE.contains_mm(q + FINE.centre_mm)]
            assert all(at(hu, *(float(c) for c in q)) > 100 for q in inside)


def lung_litres(phantom: Phantom) -> tuple[float, float]:
    """The volume of lung at the right and the left of the middle, without its vessels."""
    hu, grid = phantom.volume.hu, phantom.volume.grid
    lung = ((hu < -600) & (hu > -965)).sum(dim=(0, 1)).double() * float(np.prod(grid.spacing_mm)) / 1e6
    return float(lung[: len(lung) // 2].sum()), float(lung[len(lung) // 2 :].sum())


def test_lungs_have_the_volume_of_a_deep_breath() -> None:
    litres = np.array([lung_litres(upright(seed, COARSE)) for seed in SEEDS])
    total, ratio = litres.sum(axis=1), litres[:, 0] / litres[:, 1]
    assert total.min() > 2.5
    assert total.max() < 8
    assert 3.5 < total.mean() < 6
    assert 1.0 < ratio.mean() < 1.25  # the heart takes its place from the left lung
    assert np.ptp(total) > 0.5


def test_histogram_has_the_peaks_of_lung_fat_and_soft_tissue() -> None:
    for seed in (1, 2):
        phantom = upright(seed, FINE)
        counts, edges = np.histogram(phantom.volume.hu.numpy(), bins=np.arange(-990, 400, 10))
        middles, p = (edges[:-1] + edges[1:]) / 2, phantom.parameters
        for low, high, expected in ((-960, -700, p.tissues.lung), (-200, -50, p.tissues.fat), (-20, 200, 50)):
            here = (middles > low) & (middles < high)
            peak = middles[here][counts[here].argmax()]
            assert peak == pytest.approx(expected, abs=25)
            valley = (middles > -600) & (middles < -300)
            assert counts[here].max() > 5 * counts[valley].max()


def test_D3_the_same_seed_gives_the_same_bits_and_the_global_generator_is_untouched() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first, second = (thorax_phantom(COARSE, rng=seeded(5)) for _ in range(2))
    assert torch.equal(first.volume.hu, second.volume.hu)
    assert first.nodules == second.nodules
    assert first.parameters == second.parameters
    other = thorax_phantom(COARSE, rng=seeded(6))
    assert float((other.volume.hu - first.volume.hu).abs().mean()) > 20
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]


def test_coarse_and_fine_grids_show_the_same_thorax() -> None:
    fine, coarse = (thorax_phantom(grid, rng=seeded(7)) for grid in (FINE, COARSE))
    pooled = F.avg_pool3d(fine.volume.hu[None, None], 2)[0, 0]
    difference = pooled - coarse.volume.hu
    assert float(difference.abs().mean()) < 20
    assert abs(float(difference.mean())) < 4
    sums = [(hu / 1000 + 1).sum(dim=1) * 5 for hu in (pooled, coarse.volume.hu)]  # mm of water, front to back
    assert float((sums[0] - sums[1]).abs().mean()) < 0.02 * float(sums[0].mean())
    assert fine.nodules == coarse.nodules


def test_larger_grid_holds_the_smaller_one() -> None:
    small = VolumeGrid.centred(shape=(40, 40, 40), spacing_mm=5.0)
    large = VolumeGrid.centred(shape=(80, 80, 80), spacing_mm=5.0)
    inner, outer = (thorax_phantom(grid, rng=seeded(8), max_nodules=0).volume.hu for grid in (small, large))
    assert torch.allclose(inner, outer[20:60, 20:60, 20:60], atol=5.0)


def test_O3_flipped_and_turned_grids_show_the_same_thorax() -> None:
    hu = thorax_phantom(COARSE, rng=seeded(9)).volume.hu
    flip = np.array(COARSE.affine)
    flip[:3, 3] = COARSE.index_to_mm((63, 0, 63))
    flip[:, [0, 2]] *= -1
    flipped = thorax_phantom(VolumeGrid(COARSE.shape, flip), rng=seeded(9)).volume.hu
    assert torch.allclose(flipped.flip((0, 2)), hu, atol=5.0)
    swap = np.array(COARSE.affine)[:, [2, 1, 0, 3]]  # the first axis of the array now runs to the left
    swapped = thorax_phantom(VolumeGrid(COARSE.shape, swap), rng=seeded(9)).volume.hu
    assert torch.allclose(swapped.permute(2, 1, 0), hu, atol=5.0)


def test_nodules_are_where_they_are_said_to_be() -> None:
    seen = []
    for seed in range(4):
        phantom = thorax_phantom(FINE, rng=seeded(seed), max_nodules=6)
        hu, k = phantom.volume.hu, torch.arange(128.0) * 2.5
        for nodule in phantom.nodules:
            assert 2 <= nodule.radius_mm <= 15
            x, y, z = (float(c) for c in np.subtract(nodule.centre_mm, FINE.origin_mm))
            distance = torch.sqrt((k - x) ** 2 + (k[:, None] - y) ** 2 + (k[:, None, None] - z) ** 2)
            if nodule.radius_mm > 4:
                core = hu[distance < nodule.radius_mm - 1.5]
                assert float(core.mean()) == pytest.approx(nodule.hu, abs=25)
            shell = hu[(distance > nodule.radius_mm + 2) & (distance < nodule.radius_mm + 5)]
            assert float(shell.median()) < -600  # lung all around
            seen.append(nodule.kind)
    assert {"solid", "ground glass"} == set(seen)


def test_parameters_stay_in_their_ranges_and_vary() -> None:
    drawn = [draw_parameters(seeded(seed)) for seed in range(60)]
    for name in set(RANGES) - {"flatness"}:
        values = [getattr(p, name) for p in drawn]
        low, high = RANGES[name]
        assert low <= min(values) < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < max(values) <= high
    assert {p.arms for p in drawn} == {"up", "down", ""}
    assert {p.breasts for p in drawn} == {True, False}
    assert {p.contrast_hu > 0 for p in drawn} == {True, False}


@pytest.mark.parametrize("size", [1.0, 0.85, 1.2])
def test_chests_beside_the_ranges_are_finite(size: float) -> None:
    p = upright_parameters(4)
    p = replace(p, half_width=size * p.half_width, height=p.height / size, arms="down", breasts=True)
    hu = thorax_phantom(VolumeGrid.centred(shape=(40, 30, 44), spacing_mm=10.0), rng=seeded(0), parameters=p).volume.hu
    assert -1000 <= float(hu.min()) < -990
    assert 300 < float(hu.max()) < 1400


def test_negative_number_of_nodules_is_refused() -> None:
    with pytest.raises(InputError, match="max_nodules must be 0 or more"):
        thorax_phantom(COARSE, rng=seeded(0), max_nodules=-1)
