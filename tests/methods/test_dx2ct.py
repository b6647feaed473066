"""DX2CT: places, features, conditions, and slices that make a volume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_models import GRID, SETUP, patient, rng, xrays_of

from voxray.diffusion import Sampler
from voxray.errors import CheckpointError, RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.methods.anatomy import AgreementConfig, AnatomyConfig
from voxray.methods.dx2ct import Dx2ct
from voxray.methods.dx2ct.conditions import Conditioner
from voxray.methods.dx2ct.config import ConditionConfig, Dx2ctConfig
from voxray.methods.dx2ct.query_transformer import QueryTransformer
from voxray.methods.dx2ct.slices import PLANES, slices_of, volume_of, voxel_places, xray_places
from voxray.methods.stages import GradientStage
from voxray.nets.guided_unet import GuidedUNet
from voxray.nets.resnet_features import ResNetFeatures
from voxray.recipes import load_recipe

VIEWS = ViewGeometry.biplanar(setup=SETUP)
SMALL = ConditionConfig(resnet_width=0.125, channels=16, bands=4, hidden=16, blocks=2, heads=2)


def method(**settings: Any) -> Dx2ct:
    """Return an untrained method for 32^3 voxels."""
    torch.manual_seed(0)
    sampler = Sampler(solver="ddim", steps=3)
    config = {
        "condition": SMALL,
        "channels": (8, 8, 16, 16),
        "sampler": sampler,
        "anatomy": AnatomyConfig(spacing_mm=20.0),
        **settings,
    }
    made = Dx2ct(Dx2ctConfig(**config), GRID)
    made.anatomy.fit([patient(seed) for seed in range(3)], None)
    return made.eval()


# ---------------------------------------------------------------- places


@pytest.mark.parametrize("plane", PLANES)
def test_slices_make_up_the_volume_again(plane: Any) -> None:
    volume = torch.rand(3, 4, 5, generator=rng())
    assert torch.equal(volume_of(slices_of(volume, plane).clone(), plane), volume)


def test_the_planes_are_those_of_anatomy() -> None:
    """A volume is (z, y, x): axial slices go through z, coronal ones through y, sagittal ones through x."""
    volume = torch.arange(8.0).reshape(2, 2, 2)
    assert slices_of(volume, "axial")[0].tolist() == [[0, 1], [2, 3]]
    assert slices_of(volume, "coronal")[0].tolist() == [[0, 1], [4, 5]]
    assert slices_of(volume, "sagittal")[0].tolist() == [[0, 2], [4, 6]]


def test_voxels_have_their_places_between_the_faces() -> None:
    places = voxel_places(GRID)
    assert torch.allclose(places[0, 0, 0], torch.tensor([-1.0, -1.0, -1.0]) + 1 / 32)
    assert torch.allclose(places[3, 7, 30], torch.tensor([61.0 / 32, 15.0 / 32, 7.0 / 32]) - 1)


def test_pixels_have_their_places_at_the_far_end_of_the_volume() -> None:
    """Of PA that is the front, y = -1, of a left lateral the left side, x = 1 (LPS); z falls from row to row."""
    pa, lateral = xray_places(VIEWS, GRID, 8)
    assert torch.allclose(pa[..., 1], torch.tensor(-1.0))
    assert torch.allclose(lateral[..., 0], torch.tensor(1.0))
    for places in (pa, lateral):
        assert (places[1:, :, 2] < places[:-1, :, 2]).all()
    assert (pa[:, 1:, 0] > pa[:, :-1, 0]).all()  # the patient's left is at the right of the picture


@pytest.mark.parametrize("angle", [0.0, 40.0, 200.0])
def test_the_place_of_a_pixel_lies_on_its_ray(angle: float) -> None:
    views = ViewGeometry.from_angles([angle], setup=SETUP)
    places = xray_places(views, GRID, 16)[0].double().numpy() * 160.0
    pixels = views.resized([(16, 16)]).pixels_mm(0)
    for point in ((0, 0), (3, 12), (15, 15)):
        ray, reach = pixels[point] - views.source_mm[0], places[point] - views.source_mm[0]
        assert np.linalg.norm(np.cross(ray, reach)) / np.linalg.norm(ray) / np.linalg.norm(reach) < 1e-5


# ---------------------------------------------------------------- networks


def test_features_have_the_sizes_of_the_paper() -> None:
    with torch.device("meta"):
        found = ResNetFeatures()(torch.zeros(1, 128, 128))
    assert [tuple(f.shape[1:]) for f in found] == [(256, 32, 32), (512, 16, 16), (1024, 8, 8)]


def _published(width: float) -> dict[str, torch.Tensor]:
    """Return weights with torchvision's names, its classifier and last stage included."""
    weights = {
        name: torch.rand(value.shape, generator=rng()) if value.is_floating_point() else value
        for name, value in ResNetFeatures(width).net.state_dict().items()
    }
    return {**weights, "layer4.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}


def test_published_weights_fit(tmp_path: Path) -> None:
    """The names are torchvision's: conv1, bn1, layer1.0.conv1, layer1.0.downsample.0, ..."""
    weights = _published(0.125)
    for name in ("conv1.weight", "bn1.running_mean", "layer1.0.downsample.0.weight", "layer3.5.bn3.bias"):
        assert name in weights
    assert "layer1.0.downsample.0.bias" not in weights
    save_file(weights, tmp_path / "resnet50.safetensors")
    made = Conditioner(
        ConditionConfig(**{**SMALL.model_dump(), "resnet_weights": str(tmp_path / "resnet50.safetensors")})
    )
    for name, value in made.extractor.net.state_dict().items():
        assert torch.equal(value, weights[name])


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"ResNet-50.*conv1\.weight"):
        ResNetFeatures(0.25).load_published(_published(0.125))


