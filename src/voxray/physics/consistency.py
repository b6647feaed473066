"""Making a volume agree with the X-rays that were measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.errors import GeometryError, NumericalError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.geometry._frozen import FloatArray
from voxray.physics.projector import Projector
from voxray.physics.sampling import interpolate
from voxray.physics.variation import Variation

Images = list[Tensor]
# Standard deviation of a line integral, or of each pixel's, one image (rows, columns) a view.
Noise = float | Sequence[Float[Tensor, "_ _"]]


@dataclass(frozen=True, eq=False)
class Scene:
    """What X-rays pass through: the volume, and the rest of the body around it.

    An X-ray sees the whole body, a volume of 320 mm does not: without the rest, the true volume explains its own
    X-rays with a signal-to-noise ratio of only 11 to 20 dB.

    Args:
        mu: attenuation per mm of the volume.
        grid: of the volume.
        around: attenuation per mm of what is around; zero inside the box of `grid`.
        around_grid: coarser than `grid`, and larger.
    """

    mu: Float[Tensor, "z y x"]
    grid: VolumeGrid
    around: Float[Tensor, "Z Y X"]
    around_grid: VolumeGrid

    def project(self, views: ViewGeometry) -> Images:
        """Return the line integrals that the views see, one image (rows, columns) a view."""
        volume = Projector(self.grid, views).forward(self.mu)
        if not bool(self.around.any()):
            return volume
        rest = Projector(self.around_grid, views).forward(self.around)
        return [a + b for a, b in zip(volume, rest, strict=True)]

    def changed(self, change: Float[Tensor, "Z Y X"]) -> "Scene":
        """Add a change on the grid `around_grid` to both, and cut off what would become negative."""
        inner = (self.mu + interpolate_onto(change, self.around_grid, self.grid)).clamp_min(0)
        outer = (self.around + change).clamp_min(0) * ~inside(self.around_grid, self.grid).to(change.device)
        return replace(self, mu=inner, around=outer)


@dataclass(frozen=True, eq=False)
class Agreement:
    """A scene that was made consistent, and how that went.

    Attributes:
        scene: the result.
        residual: root mean square of the difference to the X-rays (no unit), as binned for the solver: before the
            first iteration, and after each.
    """

    scene: Scene
    residual: tuple[float, ...]


def make_consistent(
    scene: Scene,
    measured: Sequence[Float[Tensor, "_ _"]],
    views: ViewGeometry,
    variations: Sequence[Variation],
    *,
    noise: Noise = 0.05,
    iterations: int = 30,
    rng: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Find the most likely change of a scene that explains the measured line integrals.

    Minimises |A K c - r|^2 / noise^2 + |c|^2, where r is what the scene leaves unexplained, A the projector on the
    grid of the variations, and K c the change that coefficients c stand for: the posterior mean of a linear Gaussian
    model (Tarantola, "Inverse Problem Theory", SIAM 2005, eq. 3.37). Conjugate gradients on the damped least squares
    (CGLS: Hestenes and Stiefel 1952; Paige and Saunders 1982): the residual never rises (|c| never falls and the
    objective never rises), and the solver stops when the residual is down to the noise; the last step is cut short
    there, so that the result follows the X-rays without a jump. It never looks at a truth.
    What would become negative is cut off at the end.

    X-rays are binned to pixels of about the voxel size of the variations; finer pixels carry nothing that these
    could explain, but noise.

    With `rng`, the change is drawn from the posterior instead: the solution for a random scene and random noise
    ("randomize then optimize", Bardsley et al., SIAM J. Sci. Comput. 36, 2014). It is exact for a linear model once
    the iteration has converged, so it does not stop at the noise; with few iterations samples vary too much.

    Args:
        scene: what is expected.
        measured: line integrals, one image (rows, columns) a view.
        views: the geometry of the X-rays.
        variations: how the scene may change, all on the grid `scene.around_grid`; their sum counts.
        noise: standard deviation of a binned line integral, of the model's errors above all; our choice. An image a
            view for the noise of each pixel, infinite where nothing was measured.
        iterations: at most.
        rng: of the CPU; draw a sample of the posterior.
        progress: called with (iterations done, iterations).

    Raises:
        GeometryError: if grids or images do not fit together.
        NumericalError: if the solution is not finite.
    """
    shapes = [tuple(image.shape) for image in measured]
    if shapes != list(views.shapes):
        raise GeometryError(f"X-rays of {shapes} pixels, but views of {list(views.shapes)}.")
    if any(variation.grid != scene.around_grid for variation in variations):
        raise GeometryError("Variations must be on the grid around the scene.")
    factors = views.bins(float(scene.around_grid.spacing_mm.min()), scene.grid.centre_mm)
    each = noise if isinstance(noise, Sequence) else [torch.tensor(noise, dtype=torch.float64)] * len(views)
    noises = [one.to(scene.mu) for one in each]
    certainty = [torch.ones_like(m) / n for m, n in zip(measured, noises, strict=True)]
    missed = [(m - p) * c for m, p, c in zip(measured, scene.project(views), certainty, strict=True)]
    residual, weights = _binned(missed, factors), _binned(certainty, factors)
    pixels = max(sum(int((w > 0).sum()) for w in weights), 1)
    projector = Projector(scene.around_grid, views.binned(factors))

    def explain(coefficients: list[Tensor]) -> Images:
        change = sum(v.synthesise(c) for v, c in zip(variations, coefficients, strict=True))
        return [image * w for image, w in zip(projector.forward(torch.as_tensor(change)), weights, strict=True)]

    def blame(images: Images) -> list[Tensor]:
        change = projector.adjoint([image * w for image, w in zip(images, weights, strict=True)])
        return [v.analyse(change) for v in variations]

    start = [scene.mu.new_zeros(v.shape) for v in variations]
    if rng is not None:
        start = [torch.randn(v.shape, generator=rng, dtype=scene.mu.dtype).to(scene.mu) for v in variations]
        residual = _less(residual, explain(start), 1.0)
        drawn = [torch.randn(r.shape, generator=rng, dtype=r.dtype).to(r) for r in residual]
        residual = [r + d * (w > 0) for r, d, w in zip(residual, drawn, weights, strict=True)]
    goal = 1.0 if rng is None else 0.0
    found, history = _solve(explain, blame, residual, start, goal, iterations, progress, pixels)
    change = torch.as_tensor(sum(v.synthesise(c) for v, c in zip(variations, found, strict=True)))
    if not bool(torch.isfinite(change).all()):
        raise NumericalError("The consistent volume is not finite: are the X-rays line integrals of a usual size?")
    usual = pixels / max(sum(float(w.sum()) for w in weights), 1e-12)
    return Agreement(scene.changed(change), tuple(usual * value for value in history))


