"""The 2D U-Net of view synthesis: where new views stand, what they show, and what becomes of them."""

from dataclasses import replace

import pytest
import torch
from contract_models import small
from learn_stages import item_of, sample_of
from small_models import GRID, SETUP, patient, rng, xrays_of

from voxray.geometry import ViewGeometry
from voxray.geometry.axial import primary_angles_deg
from voxray.methods.one_pass import WHITE
from voxray.methods.stages import GradientStage
from voxray.methods.unet2d import Unet2d
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu

VIEWS = ViewGeometry.biplanar(setup=SETUP)


def method() -> Unet2d:
    with torch.random.fork_rng():
        made = small("2d-unet", brief=True).build()
    assert isinstance(made, Unet2d)
    made.anatomy.fit([patient(seed) for seed in range(3)], None)
    return made.eval()


def test_new_views_stand_at_their_angles_and_show_the_cube() -> None:
    made = method()
    stage = made.stages()[-1]
    assert isinstance(stage, GradientStage)
    item = item_of(stage.preparation, sample_of(patient(0), VIEWS))
    new = made.new(item["sources_um"].numpy() / 1000)
    assert primary_angles_deg(new) == pytest.approx([45.0])
    expected = Projector(GRID, new).forward(hu_to_mu(patient(0).volume.hu))[0] / WHITE
    assert torch.allclose(item["new"][0], expected, atol=1e-5)


def test_true_new_views_make_a_better_volume_than_none() -> None:
    """The volume explains the views that are given and those that are made."""
    made, truth = method(), patient(20)
    radiograph = xrays_of(truth, VIEWS)
    new = made.new(VIEWS.source_mm)
    images = torch.stack(Projector(GRID, new).forward(hu_to_mu(truth.volume.hu))) / WHITE
    errors = {}
    for name, drawn in (("true", images), ("air", torch.zeros_like(images))):
        made.network.forward = lambda given, drawn=drawn: drawn[None]
        found = made.reconstruct(radiograph, rng=rng()).volume.hu
        errors[name] = float((found - truth.volume.hu).square().mean())
    assert errors["true"] < 0.8 * errors["air"]


def test_what_is_no_measurement_has_no_say_in_the_volume() -> None:
    made, radiograph = method(), xrays_of(patient(20), VIEWS)
    valid = tuple(torch.arange(image.shape[1]).expand(image.shape) < 40 for image in radiograph.images)
    images = torch.stack(Projector(GRID, made.new(VIEWS.source_mm)).forward(hu_to_mu(patient(20).volume.hu))) / WHITE
    made.network.forward = lambda given: images[None]
    found = []
    for value in (0.0, 9.0):
        spoiled = tuple(image.where(mask, value) for image, mask in zip(radiograph.images, valid, strict=True))
        covered = replace(radiograph, images=spoiled, valid=valid)
        found.append(made.reconstruct(covered, rng=rng()).volume.hu)
    assert torch.equal(*found)