def test_the_transformer_asks_each_place_for_itself() -> None:
    """Cross-attention alone: what one place of the slice is does not change another; the order of tokens is nothing."""
    torch.manual_seed(0)
    made = QueryTransformer(16, 3, 2)
    query, tokens = torch.randn(1, 16, 4, 4, generator=rng()), torch.randn(1, 10, 16, generator=rng(1))
    with torch.no_grad():
        found = made(query, tokens)
        other = query.clone()
        other[..., 0, 0] += 1
        changed = (made(other, tokens) - found).abs().amax(1)[0]
        assert torch.allclose(made(query, tokens.flip(1)), found, atol=1e-5)
        assert (made(query, tokens + torch.randn(tokens.shape, generator=rng(2))) - found).abs().max() > 1e-3
    assert changed[0, 0] > 1e-3
    assert changed.flatten()[1:].max() < 1e-6


@pytest.mark.parametrize("guide", ["spade", "concat"])
def test_conditions_reach_the_denoiser_from_every_scale(guide: Any) -> None:
    torch.manual_seed(0)
    made = GuidedUNet((8, 8, 16, 16), (4, 4, 4), blocks=1, guide=guide)
    for parameter in made.parameters():  # second convolutions of residual blocks begin at zero
        torch.nn.init.normal_(parameter, std=0.2)
    x, t = torch.randn(2, 1, 32, 32, generator=rng()), torch.tensor([3, 700])
    maps = [torch.randn(2, 4, size, size, generator=rng()) for size in (16, 8, 4)]
    with torch.no_grad():
        found = made(x, t, maps)
        assert found.shape == x.shape
        for scale in range(3):
            other = [m + (i == scale) for i, m in enumerate(maps)]
            assert (made(x, t, other) - found).abs().max() > 1e-4
        assert (made(x, t.flip(0), maps) - found).abs().max() > 1e-4


