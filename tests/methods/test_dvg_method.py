"""DVG-Diffusion: what its nets are given, what its items hold, and what chance and consistency do."""

from typing import Any

import numpy as np
import pytest
import torch
from contract_models import VIEWS, briefly_trained, small
from learn_stages import item_of, sample_of
from small_models import patient, rng, xrays_of
from torch import Tensor, nn

from voxray.errors import NumericalError, RecipeError
from voxray.geometry import ViewGeometry
from voxray.methods.anatomy import SampleAgreementConfig
from voxray.methods.dvg import Dvg
from voxray.methods.dvg.config import NewViewConfig
from voxray.methods.dvg.new_view import new_views
from voxray.methods.lifted import lift
from voxray.methods.stages import GradientStage, Item, Preparation, Stage
from voxray.physics.attenuation import to_unit_range
from voxray.recipes import load_recipe
from voxray.recipes.recipe import parse_recipe
from voxray.training.order import seeded

ABLATIONS = ("dvg-base", "dvg-newview", "dvg-vpge", "dvg-net", "dvg-anyview")


def ready(name: str = "dvg-anyview", **settings: Any) -> Dvg:
    """Return the briefly trained method of a recipe, with other settings and the same weights."""
    method = briefly_trained(name)
    assert isinstance(method, Dvg)
    with torch.random.fork_rng():
        other = Dvg(method.settings.model_copy(update=settings), method.grid)
    other.load_state_dict(method.state_dict())
    return other.eval()


def fresh(name: str, *overrides: str) -> Dvg:
    """Return the method of a brief recipe as it begins, with some settings changed."""
    recipe = parse_recipe(small(name, brief=True).to_yaml(), name, overrides)
    with seeded("tests", name):
        method = recipe.build()
    assert isinstance(method, Dvg)
    return method.eval()


def stages(method: Dvg) -> list[GradientStage]:
    with torch.random.fork_rng():
        return [stage for stage in method.stages() if isinstance(stage, GradientStage)]


def preparation(method: Dvg, name: str) -> Preparation:
    chain = [stage.preparation for stage in stages(method)]
    chain += [one.after for one in chain if one.after is not None]
    return next(one for one in chain if one.name == name)


def kept(item: Item) -> dict[str, Tensor]:
    """Return an item as it comes back from the disk: in half precision, but for whole numbers."""
    return {key: value.half().float() if value.is_floating_point() else value for key, value in item.items()}


@pytest.mark.parametrize(
    ("name", "names", "keys"),
    [
        ("dvg-base", ["ct", "denoiser"], {"z_in"}),
        ("dvg-newview", ["ct", "coarse", "coarse-2", "denoiser"], {"z_in", "z_new", "z_coarse"}),
        ("dvg-vpge", ["ct", "lifted", "coarse", "coarse-2", "denoiser"], {"z_in", "z_coarse"}),
        ("dvg-net", ["ct", "lifted", "coarse", "coarse-2"], None),
        ("dvg-anyview", ["ct", "lifted", "coarse", "coarse-2", "denoiser"], {"z_in", "z_new", "z_coarse"}),
        ("dvg-paper-biplanar", ["ct", "lifted", "coarse", "denoiser"], {"z_in", "z_new"}),
    ],
)
def test_a_recipe_has_its_stages_and_its_conditions(name: str, names: list[str], keys: set[str] | None) -> None:
    method = ready(name)
    assert [stage.name for stage in stages(method)] == names
    last = stages(method)[-1]
    if keys is not None:
        with torch.no_grad():
            item = item_of(last.preparation, sample_of(patient(0), VIEWS))
        assert set(item) == {"z_ct"} | keys
        given = sum(len(item[key]) for key in keys) + len(item["z_ct"])
        shapes = [p.shape for p in last.network.parameters() if p.ndim == 5]
        assert shapes[0][1] == given


# -------------------------------------------------------------------- what the nets are given


