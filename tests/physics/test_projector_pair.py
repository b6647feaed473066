"""Forward and adjoint are an exact pair, and so are their derivatives."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import rotation, set_ups
from torch import Tensor

from voxray.errors import GeometryError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics import Projector
from voxray.physics.sampling import joseph, rays_in_voxels

BACKENDS = ("numba", "torch")
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def normal(shape: tuple[int, ...], dtype: torch.dtype, rng: torch.Generator) -> Tensor:
    """Numbers with mean zero: they show a shift that numbers without sign would hide (8e-2 beside 5e-3)."""
    values = torch.randn(shape, generator=rng, dtype=torch.float64)
    return (values - values.mean() if values.numel() > 1 else values).to(dtype)


def one_hot(shape: tuple[int, ...], dtype: torch.dtype, rng: torch.Generator) -> Tensor:
    values = torch.zeros(int(np.prod(shape)), dtype=dtype)
    values[int(torch.randint(values.numel(), (1,), generator=rng))] = 1
    return values.reshape(shape)


def dot(a: list[Tensor], b: list[Tensor]) -> float:
    return sum(float((p.double() * q.double()).sum()) for p, q in zip(a, b, strict=True))


def mismatch(projector: Projector, x: Tensor, y: list[Tensor]) -> float:
    """Return |<Ax, y> - <x, A'y>| / max(||Ax|| ||y||, ||x|| ||A'y||); where both are zero, zero.

    Both, because a single pixel can see voxels that cancel, and a single voxel pixels that do.
    """
    ax, aty = projector.forward(x), projector.adjoint(y)
    scale = max(dot(ax, ax) * dot(y, y), dot([x], [x]) * dot([aty], [aty])) ** 0.5
    return abs(dot(ax, y) - dot([x], [aty])) / (scale or 1.0)


def worst_mismatch(projector: Projector, dtype: torch.dtype, seed: int) -> float:
    rng = torch.Generator().manual_seed(seed)
    shapes = projector.views.shapes
    x, y = normal(projector.grid.shape, dtype, rng), [normal(shape, dtype, rng) for shape in shapes]
    voxel = one_hot(projector.grid.shape, dtype, rng)
    pixel = [torch.zeros(shape, dtype=dtype) for shape in shapes]
    view = int(torch.randint(len(shapes), (1,), generator=rng))
    pixel[view] = one_hot(shapes[view], dtype, rng)
    return max(mismatch(projector, a, b) for a, b in ((x, y), (voxel, y), (x, pixel)))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("backend", BACKENDS)
@given(set_up=set_ups(), seed=st.integers(0, 2**32))
def test_N1_adjoint_of_any_geometry(
    backend: str, dtype: torch.dtype, set_up: tuple[VolumeGrid, ViewGeometry], seed: int
) -> None:
    projector = Projector(*set_up, backend=backend)  # type: ignore[arg-type]
    assert worst_mismatch(projector, dtype, seed) < TOLERANCE[dtype]


def turned_views() -> tuple[VolumeGrid, ViewGeometry]:
    """An anisotropic, turned and flipped grid, partly outside of the views."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(30, 20, 70) @ np.diag([-4.0, 3.0, 5.0])
    affine[:3, 3] = (60, -50, 900)
    grid = VolumeGrid((40, 48, 44), affine)
    views = ViewGeometry.from_angles((0, 50, 130), (0, 20, -35), isocentre_mm=grid.centre_mm + np.array([70, 10, -20]))
    return grid, views.resized([(48, 40)] * 3)


LARGE = {
    "chest": (
        VolumeGrid.centred(shape=(48, 48, 48), spacing_mm=6.0),
        ViewGeometry.circular(3, 200).resized([(48, 48)] * 3),
    ),
    "turned": turned_views(),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LARGE)
def test_N1_adjoint_of_larger_volumes(name: str, backend: str, dtype: torch.dtype) -> None:
    projector = Projector(*LARGE[name], backend=backend)  # type: ignore[arg-type]
    assert worst_mismatch(projector, dtype, 1) < TOLERANCE[dtype]


