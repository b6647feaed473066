"""X-rays into the volume, and where new views stand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contract_models import VIEWS, small
from learn_stages import item_of, sample_of
from small_models import patient

from voxray.data.dataset import TrainingSample
from voxray.data.phantom import marker_phantom
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.methods.anatomy import Anatomy, AnatomyConfig
from voxray.methods.dvg.config import NewViewConfig
from voxray.methods.dvg.new_view import new_views
from voxray.methods.lifted import LiftConfig, lift, lift_new, transposed
from voxray.methods.stages import GradientStage, Stage
from voxray.physics import Projector
from voxray.physics.attenuation import MU_WATER_PER_MM, from_unit_range, hu_to_mu, mu_to_hu, to_unit_range
from voxray.physics.backprojection import back_project

GRID = VolumeGrid.centred(shape=(32, 32, 32), spacing_mm=10.0)
BIPLANAR = ViewGeometry.from_names(["pa", "lateral"])


def test_back_projection_of_water_is_water_in_each_view() -> None:
    """I / |L| of a cube of water is its attenuation on every ray, so the sum over two views is twice that."""
    projector = Projector(GRID, BIPLANAR)
    volume = back_project(projector.forward(torch.full(GRID.shape, MU_WATER_PER_MM)), projector)
    middle = volume[8:24, 8:24, 8:24]
    assert torch.allclose(middle, torch.full_like(middle, 2 * MU_WATER_PER_MM), rtol=1e-4)


def test_back_projection_does_not_depend_on_other_cases_or_on_the_order_of_views() -> None:
    projector = Projector(GRID, BIPLANAR)
    images = projector.forward(torch.rand(GRID.shape, generator=torch.Generator().manual_seed(0)) / 50)
    swapped = back_project(images[::-1], Projector(GRID, BIPLANAR.subset([1, 0])))
    assert torch.allclose(back_project(images, projector), swapped, rtol=1e-4, atol=1e-7)
    assert torch.allclose(back_project([3 * image for image in images], projector), 3 * swapped, rtol=1e-4, atol=1e-7)


def test_back_projection_puts_a_marker_where_it_is() -> None:
    """Two views meet on the ball, and on its own side: not on the mirrored one."""
    mu = torch.zeros(GRID.shape)
    mu[20, 12, 7] = 1.0
    projector = Projector(GRID, BIPLANAR)
    volume = back_project(projector.forward(mu), projector)
    assert np.unravel_index(int(volume.argmax()), GRID.shape) == (20, 12, 7)


def test_the_releases_lift_of_ones_is_what_its_kernel_gives() -> None:
    """At the isocentre 10 * 1.2^2: ten for each ray, and 1.2^2 rays cross a voxel's mm^2 there."""
    grid = VolumeGrid.centred(shape=(128, 128, 128), spacing_mm=2.5)
    views = ViewGeometry.from_names(["pa"], setup="xraysyn")
    ones = transposed([torch.ones(shape) for shape in views.shapes], Projector(grid, views))
    assert float(ones[32:96, 62:66, 32:96].mean()) == pytest.approx(14.4, rel=0.01)


def test_the_releases_lift_sees_xrays_from_0_to_1_and_new_ones_as_they_are() -> None:
    anatomy, config = Anatomy(AnatomyConfig(support_mm=400, spacing_mm=20), GRID), LiftConfig(kind="transpose")
    unit = torch.rand(GRID.shape, generator=torch.Generator().manual_seed(0))
    projector = Projector(GRID, BIPLANAR)
    images = [(image - image.min()) / (image.max() - image.min()) for image in projector.forward(unit)]
    lifted, around = lift(config, anatomy, [7 * image + 3 for image in images], BIPLANAR, "air")
    assert torch.allclose(lifted, projector.adjoint(images), rtol=1e-3, atol=1e-3), "10 / 10 mm"
    again = lift_new(config, anatomy, unit, BIPLANAR, around, "air")
    assert torch.allclose(again, projector.adjoint(projector.forward(unit)) / 100, rtol=1e-3), "10 / 10 / (10 * 10)"