class Heard(nn.Module):
    """In the place of a net: remembers what it is given, and returns zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.given: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        self.given.append(x)
        return torch.zeros(len(x), self.channels, *x.shape[2:])


def test_the_denoiser_is_given_conditions_in_the_papers_order() -> None:
    method = ready()
    method.denoiser = heard = Heard(8)
    conditions = {
        key: torch.full((1, 8, 2, 2, 2), value) for key, value in (("z_coarse", 3.0), ("z_new", 2.0), ("z_in", 1.0))
    }
    found = method.denoise(torch.full((1, 8, 2, 2, 2), 4.0), torch.zeros(1, dtype=torch.long), conditions)
    assert heard.given[0][0, ::8, 0, 0, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert torch.equal(found, conditions["z_coarse"]), "what the net adds to G_z's latents is nothing"
    del conditions["z_coarse"], conditions["z_new"]
    assert not method.denoise(torch.ones(1, 8, 2, 2, 2), torch.zeros(1, dtype=torch.long), conditions).any()
    assert heard.given[1].shape[1] == 16


def test_codes_are_between_minus_one_and_one() -> None:
    """2 (z - min) / (max - min) - 1 over all numbers of the codebook, as in the release, and back."""
    method = ready(quantise=False)
    unit = to_unit_range(patient(0).volume.hu)[None, None]
    low, high = method.ct.codebook.codes.min(), method.ct.codebook.codes.max()
    with torch.no_grad():
        raw, latents = method.ct.encode(unit), method.encode_ct(unit)
        assert torch.allclose(latents, 2 * (raw - low) / (high - low) - 1, atol=1e-5)
        decoded = method.ct.decode(raw, quantise=False).clamp(0, 1)
        assert torch.allclose(method.decode_ct(latents), decoded, atol=1e-4)
        assert float(method.decode_ct(100 * latents).max()) <= 1.0


def test_each_net_of_g_z_has_a_training_of_its_own() -> None:
    """The error of their mean is smaller, and would leave all but one without a task."""
    method = fresh("dvg-anyview", "config.coarse.more=[{steps: 3}, {steps: 4}]")
    found = [stage for stage in stages(method) if stage.name.startswith("coarse")]
    assert [(stage.name, stage.options.steps) for stage in found] == [("coarse", 2), ("coarse-2", 3), ("coarse-3", 4)]
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        for parameter in method.coarse.parameters():  # type: ignore[union-attr]
            nn.init.normal_(parameter, std=0.1)
    batch = {key: torch.randn(2, 8, 8, 8, 8, generator=rng()) for key in ("z_in", "z_ct")}
    losses = []
    for stage in found:
        losses.append(stage.loss(batch, 0, rng())["loss"])
        said = stage.network(batch["z_in"], None)
        assert losses[-1].item() == pytest.approx(float((said - batch["z_ct"]).square().mean()), rel=1e-5)
        method.zero_grad()
        losses[-1].backward()
        touched = {name.split(".")[2] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
        assert touched == {str(found.index(stage))}
    with torch.no_grad():
        assert (method.predict(batch["z_in"]) - batch["z_ct"]).square().mean() < min(losses).detach()


def test_conditions_are_scaled_only_where_the_recipe_says_so() -> None:
    lifted = torch.rand(1, 1, 32, 32, 32, generator=rng())
    with torch.no_grad():
        scaled, raw = (ready(scale_conditions=value).encode_lifted(lifted) for value in (True, False))
        encoder = ready().lifted
        assert encoder is not None
        assert torch.equal(raw, encoder.encode(lifted))
        assert not torch.allclose(scaled, raw)
        codes = encoder.codebook.codes
        assert torch.allclose(scaled, 2 * (raw - codes.min()) / (codes.max() - codes.min()) - 1)


def test_without_an_autoencoder_lifted_xrays_are_shrunk() -> None:
    lifted = torch.rand(1, 1, 32, 32, 32, generator=rng())
    shrunk = ready("dvg-base").encode_lifted(lifted)
    assert shrunk.shape == (1, 1, 8, 8, 8)
    assert float(shrunk[0, 0, 1, 2, 3]) == pytest.approx(float(lifted[0, 0, 4:8, 8:12, 12:16].mean()), abs=1e-6)


def test_a_new_view_may_have_an_encoder_of_its_own() -> None:
    method = fresh("dvg-anyview", "config.new_view.own_encoder=true")
    assert [stage.name for stage in stages(method)] == ["ct", "lifted", "new", "coarse", "coarse-2", "denoiser"]
    with torch.no_grad():
        for stage in method.stages():
            if isinstance(stage, Stage):
                stage.fit([patient(0), patient(1)], None)
        item = item_of(preparation(method, "volumes"), sample_of(patient(0), VIEWS))
        volume = item["lifted_new"][None, None]
        assert volume.shape == (1, 1, 32, 32, 32)
        assert not torch.allclose(item["lifted_new"], item["lifted"])
        assert not torch.allclose(method.encode_lifted(volume, new=True), method.encode_lifted(volume))


# -------------------------------------------------------------------- items


def test_the_new_view_survives_being_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are kept in half precision, of 11 bits: distances are kept as whole micrometres beside them."""
    method, seen = ready(), []
    views = ViewGeometry.from_angles([12.3, 77.7], [3.3, -9.1], setup="chest").resized([(64, 64), (64, 64)])
    with torch.no_grad():
        item: Item = item_of(preparation(method, "volumes"), sample_of(patient(0), views))
        item = preparation(method, "latents").make(kept(item))  # type: ignore[arg-type]
        monkeypatch.setattr(method, "_conditions", lambda z_in, new, *_: (seen.append(new), {"z_in": z_in})[1])
        preparation(method, "dual").make(kept(item))  # type: ignore[arg-type]
    assert method.settings.new_view is not None
    wanted = new_views(views, method.settings.new_view)
    for key in ("source_mm", "centre_mm", "u_mm", "v_mm"):
        assert getattr(seen[0], key) == pytest.approx(getattr(wanted, key), abs=1e-3)
    assert seen[0].shapes == wanted.shapes
    assert seen[0].project_mm([100.0, 50.0, -80.0], 0) == pytest.approx(
        wanted.project_mm([100.0, 50.0, -80.0], 0), abs=0.1
    )


