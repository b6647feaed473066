"""PerX2CT: what a point is told, and windows of slices."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract_models import small
from learn_stages import item_of, sample_of
from small_models import GRID, ISOCENTRE_MM, SETUP, SHAPE, patient, rng, xrays_of

from voxray.geometry import ViewGeometry
from voxray.images import Radiograph
from voxray.methods.perx2ct import Perx2ct
from voxray.methods.slices import PLANES, Plane, points_of, slices_of
from voxray.methods.stages import GradientStage
from voxray.nets.lifting import lattice
from voxray.recipes import load_recipe

VIEWS = ViewGeometry.biplanar(setup=SETUP)


def method(name: str = "perx2ct-global") -> Perx2ct:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = small(name, brief=True).build()
    assert isinstance(made, Perx2ct)
    made.anatomy.fit([patient(seed) for seed in range(2)], None)
    return made.eval()


@pytest.mark.parametrize(("name", "told"), [("perx2ct-local", 1087), ("perx2ct-global", 1599)])
def test_a_point_is_told_as_much_as_in_the_paper(name: str, told: int) -> None:
    with torch.device("meta"):
        made = load_recipe(name).build()
        assert made.network.decoder.in_channels == told
        network = made.network.eval()
        features = network.read(torch.zeros(1, 2, 128, 128))
        assert features[0].shape == (1, 2, 512, 16, 16)
        drawn = network(features, torch.zeros(1, 2, 3, 4), torch.zeros(1, 32, 32, 3))
    assert drawn.shape == (1, 128, 128)


@pytest.mark.parametrize("plane", PLANES)
def test_whole_slices_have_the_places_of_the_voxels(plane: Plane) -> None:
    along = (2 * torch.arange(4.0) + 1) / 4 - 1
    points = points_of(plane, along, torch.zeros(4, 2), torch.ones(4), 4)
    assert torch.allclose(points, slices_of(lattice((4, 4, 4)), plane))


def test_a_window_is_a_part_of_its_slice() -> None:
    points = points_of("coronal", torch.tensor([0.5]), torch.tensor([[0.5, -0.5]]), torch.tensor([0.25]), 2)
    assert points[0, :, :, 1].unique().tolist() == [0.5]
    assert points[0, :, 0, 2].tolist() == [0.375, 0.625]  # rows go along z
    assert points[0, 0, :, 0].tolist() == [-0.625, -0.375]


def test_what_is_learned_from_is_the_very_slice() -> None:
    """A network that answers with the truth has no error, for whole slices and for windows."""
    made = method()
    stage = made.stages()[-1]
    assert isinstance(stage, GradientStage)
    item = item_of(stage.preparation, sample_of(patient(0), VIEWS))
    batch = {key: torch.stack([value, value]) for key, value in item.items()}

    def truth(features: object, pinholes: object, points: torch.Tensor) -> torch.Tensor:
        fine = F.interpolate(points.movedim(-1, 1), scale_factor=2.0, mode="bilinear", align_corners=False)
        ramp = batch["ct"].new_tensor([1.0, 2.0, 3.0]) @ fine.flatten(2)
        return ramp.unflatten(1, fine.shape[2:])

    x, y, z = lattice(SHAPE).unbind(-1)
    batch["ct"] = (x + 2 * y + 3 * z).expand(2, *SHAPE).clone()
    made.network.forward = truth
    for seed in range(3):
        assert float(stage.loss(batch, 0, rng(seed))["loss"]) < 0.2  # the rim is interpolated; air is beside


def test_a_window_of_the_whole_is_the_slice_of_the_volume() -> None:
    """And wherever the isocentre is."""
    made = method()
    radiograph = xrays_of(patient(20), VIEWS)
    _, seen = made.read(radiograph, "body")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        made.settings.__dict__["planes"] = ("axial",)
        volume = made.draw(seen)[0].float()
    at = np.array(GRID.index_to_mm(np.array([15.5, 15.5, 10.0])))
    moved = Radiograph(radiograph.images, VIEWS.shifted(ISOCENTRE_MM))
    found = made.window(moved, "axial", at + np.array(ISOCENTRE_MM), 320.0)
    assert found.shape == (32, 32)
    assert torch.allclose(found, volume[10].clamp(0, 1) * 2500 - 1024, atol=30.0)
