"""DiffuX2CT: where its planes and queries stand, what its loss says, and what its parts leave alone."""

import itertools
from typing import Any, Literal

import numpy as np
import pytest
import torch
from contract_models import VIEWS, briefly_trained, small
from learn_stages import item_of, sample_of, trained_on
from small_models import GRID, SETUP, patient, rng, xrays_of
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.data.store import Case, CaseRecord
from voxray.diffusion import GaussianDiffusion, linear_betas
from voxray.errors import RecipeError
from voxray.geometry import Setup, ViewGeometry
from voxray.images import CTVolume
from voxray.methods.diffux2ct import Diffux2ct
from voxray.methods.diffux2ct.config import DenoiserConfig, PlanesConfig, ProjectionConfig, WindowsConfig
from voxray.methods.diffux2ct.denoiser import CoherentUNet
from voxray.methods.diffux2ct.sight import Sight
from voxray.methods.diffux2ct.triplane import TriPlanes, lattice_mm
from voxray.methods.projections import along_axes, along_rays
from voxray.methods.stages import GradientStage
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu
from voxray.physics.planes import onto_planes, planes_of
from voxray.recipes import load_recipe
from voxray.recipes.recipe import parse_recipe
from voxray.training.order import seeded

SIDE_MM, PIXELS = 384.0, 96
OBLIQUE = ViewGeometry.from_angles([35.0], [10.0], setup=SETUP)
CPU = torch.device("cpu")
NAME = "diffux2ct-small"


def method(name: str = NAME, *overrides: str) -> Diffux2ct:
    """Return the method of a brief recipe as it begins, with some settings changed."""
    recipe = parse_recipe(small(name, brief=True).to_yaml(), name, overrides)
    with seeded("tests", name):
        made = recipe.build()
    assert isinstance(made, Diffux2ct)
    made.anatomy.fit([patient(seed) for seed in range(3)], None)
    return made.eval()


def stage(made: Diffux2ct) -> GradientStage:
    (found,) = (one for one in made.stages() if isinstance(one, GradientStage))
    return found


def batch_of(made: Diffux2ct, *samples: TrainingSample) -> dict[str, Tensor]:
    with torch.no_grad():
        items = [item_of(stage(made).preparation, sample) for sample in samples]
    return {key: torch.stack([item[key] for item in items]) for key in items[0]}


def bright(k: int, j: int, i: int, views: ViewGeometry) -> tuple[list[Tensor], np.ndarray]:
    """Return X-rays of one dense voxel, and where it is."""
    mu = torch.zeros(GRID.shape)
    mu[k, j, i] = 1.0
    return Projector(GRID, views).forward(mu), GRID.index_to_mm(np.array([[i, j, k]], dtype=np.float64))


# ---------------------------------------------------------------- planes and queries


@pytest.mark.parametrize("views", [VIEWS.subset([0]), VIEWS.subset([1]), OBLIQUE], ids=["pa", "lateral", "oblique"])
def test_a_plane_shows_a_dense_voxel_where_its_ray_goes(views: ViewGeometry) -> None:
    """On the line from the source through the voxel the plane is bright, three voxels beside it dark."""
    images, place = bright(22, 8, 24, views)
    planes = planes_of(views.source_mm, SIDE_MM, PIXELS)
    seen = onto_planes(images, views, planes)[None, :, :1]
    away = place - views.source_mm
    line = views.source_mm + away * np.linspace(0.9, 1.1, 5)[:, None]
    beside = place + 3 * 10.0 * np.array([planes.u_mm[0], planes.v_mm[0]]) / np.linalg.norm(planes.u_mm[0])
    on, off = (Sight.of([planes], points, CPU).read(seen)[0, 0, 0] for points in (line, beside))
    assert on.min() > 0.5 * seen.max()
    assert off.max() < 0.05 * seen.max()


