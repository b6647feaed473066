"""The mean anatomy: mean and standard deviation are those of numpy, in and around the volume."""

import numpy as np
import pytest
import torch
from small_models import GRID, SETUP, patient, xrays_of

from voxray.data.resample import resample
from voxray.geometry import ViewGeometry
from voxray.images import CTVolume
from voxray.methods.anatomy import Anatomy, AnatomyConfig, support_of
from voxray.physics.attenuation import MU_WATER_PER_MM, hu_to_mu
from voxray.physics.consistency import inside, interpolate_onto

CONFIG = AnatomyConfig(support_mm=400, spacing_mm=20)
SEEDS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    found = Anatomy(CONFIG, GRID)
    found.fit([patient(seed) for seed in SEEDS], None)
    return found


def wholes() -> np.ndarray:
    """Return the patients on the support, relative to water, in float64."""
    support = support_of(CONFIG.support_mm, CONFIG.spacing_mm)
    scans = [
        CTVolume(patient(seed).scan.hu, patient(seed).scan.grid.shifted(-patient(seed).isocentre_mm)) for seed in SEEDS
    ]
    return np.stack([hu_to_mu(resample(scan, support).hu, 1.0).double().numpy() for scan in scans])


def test_mean_and_standard_deviation_are_numpys(anatomy: Anatomy) -> None:
    assert anatomy.mean.numpy() == pytest.approx(wholes().mean(0), abs=1e-6)
    assert anatomy.std.numpy() == pytest.approx(wholes().std(0, ddof=1), abs=1e-5)
    assert anatomy.std.max() > 0.3


def test_a_single_case_has_no_spread() -> None:
    one = Anatomy(CONFIG, GRID)
    calls: list[tuple[int, int]] = []
    one.fit([patient(0)], lambda *at: calls.append(at))
    assert not one.std.any()
    assert one.mean.numpy() == pytest.approx(wholes()[0], abs=1e-6)
    assert calls == [(1, 1)]


def test_cases_are_gone_through_once() -> None:
    """They are read from disk when they are asked for."""
    seen: list[int] = []

    class Cases(list[int]):
        def __getitem__(self, i):  # type: ignore[no-untyped-def,override]
            if i >= len(SEEDS):
                raise IndexError
            seen.append(i)
            return patient(SEEDS[i])

        def __iter__(self):  # type: ignore[no-untyped-def,override]
            return (self[i] for i in range(len(self)))

    Anatomy(CONFIG, GRID).fit(Cases(SEEDS), None)
    assert seen == [0, 1, 2, 3]


def test_the_scene_is_the_mean_with_the_body_or_air_around_it(anatomy: Anatomy) -> None:
    body, air = anatomy.scene("body"), anatomy.scene("air")
    core = inside(anatomy.support, GRID)
    within = interpolate_onto(anatomy.mean, anatomy.support, GRID)
    for scene in (body, air):
        assert torch.allclose(scene.mu, within * MU_WATER_PER_MM)
        assert not scene.around[core].any()
    assert not air.around.any()
    assert torch.allclose(body.around[~core], anatomy.mean[~core] * MU_WATER_PER_MM)
    assert body.around.max() > 0.5 * MU_WATER_PER_MM


def test_N10_the_mean_is_seen_as_the_mean_is(anatomy: Anatomy) -> None:
    """Line integrals are linear: those of the scene are the mean of those of the patients."""
    views = ViewGeometry.biplanar(setup=SETUP)
    seen = [xrays_of(patient(seed), views).images for seed in SEEDS]
    for view, image in enumerate(anatomy.scene("body").project(views)):
        expected = torch.stack([images[view] for images in seen]).mean(0)
        assert (image - expected).norm() < 0.1 * expected.norm()


def test_changes_have_the_variance_of_the_patients_in_equal_parts(anatomy: Anatomy) -> None:
    changes = anatomy.variations("body", (20.0, 40.0), scale=0.5)
    assert [change.length_mm for change in changes] == [20.0, 40.0]
    generator = torch.Generator().manual_seed(0)
    for change in changes:
        draws = torch.stack([change.synthesise(torch.randn(change.shape, generator=generator)) for _ in range(200)])
        spread = draws.std(0)
        wide = anatomy.std > 0.2
        ratio = spread[wide] / (0.5 * MU_WATER_PER_MM * anatomy.std[wide] / 2**0.5)
        assert 0.7 < float(ratio.median()) < 1.3


def test_nothing_changes_around_a_volume_in_air(anatomy: Anatomy) -> None:
    (change,) = anatomy.variations("air", (20.0,))
    drawn = change.synthesise(torch.randn(change.shape, generator=torch.Generator().manual_seed(0)))
    core = inside(anatomy.support, GRID)
    assert not drawn[~core].any()
    assert drawn[core].abs().max() > 0


def test_it_has_weights_but_nothing_to_learn() -> None:
    fresh = Anatomy(CONFIG, GRID)
    assert set(fresh.state_dict()) == {"mean", "std"}
    assert not list(fresh.parameters())
