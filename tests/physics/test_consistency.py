"""Making a scene agree with X-rays: against closed forms, over random geometry, and at the edges."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import set_ups
from torch import Tensor

from voxray.errors import GeometryError, NumericalError
from voxray.geometry import Setup, ViewGeometry, VolumeGrid
from voxray.physics import Projector
from voxray.physics.consistency import Scene, inside, interpolate_onto, make_consistent
from voxray.physics.variation import Variation

SUPPORT = VolumeGrid.centred(shape=(8, 9, 10), spacing_mm=10.0)
# Voxels 2..5, 3..6 and 3..6 of the support.
CORE = VolumeGrid((4, 4, 4), SUPPORT.affine @ np.array([[1, 0, 0, 3], [0, 1, 0, 3], [0, 0, 1, 2], [0, 0, 0, 1.0]]))
VIEWS = ViewGeometry.from_angles([0, 80], setup=Setup(900.0, 700.0, 14.0, (9, 11)))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=rng(seed), dtype=torch.float64)


def scene_of(whole: Tensor, core: VolumeGrid = CORE) -> Scene:
    """Cut a volume on the support into the part inside `core`, which has the same voxels, and the rest."""
    box = inside(SUPPORT, core)
    return Scene(whole[box].reshape(core.shape), core, whole * ~box, SUPPORT)


def smooth(std: float, length_mm: float = 30.0, grid: VolumeGrid = SUPPORT) -> Variation:
    return Variation(torch.full((1, *grid.shape), std, dtype=torch.float64), grid, length_mm, knot_mm=length_mm)


@dataclass
class Dense:
    """The linear Gaussian model as matrices: `data = operator @ c`, `change = synthesis @ c`."""

    operator: Tensor
    synthesis: Tensor
    data: Tensor

    @property
    def covariance(self) -> Tensor:
        return torch.linalg.inv(self.operator.T @ self.operator + torch.eye(self.operator.shape[1]).double())

    def solution(self, prior: Tensor | float = 0.0, error: Tensor | float = 0.0) -> Tensor:
        """Return the coefficients nearest to `prior` that explain data with an added `error`."""
        ones = torch.zeros(self.operator.shape[1], dtype=torch.float64) + prior
        return ones + self.covariance @ self.operator.T @ (self.data + error - self.operator @ ones)


def dense(
    scene: Scene, measured: list[Tensor], views: ViewGeometry, variations: list[Variation], noise: float
) -> Dense:
    projector = Projector(scene.around_grid, views)
    operator, synthesis = [], []
    for variation in variations:
        count = torch.Size(variation.shape).numel()
        for one in torch.eye(count, dtype=torch.float64):
            change = variation.synthesise(one.reshape(variation.shape))
            synthesis.append(change.flatten())
            operator.append(torch.cat([image.flatten() for image in projector.forward(change)]) / noise)
    left = [m - p for m, p in zip(measured, scene.project(views), strict=True)]
    data = torch.cat([image.flatten() for image in left]) / noise
    return Dense(torch.stack(operator, 1), torch.stack(synthesis, 1), data)


def change_of(before: Scene, after: Scene) -> Tensor:
    """Return the change on the support."""
    change = after.around - before.around
    change[inside(SUPPORT, CORE)] += (after.mu - before.mu).flatten()
    return change.flatten()


def problem(noise: float) -> tuple[Scene, list[Tensor], list[Variation]]:
    """X-rays with errors five times as large as assumed: the solver cannot stop early."""
    scene = scene_of(1 + random(SUPPORT.shape))
    errors = [5 * noise * torch.randn(s, generator=rng(9), dtype=torch.float64) for s in VIEWS.shapes]
    measured = [p + e for p, e in zip(scene.project(VIEWS), errors, strict=True)]
    return scene, measured, [smooth(0.004), Variation(0.003 * random((2, *SUPPORT.shape), 3), SUPPORT, 40.0, 40.0)]


# ---------------------------------------------------------------- scenes


@pytest.mark.parametrize("shift_mm", [(0, 0, 0), (3, -20, 11)])
def test_a_scene_projects_like_one_volume(shift_mm: tuple[float, float, float]) -> None:
    whole, views = random(SUPPORT.shape), VIEWS.shifted(shift_mm)
    for one, other in zip(scene_of(whole).project(views), Projector(SUPPORT, views).forward(whole), strict=True):
        assert torch.allclose(one, other, atol=1e-12 * float(other.max()))


def test_a_change_is_split_between_inside_and_outside() -> None:
    scene = scene_of(random(SUPPORT.shape))
    change = random(SUPPORT.shape, 1) - 0.5
    changed = scene.changed(change)
    whole = scene_of(random(SUPPORT.shape) + change)
    assert torch.allclose(changed.mu, whole.mu.clamp_min(0), atol=1e-12)
    assert torch.allclose(changed.around, whole.around.clamp_min(0), atol=1e-12)
    assert min(changed.mu.min(), changed.around.min()) == 0
    assert not changed.around[inside(SUPPORT, CORE)].any()


def test_what_is_inside_is_decided_by_the_middle_of_a_voxel() -> None:
    box = inside(SUPPORT, CORE)
    assert box.sum() == 64
    assert box[2:6, 3:7, 3:7].all()
    fine = CORE.resized((8, 16, 4))
    assert torch.equal(inside(SUPPORT, fine), box)
    assert inside(SUPPORT, SUPPORT).all()


def test_interpolation_keeps_linear_fields_and_is_zero_beyond() -> None:
    k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in SUPPORT.shape), indexing="ij")
    fine = CORE.resized((8, 12, 4))
    k2, j2, i2 = np.meshgrid(*(np.arange(n) for n in fine.shape), indexing="ij")
    at = SUPPORT.mm_to_index(fine.index_to_mm(np.stack([i2, j2, k2], -1)))
    expected = torch.from_numpy(at @ [3.0, -2.0, 0.5] + 1)
    assert torch.allclose(interpolate_onto(3 * i - 2 * j + 0.5 * k + 1, SUPPORT, fine), expected, atol=1e-10)
    far = VolumeGrid.centred((500, 0, 0), (4, 4, 4), 10.0)
    assert not interpolate_onto(torch.ones(SUPPORT.shape), SUPPORT, far).any()


# ---------------------------------------------------------------- closed forms


def test_N9_the_result_is_the_posterior_mean() -> None:
    noise = 0.02
    scene, measured, variations = problem(noise)
    agreement = make_consistent(scene, measured, VIEWS, variations, noise=noise, iterations=200)
    model = dense(scene, measured, VIEWS, variations, noise)
    expected = model.synthesis @ model.solution()
    assert expected.norm() > 0.02
    assert torch.allclose(change_of(scene, agreement.scene), expected, atol=1e-7 * float(expected.abs().max()))
    left = model.operator @ model.solution() - model.data
    assert agreement.residual[-1] == pytest.approx(noise * float(left.square().mean().sqrt()), rel=1e-6)
    assert agreement.residual[0] == pytest.approx(noise * float(model.data.square().mean().sqrt()), rel=1e-9)


def test_N9_a_sample_solves_for_a_random_scene_and_random_noise() -> None:
    noise = 0.02
    scene, measured, variations = problem(noise)
    model = dense(scene, measured, VIEWS, variations, noise)
    for seed in range(3):
        agreement = make_consistent(scene, measured, VIEWS, variations, noise=noise, iterations=200, rng=rng(seed))
        draws = rng(seed)
        prior = torch.cat([torch.randn(v.shape, generator=draws, dtype=torch.float64).flatten() for v in variations])
        error = torch.cat([torch.randn(s, generator=draws, dtype=torch.float64).flatten() for s in VIEWS.shapes])
        expected = model.synthesis @ model.solution(prior, error)
        assert torch.allclose(change_of(scene, agreement.scene), expected, atol=1e-7 * float(expected.abs().max()))


def test_N9_samples_have_the_mean_and_covariance_of_the_posterior() -> None:
    """Entries of a mean and a covariance of n normal draws spread by 1 / sqrt(n); five times that is allowed."""
    noise, n = 0.3, 300
    scene = scene_of(1 + random(SUPPORT.shape))
    measured = [p + 1.0 for p in scene.project(VIEWS)]
    variations = [smooth(0.02, 60.0)]
    model = dense(scene, measured, VIEWS, variations, noise)
    generator, back = rng(5), torch.linalg.pinv(model.synthesis)
    draws = torch.stack([
        back @ change_of(scene, make_consistent(
            scene, measured, VIEWS, variations, noise=noise, iterations=8, rng=generator).scene)
        for _ in range(n)
    ])  # fmt: skip
    covariance, std = model.covariance, model.covariance.diagonal().sqrt()
    known = torch.linalg.eigvalsh(covariance)
    assert known[0] < 0.1, "the X-rays say something"
    assert known[-1] > 0.5, "and leave something open"
    assert (((draws.mean(0) - model.solution()) / std).abs() < 5 / n**0.5).all()
    spread = (covariance.diagonal().outer(covariance.diagonal()) + covariance**2).sqrt()
    assert (((draws.T.cov() - covariance) / spread).abs() < 5 / n**0.5).all()


# ---------------------------------------------------------------- how it goes


def never_rises(values: Sequence[float]) -> bool:
    return all(after <= before * (1 + 1e-9) for before, after in pairwise(values))


@given(set_up=set_ups(), seed=st.integers(0, 1000), noise=st.floats(1e-3, 1.0))
def test_N9_residual_and_objective_never_rise(set_up: tuple[VolumeGrid, ViewGeometry], seed: int, noise: float) -> None:
    grid, views = set_up
    scene = Scene(10 + random(grid.shape, seed), grid, torch.zeros(grid.shape, dtype=torch.float64), grid)
    truth = scene.mu + 0.2 * (random(grid.shape, seed + 1) - 0.5)
    measured = Projector(grid, views).forward(truth)
    white = Variation(0.1 + random((1, *grid.shape), seed + 2), grid, 1e-3)  # a blur of nothing: change = std * c
    residual = make_consistent(scene, measured, views, [white], noise=noise, iterations=6).residual
    assert never_rises(residual)
    objective, norm = [], []
    factors = views.bins(float(grid.spacing_mm.min()), grid.centre_mm)
    pixels = sum(rows * columns for rows, columns in views.binned(factors).shapes)
    for iterations in range(len(residual)):
        found = make_consistent(scene, measured, views, [white], noise=noise, iterations=iterations)
        c = (found.scene.mu - scene.mu) / white.patterns[0]
        norm.append(float(c.square().sum()))
        objective.append(pixels * (residual[iterations] / noise) ** 2 + norm[-1])
    assert never_rises(objective)
    assert never_rises(norm[::-1])


def test_N9_noiseless_xrays_are_explained_as_far_as_the_model_reaches() -> None:
    scene, variation = scene_of(1 + random(SUPPORT.shape)), smooth(0.01)
    possible = variation.synthesise(torch.randn(variation.shape, generator=rng(4), dtype=torch.float64))
    measured = scene.changed(possible).project(VIEWS)
    agreement = make_consistent(scene, measured, VIEWS, [variation], noise=1e-5, iterations=200)
    assert agreement.residual[-1] == pytest.approx(1e-5)
    assert agreement.residual[0] > 1e-2
    for again, image in zip(agreement.scene.project(VIEWS), measured, strict=True):
        assert (again - image).abs().max() < 1e-3 * agreement.residual[0]


def test_N9_it_stops_when_the_residual_is_down_to_the_noise() -> None:
    scene, variation = scene_of(1 + random(SUPPORT.shape)), smooth(0.05)
    possible = variation.synthesise(torch.randn(variation.shape, generator=rng(4), dtype=torch.float64))
    measured = scene.changed(possible).project(VIEWS)
    calls: list[tuple[int, int]] = []
    agreement = make_consistent(
        scene, measured, VIEWS, [variation], noise=0.1, iterations=50, progress=lambda *at: calls.append(at)
    )
    assert agreement.residual[-1] == pytest.approx(0.1, rel=1e-9)
    assert agreement.residual[-2] > 0.1
    assert calls == [(i + 1, 50) for i in range(len(agreement.residual) - 1)]
    again = make_consistent(agreement.scene, measured, VIEWS, [variation], noise=0.1001, iterations=50)
    assert len(again.residual) == 1, "nothing is left to do"
    assert torch.equal(again.scene.mu, agreement.scene.mu)


def test_D2_a_little_change_of_the_xrays_changes_the_result_a_little() -> None:
    """Also where it takes one iteration more or less to come down to the noise."""
    scene, variation = scene_of(1 + random(SUPPORT.shape)), smooth(0.05)
    possible = variation.synthesise(torch.randn(variation.shape, generator=rng(4), dtype=torch.float64))
    measured = scene.changed(possible).project(VIEWS)
    reached = make_consistent(scene, measured, VIEWS, [variation], noise=1e-3, iterations=6).residual[3]
    found = []
    for noise in (reached * (1 - 1e-6), reached * (1 + 1e-6)):
        agreement = make_consistent(scene, measured, VIEWS, [variation], noise=noise, iterations=50)
        found.append(agreement.scene.mu)
    assert (found[0] - found[1]).abs().max() < 1e-5 * (found[0] - scene.mu).abs().max()


def test_no_iterations_leave_the_scene_as_it_is() -> None:
    scene, measured, variations = problem(0.02)
    agreement = make_consistent(scene, measured, VIEWS, variations, iterations=0)
    assert torch.equal(agreement.scene.mu, scene.mu)
    assert len(agreement.residual) == 1


def test_what_lies_outside_is_found_outside() -> None:
    """Seen from all sides, a ball beside the volume stays beside it."""
    views = ViewGeometry.circular(8, setup=Setup(1500.0, 1200.0, 10.0, (14, 16)))
    whole = torch.full(SUPPORT.shape, 0.5, dtype=torch.float64)
    scene = scene_of(whole.clone())
    whole[3:5, 3:5, 8:10] += 0.2
    measured = Projector(SUPPORT, views).forward(whole)
    white = Variation(torch.full((1, *SUPPORT.shape), 0.1, dtype=torch.float64), SUPPORT, 1e-3)
    found = make_consistent(scene, measured, views, [white], noise=1e-3, iterations=40).scene
    assert (found.around - scene.around)[3:5, 3:5, 8:10].sum() > 0.8 * 8 * 0.2
    assert (found.mu - scene.mu).abs().max() < 0.15 * 0.2
    nothing = Variation(white.patterns * inside(SUPPORT, CORE), SUPPORT, 1e-3)
    inner = make_consistent(scene, measured, views, [nothing], noise=1e-3, iterations=5).scene
    assert torch.equal(inner.around, scene.around), "no change outside where none is allowed"


def test_fine_xrays_are_binned_and_tell_the_same() -> None:
    """Views with other detectors, pixels of a third: every block of three by three has the coarse pixel's value."""
    coarse = ViewGeometry.from_angles([0, 90], setup=Setup(900.0, 700.0, 12.0, (9, 11)))
    fine = coarse.resized([(27, 33), (9, 11)])
    scene, variation = scene_of(1 + random(SUPPORT.shape)), smooth(0.01)
    extra = [random(shape, 7) for shape in coarse.shapes]
    wide = [torch.repeat_interleave(torch.repeat_interleave(extra[0], 3, 0), 3, 1), extra[1]]
    results = []
    for views, add in ((coarse, extra), (fine, wide)):
        measured = [p + e for p, e in zip(scene.project(views), add, strict=True)]
        results.append(make_consistent(scene, measured, views, [variation], iterations=5))
    assert results[0].residual == pytest.approx(results[1].residual)
    assert torch.allclose(results[0].scene.mu, results[1].scene.mu, atol=1e-12)