def test_planes_are_the_patients_own() -> None:
    """PA: the coronal plane, left at the right, feet below; lateral: the sagittal one, front at the left or right."""
    planes = planes_of(VIEWS.source_mm, SIDE_MM, PIXELS)
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (planes.u_mm, planes.v_mm))
    assert np.allclose(u, [[1, 0, 0], [0, 1, 0]], atol=1e-9)
    assert np.allclose(v, [[0, 0, -1], [0, 0, -1]], atol=1e-9)
    at_origin = planes.project_mm([0.0, 0.0, 0.0], 0)
    assert np.allclose(at_origin, (PIXELS - 1) / 2)
    beside = planes.project_mm([SIDE_MM / PIXELS, 0.0, 0.0], 0)
    assert np.allclose(beside - at_origin, [0, 1]), "a pixel is a step in the patient, at the isocentre"


@pytest.mark.parametrize("turn", ["mirrored", "turned", "finer"])
def test_however_an_x_ray_is_shown_its_plane_is_the_same(turn: str) -> None:
    images = xrays_of(patient(20), OBLIQUE).images
    planes = planes_of(OBLIQUE.source_mm, SIDE_MM, 48)
    u, v = OBLIQUE.u_mm, OBLIQUE.v_mm
    same = {"mirrored": (images[0].flip(1), -u, v), "turned": (images[0].T, v, u), "finer": (images[0], u, v)}[turn]
    views = ViewGeometry(OBLIQUE.source_mm, OBLIQUE.centre_mm, *same[1:], OBLIQUE.shapes)
    image = same[0]
    if turn == "finer":
        views = views.resized([(192, 192)])
        image = image.repeat_interleave(3, 0).repeat_interleave(3, 1)
    expected = onto_planes(images, OBLIQUE, planes)
    tolerance = 0.1 if turn == "finer" else 1e-4
    difference = (onto_planes([image], views, planes) - expected).abs()
    assert difference[:, 0, 8:-8, 8:-8].mean() < tolerance * expected[:, 0].mean()


def test_a_view_along_the_patient_has_a_plane() -> None:
    views = ViewGeometry.from_angles([0.0], [90.0], setup=SETUP)
    images, place = bright(20, 20, 10, views)
    planes = planes_of(views.source_mm, SIDE_MM, PIXELS)
    found = Sight.of([planes], place, CPU).read(onto_planes(images, views, planes)[None, :, :1])
    assert float(found) > 0.5 * float(images[0].max())


def test_views_stay_apart_by_the_direction_of_their_rays() -> None:
    planes = planes_of(VIEWS.source_mm, SIDE_MM, 8)
    maps = torch.stack([torch.full((1, 8, 8), value) for value in (1.0, 5.0)])[None]
    centre = Sight.of([planes], np.zeros((1, 3)), CPU)
    assert centre.by_direction(maps)[0, :, 0, 0].tolist() == pytest.approx([5.0, 1.0, 0.0], abs=1e-5)
    middle = planes_of(ViewGeometry.from_angles([45.0], setup=SETUP).source_mm, SIDE_MM, 8)
    both = Sight.of([middle], np.zeros((1, 3)), CPU).by_direction(maps[:, :1])
    assert both[0, :, 0, 0].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-5)


def test_several_views_of_one_direction_are_averaged() -> None:
    one = planes_of(VIEWS.source_mm[:1], SIDE_MM, 8)
    two = planes_of(VIEWS.source_mm[[0, 0]], SIDE_MM, 8)
    maps = torch.rand(1, 1, 2, 8, 8, generator=rng())
    points = 100.0 * np.random.default_rng(0).uniform(-1, 1, (9, 3))
    once, twice = (Sight.of([p], points, CPU) for p in (one, two))
    along_y = once.by_direction(maps)[:, 1], twice.by_direction(maps.expand(1, 2, -1, -1, -1))[:, 1]
    assert torch.allclose(*along_y, atol=0.02)  # but for rays that are not quite along y


