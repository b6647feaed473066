"""The atlas: what it learns, and where it leaves what it does not."""

import pytest
import torch
from small_models import GRID, SETUP, patient, rng, small_method, small_recipe, xrays_of

from voxray.errors import InputError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.methods import Method
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu
from voxray.physics.consistency import inside

VIEWS = ViewGeometry.biplanar(setup=SETUP)


def with_settings(**config: object) -> Method:
    method = small_recipe(3, **config).build()
    method.load_state_dict(small_method().state_dict())
    return method


def test_weights_are_the_mean_and_what_differs_from_it() -> None:
    weights = small_method().state_dict()
    cubes = torch.stack([hu_to_mu(patient(seed).volume.hu, 1.0) for seed in range(3)])
    assert torch.allclose(weights["mean"], cubes.mean(0), atol=1e-6)
    assert weights["deviations"].shape == (3, 20, 20, 20)
    assert weights["deviations"].mean(0).abs().max() < 1e-6
    support = VolumeGrid.centred(shape=(20, 20, 20), spacing_mm=20.0)
    coarse = torch.nn.functional.avg_pool3d(weights["mean"][None], 2)[0]
    core = weights["around"][inside(support, GRID)].reshape(16, 16, 16)
    assert (core - coarse).abs().mean() < 0.05, "both are the same anatomy at the same place"
    assert weights["around"][~inside(support, GRID)].max() > 0.5, "and the body goes on outside"


def test_without_iterations_the_plain_mean_is_left() -> None:
    method = with_settings(iterations=0, detail_iterations=0)
    estimate = method.reconstruct(xrays_of(patient(20), VIEWS), rng=rng())
    mean = method.plain_mean(VIEWS)
    assert mean is not None
    assert torch.allclose(estimate.volume.hu, mean.volume.hu, atol=1e-3)
    for one, other in zip(estimate.reprojections, mean.reprojections, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_the_xrays_of_air_are_explained_by_the_volume_alone() -> None:
    case = patient(20)
    images = tuple(Projector(GRID, VIEWS).forward(hu_to_mu(case.volume.hu)))
    air = small_method().reconstruct(Radiograph(images, VIEWS), rng=rng(), outside="air")
    alone = Projector(GRID, VIEWS).forward(hu_to_mu(air.volume.hu))
    for one, other in zip(air.reprojections, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    body = small_method().reconstruct(Radiograph(images, VIEWS), rng=rng(), outside="body")
    truth = case.volume.hu
    assert (air.volume.hu - truth).square().mean() < (body.volume.hu - truth).square().mean()


def test_the_xrays_of_a_whole_body_are_explained_by_what_is_outside_too() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    estimate = small_method().reconstruct(radiograph, rng=rng())
    alone = Projector(GRID, VIEWS).forward(hu_to_mu(estimate.volume.hu))
    for image, whole, part in zip(radiograph.images, estimate.reprojections, alone, strict=True):
        assert (whole - part).min() > -1e-4
        assert (whole - image).square().mean() < 0.1 * (part - image).square().mean()


def test_the_report_says_how_it_went() -> None:
    estimate = small_method().reconstruct(xrays_of(patient(20), VIEWS), rng=rng(), outside="body")
    residual = estimate.details["residual_by_iteration"]
    assert estimate.details["outside"] == "body"
    assert estimate.details["iterations"] == len(residual) - 1 > 3
    assert residual[-1] < 0.25 * residual[0]


def test_samples_spread_most_where_the_body_differs() -> None:
    estimate = small_method().reconstruct(xrays_of(patient(20), VIEWS), rng=rng(), samples=4)
    assert estimate.std is not None
    air = small_method().state_dict()["mean"] < 0.01
    assert estimate.std.hu[~air].mean() > 2 * estimate.std.hu[air].mean()
    assert torch.allclose(estimate.std.hu, torch.stack([s.hu for s in estimate.samples]).std(0))


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_scans_than_the_recipes_is_refused(count: int) -> None:
    with pytest.raises(InputError, match=rf"for 3 scans, but {count} were given: --set config\.scans={count}"):
        small_recipe(3).build().stages()[0].fit([patient(seed) for seed in range(count)], None)
