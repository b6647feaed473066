"""AXON-style: what its stages begin from, what they are told, and that each stands alone."""

from pathlib import Path

import pytest
import torch
from contract_models import VIEWS, briefly_trained, small
from learn_stages import item_of, sample_of
from safetensors.torch import save_file
from small_models import patient, rng, xrays_of
from torch import Tensor

from voxray.errors import CheckpointError, RecipeError
from voxray.geometry import VolumeGrid
from voxray.images import Radiograph
from voxray.methods.axon import Axon
from voxray.methods.axon.control import ControlledUNet
from voxray.methods.stages import GradientStage
from voxray.physics.attenuation import to_unit_range
from voxray.recipes.recipe import parse_recipe
from voxray.training.order import seeded

NAME = "axon-small"


def method(*overrides: str, trained: bool = False) -> Axon:
    """Return the brief recipe's method with settings changed, its weights as they begin or as two steps leave them."""
    recipe = parse_recipe(small(NAME, brief=True).to_yaml(), NAME, overrides)
    with seeded("tests", NAME):
        made = recipe.build()
    assert isinstance(made, Axon)
    if trained:
        kept = made.state_dict()
        made.load_state_dict({name: w for name, w in briefly_trained(NAME).state_dict().items() if name in kept})
    return made.eval()


def items(made: Axon) -> dict[str, dict[str, Tensor]]:
    """Return the item of each stage that learns, of one patient."""
    stages = [stage for stage in made.stages() if isinstance(stage, GradientStage)]
    with torch.no_grad():
        return {s.name: dict(item_of(s.preparation, sample_of(patient(20), VIEWS))) for s in stages}


# ---------------------------------------------------------------- what networks are told