def test_items_hold_what_the_xrays_saw() -> None:
    """The CT from 0 to 1; whether there was air around it; and what is around it, in parts of water."""
    method, sample = ready(), sample_of(patient(0), VIEWS)
    with torch.no_grad():
        item = item_of(preparation(method, "volumes"), sample)
    assert torch.equal(item["ct"], to_unit_range(patient(0).volume.hu))
    assert item["lifted"].shape == item["ct"].shape
    assert not bool(item["air"])
    assert 0.5 < float(item["around"].max()) < 4
    assert all(0 <= float(item[key].min()) <= float(item[key].max()) <= 1 for key in ("ct", "lifted"))


def test_N5_the_new_view_does_not_depend_on_which_view_comes_first() -> None:
    unequal = ViewGeometry.from_angles([0, 190])
    opposite = ViewGeometry.from_angles([0, 180])
    biplanar = ViewGeometry.biplanar()
    cases = [(NewViewConfig(), views) for views in (biplanar, unequal, opposite)]
    for config, both in [*cases, (NewViewConfig(angles_deg=(45.0,)), biplanar)]:
        one, other = new_views(both, config), new_views(both.subset([1, 0]), config)
        assert one.source_mm == pytest.approx(other.source_mm, abs=1e-3)


# -------------------------------------------------------------------- results


