"""DX2CT: places, conditions, and slices that make a volume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learn_stages import sample_of
from safetensors.torch import save_file
from small_models import GRID, SETUP, SHAPE, patient, rng, xrays_of

from voxray.diffusion import Sampler
from voxray.errors import CheckpointError, RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.methods.anatomy import AgreementConfig, AnatomyConfig
from voxray.methods.dx2ct import Dx2ct
from voxray.methods.dx2ct.conditions import Conditioner
from voxray.methods.dx2ct.config import ConditionConfig, Dx2ctConfig
from voxray.methods.dx2ct.query_transformer import QueryTransformer
from voxray.methods.dx2ct.xrays import as_seen, xray_places
from voxray.methods.slices import PLANES, slices_of, volume_of
from voxray.methods.stages import GradientStage, Stage
from voxray.nets.lifting import lattice
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
        "channels": (8, 8, 8, 16, 16),
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
    places = lattice(SHAPE)
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


@pytest.mark.parametrize("names", [["pa", "lateral"], ["ap", "right_lateral"]])
def test_an_image_is_seen_alike_however_it_is_shown(names: list[str]) -> None:
    views = ViewGeometry.from_names(names, setup=SETUP)
    images = [torch.rand(shape, generator=rng(n)) for n, shape in enumerate(views.shapes)]
    seen, places = as_seen(images, views, GRID)
    assert seen.shape == (2, 32, 32)
    for rows, columns in ((1, -1), (-1, 1), (-1, -1)):
        shown = ViewGeometry(
            views.source_mm, views.centre_mm, columns * views.u_mm, rows * views.v_mm, views.shapes, views.names
        )
        axes = [axis for axis, sign in enumerate((rows, columns)) if sign < 0]
        again, where = as_seen([image.flip(axes) for image in images], shown, GRID)
        assert torch.allclose(again, seen, atol=1e-5)
        assert torch.allclose(where, places, atol=1e-5)


def test_the_places_of_training_are_those_of_use() -> None:
    """Half precision, in which items are kept, would be off by a quarter of the highest frequency's wave."""
    made = method()
    stage = made.stages()[-1]
    assert isinstance(stage, GradientStage)
    item = stage.preparation.make(sample_of(patient(0), VIEWS))  # type: ignore[arg-type]
    assert not item["places"].is_floating_point()
    expected = as_seen(xrays_of(patient(0), VIEWS).images, VIEWS, GRID)
    asked: list[torch.Tensor] = []
    made.network.conditioner.of_xrays.register_forward_hook(lambda _, given, __: asked.append(given[0]))
    stage.loss({name: tensor[None] for name, tensor in item.items()}, 0, rng())
    assert (asked[0] - expected[1]).abs().max() < 2e-6
    assert torch.allclose(item["images"], expected[0])


# ---------------------------------------------------------------- conditions


def test_the_transformer_asks_each_place_for_itself() -> None:
    """Cross-attention alone: what one place of the slice is does not change another; the order of tokens is nothing."""
    torch.manual_seed(0)
    made = QueryTransformer(16, 3, 2)
    asked, tokens = torch.randn(1, 16, 16, generator=rng()), torch.randn(1, 10, 16, generator=rng(1))
    with torch.no_grad():
        found = made(asked, tokens)
        other = asked.clone()
        other[:, 0] += 1
        changed = (made(other, tokens) - found).abs().amax(2)[0]
        assert torch.allclose(made(asked, tokens.flip(1)), found, atol=1e-5)
        assert (made(asked, tokens + torch.randn(tokens.shape, generator=rng(2))) - found).abs().max() > 1e-3
    assert changed[0] > 1e-3
    assert changed[1:].max() < 1e-6