def test_spade_is_in_encoder_middle_and_decoder() -> None:
    """Unlike in MONAI's own SPADE U-Net: two blocks at three levels, two in the middle, three at three levels."""
    from monai.networks.blocks.spade_norm import SPADE

    with torch.device("meta"):
        made = GuidedUNet()
    assert sum(isinstance(module, SPADE) for module in made.modules()) == 2 * (2 * 3 + 2 + 3 * 3)


def test_the_recipe_has_the_sizes_that_the_page_says() -> None:
    with torch.device("meta"):
        made = load_recipe("dx2ct-paper-biplanar").build()
    parts = {"extractor": 8.5e6, "transformers": 28.4e6}
    for name, size in parts.items():
        assert sum(p.numel() for p in getattr(made.network.conditioner, name).parameters()) == pytest.approx(
            size, rel=0.01
        )
    assert sum(p.numel() for p in made.network.denoiser.parameters()) == pytest.approx(52.1e6, rel=0.01)


# ---------------------------------------------------------------- the method


def test_any_number_of_views_is_read() -> None:
    made = method()
    for views in (VIEWS.subset([0]), VIEWS, ViewGeometry.circular(4, setup=SETUP)):
        found = made.reconstruct(xrays_of(patient(20), views), rng=rng())
        assert found.volume.hu.shape == GRID.shape


def test_slices_begin_from_one_noise() -> None:
    """So two slices with one condition are one."""
    made = method(planes=("axial",))
    made.places = made.places * 0  # all slices are asked for the same places
    volume = made.reconstruct(xrays_of(patient(20), VIEWS), rng=rng()).volume.hu
    assert torch.allclose(volume[0], volume[20], atol=1.0)


def test_the_result_is_the_mean_of_the_planes() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    alone = [method(planes=(plane,)).reconstruct(radiograph, rng=rng()).volume.hu for plane in PLANES]
    both = method().reconstruct(radiograph, rng=rng()).volume.hu
    inside = torch.stack([hu > -1000 for hu in alone]).all(0)  # nothing was cut off
    assert inside.float().mean() > 0.1
    assert torch.allclose(both[inside], torch.stack(alone).mean(0)[inside], atol=1.0)
    assert (alone[0] - alone[1]).abs().mean() > 1


def test_samples_differ_and_the_first_is_the_result() -> None:
    found = method().reconstruct(xrays_of(patient(20), VIEWS), rng=rng(), samples=2)
    assert torch.equal(found.volume.hu, found.samples[0].hu)
    assert (found.samples[0].hu - found.samples[1].hu).abs().mean() > 1
    assert found.std is not None


def test_consistency_brings_it_nearer_to_the_x_rays() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    off = []
    for consistency in (None, AgreementConfig(lengths_mm=(20.0,), scale=1.0)):
        found = method(consistency=consistency, planes=("axial",)).reconstruct(radiograph, rng=rng())
        pairs = zip(found.reprojections, radiograph.images, strict=True)
        off.append(float(torch.stack([(a - b).square().mean() for a, b in pairs]).mean()))
    assert off[1] < 0.5 * off[0]


def test_a_grid_that_is_no_cube_is_refused() -> None:
    with pytest.raises(RecipeError, match="a cube"):
        Dx2ct(Dx2ctConfig(), VolumeGrid.centred(shape=(128, 128, 64), spacing_mm=2.5))


def test_it_learns_what_two_slices_look_like() -> None:
    made = method(slices=2, target="sample")
    stage = made.stages()[-1]
    assert isinstance(stage, GradientStage)
    stage.network.train()
    batch = {
        "ct": torch.full((1, 32, 32, 32), 0.3), "images": torch.rand(1, 2, 32, 32, generator=rng()),
        "places": xray_places(VIEWS, GRID, 32)[None],
    }  # fmt: skip
    optimiser = torch.optim.Adam(stage.network.parameters(), 3e-3)
    losses = []
    for step in range(40):
        loss = stage.loss(batch, step, rng(step))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.1 * np.mean(losses[:2])
