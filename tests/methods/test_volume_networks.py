"""3DPriorNet and BX2S-Net: their sizes and what they learn from."""

import pytest
import torch
from contract_models import small
from learn_stages import item_of, sample_of
from small_models import SETUP, patient, rng

from voxray.errors import RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.methods.priornet import Priornet, PriornetConfig
from voxray.methods.stages import GradientStage
from voxray.physics.attenuation import to_unit_range
from voxray.recipes import load_recipe

VIEWS = ViewGeometry.biplanar(setup=SETUP)


def test_BX2S_Net_is_about_as_large_as_the_copy_that_is_cited() -> None:
    """23.2 M parameters; how its attention is built is not known."""
    with torch.device("meta"):
        network = load_recipe("bx2s-net").build().network
        assert network.eval()(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 1, 16, 16, 16)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(23.2e6, rel=0.05)


def test_3DPriorNet_halves_six_times() -> None:
    with torch.device("meta"):
        network = load_recipe("3dpriornet").build().network.eval()
        shapes: list[tuple[int, ...]] = []
        for down in network.downs:
            down.register_forward_hook(lambda _, __, found: shapes.append(tuple(found.shape[1:3])))
        assert network(torch.zeros(1, 1, 128, 128, 128)).shape == (1, 3, 128, 128, 128)
    assert shapes == [(96, 64), (192, 32), (384, 16), (768, 8), (768, 4), (768, 2)]


def test_3DPriorNet_needs_a_grid_that_halves_as_often() -> None:
    with pytest.raises(RecipeError, match="multiples of 64"):
        Priornet(PriornetConfig(), VolumeGrid.centred(shape=(96, 96, 96), spacing_mm=5.0))


def test_3DPriorNet_is_right_where_bone_and_tissue_are() -> None:
    with torch.random.fork_rng():
        made = small("3dpriornet", brief=True).build().eval()
    assert isinstance(made, Priornet)
    stage = made.stages()[-1]
    assert isinstance(stage, GradientStage)
    item = item_of(stage.preparation, sample_of(patient(0), VIEWS))
    batch = {key: value[None] for key, value in item.items()}
    assert 0.1 < float(batch["lifted"][0, 16, 16, 16]) < 2  # of water it would be 1
    mask = (batch["ct"] > to_unit_range(torch.tensor(200.0))).float()
    assert 0.001 < float(mask.mean()) < 0.3
    wrong_there = torch.where(mask > 0, 0.0, batch["ct"]), torch.where(mask > 0, batch["ct"], 0.0)
    made.network.forward = lambda lifted: 2 * torch.stack([mask, wrong_there[1], wrong_there[0]], 1) - 1
    told = stage.loss(batch, 0, rng())
    assert float(told["loss"]) < 1e-5
    made.network.forward = lambda lifted: 2 * torch.stack([1 - mask, batch["ct"], batch["ct"]], 1) - 1
    told = stage.loss(batch, 0, rng())
    assert float(told["loss"]) == pytest.approx(1.0, abs=1e-4)  # the mask alone is wrong