@pytest.mark.parametrize("transformer", [True, False])
def test_conditions_are_those_of_each_slice_of_each_patient(transformer: bool) -> None:
    """Of three scales, a quarter, an eighth and a sixteenth as fine as slices, whatever is asked beside."""
    torch.manual_seed(0)
    made = Conditioner(SMALL.model_copy(update={"transformer": transformer})).eval()
    images, where = torch.rand(2, 2, 32, 32, generator=rng()), torch.stack([xray_places(VIEWS, GRID, 32)] * 2)
    places = lattice(SHAPE)[[3, 9, 20, 30]].unflatten(0, (2, 2))
    with torch.no_grad():
        together = made(made.read(images, where), places)
        assert [tuple(c.shape) for c in together] == [(4, 16, 8, 8), (4, 16, 4, 4), (4, 16, 2, 2)]
        for patient_, slice_ in ((0, 1), (1, 0)):
            own = slice(patient_, patient_ + 1)
            alone = made(made.read(images[own], where[own]), places[own, slice_ : slice_ + 1])
            for one, all_ in zip(alone, together, strict=True):
                assert torch.allclose(one[0], all_[2 * patient_ + slice_], atol=1e-5)
        for given in ((images.flip(0), where), (images, where / 2)):  # other X-rays, X-rays from elsewhere
            other = made(made.read(*given), places)
            assert all((a - b).abs().max() > 1e-4 for a, b in zip(other, together, strict=True))


@pytest.mark.parametrize("width", [0.125, 0.25])
def test_training_begins_from_published_weights_and_a_model_needs_no_file(width: float, tmp_path: Path) -> None:
    weights = {
        name: value + 0.25 if value.is_floating_point() else value
        for name, value in ResNetFeatures(0.125).net.state_dict().items()
    }
    file = tmp_path / "resnet50.safetensors"
    save_file({**weights, "fc.bias": torch.zeros(1)}, file)
    made = method(condition=SMALL.model_copy(update={"resnet_weights": str(file), "resnet_width": width}))
    before = {name: value.clone() for name, value in made.network.conditioner.extractor.net.state_dict().items()}
    _, published, _ = made.stages()
    assert isinstance(published, Stage)
    if width != 0.125:
        with pytest.raises(CheckpointError, match=r"ResNet-50.*conv1\.weight"):
            published.fit([], None)
        return
    published.fit([], None)
    for name, value in made.network.conditioner.extractor.net.state_dict().items():
        assert torch.equal(value, weights[name])
    assert not torch.equal(before["conv1.weight"], weights["conv1.weight"])
    file.unlink()
    method(condition=made.settings.condition)


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("name", "views"), [("dx2ct-paper-biplanar", ("pa", "lateral")), ("dx2ct-paper-mono", ("pa",))]
)
def test_the_paper_recipes_are_the_paper(name: str, views: tuple[str, ...]) -> None:
    recipe = load_recipe(name)
    config = recipe.method_config()
    assert isinstance(config, Dx2ctConfig)
    assert recipe.data.views[0].names == views
    assert (config.steps, config.target, config.condition.blocks) == (1000, "epsilon", 12)
    assert config.sampler == Sampler(solver="ddim", steps=50, eta=0.0)
    assert (config.training.batch_size, config.training.learning_rate) == (16, 5e-5)
    assert config.training.steps == pytest.approx(80 * 916 * 384 / 16, rel=0.01)
    assert config.consistency is None
    with torch.device("meta"):
        betas = recipe.build().process.betas
    assert (len(betas), betas[0].item(), betas[-1].item()) == pytest.approx((1000, 1e-4, 0.02))
    assert torch.allclose(betas.diff(), betas.diff()[:1])


def test_the_recipe_has_the_sizes_that_the_page_says() -> None:
    with torch.device("meta"):
        made = load_recipe("dx2ct-paper-biplanar").build()
    parts = {"extractor": 8.5e6, "transformers": 28.4e6}
    for name, size in parts.items():
        assert sum(p.numel() for p in getattr(made.network.conditioner, name).parameters()) == pytest.approx(
            size, rel=0.01
        )
    assert sum(p.numel() for p in made.network.denoiser.parameters()) == pytest.approx(52.1e6, rel=0.01)


