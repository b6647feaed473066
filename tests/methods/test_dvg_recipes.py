"""The recipes of DVG-Diffusion: the paper's are of its sizes and views; the others differ in what they say."""

import numpy as np
import pytest
import torch
from small_models import rng
from torch import nn

from voxray.methods.dvg import Dvg
from voxray.methods.dvg.config import NewViewConfig
from voxray.recipes import load_recipe


def parameters(net: nn.Module | None) -> float:
    assert net is not None
    return sum(parameter.numel() for parameter in net.parameters()) / 1e6


@pytest.mark.parametrize(("name", "angle"), [("dvg-paper-single", 90.0), ("dvg-paper-biplanar", 45.0)])
def test_a_paper_recipe_has_the_papers_sizes(name: str, angle: float) -> None:
    """arXiv 2503.17804 and its release, where G_z has 35.7 M parameters, with the time that the paper gives it not."""
    with torch.device("meta"):
        method = load_recipe(name).build()
        timed = load_recipe(name).method_config().coarse.net.build(8, 8, time=True)  # type: ignore[attr-defined]
    assert isinstance(method, Dvg)
    assert method.lifted is not None
    for autoencoder in (method.ct, method.lifted):
        assert parameters(autoencoder.encoder) == pytest.approx(0.44, abs=0.005)
        assert parameters(autoencoder.decoder) == pytest.approx(0.95, abs=0.005)
        assert autoencoder.codebook.codes.shape == (16384, 8)
    assert parameters(method.coarse) == pytest.approx(33.6, abs=0.05)
    assert parameters(timed) == pytest.approx(35.7, abs=0.05)
    assert parameters(method.denoiser) == pytest.approx(134.5, abs=0.05)
    assert method.denoiser is not None
    assert method.denoiser.get_parameter("first.weight").shape[:2] == (128, 24)
    settings = method.settings
    assert settings.new_view == NewViewConfig(angles_deg=(angle,))
    assert (settings.sampler.solver, settings.sampler.steps, method.process.steps) == ("ddpm", 100, 100)
    assert (settings.ensemble, settings.consistency.final, settings.consistency.between) == (1, False, False)


@pytest.mark.parametrize(("name", "turns"), [("dvg-paper-single", []), ("dvg-paper-biplanar", [90.0])])
def test_a_paper_recipe_sees_the_papers_views(name: str, turns: list[float]) -> None:
    """0, or 0 and 90 degrees, of the very volume, 1200 and 1000 mm (of 128) from source to detector and isocentre."""
    data = load_recipe(name).data
    views = data.mixed_views().draw(rng())
    assert (data.closed, data.augment, data.photons) == (1.0, False, None)
    rays = views.source_mm / np.linalg.norm(views.source_mm, axis=1, keepdims=True)
    assert rays[0] == pytest.approx([0, 1, 0], abs=1e-9)  # PA: the source is behind the patient
    assert np.rad2deg(np.arccos(rays[1:] @ rays[0])).tolist() == pytest.approx(turns)
    assert np.linalg.norm(views.source_mm, axis=1) == pytest.approx(2.5 * 1000)
    assert np.linalg.norm(views.source_mm - views.centre_mm, axis=1) == pytest.approx(2.5 * 1200)


def test_a_paper_recipe_trains_as_told() -> None:
    config = load_recipe("dvg-paper-biplanar").method_config().model_dump()
    told = {part: config[part]["training"] for part in ("ct", "lifted", "denoiser")}
    assert {part: told[part]["learning_rate"] for part in told} == {"ct": 3e-4, "lifted": 3e-4, "denoiser": 2e-4}
    assert [round(told[part]["steps"] * 2 / 916) for part in ("ct", "lifted")] == [100, 50]  # epochs
    assert {told[part]["batch_size"] for part in told} == {2}
    assert config["denoiser"]["training"]["clip"] is None


def test_ablations_differ_in_what_they_leave_out_alone() -> None:
    whole = load_recipe("dvg-anyview").method_config().model_dump()
    data = load_recipe("dvg-anyview").data
    left_out = {
        "dvg-vpge": {"new_view"}, "dvg-net": {"new_view", "denoiser"}, "dvg-newview": {"lifted"},
        "dvg-base": {"lifted", "coarse", "new_view"},
    }  # fmt: skip
    for name, parts in left_out.items():
        config = load_recipe(name).method_config().model_dump()
        assert load_recipe(name).data == data
        assert {key for key in config if config[key] is None and whole[key] is not None} == parts
        assert {key for key in config if config[key] != whole[key]} - parts <= (
            {"denoiser"} if name == "dvg-base" else set()
        )
    for name in ("dvg-single", "dvg-biplanar"):
        config = load_recipe(name).method_config().model_dump()
        assert {key for key in config if config[key] != whole[key]} == {"new_view"}