class Exact(nn.Module):
    """In the place of the CT's autoencoder: eight voxels are eight channels, nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.codebook = nn.Module()
        self.codebook.register_buffer("codes", torch.tensor([0.0, 1.0]))

    def encode(self, unit: Tensor) -> Tensor:
        return torch.stack([unit[:, 0, i // 4 :: 2, i // 2 % 2 :: 2, i % 2 :: 2] for i in range(8)], dim=1)

    def decode(self, latents: Tensor, quantise: bool) -> Tensor:
        unit = latents.new_empty(len(latents), 1, *(2 * n for n in latents.shape[2:]))
        for i in range(8):
            unit[:, 0, i // 4 :: 2, i // 2 % 2 :: 2, i % 2 :: 2] = latents[:, i]
        return unit


def test_consistency_lowers_the_residual_between_steps_and_at_the_end() -> None:
    """Of a denoiser that sees the same grey everywhere."""
    radiograph, left = xrays_of(patient(20), VIEWS), {}
    sizes = "{widths: [4, 8], decoder_widths: [4], decoder_blocks: [0]}"
    for final, between in (("false", "false"), ("false", "true"), ("true", "false")):
        method = fresh(
            "dvg-base", f"config.ct.sizes={sizes}", f"config.consistency.final={final}",
            f"config.consistency.between={between}",
        )  # fmt: skip
        method.anatomy.fit([patient(seed) for seed in range(3)], None)
        method.ct, method.denoiser = Exact(), Heard(8)  # type: ignore[assignment]
        found = method.reconstruct(radiograph, rng=rng()).reprojections
        left[final, between] = sum(float((a - b).norm()) for a, b in zip(found, radiograph.images, strict=True))
    assert left["false", "true"] < 0.5 * left["false", "false"]
    assert left["true", "false"] < 0.5 * left["false", "false"]


def test_volume_and_spread_are_those_of_the_samples() -> None:
    estimate = ready().reconstruct(xrays_of(patient(20), VIEWS), rng=rng(), samples=3)
    assert len(estimate.samples) == 3
    volumes = torch.stack([sample.hu for sample in estimate.samples])
    assert estimate.std is not None
    assert torch.allclose(estimate.std.hu, volumes.std(0, correction=0), atol=1e-3)
    assert torch.allclose(estimate.volume.hu, volumes.mean(0), atol=0.5)
    assert estimate.details["ensemble"] == 3


def test_the_ensemble_is_drawn_although_one_sample_is_asked_for() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    one, three = (ready(ensemble=count).reconstruct(radiograph, rng=rng()) for count in (1, 3))
    assert one.std is None
    assert (one.samples, three.samples) == ((), ())
    assert three.std is not None
    assert (three.details["ensemble"], one.details["ensemble"]) == (3, 1)


def test_D2_a_sample_does_not_depend_on_its_mates() -> None:
    """Each has noise of its own; what is left is the rounding of bfloat16, which batches of another size do anew."""
    radiograph = xrays_of(patient(20), VIEWS)
    two, four = (
        ready(quantise=False).reconstruct(radiograph, rng=rng(3), samples=count).samples for count in (2, 4)
    )  # fmt: skip
    for one, other in zip(two, four[:2], strict=True):
        assert (one.hu - other.hu).abs().mean() < 0.25, "1e-4 of the range of 2500 HU"
    assert (four[0].hu - four[1].hu).abs().mean() > 2.5


def test_without_a_denoiser_there_is_one_result() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    one, other = (ready("dvg-net").reconstruct(radiograph, rng=rng(seed), samples=seed) for seed in (1, 4))
    assert torch.equal(one.volume.hu, other.volume.hu)
    assert (other.samples, other.std, other.details["sampler"]) == ((), None, None)


def test_a_share_of_the_lifted_volume_is_in_the_result() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    off = SampleAgreementConfig(final=False)

    def unit(share: float) -> Tensor:
        method = ready("dvg-net", consistency=off, lift_share=share)
        return to_unit_range(method.reconstruct(radiograph, rng=rng()).volume.hu)

    method = ready("dvg-net")
    lifted, _ = lift(method.settings.lift, method.anatomy, list(radiograph.images), VIEWS, "body")
    assert (unit(0.0) - lifted).abs().mean() > 0.01
    assert torch.allclose(unit(0.25), 0.75 * unit(0.0) + 0.25 * lifted, atol=0.02), "but for air: -1000 HU at the least"


def test_the_first_volume_is_what_diffusion_begins_from() -> None:
    """With a denoiser that adds nothing, the result is G_z's: that of DVG-Net."""
    method = ready(quantise=False)
    method.denoiser = Heard(8)
    radiograph = xrays_of(patient(20), VIEWS)
    coarse = method.reconstruct(radiograph, rng=rng()).volume.hu
    method.denoiser = None
    assert (method.reconstruct(radiograph, rng=rng()).volume.hu - coarse).abs().mean() < 2, (
        "but for what is clamped to -1..1, and rounding"
    )


