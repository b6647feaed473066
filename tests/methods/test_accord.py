"""Accord: what its blocks are told, and that they change nothing before they have learned."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from small_models import GRID, SETUP, patient, rng, xrays_of

from voxray.data.dataset import TrainingSample
from voxray.errors import RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.methods.accord import Accord
from voxray.methods.accord.block import PatchUNet
from voxray.methods.accord.config import AccordConfig, BlockConfig, TextureConfig
from voxray.methods.anatomy import AgreementConfig, AnatomyConfig
from voxray.methods.stages import GradientStage, StageOptions
from voxray.nets.patches import from_patches, patches
from voxray.physics.attenuation import hu_to_mu, mu_to_hu, to_unit_range
from voxray.physics.consistency import interpolate_onto
from voxray.physics.projector import Projector
from voxray.physics.rays import smear
from voxray.recipes import load_recipe

VIEWS = ViewGeometry.biplanar(setup=SETUP)
SMALL = BlockConfig(patch=1, features=(8, 8, 8, 8))


TEXTURE = TextureConfig(
    patch=1, features=(8, 8, 8, 8), steps=2, consistency=AgreementConfig(lengths_mm=(20.0,), scale=1.0)
)


def method(*blocks: BlockConfig, grid: VolumeGrid = GRID, **settings: Any) -> Accord:
    """Return an untrained method that knows the mean anatomy of three patients."""
    agreement = AgreementConfig(lengths_mm=(20.0,), scale=1.0)
    config = AccordConfig(
        anatomy=AnatomyConfig(spacing_mm=20.0), start=agreement, blocks=blocks or (SMALL,), consistency=agreement,
        **settings,
    )  # fmt: skip
    made = Accord(config, grid)
    made.anatomy.fit([patient(seed) for seed in range(3)], None)
    return made.eval()


# ---------------------------------------------------------------- patches


@pytest.mark.parametrize("side", [1, 2, 4])
def test_patches_come_back(side: int) -> None:
    volumes = torch.rand(3, 1, 8, 8, 8, generator=rng())
    cut = patches(volumes, side)
    assert cut.shape == (3, side**3, *(8 // side,) * 3)
    assert torch.equal(from_patches(cut, side), volumes[:, 0])


def test_a_patch_holds_neighbours() -> None:
    volume = torch.zeros(1, 1, 4, 4, 4)
    volume[0, 0, 2:, :2, 2:] = torch.arange(8.0).reshape(2, 2, 2) + 1
    cut = patches(volume, 2)
    assert cut[0, :, 1, 0, 1].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert float(cut.sum()) == 36


def test_patches_of_several_volumes_stay_apart() -> None:
    volumes = torch.rand(1, 2, 4, 4, 4, generator=rng())
    assert torch.equal(patches(volumes, 2), torch.cat([patches(volumes[:, [i]], 2) for i in range(2)], 1))


# ---------------------------------------------------------------- rays


def ones(views: ViewGeometry) -> list[torch.Tensor]:
    return [torch.ones(shape) for shape in views.shapes]


def test_rays_run_from_the_source_through_the_voxel() -> None:
    """PA: the source is behind the patient, so that the central ray runs along y."""
    views = ViewGeometry.from_names(["pa"], setup=SETUP)
    found, smeared = smear(ones(views), views, GRID)
    centre = found[:, 15:17, 15:17, 15:17].mean((1, 2, 3))
    assert centre.tolist() == pytest.approx([0, 1, 0, 0, 0, 0], abs=1e-3)
    source = np.array([0.0, 1550.0, 0.0])
    place = GRID.index_to_mm(np.array([4, 20, 25]))  # i, j, k
    d = (place - source) / np.linalg.norm(place - source)
    expected = [d[0] ** 2, d[1] ** 2, d[2] ** 2, d[0] * d[1], d[0] * d[2], d[1] * d[2]]
    assert found[:, 25, 20, 4].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(smeared, found, atol=1e-5)


def test_rays_are_counted_where_they_meet_the_detector() -> None:
    """A detector of half the size sees the middle half of the volume alone; magnification 1800 / 1550."""
    small = VIEWS.subset([0]).resized([(64, 64)])
    narrow = ViewGeometry(small.source_mm, small.centre_mm, small.u_mm / 2, small.v_mm, small.shapes)
    seen = smear(ones(narrow), narrow, GRID)[0][:3].sum(0)
    assert set(seen.round(decimals=4).unique().tolist()) == {0.0, 1.0}
    reach = 6.4 * 64 / 4 * 1550 / 1800  # half of the width at the isocentre
    x = GRID.index_to_mm(np.stack([np.arange(32), *[np.full(32, 15.5)] * 2], -1))[:, 0]
    assert torch.equal(seen[16, 16] > 0.5, torch.from_numpy(np.abs(x) < reach))


def test_rays_behind_the_source_do_not_count() -> None:
    grid = VolumeGrid.centred((0.0, 4000.0, 0.0), (4, 4, 4), 10.0)
    views = VIEWS.subset([0])
    assert not smear(ones(views), views, grid)[0].any()


def test_a_dense_place_is_smeared_through_itself() -> None:
    """The ray of each view through a voxel ends where the projector draws that voxel; views stay apart."""
    dense = torch.zeros(GRID.shape)
    dense[20, 12, 25] = 1.0
    images = Projector(GRID, VIEWS).forward(dense)
    _, smeared = smear(images, VIEWS, GRID)
    for direction, along in ((1, smeared[1, 20, 9:16, 25]), (0, smeared[0, 20, 12, 22:29])):
        assert along.min() > 0.5 * smeared[direction].max()
    assert smeared[0, 20, 3, 25] < 0.01 * smeared[1, 20, 3, 25]  # the lateral view sees nothing there


def test_views_of_one_direction_are_averaged() -> None:
    pa = VIEWS.subset([0])
    twice = ViewGeometry(*(np.repeat(a, 2, 0) for a in (pa.source_mm, pa.centre_mm, pa.u_mm, pa.v_mm)), pa.shapes * 2)
    image = torch.rand(pa.shapes[0], generator=rng())
    assert torch.allclose(smear([image, image], twice, GRID)[1], smear([image], pa, GRID)[1], atol=1e-5)


# ---------------------------------------------------------------- the method


def test_untrained_blocks_leave_the_volume_as_it_is() -> None:
    """So the result is the mean anatomy, made to agree as often as there are blocks."""
    radiograph = xrays_of(patient(20), VIEWS)
    made = method()
    scene = made.start(radiograph.images, VIEWS, "body", None)
    known = {name: tensor[None] for name, tensor in made.known(scene, radiograph.images, VIEWS).items()}
    with torch.no_grad():
        assert torch.equal(made.improve(0, known)[0], known["present"])
    found = made.reconstruct(radiograph, rng=rng()).volume.hu
    truth, mean = patient(20).volume.hu, mu_to_hu(made.anatomy.scene("body").mu)
    assert (found - truth).square().mean() < 0.9 * (mean - truth).square().mean()


def test_the_residual_shows_what_the_x_rays_still_hold_against_a_volume() -> None:
    made, case = method(), patient(20)
    radiograph = xrays_of(case, VIEWS)
    scene = made.anatomy.scene("body")
    told = made.known(scene, radiograph.images, VIEWS)["residual"]
    missing = hu_to_mu(case.volume.hu) - scene.mu
    inner = (slice(8, 24),) * 3
    pair = torch.stack([told[inner].flatten(), missing[inner].flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.3
    explained = made.start(radiograph.images, VIEWS, "body", None)
    left = made.known(explained, radiograph.images, VIEWS)["residual"]
    assert left[inner].abs().mean() < 0.6 * told[inner].abs().mean()


def test_the_residual_does_not_grow_with_the_number_of_views() -> None:
    made = method()
    scene = made.anatomy.scene("body")
    sizes = []
    for count in (2, 12):
        views = ViewGeometry.circular(count, setup=SETUP)
        sizes.append(float(made.known(scene, xrays_of(patient(20), views).images, views)["residual"].abs().mean()))
    assert sizes[1] < 1.2 * sizes[0]


def test_a_batch_is_the_same_as_one_after_another() -> None:
    made, radiograph = method(), xrays_of(patient(20), VIEWS)
    with torch.no_grad():
        for parameter in made.blocks.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=rng()))
        known = made.known(made.anatomy.scene("body"), radiograph.images, VIEWS)
        other = {name: tensor.flip(-1) for name, tensor in known.items()}
        both = made.improve(0, {name: torch.stack([known[name], other[name]]) for name in known})
        for i, one in enumerate((known, other)):
            alone = made.improve(0, {name: tensor[None] for name, tensor in one.items()})
            for together, apart in zip(both, alone, strict=True):
                assert torch.allclose(together[i], apart[0], atol=1e-4)


def test_a_coarse_block_learns_averages_of_voxels_and_hands_on_a_finer_volume() -> None:
    grid = VolumeGrid.centred(shape=(64, 64, 64), spacing_mm=5.0)
    made = method(BlockConfig(coarser=2, patch=1, features=(8, 8, 8, 8)), SMALL, grid=grid)
    case = patient(20)
    radiograph = xrays_of(case, VIEWS)
    hu = case.volume.hu[None].repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    images = tuple(i[None] for i in radiograph.images)
    items = []
    for stage in made.stages():
        if isinstance(stage, GradientStage):
            voxels, at = (case.volume.hu[None], GRID) if stage.preparation.coarser == 2 else (hu, grid)
            with torch.no_grad():
                items.append(stage.preparation.make(TrainingSample((case.id,), voxels, images, (VIEWS,), at, "body")))
    coarse, fine = items
    assert torch.equal(coarse["truth"], to_unit_range(case.volume.hu))
    assert torch.equal(fine["truth"], to_unit_range(hu[0]))
    assert coarse["present"].shape == (32, 32, 32)
    assert fine["present"].shape == grid.shape
    for item in (coarse, fine):  # both are nearer to the truth than its mean
        assert (item["present"] - item["truth"]).square().mean() < 0.8 * item["truth"].var()
    assert made.reconstruct(radiograph, rng=rng()).volume.hu.shape == grid.shape


def test_the_last_block_works_on_the_voxels_of_the_result() -> None:
    with pytest.raises(ValueError, match="its `coarser` is 1"):
        AccordConfig(blocks=(BlockConfig(coarser=2),))


def test_a_ninety_percent_interval_leaves_out_a_tenth() -> None:
    with pytest.raises(ValueError, match=r"is 0\.1 in all"):
        AccordConfig(tails=(0.05, 0.1))


def test_a_grid_that_does_not_halve_is_refused() -> None:
    config = AccordConfig(blocks=(BlockConfig(patch=2),))
    for side in (144, 96):
        with pytest.raises(RecipeError, match="multiples of 32 voxels, from 128 on"):
            Accord(config, VolumeGrid.centred(shape=(side, 128, 128), spacing_mm=2.5))


def test_the_recipe_has_the_size_that_the_page_says() -> None:
    with torch.device("meta"):
        made = load_recipe("accord").build()
    assert sum(p.numel() for p in made.parameters()) == pytest.approx(10.35e6, rel=0.01)


def test_a_block_begins_with_nothing_to_add() -> None:
    with torch.no_grad():
        added = PatchUNet(SMALL.features, 5, patch=1, volumes=2)(torch.rand(2, 5, 32, 32, 32, generator=rng()))
        assert added.shape == (2, 2, 32, 32, 32)
        assert not added.any()


def test_a_block_of_several_networks_says_their_mean_and_each_learns_by_itself() -> None:
    made = method(SMALL.model_copy(update={"networks": 2 * SMALL.networks}))
    first, second = (stage for stage in made.stages() if isinstance(stage, GradientStage))
    assert (first.name, second.name, second.preparation.name) == ("block-1", "block-1-2", "block-1")
    radiograph = xrays_of(patient(20), VIEWS)
    with torch.no_grad():
        for n, stage in enumerate((first, second)):
            for parameter in stage.network.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng(n)))
        known = {k: v[None] for k, v in made.known(made.anatomy.scene("body"), radiograph.images, VIEWS).items()}
        apart = [made.improve(0, known, stage.network) for stage in (first, second)]
        mean, spread = made.improve(0, known)
    assert torch.allclose(mean, (apart[0][0] + apart[1][0]) / 2, atol=1e-5)
    assert torch.allclose(spread, (apart[0][1] * apart[1][1]).sqrt(), rtol=1e-3)
    batch = {**known, "truth": to_unit_range(patient(20).volume.hu)[None]}
    second.loss(batch, 0, rng())["loss"].backward()
    assert all(p.grad is None for p in first.network.parameters())
    assert all(p.grad is not None for p in second.network.parameters())


def test_networks_may_be_trained_again_on_other_samples() -> None:
    first, *again = (StageOptions(steps=n, first_variant=7 * n) for n in range(1, 4))
    made = method(SMALL.model_copy(update={"networks": ((first, *again), (first, again[0]))}))
    stages = [stage for stage in made.stages() if isinstance(stage, GradientStage)]
    names = ["block-1", "block-1-again-1", "block-1-again-2", "block-1-2", "block-1-2-again-1"]
    assert [stage.name for stage in stages] == names
    assert stages[0].network is stages[1].network is stages[2].network
    assert stages[3].network is stages[4].network is not stages[0].network
    assert [stage.options for stage in stages] == [first, *again, first, again[0]]


@pytest.mark.parametrize("tails", [(0.05, 0.05), (0.08, 0.02)])
def test_the_spread_learns_what_few_voxels_are_below_and_above(
    tails: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = method(tails=tails)
    stage = next(stage for stage in made.stages() if isinstance(stage, GradientStage))
    truth = torch.rand(1, 32, 32, 32, generator=rng())
    error = 0.05 * torch.rand(truth.shape, generator=rng(1)) ** 2 - 0.01  # of the volume, so the truth is -error off
    below, above = (
        float((side * error).quantile(1 - tail)) / NormalDist().inv_cdf(1 - tail)
        for side, tail in zip((1, -1), tails, strict=True)
    )

    def loss(below: float, above: float) -> float:
        spread = torch.stack([torch.full_like(truth, below), torch.full_like(truth, above)], 1)
        monkeypatch.setattr(made, "improve", lambda *_: (truth + error, spread))
        return float(stage.loss({"truth": truth}, 0, rng())["spread"])

    best = loss(below, above)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert loss(factor * below, above) > best
        assert loss(below, factor * above) > best


def test_the_spread_is_scaled_by_the_number_of_views() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    one = Radiograph(radiograph.images[:1], VIEWS.subset([0]), radiograph.kind)

    def std(of: Radiograph, *scales: float) -> torch.Tensor:
        found = method(spread_scale=scales).reconstruct(of, rng=rng())
        assert found.std is not None
        assert found.interval is not None
        low, high = (end.hu for end in found.interval)
        assert torch.allclose(high - found.volume.hu, 1.6449 * found.std.hu, rtol=1e-3)  # untrained: even
        assert torch.allclose(low, (2 * found.volume.hu - high).clamp_min(-1000), atol=0.1)
        return found.std.hu

    uneven = method(tails=(0.08, 0.02)).reconstruct(one, rng=rng())
    assert uneven.std is not None
    assert uneven.interval is not None
    low, high = (end.hu for end in uneven.interval)
    assert torch.allclose(high - uneven.volume.hu, 2.0537 * uneven.std.hu, rtol=1e-3)
    assert torch.allclose(low, (uneven.volume.hu - 1.4051 * uneven.std.hu).clamp_min(-1000), atol=0.1)

    assert torch.allclose(std(one, 3.0, 2.0), 3 * std(one, 1.0))
    assert torch.allclose(std(radiograph, 3.0, 2.0), 2 * std(radiograph, 1.0))
    assert torch.allclose(std(radiograph, 3.0), 3 * std(radiograph, 1.0))


def test_where_no_ray_goes_it_is_as_unsure_as_the_anatomy() -> None:
    made, low = method(), (VIEWS.shapes[0][0] // 2, VIEWS.shapes[0][1])
    upper = ViewGeometry(
        VIEWS.source_mm, VIEWS.centre_mm - low[0] / 2 * VIEWS.v_mm, VIEWS.u_mm, VIEWS.v_mm, (low, low), VIEWS.names
    )
    images = [image[: low[0]] for image in xrays_of(patient(20), VIEWS).images]
    with torch.no_grad():
        made.blocks[0].last.bias.copy_(torch.tensor([0.0, -9.0, -9.0]))  # nothing to add, and very sure of it
        _, spread = made.run_block(0, made.anatomy.scene("body"), images, upper, "body")
    anatomy = interpolate_onto(made.anatomy.std, made.anatomy.support, GRID) * 1000 / 2500
    feet, head = slice(0, GRID.shape[0] // 4), slice(3 * GRID.shape[0] // 4, None)
    assert (spread[:, feet] >= anatomy[feet]).all()
    assert spread[:, head].max() < 0.01 < anatomy[head].max()


# ---------------------------------------------------------------- texture


def test_the_dial_goes_from_the_mean_to_a_sample_in_proportion() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    volumes = []
    for realism in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        made = method(texture=TEXTURE, realism=realism)
        volumes.append(made.reconstruct(radiograph, rng=rng()).volume.hu)
    mean, half, sample = volumes
    assert (sample - mean).abs().mean() > 1
    assert torch.allclose(half, (mean + sample) / 2, atol=0.5)


def test_samples_differ_and_agree_with_the_x_rays() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    made = method(texture=TEXTURE)
    alone, found = (made.reconstruct(radiograph, rng=rng(), samples=n) for n in (1, 3))
    assert torch.equal(found.volume.hu, alone.volume.hu)
    assert not alone.samples
    assert len(found.samples) == 3
    first, second, _ = (sample.hu for sample in found.samples)
    assert (first - second).abs().mean() > 1
    for sample in found.samples:
        assert off(sample.hu) < 0.5 * off(mu_to_hu(made.anatomy.scene("air").mu))


def off(hu: torch.Tensor) -> float:
    """Return the mean square of what the X-rays of patient 20, the cube alone, hold against a volume."""
    seen = Projector(GRID, VIEWS).forward(hu_to_mu(patient(20).volume.hu) - hu_to_mu(hu))
    return float(torch.stack(seen).square().mean())


def test_the_texture_learns_what_the_mean_lacks() -> None:
    """Its loss is that of the flow from the mean, with noise, to the truth."""
    torch.manual_seed(0)
    made = method(texture=TEXTURE)
    stage = made.stages()[-1]
    assert isinstance(stage, GradientStage)
    assert stage.name == "texture"
    radiograph = xrays_of(patient(20), VIEWS)
    scene = made.start(radiograph.images, VIEWS, "body", None)
    known = {name: tensor[None] for name, tensor in made.known(scene, radiograph.images, VIEWS).items()}
    batch = {**known, "truth": to_unit_range(patient(20).volume.hu)[None]}
    expected = float(((batch["truth"] - batch["present"]) / 0.1).square().mean() + (TEXTURE.noise / 0.1) ** 2)
    assert float(stage.loss(batch, 0, rng())["loss"].detach()) == pytest.approx(expected, rel=0.02)
    optimiser = torch.optim.Adam(stage.network.parameters(), 3e-3)
    losses = []
    for step in range(30):
        loss = stage.loss(batch, step, rng())["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_realism_without_texture_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a texture stage"):
        AccordConfig(realism=0.5)
