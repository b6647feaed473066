"""Line integrals of bodies whose chords are known."""

import numpy as np
import pytest
import torch
from strategies import rotation
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics import Projector
from voxray.physics.sampling import ray_march

BACKENDS = ("numba", "torch")
MU = 0.02


def chest_views(secondary: float = 0.0) -> ViewGeometry:
    return ViewGeometry.from_angles((0, 35, 90, 160), [secondary] * 4).resized([(48, 48)] * 4)


def centres_mm(grid: VolumeGrid) -> np.ndarray:
    """Return the LPS positions of all voxels, (z, y, x, 3)."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")
    return grid.index_to_mm(np.stack([i, j, k], -1))


def ellipsoid(grid: VolumeGrid, to_ball: np.ndarray) -> Tensor:
    """Return MU times the part of each voxel in |to_ball x| <= 1, to first order: its depth over its width."""
    ball = centres_mm(grid) @ to_ball.T
    level = np.linalg.norm(ball, axis=-1)
    depth_mm = (1 - level) * level / np.maximum(np.linalg.norm(ball @ to_ball, axis=-1), 1e-9)
    return torch.from_numpy(MU * np.clip(depth_mm / grid.spacing_mm[0] + 0.5, 0, 1))


def chords(views: ViewGeometry, view: int, to_ball: np.ndarray) -> np.ndarray:
    """Return the lengths (mm) within the ellipsoid |to_ball x| <= 1 of the rays to all pixels of a view.

    With the ray s + t d, d of length 1: |to_ball (s + t d)| = 1 at two t that lie 2 sqrt(b^2 - a c) / a apart.
    """
    d = views.pixels_mm(view) - views.source_mm[view]
    d = d / np.linalg.norm(d, axis=-1, keepdims=True)
    ray, source = d @ to_ball.T, to_ball @ views.source_mm[view]
    a, b, c = (ray**2).sum(-1), ray @ source, source @ source - 1
    return 2 * np.sqrt(np.maximum(b**2 - a * c, 0)) / a


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("secondary", [0.0, 25.0])
@pytest.mark.parametrize(
    "to_ball",
    [np.eye(3) / 110, np.diag([1 / 140, 1 / 90, 1 / 120]) @ rotation(20, 30, 40)],
    ids=["ball", "ellipsoid"],
)
def test_N3_chords_of_balls_and_ellipsoids(backend: str, secondary: float, to_ball: np.ndarray) -> None:
    """On the default grid (2.5 mm), 0.5 % of the longest chord, for every ray with at least half of it (b < 0.87 r)."""
    grid, views = VolumeGrid.centred(), chest_views(secondary)
    mu = ellipsoid(grid, to_ball)
    for view, image in enumerate(Projector(grid, views, backend).forward(mu)):  # type: ignore[arg-type]
        expected = MU * chords(views, view, to_ball)
        inner = expected > 0.5 * expected.max()
        assert inner.sum() > 200
        assert np.abs(image.numpy() - expected)[inner].max() < 0.005 * expected.max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spacing", [(5.0, 5.0, 5.0), (4.0, 8.0, 5.0)])
def test_N3_chord_of_a_cube(backend: str, spacing: tuple[float, float, float]) -> None:
    """A ray that enters and leaves by opposite faces: thickness over the cosine of its angle, without error."""
    grid = VolumeGrid.centred(shape=(48, 50, 52), spacing_mm=spacing)
    mu = torch.zeros(grid.shape, dtype=torch.float64)
    mu[12:36, 15:35, 14:38] = MU
    views = ViewGeometry.biplanar().resized([(64, 64)] * 2)
    for view, axis in ((0, 1), (1, 0)):
        thickness = (20, 24)[view] * spacing[axis]
        d = views.pixels_mm(view) - views.source_mm[view]
        expected = MU * thickness * np.linalg.norm(d, axis=-1) / np.abs(d[..., axis])
        image = Projector(grid, views, backend).forward(mu)[view].numpy()  # type: ignore[arg-type]
        middle = slice(28, 36), slice(28, 36)
        np.testing.assert_allclose(image[middle], expected[middle], rtol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("secondary", [0.0, 25.0])
def test_N3_converges_with_the_square_of_the_voxel_size(backend: str, secondary: float) -> None:
    """On a smooth body, halving the voxels makes the error a fourth: the order of linear interpolation is two."""
    width, errors = 60.0, []
    views = ViewGeometry.from_angles((35,), (secondary,), isocentre_mm=(3.3, 1.7, 2.9)).resized([(37, 41)])
    d = views.pixels_mm(0) - views.source_mm[0]
    d = d / np.linalg.norm(d, axis=-1, keepdims=True)
    nearest = views.source_mm[0] - (d @ views.source_mm[0])[..., None] * d
    expected = np.sqrt(np.pi) * width * np.exp(-(nearest**2).sum(-1) / width**2)
    for n in (24, 48, 96):
        grid = VolumeGrid.centred(shape=(n, n, n), spacing_mm=480 / n)
        mu = torch.from_numpy(np.exp(-(centres_mm(grid) ** 2).sum(-1) / width**2))
        image = Projector(grid, views, backend).forward(mu)[0].numpy()  # type: ignore[arg-type]
        errors.append(np.sqrt(np.square(image - expected).mean()))
    assert np.log(errors[0] / errors[2]) / np.log(4) == pytest.approx(2, abs=0.2)


def test_N3_ray_march_agrees_with_joseph_on_smooth_bodies() -> None:
    grid, views = VolumeGrid.centred(shape=(48, 48, 48), spacing_mm=7.0), chest_views()
    mu = torch.from_numpy(np.exp(-(centres_mm(grid) ** 2).sum(-1) / 80**2))
    for one, other in zip(Projector(grid, views).forward(mu), ray_march(mu, grid, views), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.003 * float(one.max()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_N3_only_what_lies_between_source_and_detector_counts(backend: str) -> None:
    """A detector in the middle of the volume sees half of it."""
    grid = VolumeGrid.centred(shape=(32, 32, 32), spacing_mm=5.0)
    source, step = np.array([[0, 800.0, 0]]), 8.0
    views = ViewGeometry(source, np.zeros((1, 3)), np.array([[step, 0, 0]]), np.array([[0, 0, -step]]), ((8, 8),))
    image = Projector(grid, views, backend).forward(torch.full(grid.shape, MU))[0]  # type: ignore[arg-type]
    assert float(image[4, 4]) == pytest.approx(MU * 80, rel=1e-3)