def test_a_missing_view_is_a_state_of_the_input() -> None:
    """Rays say which views see a place and along which axis; of PA alone, none runs along x."""
    made = method()
    two = made.seen(xrays_of(patient(20), VIEWS).images, VIEWS)
    one = made.seen(xrays_of(patient(20), VIEWS.subset([0])).images, VIEWS.subset([0]))
    middle = tuple(n // 2 for n in two["rays"].shape[1:])
    along = [[float(known["rays"][(axis, *middle)]) for axis in range(3)] for known in (two, one)]
    assert along[0] == pytest.approx([1, 1, 0], abs=0.02)
    assert along[1] == pytest.approx([0, 1, 0], abs=0.02)
    assert {known[name].shape for known in (two, one) for name in known} == {(6, 8, 8, 8)}


@pytest.mark.parametrize("kind", ["consistent", "path_length"])
def test_one_view_is_lifted_to_the_size_of_two(kind: str) -> None:
    made = method(f"config.lift.kind={kind}", trained=True)
    volumes = []
    for views in (VIEWS, VIEWS.subset([0])):
        volumes.append(made._lifted(xrays_of(patient(20), views).images, views, "body")[0])
    assert float(volumes[1].mean()) == pytest.approx(float(volumes[0].mean()), rel=0.25)


def test_latents_are_of_mean_nought_and_standard_deviation_one() -> None:
    made = method(trained=True)
    cases = [patient(seed) for seed in range(3)]
    made._fit_latents(cases, None)
    with torch.no_grad():
        found = torch.cat([made.encode(to_unit_range(case.volume.hu)[None, None]) for case in cases])
    assert found.mean((0, 2, 3, 4)).abs().max() < 1e-3
    assert (found.std((0, 2, 3, 4)) - 1).abs().max() < 1e-2 or made.latent_std.min() < 0.011 * made.latent_std.max()


def test_the_bridge_learns_from_the_lifted_x_rays_and_the_control_from_its_samples() -> None:
    found = items(method(trained=True))
    assert list(found) == ["ct", "bridge", "prior", "control"]
    assert found["control"]["z_first"].shape == found["bridge"]["z_start"].shape == (8, 8, 8, 8)
    assert not torch.equal(found["control"]["z_first"], found["control"]["z_start"])
    again = items(method(trained=True))["control"]["z_first"]
    assert torch.equal(again, found["control"]["z_first"]), "items are kept on disk: they are functions of the sample"


# ---------------------------------------------------------------- the ControlNet


def test_a_control_that_has_not_learned_changes_nothing() -> None:
    with seeded("tests"):
        made = ControlledUNet(4, 3, (8, 32), 1).eval()
    made.copy_prior()
    x, t, told = torch.randn(2, 4, 8, 8, 8, generator=rng()), torch.tensor([3, 900]), torch.ones(2, 3, 8, 8, 8)
    with torch.no_grad():
        assert torch.allclose(made(x, t, told), made.prior(x, t), atol=1e-6)
        assert made.prior(x, t).abs().max() > 0.01, "and there is something that it could change"


def test_the_control_begins_as_the_way_down_of_the_prior() -> None:
    with seeded("tests"):
        made = ControlledUNet(4, 3, (8, 32), 1)
    assert not torch.equal(made.control.conv_in.conv.weight, made.prior.net.conv_in.conv.weight)
    made.copy_prior()
    own, prior = made.control.state_dict(), made.prior.net.state_dict()
    shared = own.keys() & prior.keys()
    assert all(torch.equal(own[name], prior[name]) for name in shared)
    assert {name.split(".")[0] for name in shared} == {"conv_in", "time_embed", "down_blocks", "middle_block"}


# ---------------------------------------------------------------- each stage alone


@pytest.mark.parametrize(
    ("overrides", "ran"),
    [((), (True, True)), (("config.refine=null",), (True, False)), (("config.bridge=null",), (False, True))],
    ids=["both", "bridge", "refinement"],
)
def test_each_stage_can_be_run_alone(overrides: tuple[str, ...], ran: tuple[bool, bool]) -> None:
    estimate = method(*overrides, trained=True).reconstruct(xrays_of(patient(20), VIEWS), rng=rng(), samples=2)
    assert tuple(estimate.details[name] is not None for name in ("bridge", "refine")) == ran
    assert len(estimate.samples) == 2
    assert estimate.std is not None
    assert estimate.std.hu.max() > 0


def test_without_both_stages_the_result_is_where_the_bridge_begins() -> None:
    made = method("config.bridge=null", "config.refine=null", "config.consistency.final=false", trained=True)
    radiograph = xrays_of(patient(20), VIEWS)
    estimate = made.reconstruct(radiograph, rng=rng())
    lifted = made._lifted(radiograph.images, VIEWS, "body")[0]
    assert torch.allclose(to_unit_range(estimate.volume.hu), lifted, atol=1e-4)
    assert (estimate.std, estimate.details["ensemble"]) == (None, 1)


def test_the_bridge_can_begin_from_a_volume_of_elsewhere() -> None:
    """On any grid, in the coordinates of the views."""
    made = method("config.bridge=null", "config.refine=null", "config.consistency.final=false", trained=True)
    truth = patient(20).volume
    views = VIEWS.shifted(patient(20).isocentre_mm)
    radiograph = Radiograph(xrays_of(patient(20), VIEWS).images, views)
    found = made.reconstruct(radiograph, rng=rng(), start=truth)
    assert found.volume.grid.is_close(truth.grid)
    assert (to_unit_range(found.volume.hu) - to_unit_range(truth.hu)).abs().max() < 1e-3
    assert found.details["start"] == "given"
    whole = method(trained=True)
    one, two = (whole.reconstruct(radiograph, rng=rng(), start=given).volume.hu for given in (truth, None))
    assert not torch.equal(one, two)


def test_predictions_can_be_made_to_agree_between_the_steps() -> None:
    made = method("config.consistency.between=true", trained=True)
    estimate = made.reconstruct(xrays_of(patient(20), VIEWS), rng=rng())
    assert torch.isfinite(estimate.volume.hu).all()


# ---------------------------------------------------------------- weights of another model


def test_an_autoencoder_is_taken_over(tmp_path: Path) -> None:
    """As a model folder holds it: in half precision, without what training alone uses."""
    source = briefly_trained(NAME)
    kept = {n: w.half() if w.is_floating_point() else w for n, w in source.state_dict().items()}
    kept = {n: w.contiguous() for n, w in kept.items() if not n.startswith(source.training_only)}
    save_file(kept, tmp_path / "weights.safetensors")
    made = method(f"config.ct_weights={tmp_path / 'weights.safetensors'}")
    names = [stage.name for stage in made.stages()]
    assert names == ["anatomy", "ct", "latents", "bridge", "prior", "copy", "control"]
    (stage,) = [stage for stage in made.stages() if stage.name == "ct"]
    stage.fit([patient(0)], None)  # type: ignore[union-attr]
    for name, weight in made.ct.state_dict().items():
        if f"ct.{name}" in kept:
            assert torch.equal(weight, kept[f"ct.{name}"].to(weight.dtype))


def test_another_autoencoder_is_refused(tmp_path: Path) -> None:
    save_file({"ct.to_latents.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    made = method(f"config.ct_weights={tmp_path / 'other.safetensors'}")
    with pytest.raises(CheckpointError, match=r"other.safetensors.*autoencoder of this recipe.*config.ct"):
        made.stages()[1].fit([patient(0)], None)  # type: ignore[union-attr]


def test_what_does_not_fit_is_refused() -> None:
    recipe = small(NAME, brief=True)
    with pytest.raises(RecipeError, match="multiples of 8 voxels"):
        Axon(recipe.method_config(), VolumeGrid.centred(shape=(28, 32, 32), spacing_mm=10.0))  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="released weights"):
        method("config.lift.kind=transpose")