def _binned(images: Images, factors: Sequence[tuple[int, int]]) -> Images:
    return [F.avg_pool2d(image[None], factor)[0] for image, factor in zip(images, factors, strict=True)]


def _solve(
    explain: Callable[[list[Tensor]], Images],
    blame: Callable[[Images], list[Tensor]],
    residual: Images,
    start: list[Tensor],
    goal: float,
    iterations: int,
    progress: Callable[[int, int], None] | None,
    pixels: int,
) -> tuple[list[Tensor], list[float]]:
    """Minimise |explain(c - start) - residual|^2 + |c - start|^2 until the residual's RMS is down to `goal`.

    Returns:
        c, and the residual's RMS by iteration.
    """
    found = [torch.zeros_like(c) for c in start]
    gradient = blame(residual)
    direction, norm = gradient, _dot(gradient, gradient)
    history = [(_dot(residual, residual) / pixels) ** 0.5]
    for iteration in range(iterations):
        if history[-1] <= goal or norm == 0.0:
            break
        image = explain(direction)
        best = norm / (_dot(image, image) + _dot(direction, direction))
        step = min(best, _step_down_to(goal**2 * pixels, residual, image))
        found = _less(found, direction, -step)
        residual = _less(residual, image, step)
        gradient = _less(blame(residual), found, 1.0)
        norm, before = _dot(gradient, gradient), norm
        direction = _less(gradient, direction, -norm / before)
        history.append((_dot(residual, residual) / pixels) ** 0.5)
        if progress is not None:
            progress(iteration + 1, iterations)
        if step < best:
            break
    return [a + b for a, b in zip(start, found, strict=True)], history


def _step_down_to(goal: float, residual: Images, image: Images) -> float:
    """Return the least t at which |residual - t image|^2 is down to `goal`; infinity if there is none."""
    a, b, c = _dot(image, image), _dot(residual, image), _dot(residual, residual) - goal
    return (b - (b * b - a * c) ** 0.5) / a if a > 0 and b * b >= a * c else inf


def inside(coarse: VolumeGrid, grid: VolumeGrid) -> Tensor:
    """Mark the voxels of `coarse` whose centres lie in the box of `grid`; bool (z, y, x)."""
    index = _index_in(grid, coarse)
    within = (index > -0.5) & (index < np.array(grid.shape[::-1]) - 0.5)
    return torch.from_numpy(within[..., 0] & within[..., 1] & within[..., 2])


def interpolate_onto(values: Float[Tensor, "z y x"], source: VolumeGrid, target: VolumeGrid) -> Float[Tensor, "Z Y X"]:
    """Interpolate trilinearly from one grid onto another; zero beyond the source's."""
    points = torch.from_numpy(_index_in(source, target).reshape(1, -1, 3)).to(values)
    return interpolate(values[None], points).reshape(target.shape)


def _index_in(grid: VolumeGrid, other: VolumeGrid) -> FloatArray:
    """Return where the voxel centres of another grid are in a grid, (z, y, x, 3) with indices (i, j, k)."""
    matrix = np.linalg.inv(grid.affine) @ other.affine
    k, j, i = (np.arange(n, dtype=np.float64) for n in other.shape)
    parts = k[:, None, None, None] * matrix[:3, 2], j[:, None, None] * matrix[:3, 1], i[:, None] * matrix[:3, 0]
    return np.asarray(parts[0] + parts[1] + parts[2] + matrix[:3, 3])


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(sum(torch.dot(x.flatten().double(), y.flatten().double()) for x, y in zip(a, b, strict=True)))


def _less(a: Sequence[Tensor], b: Sequence[Tensor], factor: float) -> list[Tensor]:
    return [x - factor * y for x, y in zip(a, b, strict=True)]