@pytest.mark.parametrize("part", ["ct.decoder", "lifted.encoder", "coarse", "denoiser"])
def test_N11_weights_that_are_not_numbers_end_in_an_error(part: str) -> None:
    method = ready()
    with torch.no_grad():
        next(method.get_submodule(part).parameters()).fill_(torch.nan)
    with pytest.raises(NumericalError, match="finite"):
        method.reconstruct(xrays_of(patient(20), VIEWS), rng=rng())


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("dvg-anyview", "config.coarse=null", "no volume to synthesise a view from"),
        ("dvg-base", "config.denoiser=null", "none to return"),
        ("dvg-base", "config.denoiser.on_coarse=true", "none to return"),
        ("dvg-newview", "config.new_view={own_encoder: true}", "own_encoder needs `lifted`"),
        ("dvg-anyview", "config.lift.kind=pull", "path_length"),
        ("dvg-paper-single", "config.lift_share=0.2", "needs lift.kind consistent"),
        ("dvg-anyview", "config.sampler.eta=0.5", "eta is a setting of ddim"),
        ("dvg-anyview", "config.denoiser.steps=1", "greater than 1"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(name, [setting])


# -------------------------------------------------------------------- autoencoders


def test_critics_are_heard_from_their_first_step_on() -> None:
    method = fresh("dvg-paper-single", "config.ct.adversarial_start=7")
    stage = stages(method)[0]
    batch = {"ct": torch.rand(2, 32, 32, 32, generator=rng())}
    assert stage.critic is not None
    assert stage.critic.start == 7
    before, after = (stage.loss(batch, step, rng()) for step in (6, 7))
    assert {"l1", "commitment", "codes_used", "perplexity"} < set(before) < set(after)
    assert set(after) - set(before) == {"slice", "volume", "features"}
    expected = sum(weight * after[key] for weight, key in ((4, "l1"), (0.25, "commitment"), (1, "features")))
    assert float(after["loss"]) == pytest.approx(float(expected + after["slice"] + after["volume"]), rel=1e-5)


def test_crops_are_random_cubes_of_the_volumes() -> None:
    from voxray.methods.autoencoding import crops

    volumes = torch.arange(2 * 8**3, dtype=torch.float32).reshape(2, 8, 8, 8)
    found = crops(volumes, 4, rng())
    assert found.shape == (2, 1, 4, 4, 4)
    starts = found[:, 0, 0, 0, 0].long()
    for volume, cube, start in zip(volumes, found[:, 0], starts.tolist(), strict=True):
        z, y, x = np.unravel_index(start % 512, (8, 8, 8))
        assert torch.equal(cube, volume[z : z + 4, y : y + 4, x : x + 4])
    assert {crops(volumes, 4, rng(seed))[0, 0, 0, 0, 0].item() for seed in range(9)} != {starts[0].item()}
    assert torch.equal(crops(volumes, None, rng()), volumes[:, None])
