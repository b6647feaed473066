"""Projection by sampling along rays, in plain PyTorch: the readable reference, for any device.

`joseph` is the reference that the compiled kernels are tested against, and the projector on a GPU. `ray_march` takes
samples at equal steps instead: another discretisation of the same integral, so that X-rays for evaluation are not
made by the very operator that a method inverts.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.geometry._frozen import FloatArray

# Samples taken at a time; bounds the memory to some 100 MB.
CHUNK = 1 << 21
# Lengths count as equal to this factor: not rounding, but the order of the axes decides which is the main axis of a
# diagonal ray, and a plane of voxels in which the detector lies counts.
TIE = 1.0 + 1e-6

Rays = tuple[Float[Tensor, "3"], Float[Tensor, "rays 3"]]


def rays_in_voxels(grid: VolumeGrid, views: ViewGeometry, view: int, device: torch.device) -> Rays:
    """Return the source, and the way from it to every pixel of a view, in voxels (x, y, z); float64."""
    source = grid.mm_to_index(views.source_mm[view])
    pixels = grid.mm_to_index(views.pixels_mm(view).reshape(-1, 3))
    return torch.from_numpy(source).to(device), torch.from_numpy(pixels - source).to(device)


def on_detector(
    points_mm: FloatArray, views: ViewGeometry, view: int
) -> tuple[Float[Tensor, "*points 2"], Bool[Tensor, "*points"]]:
    """Return where a view shows points, as `F.grid_sample` takes places, and whether it sees them.

    Args:
        points_mm: (..., 3), LPS.
        views: sources and detectors.
        view: which of them.

    Returns:
        Places (column, row), -1 and 1 being the edges of the detector; False for points beside it or not in front of
        the source. Both on the CPU.
    """
    away, normal = points_mm - views.source_mm[view], np.cross(views.u_mm[view], views.v_mm[view])
    ahead = (away @ normal) * np.dot(views.centre_mm[view] - views.source_mm[view], normal) > 0
    place = (2 * views.project_mm(points_mm, view) + 1) / views.shapes[view] - 1
    seen = ahead & (np.abs(place) <= 1).all(-1)
    return torch.from_numpy(place[..., ::-1].astype(np.float32)), torch.from_numpy(seen)


def interpolate(
    mu: Float[Tensor, "batch z y x"], points: Float[Tensor, "rays samples 3"]
) -> Float[Tensor, "batch rays samples"]:
    """Interpolate trilinearly at `points` (x, y, z in voxels); outside the volume voxels are zero."""
    size = torch.tensor(mu.shape[:0:-1], dtype=points.dtype, device=points.device)
    places = ((2 * points + 1) / size - 1).to(mu.dtype)
    values = F.grid_sample(mu[None], places[None, None], padding_mode="zeros", align_corners=False)
    return values[0, :, 0]


def _chunks(rays: int, samples: int, batch: int) -> Iterator[slice]:
    step = max(1, CHUNK // (samples * batch))
    return (slice(i, i + step) for i in range(0, rays, step))


def _main_axis(direction: Float[Tensor, "rays 3"]) -> Tensor:
    """Return for each ray the axis along which it is longest; the first of those that are equal."""
    x, y, z = direction.abs().unbind(-1)
    return torch.where((TIE * x >= y) & (TIE * x >= z), 0, torch.where(TIE * y >= z, 1, 2))


def joseph(mu: Float[Tensor, "batch z y x"], spacing_mm: Tensor, rays: Rays) -> Float[Tensor, "batch rays"]:
    """Integrate along rays by Joseph's method (IEEE Trans. Med. Imaging 1(3), 1982), differentiable in all arguments.

    A ray is sampled where it crosses each plane of voxels across its main axis; a sample counts for the way to the
    next plane. Only what lies between source and pixel counts.

    Args:
        mu: attenuation per mm.
        spacing_mm: voxel size (x, y, z).
        rays: source and directions in voxels, as `rays_in_voxels` gives them.
    """
    source, direction = rays
    main = _main_axis(direction)
    result = mu.new_zeros(mu.shape[0], direction.shape[0])
    for axis in range(3):
        chosen = torch.nonzero(main == axis)[:, 0]
        planes = torch.arange(mu.shape[3 - axis], dtype=direction.dtype, device=direction.device)
        for part in _chunks(len(chosen), len(planes), mu.shape[0]):
            d = direction[chosen[part]]
            along = d[:, axis, None]
            t = (planes - source[axis]) / along
            values = interpolate(mu, source + t[..., None] * d[:, None])
            values = values * ((t >= 0) & (t <= TIE)).to(mu.dtype)
            length_mm = (d / along * spacing_mm).norm(dim=-1).to(mu.dtype)
            result = result.index_copy(1, chosen[part], values.sum(-1) * length_mm)
    return result


def ray_march(
    mu: Float[Tensor, "z y x"], grid: VolumeGrid, views: ViewGeometry, step_voxels: float = 0.5
) -> list[Float[Tensor, "rows columns"]]:
    """Integrate by trilinear samples in the middles of equal steps, from source to pixel.

    Args:
        mu: attenuation per mm on `grid`.
        grid: where the voxels are.
        views: sources and detectors.
        step_voxels: length of a step, in units of the smallest voxel edge.

    Returns:
        One image of line integrals a view.
    """
    spacing = torch.from_numpy(grid.spacing_mm.copy()).to(mu.device)
    step_mm = step_voxels * float(spacing.min())
    images = []
    for view, shape in enumerate(views.shapes):
        source, direction = rays_in_voxels(grid, views, view, mu.device)
        length_mm = (direction * spacing).norm(dim=-1)
        first, last, hit = _inside(source, direction, grid.shape)
        steps = int(np.ceil(float(((last - first) * length_mm).max()) / step_mm)) if bool(hit.any()) else 1
        result = mu.new_zeros(len(direction))
        middles = torch.arange(steps, dtype=direction.dtype, device=mu.device) + 0.5
        for part in _chunks(len(direction), steps, 1):
            t = first[part, None] + middles * step_mm / length_mm[part, None]
            values = interpolate(mu[None], source + t[..., None] * direction[part, None])[0]
            result[part] = (values * (t < last[part, None])).sum(-1) * step_mm
        images.append((result * hit).reshape(shape))
    return images


def _inside(
    source: Float[Tensor, "3"], direction: Float[Tensor, "rays 3"], shape: tuple[int, int, int]
) -> tuple[Float[Tensor, " rays"], Float[Tensor, " rays"], Bool[Tensor, " rays"]]:
    """Return where, as a part of its length, each ray enters and leaves the volume, and whether it does at all."""
    size = torch.tensor(shape[::-1], dtype=direction.dtype, device=direction.device)
    safe = torch.where(direction.abs() < 1e-12, torch.full_like(direction, 1e-12), direction)
    one, other = (-1.0 - source) / safe, (size - source) / safe
    first = torch.minimum(one, other).amax(-1).clamp_min(0.0)
    last = torch.maximum(one, other).amin(-1).clamp_max(1.0)
    return first, torch.maximum(first, last), last > first