@pytest.mark.parametrize("names", [["pa"], ["pa", "lateral"]])
def test_consistent_lift_explains_the_xrays(names: list[str]) -> None:
    anatomy = Anatomy(AnatomyConfig(support_mm=400, spacing_mm=20), GRID)
    body = hu_to_mu(marker_phantom(GRID).volume.hu)
    anatomy.mean.fill_(0.3)
    anatomy.std.fill_(0.3)
    views = ViewGeometry.from_names(names)
    projector = Projector(GRID, views)
    images = projector.forward(body)
    lifted, around = lift(
        LiftConfig(kind="consistent", lengths_mm=(20.0,), iterations=20), anatomy, images, views, "air"
    )
    again = projector.forward(hu_to_mu(from_unit_range(lifted)))
    start = projector.forward(anatomy.scene("air").mu)
    for image, found, mean in zip(images, again, start, strict=True):
        assert (found - image).norm() < 0.3 * (mean - image).norm()
    assert float(around.abs().max()) == 0.0


def test_unit_range_is_the_papers() -> None:
    hu = torch.tensor([-2000.0, -1024.0, 226.0, 1476.0, 3000.0])
    assert torch.allclose(to_unit_range(hu), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
    assert torch.allclose(from_unit_range(to_unit_range(hu)), hu.clamp(-1024, 1476), atol=1e-3)


def direction(views: ViewGeometry, view: int) -> np.ndarray:
    ray = views.source_mm[view] - views.isocentre()
    return ray / np.linalg.norm(ray)


def test_new_view_of_a_frontal_view_is_the_lateral() -> None:
    """Table III: 90 degrees for a single view, here the left lateral that goes with a PA, also by the widest gap."""
    for config in (NewViewConfig(angles_deg=(90.0,)), NewViewConfig()):
        new = new_views(BIPLANAR.subset([0]), config)
        assert abs(direction(new, 0) @ direction(BIPLANAR, 1)) > 1 - 1e-6
    assert np.allclose(new_views(BIPLANAR.subset([0]), NewViewConfig(angles_deg=(90.0,))).source_mm[0],
                       BIPLANAR.source_mm[1], atol=1e-3)  # fmt: skip


def test_new_view_of_two_views_lies_between_them() -> None:
    for config in (NewViewConfig(angles_deg=(45.0,)), NewViewConfig()):
        new = direction(new_views(BIPLANAR, config), 0)
        assert abs(new @ direction(BIPLANAR, 0)) == pytest.approx(2**-0.5, abs=1e-6)
        assert abs(new @ direction(BIPLANAR, 1)) == pytest.approx(2**-0.5, abs=1e-6)
    assert direction(new_views(BIPLANAR, NewViewConfig(angles_deg=(45.0,))), 0) @ direction(BIPLANAR, 1) > 0


def test_two_new_views_share_the_detector_of_the_first() -> None:
    new = new_views(BIPLANAR, NewViewConfig(angles_deg=(22.5, 67.5)))
    assert new.shapes == BIPLANAR.shapes[:1] * 2
    assert np.allclose(np.linalg.norm(new.u_mm, axis=1), np.linalg.norm(BIPLANAR.u_mm[0]))
    turn = direction(new, 0) @ direction(new, 1)
    assert turn == pytest.approx(2**-0.5, abs=1e-6)


def test_new_view_of_many_views_fills_the_widest_gap() -> None:
    views = ViewGeometry.from_angles([0, 10, 20, 100])
    new = direction(new_views(views, NewViewConfig()), 0)
    wanted = direction(ViewGeometry.from_angles([60]), 0)
    assert abs(new @ wanted) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["axon-small", "dvg-anyview"])
def test_estimated_line_integrals_are_prepared_as_they_are_reconstructed_from(name: str) -> None:
    """What is no measurement has no say, and what is one has less than an exact one."""
    method = small(name, brief=True).build()
    fit, first, *_ = method.stages()
    assert isinstance(fit, Stage)
    assert isinstance(first, GradientStage)
    fit.fit([patient(seed) for seed in range(3)], None)

    def lifted(sample: TrainingSample) -> torch.Tensor:
        return item_of(first.preparation, sample)["lifted"]

    exact = sample_of(patient(20), VIEWS)
    whole = tuple(torch.ones_like(image, dtype=torch.bool) for image in exact.images)
    covered = tuple(mask.index_fill(2, torch.arange(40, 64), False) for mask in whole)
    spoiled = tuple(image.where(mask, 3.0) for image, mask in zip(exact.images, covered, strict=True))
    masked = lifted(replace(exact, valid=covered))
    assert torch.equal(lifted(replace(exact, images=spoiled, valid=covered)), masked)
    assert not torch.allclose(lifted(replace(exact, images=spoiled)), lifted(exact), atol=1e-2)
    mean = to_unit_range(mu_to_hu(method.anatomy.scene("body").mu))  # type: ignore[union-attr]
    assert (lifted(replace(exact, valid=whole)) - mean).norm() < (lifted(exact) - mean).norm()