def test_N1_a_shift_by_one_voxel_would_be_found() -> None:
    projector = Projector(*LARGE["chest"])
    rng = torch.Generator().manual_seed(1)
    x = one_hot(projector.grid.shape, torch.float64, rng)
    y = [normal(shape, torch.float64, rng) for shape in projector.views.shapes]
    ax, shifted = projector.forward(x), projector.adjoint(y).roll(1, 2)
    assert abs(dot(ax, y) - dot([x], [shifted])) / (dot(ax, ax) * dot(y, y)) ** 0.5 > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_N1_a_source_inside_the_volume_is_refused(backend: str) -> None:
    views = ViewGeometry.biplanar(isocentre_mm=(0, 0, 0))
    with pytest.raises(GeometryError, match="source of view 'pa' lies inside the volume"):
        Projector(VolumeGrid.centred((0, 1500, 0)), views, backend)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    grid, views = LARGE["chest"]
    projector = Projector(grid, views)
    with pytest.raises(GeometryError, match=r"volumes \(48, 48, 48\)"):
        projector.forward(torch.zeros(48, 48, 47))
    with pytest.raises(GeometryError, match="projector is for images"):
        projector.adjoint([torch.zeros(48, 48)])
    with pytest.raises(GeometryError, match="'auto', 'numba' or 'torch'"):
        Projector(grid, views, "cuda")  # type: ignore[arg-type]


# ---------------------------------------------------------------- derivatives

SMALL = {
    "upright": (VolumeGrid.centred(shape=(3, 4, 5), spacing_mm=10.0), (0, 0)),
    "tilted": (VolumeGrid.centred((3, 1, -2), (4, 3, 5), (10.0, 8.0, 12.0)), (20, -15)),
}


def small_projector(name: str, backend: str) -> Projector:
    grid, secondary = SMALL[name]
    views = ViewGeometry.from_angles((10, 100), secondary, setup="x2ct").resized([(20, 15), (12, 16)])
    return Projector(grid, views, backend)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL)
def test_N2_derivatives_of_forward(name: str, backend: str) -> None:
    projector = small_projector(name, backend)
    rng = torch.Generator().manual_seed(0)
    mu = normal(projector.grid.shape, torch.float64, rng).requires_grad_()

    def total(mu: Tensor) -> Tensor:
        return torch.cat([(image + 1).square().mean(0) for image in projector.forward(mu)])

    assert torch.autograd.gradcheck(total, mu)
    assert torch.autograd.gradgradcheck(total, mu)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL)
def test_N2_derivatives_of_adjoint(name: str, backend: str) -> None:
    projector = small_projector(name, backend)
    rng = torch.Generator().manual_seed(0)
    images = [normal(shape, torch.float64, rng).requires_grad_() for shape in projector.views.shapes]

    def total(*images: Tensor) -> Tensor:
        return (projector.adjoint(images) + 1).square().mean(0)

    assert torch.autograd.gradcheck(total, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(total, images, fast_mode=True)


def test_N2_derivatives_by_the_pose() -> None:
    grid = VolumeGrid.centred(shape=(12, 13, 14), spacing_mm=8.0)
    views = ViewGeometry.from_angles((25,), (10,)).resized([(6, 7)])
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid.shape], indexing="ij")
    mu = torch.from_numpy(np.exp(-3 * (x**2 + 2 * (y - 0.1) ** 2 + (z + 0.2) ** 2)))[None]
    source, direction = rays_in_voxels(grid, views, 0, torch.device("cpu"))
    spacing = torch.from_numpy(grid.spacing_mm)

    def images(source: Tensor, shift: Tensor) -> Tensor:
        return joseph(mu, spacing, (source, direction + shift))[0]

    pose = source.clone().requires_grad_(), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for part in range(2):
        (gradient,) = torch.autograd.grad(images(*pose).square().sum(), pose[part])
        for axis in range(3):
            step = torch.zeros(2, 3, dtype=torch.float64)
            step[part, axis] = 1e-6
            after = images(*(p.detach() + s for p, s in zip(pose, step, strict=True))).square().sum()
            before = images(*(p.detach() - s for p, s in zip(pose, step, strict=True))).square().sum()
            assert float(gradient[axis]) == pytest.approx(float((after - before) / 2e-6), rel=1e-5, abs=1e-6)