# ---------------------------------------------------------------- refusals


def test_what_does_not_fit_is_refused() -> None:
    scene, measured, variations = problem(0.02)
    for images in (measured[:1], [measured[0].T, measured[1]], [measured[0][:1], measured[1]]):
        with pytest.raises(GeometryError, match=r"X-rays of .* pixels, but views of \[\(9, 11\), \(9, 11\)\]"):
            make_consistent(scene, images, VIEWS, variations)
    with pytest.raises(GeometryError, match="on the grid around the scene"):
        make_consistent(scene, measured, VIEWS, [smooth(1.0, grid=CORE)])
    with pytest.raises(GeometryError, match="lies inside the volume"):
        make_consistent(scene, measured, VIEWS.shifted((0, -700, 0)), variations)


@pytest.mark.parametrize("value", [1e30, 1e36, 3e38])
def test_N11_huge_xrays_end_in_an_error_or_in_finite_numbers(value: float) -> None:
    scene = Scene(torch.ones(CORE.shape), CORE, torch.zeros(SUPPORT.shape), SUPPORT)
    variation = Variation(torch.ones(1, *SUPPORT.shape), SUPPORT, 30.0, 30.0)
    try:
        found = make_consistent(scene, [torch.full(s, value) for s in VIEWS.shapes], VIEWS, [variation])
    except NumericalError:
        return
    assert torch.isfinite(found.scene.mu).all()


def test_pixels_of_infinite_noise_say_nothing() -> None:
    """Whatever they hold; and the same noise everywhere, given as images, is that noise."""
    truth = scene_of(0.02 * random(SUPPORT.shape))
    start = scene_of(torch.zeros(SUPPORT.shape, dtype=torch.float64))
    measured = truth.project(VIEWS)
    images = [torch.full_like(image, 0.05) for image in measured]
    usual = make_consistent(start, measured, VIEWS, [smooth(0.02)], noise=0.05, iterations=5)
    even = make_consistent(start, measured, VIEWS, [smooth(0.02)], noise=images, iterations=5)
    assert torch.allclose(even.scene.mu, usual.scene.mu)
    assert even.residual == pytest.approx(usual.residual)
    images[0][:4] = torch.inf
    spoilt = [image.clone() for image in measured]
    spoilt[0][:4] = 1000.0
    one, other = (
        make_consistent(start, m, VIEWS, [smooth(0.02)], noise=images, iterations=5) for m in (measured, spoilt)
    )
    assert torch.allclose(one.scene.mu, other.scene.mu)
    assert not torch.allclose(one.scene.mu, usual.scene.mu)
