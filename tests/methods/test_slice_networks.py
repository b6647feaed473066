"""ReconNet and 2DCNN, which draw depth as channels of an image: their sizes, and where their slices lie."""

import pytest
import torch
from contract_models import small
from small_models import GRID, SETUP, rng

from voxray.errors import RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.methods.cnn2d import Cnn2d, Cnn2dConfig
from voxray.methods.one_pass import OnePass
from voxray.methods.reconnet import Reconnet, ReconnetConfig
from voxray.recipes import load_recipe


def shape_of(name: str, pixels: int) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Return the shapes of what each part of the paper-sized network gives, and of the whole."""
    with torch.device("meta"):
        made = load_recipe(name).build()
        network, shapes = made.network, []
        for child in network.children():
            child.register_forward_hook(lambda _, __, found: shapes.append(tuple(found.shape)))
        return shapes, tuple(network.eval()(torch.zeros(1, 2, pixels, pixels)).shape)


def test_ReconNet_has_the_sizes_of_the_paper() -> None:
    parts, whole = shape_of("reconnet", 128)
    assert parts == [(1, 4096, 4, 4), (1, 4096, 4, 4), (1, 1, 64, 128, 128), (1, 128, 128, 128)]
    assert whole == (1, 128, 128, 128)


def test_2DCNN_has_the_sizes_of_the_paper() -> None:
    """An X-ray of 256 pixels a side becomes 128 slices of 128 pixels a side."""
    parts, whole = shape_of("2dcnn", 256)
    assert parts[0] == (1, 256, 128, 128)
    assert parts[1] == (1, 256, 16, 16)  # called one by one: three levels down, and the middle doubles again
    assert whole == (1, 128, 128, 128)


@pytest.mark.parametrize("name", ["reconnet", "2dcnn"])
def test_slices_stand_across_the_first_view_whatever_its_place_in_the_list(name: str) -> None:
    with torch.random.fork_rng():
        made = small(name, brief=True).build().eval()
    assert isinstance(made, OnePass)
    made.network.forward = lambda images: torch.linspace(0, 1, 32)[None, :, None, None].expand(len(images), 32, 32, 32)
    views = ViewGeometry.from_names(("lateral", "pa"), setup=SETUP)
    images = [torch.rand(shape, generator=rng(n)) for n, shape in enumerate(views.shapes)]
    seen = {key: value[None] for key, value in made.seen(images, views).items()}
    along = made.draw(seen)[0].mean((0, 2))  # PA looks from the back, +y, to the front
    assert bool((along[1:] < along[:-1]).all())


@pytest.mark.parametrize(("cls", "config"), [(Reconnet, ReconnetConfig()), (Cnn2d, Cnn2dConfig(levels=6))])
def test_a_grid_that_does_not_halve_is_refused(cls: type[OnePass], config: ReconnetConfig | Cnn2dConfig) -> None:
    with pytest.raises(RecipeError, match="cube with sides of a multiple of"):
        cls(config, VolumeGrid.centred(shape=(48, 48, 48), spacing_mm=5.0))  # type: ignore[call-arg, arg-type]
    with pytest.raises(RecipeError):
        cls(config, VolumeGrid.centred(shape=(32, 64, 64), spacing_mm=5.0))  # type: ignore[call-arg, arg-type]


def test_any_number_of_views_is_a_channel_each() -> None:
    angles = tuple(18.0 * n for n in range(10))
    with torch.random.fork_rng():
        made = Reconnet(ReconnetConfig(angles_deg=angles, features=(8, 16)), GRID).eval()
    views = ViewGeometry.from_angles(angles[::-1], setup=SETUP)
    images = [torch.full(shape, float(n)) for n, shape in enumerate(views.shapes)]
    seen = {key: value[None] for key, value in made.seen(images, views).items()}
    middles = seen["images"][0, :, 16, 16]
    assert bool((middles[1:] < middles[:-1]).all())  # in the order of the angles
    with torch.no_grad():
        assert made.draw(seen).shape == (1, 32, 32, 32)