class Passing(nn.Module):
    """In the place of a 2D network: returns a channel of what it is given."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, x: Tensor) -> Tensor:
        return x[:, [self.channel]]


def bare(lifting: Literal["triplane", "smearing"] = "triplane", channel: int = 0) -> TriPlanes:
    """Return planes whose features are the X-rays, and whose axial plane is what was spread of one direction."""
    with torch.random.fork_rng():
        config = PlanesConfig(lifting=lifting, pixels=PIXELS, features=(8, 8), channels=1, heights=8)
        made = TriPlanes(config, GRID, SIDE_MM)
    made.encoder = Passing(0)  # type: ignore[assignment]
    made.own = nn.Identity()  # type: ignore[assignment]
    if made.triplane:
        made.shared = nn.Identity()  # type: ignore[assignment]
        made.axial = Passing(channel)  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(("channel", "axis"), [(0, 1), (1, 0)], ids=["of the lateral", "of the pa"])
def test_the_third_plane_is_made_of_what_views_share(channel: int, axis: int) -> None:
    """What a view sees stands along its rays in the axial plane: of PA, at the dense voxel's x for every y."""
    images, place = bright(16, 10, 22, VIEWS)
    views = planes_of(VIEWS.source_mm, SIDE_MM, PIXELS)
    axial = bare(channel=channel)(onto_planes(images, VIEWS, views)[None], [views]).axial
    assert axial is not None
    profile = axial[0, 0].sum(axis)
    where = (int(profile.argmax()) + 0.5) / len(profile) - 0.5
    assert where * 320 == pytest.approx(place[0, axis], abs=10)
    assert profile[: len(profile) // 4].max() < 0.05 * profile.max()


def test_a_point_is_told_by_each_plane_where_it_is() -> None:
    """At the dense voxel all planes are bright; beside it in x, the sagittal one is still, as it does not see x."""
    images, place = bright(16, 10, 22, VIEWS)
    views = planes_of(VIEWS.source_mm, SIDE_MM, PIXELS)
    made = bare(channel=1)
    planes = made(onto_planes(images, VIEWS, views)[None], [views])
    points = place + np.array([[0.0, 0, 0], [-60, 0, 0], [0, 60, 0]])
    sagittal, coronal, axial, *seen = made.at(planes, points, 4.0)[0].unbind(1)
    assert sagittal[1] > 0.4 * sagittal[0] > 0
    assert sagittal[2] < 0.05 * sagittal[0]
    assert coronal[2] > 0.4 * coronal[0] > 0
    assert coronal[1] < 0.05 * coronal[0]
    assert axial[1] < 0.2 * axial[0]
    assert torch.allclose(torch.stack(seen)[:, 0], torch.tensor([0.5, 0.5, 0.0]), atol=0.02)


def test_smearing_is_the_mean_of_the_views() -> None:
    images, place = bright(16, 10, 22, VIEWS)
    views = planes_of(VIEWS.source_mm, SIDE_MM, PIXELS)
    made, seen = bare("smearing"), onto_planes(images, VIEWS, views)[None]
    expected = Sight.of([views], place, CPU).read(seen[:, :, :1])[0, :, 0, 0].mean()
    planes = made(seen, [views])
    assert planes.axial is None
    assert made.at(planes, place, 4.0)[0, 0, 0] == pytest.approx(float(expected), rel=1e-5)
    with torch.random.fork_rng():
        assert not [
            key for key in TriPlanes(made.config, GRID, SIDE_MM).state_dict() if "shared" in key or "axial" in key
        ]


# ---------------------------------------------------------------- the field


@pytest.mark.parametrize("kind", ["implicit", "trilinear"])
def test_a_level_is_asked_at_the_middles_of_its_voxels(kind: str) -> None:
    made = method(NAME, f"config.field.kind={kind}")
    batch = batch_of(made, sample_of(patient(0), VIEWS))
    field = made.network.field
    with torch.no_grad():
        planes = made.network.field.planes(batch["images"], made._views(batch["sources_um"]))
        for level, grid in enumerate(field.grids):
            whole = field.level(planes, level)
            assert whole.shape[2:] == grid.shape
            k, j, i = (int(n) for n in torch.tensor(grid.shape) // 3)
            point = grid.index_to_mm(np.array([[i, j, k]], dtype=np.float64))
            assert torch.allclose(field.at(planes, point, level)[0, 0], whole[0, :, k, j, i], atol=1e-4)


@pytest.mark.parametrize("kind", ["implicit", "trilinear"])
def test_queries_finer_than_the_grid_agree_with_interpolation(kind: str) -> None:
    """Between voxels an untrained field is as smooth as its planes; shifted by two voxels it is another."""
    made = method(NAME, f"config.field.kind={kind}", "config.field.bands=1")
    batch = batch_of(made, sample_of(patient(0), VIEWS))
    field, grid = made.network.field, made.network.field.grids[0]
    points = lattice_mm(grid).reshape(*grid.shape, 3)[4:-4, 4:-4, 4:-4]
    between = (points[:-1, :-1, :-1] + points[1:, 1:, 1:]) / 2
    with torch.no_grad():
        planes = made.network.field.planes(batch["images"], made._views(batch["sources_um"]))
        whole = field.level(planes, 0)[0, :, 4:-4, 4:-4, 4:-4]
        fine = field.at(planes, between.reshape(-1, 3), 0)[0].T.reshape(len(whole), *between.shape[:3])
    ends = [(slice(None, -1), slice(1, None))] * 3
    corners = [whole[:, z, y, x] for z, y, x in itertools.product(*ends)]
    interpolated = torch.stack(corners).mean(0)
    error = (fine - interpolated).square().mean()
    assert error < 0.1 * interpolated.var((1, 2, 3)).mean()
    assert error < 0.3 * (fine - interpolated.roll(2, 1)).square().mean()


def test_points_are_decoded_in_chunks_of_any_size() -> None:
    one, other = method(), method(NAME, "config.field.chunk=1000", "config.denoiser.checkpointing=true")
    batch = batch_of(one, sample_of(patient(0), VIEWS))
    other.load_state_dict(one.state_dict())
    views = one._views(batch["sources_um"])
    found = [made.network.conditions(batch["images"], views) for made in (one, other)]
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


# ---------------------------------------------------------------- the denoiser


def denoiser(**settings: Any) -> CoherentUNet:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        config = DenoiserConfig(
            channels=(8, 16), blocks=1, **{"windows": WindowsConfig(levels=1, head_channels=8), **settings}
        )  # fmt: skip
        made = CoherentUNet(config)
        for parameter in made.parameters():  # the last convolution, and one of each block, begin at zero
            nn.init.normal_(parameter, std=0.3)
    return made


def told(made: CoherentUNet, side: int) -> list[Tensor]:
    sizes = [(side // made.patch // 2**level, n) for level, n in enumerate((8, 16))]
    return [torch.randn(1, n, size, size, size, generator=rng(n)) for size, n in sizes]


def reach(made: CoherentUNet) -> Tensor:
    """Return how far a change of one voxel goes, along x, but for what norms do everywhere."""
    made.double()
    for module in made.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = lambda x: x  # type: ignore[assignment]
    x = torch.zeros(1, 32, 32, 32, dtype=torch.float64)
    y = x.clone()
    y[0, 5, 5, 5] = 1
    t, conditions = torch.zeros(1, dtype=torch.long), [one.double() for one in told(made, 32)]
    with torch.no_grad():
        return torch.nonzero((made(y, t, conditions) - made(x, t, conditions))[0].abs().amax((0, 1)) > 1e-9)[:, 0]


def test_windows_reach_further_than_convolutions_and_shifted_ones_into_the_next() -> None:
    """Places of two voxels; windows of four of them, shifted by two: from window 0 to places 0 to 5 and beyond."""
    plain, windowed = reach(denoiser(windows=None)), reach(denoiser())
    assert windowed.max() > plain.max()
    assert windowed.max() >= 8 * 2  # the next window, the shifted one being half in it


def test_the_denoiser_hears_time_and_every_level_of_its_conditions() -> None:
    made = denoiser(patch=2)
    x, conditions = torch.randn(1, 32, 32, 32, generator=rng()), told(made, 32)
    with torch.no_grad():
        first = made(x, torch.tensor([5]), conditions)
        assert not torch.allclose(first, made(x, torch.tensor([500]), conditions), atol=1e-3)
        for level in range(2):
            changed = [one + (i == level) for i, one in enumerate(conditions)]
            assert not torch.allclose(first, made(x, torch.tensor([5]), changed), atol=1e-3)


def test_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        made = denoiser(checkpointing=checkpointing)
        made(torch.ones(1, 16, 16, 16), torch.tensor([3]), told(made, 16)).square().sum().backward()
        found.append([parameter.grad for parameter in made.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- the loss


def test_projections_along_the_axes_are_means_along_the_axes() -> None:
    difference = torch.zeros(2, 4, 5, 6)
    difference[1, 2, 3, 1] = 12.0
    assert along_axes(difference).tolist() == pytest.approx([0.0, 12 / 120])
    difference[1, 2, 3, 2] = -12.0  # cancels along x alone
    assert float(along_axes(difference)[1]) == pytest.approx(2 / 3 * 24 / 120)


def test_projections_along_rays_are_those_of_the_projector() -> None:
    planes = planes_of(VIEWS.source_mm, SIDE_MM, 32)
    ones = torch.ones(1, *GRID.shape)
    far = planes_of(100 * VIEWS.source_mm, 320.0, 32)  # parallel: each ray crosses the cube once, from side to side
    assert float(along_rays(ones, GRID, [far])) == pytest.approx(1.0, rel=0.02)
    assert float(along_rays(0 * ones, GRID, [planes])) == 0.0


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("kind", ["axes", "views"])
def test_at_the_truth_there_is_no_loss(target: str, kind: str) -> None:
    """A network that knows the answer: parameterisations lead back to x0, whose projections are the true ones."""
    made = method(NAME, f"config.target={target}", f"config.projection={{kind: {kind}}}")
    batch = batch_of(made, sample_of(patient(0), VIEWS), sample_of(patient(1), OBLIQUE_PAIR))
    made.network.denoiser = knowing = Knowing(made.process, 2 * batch["ct"] - 1)  # type: ignore[assignment]
    losses = stage(made).loss(batch, 0, rng())
    assert float(losses["loss"]) < 1e-4
    assert float(losses["projections"]) < 1e-3
    knowing.wrong = 0.5
    losses = stage(made).loss(batch, 0, rng())
    assert float(losses["simple"]) == pytest.approx(0.25, rel=0.02)
    assert float(losses["projections"]) > 0.01


class Knowing(nn.Module):
    """In the place of the denoiser: knows the truth, but for what is added to its answer."""

    def __init__(self, process: GaussianDiffusion, x0: Tensor) -> None:
        super().__init__()
        self.process, self.x0, self.wrong = process, x0, 0.0

    def forward(self, x: Tensor, t: Tensor, conditions: Any) -> Tensor:
        signal, sigma = (a.float()[t].reshape(-1, 1, 1, 1) for a in (self.process.alpha_bar.sqrt(), self.process.sigma))
        return self.process.target(self.x0, (x - signal * self.x0) / sigma, t) + self.wrong


OBLIQUE_PAIR = ViewGeometry.from_angles([35.0, -60.0], [10.0, 0.0], setup=SETUP)


def test_the_weight_of_projections_is_one_over_the_number_of_steps() -> None:
    losses = {}
    for weight in ("null", "0.5"):
        made = method(NAME, f"config.projection={{weight: {weight}}}")
        with torch.no_grad():
            losses[weight] = stage(made).loss(batch_of(made, sample_of(patient(0), VIEWS)), 0, rng())
    for weight, value in (("null", 1 / 1000), ("0.5", 0.5)):
        one = losses[weight]
        assert float(one["loss"]) == pytest.approx(float(one["simple"] + value * one["projections"]), rel=1e-5)
    without = method(NAME, "config.projection=null")
    found = stage(without).loss(batch_of(without, sample_of(patient(0), VIEWS)), 0, rng())
    assert set(found) == {"loss"}
    assert found["loss"].item() == pytest.approx(losses["null"]["simple"].item(), rel=1e-5)


@pytest.mark.parametrize("target", ["epsilon", "sample", "v_prediction"])
def test_what_is_predicted_leads_back_to_x0(target: Any) -> None:
    process = GaussianDiffusion(linear_betas(1000, 1e-4, 0.02), prediction=target)
    x0, noise = (torch.randn(3, 4, 4, 4, generator=rng(seed)) for seed in (0, 1))
    t = torch.tensor([0, 300, 700])
    x = process.add_noise(x0, noise, t)
    assert torch.allclose(process.to_sample(process.target(x0, noise, t), x, t), x0, atol=1e-3)


# ---------------------------------------------------------------- the method


def test_items_hold_the_sources_to_a_thousandth_of_a_millimetre_and_the_average_of_voxels() -> None:
    made = method()
    sample = sample_of(patient(0), OBLIQUE_PAIR)
    batch = batch_of(made, sample)
    (again,) = made._views(batch["sources_um"])
    assert np.abs(again.source_mm - OBLIQUE_PAIR.source_mm).max() < 1e-3
    assert batch["ct"].shape[1:] == made.coarse.shape
    assert made.coarse.size_mm == pytest.approx(made.grid.size_mm)
    assert batch["images"][:, :, 0].std() > 0.1
    assert set(batch["images"][:, :, 1].unique().tolist()) == {0.0, 1.0}


def test_without_consistency_a_result_is_the_sample_and_several_have_a_spread() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    made = briefly_trained(NAME)
    assert isinstance(made, Diffux2ct)
    settings = made.settings.model_copy(update={"consistency": None, "between": False, "ensemble": 1})
    with torch.random.fork_rng():
        plain = Diffux2ct(settings, made.grid)
    plain.load_state_dict(made.state_dict())
    one = plain.eval().reconstruct(radiograph, rng=rng())
    assert one.std is None
    assert -1024 <= float(one.volume.hu.min()) <= float(one.volume.hu.max()) <= 1477
    several = plain.reconstruct(radiograph, rng=rng(), samples=4)
    assert len(several.samples) == 4
    assert several.std is not None
    mean = torch.stack([hu_to_mu(sample.hu) for sample in several.samples]).mean(0)
    assert torch.allclose(mean, hu_to_mu(several.volume.hu), atol=1e-5)
    assert several.std.hu.max() > 0


def test_agreement_between_the_steps_brings_a_sample_nearer_to_the_x_rays() -> None:
    radiograph = xrays_of(patient(20), VIEWS)
    left = []
    for between in ("false", "true"):
        made = method(NAME, "config.consistency.iterations=2", f"config.between={between}")
        again = made.reconstruct(radiograph, rng=rng()).reprojections
        left.append(sum(float((a - b).square().mean()) for a, b in zip(again, radiograph.images, strict=True)))
    assert left[1] < 0.9 * left[0]


def test_nothing_assumes_a_thorax() -> None:
    """Loins: a cylinder of soft tissue with a column of bone, no lung, in views that stand elsewhere.

    Of two patients it has learned from, the one is made from its X-rays, not the other.
    """
    views = ViewGeometry.from_names(("ap", "right_lateral"), setup=Setup(1000.0, 700.0, 6.4, (72, 72)))
    cases = [lumbar(-45.0), lumbar(45.0)]
    made = trained_on(small("diffux2ct-lumbar"), cases, views)[0]
    found = made.reconstruct(xrays_of(cases[0], views), rng=rng()).volume.hu[:, 17:26, 7:25]
    truth, other = (case.volume.hu[:, 17:26, 7:25] for case in cases)
    assert (found - truth).square().mean() < 0.5 * (found - other).square().mean()
    assert found[..., :9].mean() > found[..., 9:].mean() + 100, "the column is on the right"


def lumbar(shift_mm: float) -> Case:
    """Return a cylinder of soft tissue with a column of bone."""
    points = lattice_mm(GRID).reshape(*GRID.shape, 3)
    hu = torch.full(GRID.shape, -1000.0)
    hu[torch.from_numpy(np.hypot(points[..., 0] / 140, points[..., 1] / 100) < 1)] = 40.0
    hu[torch.from_numpy(np.hypot(points[..., 0] - shift_mm, points[..., 1] - 55) < 35)] = 700.0
    record = CaseRecord(f"lumbar{shift_mm}", "p", "train", "CC0-1.0", "", "", (0.0, 0.0, 0.0), ((0, 0),) * 3, "", "")
    return Case(record, CTVolume(hu, GRID), CTVolume(hu, GRID))


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("config.denoiser.windows.head_channels=24", "multiples of head_channels"),
        ("config.denoiser.windows.levels=9", "windows"),
        ("config.planes.pixels=100", "planes.pixels are a multiple of"),
        ("config.planes.lifting=pull", "triplane"),
        ("config.sampler.steps=2000", "the diffusion has 1000"),
        ("config.target=score", "epsilon"),
    ],
)
def test_what_makes_no_sense_is_refused(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(NAME, [setting])


def test_between_needs_consistency() -> None:
    with pytest.raises(RecipeError, match="between needs `consistency`"):
        load_recipe(NAME, ["config.between=true", "config.consistency=null"])


def test_a_grid_that_does_not_divide_is_refused() -> None:
    with pytest.raises(RecipeError, match="multiples of 16 voxels, from 64 on"):
        load_recipe(NAME, ["grid.shape=[120, 128, 128]"]).build()


def test_ablations_differ_in_what_they_leave_out_alone() -> None:
    whole = load_recipe(NAME).method_config().model_dump()
    for part, changed in (
        ("smearing", {("planes", "lifting")}), ("trilinear", {("field", "kind")}),
        ("no-windows", {("denoiser", "windows")}), ("no-projection", {("projection",)}),
        ("epsilon", {("target",)}),
    ):  # fmt: skip
        recipe = load_recipe(f"{NAME}-{part}")
        assert recipe.data == load_recipe(NAME).data
        found = recipe.method_config().model_dump()
        assert differences(whole, found) == changed


def differences(one: dict[str, Any], other: dict[str, Any]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for key, value in one.items():
        if value == other[key]:
            continue
        inner = isinstance(value, dict) and isinstance(other[key], dict)
        found |= {(key, *rest) for rest in differences(value, other[key])} if inner else {(key,)}
    return found


def test_the_papers_recipe_is_on_the_papers_terms() -> None:
    config = load_recipe("diffux2ct-paper").method_config()
    assert (config.target, config.steps, config.sampler.solver) == ("epsilon", 1000, "ddim")  # type: ignore[attr-defined]
    assert config.projection == ProjectionConfig(kind="axes", weight=None)  # type: ignore[attr-defined]
    assert (config.coarser, config.denoiser.patch, config.consistency) == (1, 1, None)  # type: ignore[attr-defined]
    with torch.device("meta"):
        made = load_recipe("diffux2ct-paper").build()
    assert made.grid.shape == (128, 128, 128)