def test_the_ablations_are_table_2() -> None:
    """They differ by what they take out, and by nothing else."""
    names = ["dx2ct-small", "dx2ct-small-concat", "dx2ct-small-plain-spade", "dx2ct-small-plain-concat"]
    recipes = [load_recipe(name) for name in names]
    configs = [recipe.method_config() for recipe in recipes]
    found = []
    for config in configs:
        assert isinstance(config, Dx2ctConfig)
        found.append((config.condition.transformer, config.guide))
        same = {"guide": "spade", "condition": config.condition.model_copy(update={"transformer": True})}
        assert config.model_copy(update=same) == configs[0]
    assert found == [(True, "spade"), (True, "concat"), (False, "spade"), (False, "concat")]
    assert all(recipe.data == recipes[0].data for recipe in recipes)


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
    assert inside.float().mean() > 0.03
    assert torch.allclose(both[inside], torch.stack(alone).mean(0)[inside], atol=1.0)
    assert (alone[0] - alone[1]).abs().mean() > 1


def test_samples_differ_and_the_result_is_their_mean() -> None:
    """They begin from opposite noises, the first as if it were alone."""
    radiograph = xrays_of(patient(20), VIEWS)
    one, two = (method().reconstruct(radiograph, rng=rng(), samples=n) for n in (1, 2))
    first, second = (sample.hu for sample in two.samples)
    assert torch.allclose(one.volume.hu, first, atol=1.0)
    assert (first - second).abs().mean() > 1
    assert torch.allclose(two.volume.hu, (first + second) / 2, atol=1.0)
    assert two.std is not None
    assert torch.allclose(two.std.hu, (first - second).abs() / 2, atol=1.0)


@pytest.mark.parametrize(
    "sampler", [Sampler(solver="ddim", steps=5), Sampler(solver="dpm-solver++", steps=5)], ids=["ddim", "dpm"]
)
def test_conditions_are_computed_once_for_each_slice(sampler: Sampler) -> None:
    """Whatever the number of steps and samples; X-rays are read once, and slices are drawn in batches."""
    made, calls = method(sampler=sampler, batch=8), {"read": 0, "slices": 0, "denoised": 0}
    conditioner = made.network.conditioner
    conditioner.extractor.register_forward_hook(lambda *_: calls.update(read=calls["read"] + 1))
    conditioner.of_slices.register_forward_hook(
        lambda _, given, __: calls.update(slices=calls["slices"] + len(given[0]))
    )
    made.network.denoiser.register_forward_hook(lambda *_: calls.update(denoised=calls["denoised"] + 1))
    told: list[tuple[int, int]] = []
    radiograph = xrays_of(patient(20), VIEWS)
    made.reconstruct(radiograph, rng=rng(), samples=2, progress=lambda *at: told.append(at))
    assert calls == {"read": 1, "slices": 3 * 32, "denoised": 3 * 4 * 2 * 5}
    assert told[-1] == (120, 120)


def test_a_mirrored_image_gives_the_same_volume() -> None:
    """Without consistency, which would hide the difference."""
    radiograph = xrays_of(patient(20), VIEWS)
    mirrored = Radiograph(
        tuple(image.flip(1) for image in radiograph.images),
        ViewGeometry(VIEWS.source_mm, VIEWS.centre_mm, -VIEWS.u_mm, VIEWS.v_mm, VIEWS.shapes, VIEWS.names),
    )
    one, two = (method().reconstruct(shown, rng=rng()).volume.hu for shown in (radiograph, mirrored))
    assert (one - two).abs().mean() < 1.0


def test_consistency_brings_it_nearer_to_the_x_rays() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    off = []
    for consistency in (None, AgreementConfig(lengths_mm=(20.0,), scale=1.0)):
        found = method(consistency=consistency, planes=("axial",)).reconstruct(radiograph, rng=rng())
        pairs = zip(found.reprojections, radiograph.images, strict=True)
        off.append(float(torch.stack([(a - b).square().mean() for a, b in pairs]).mean()))
    assert off[1] < 0.7 * off[0]


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
        "places": (2**20 * xray_places(VIEWS, GRID, 32)[None]).int(),
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
