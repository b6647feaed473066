"""All implementations of the projector say the same, whatever the number of threads or of cases."""

import numba
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import set_ups

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics import Projector
from voxray.physics.joseph_numba import SAMPLES_A_THREAD

CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", CLOSE)
@given(set_up=set_ups(), seed=st.integers(0, 2**32))
def test_N6_backends_agree(dtype: torch.dtype, set_up: tuple[VolumeGrid, ViewGeometry], seed: int) -> None:
    grid, views = set_up
    rng = torch.Generator().manual_seed(seed)
    mu = torch.rand(2, *grid.shape, generator=rng, dtype=dtype)
    images = [torch.rand(2, *shape, generator=rng, dtype=dtype) for shape in views.shapes]
    one, other = Projector(grid, views, "numba"), Projector(grid, views, "torch")
    for a, b in zip(one.forward(mu), other.forward(mu), strict=True):
        # Of the mean ray: one that grazes the edge of the volume differs by rounding of its position.
        torch.testing.assert_close(a, b, rtol=CLOSE[dtype], atol=CLOSE[dtype] * 100 * float(grid.size_mm.max()))
    volume, expected = one.adjoint(images), other.adjoint(images)
    scale = float(expected.abs().max())
    torch.testing.assert_close(volume, expected, rtol=0, atol=20 * CLOSE[dtype] * scale)


@pytest.mark.parametrize("secondary", [0.0, 20.0])
def test_N6_gradients_of_backends_agree(secondary: float) -> None:
    grid = VolumeGrid.centred(shape=(20, 21, 22), spacing_mm=12.0)
    views = ViewGeometry.from_angles((0, 45, 100), [secondary] * 3).resized([(24, 20)] * 3)
    rng = torch.Generator().manual_seed(0)
    mu = torch.rand(*grid.shape, generator=rng, dtype=torch.float64)
    gradients = []
    for backend in ("numba", "torch"):
        x = mu.clone().requires_grad_()
        loss = sum(image.pow(3).sum() for image in Projector(grid, views, backend).forward(x))  # type: ignore[arg-type]
        gradients += torch.autograd.grad(loss, x)  # type: ignore[arg-type]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=0)


def test_N6_auto_takes_numba_on_the_cpu() -> None:
    grid = VolumeGrid.centred(shape=(8, 8, 8), spacing_mm=40.0)
    views = ViewGeometry.biplanar().resized([(9, 9)] * 2)
    mu = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(0))
    images = [Projector(grid, views, backend).forward(mu)[0] for backend in ("auto", "numba", "torch")]  # type: ignore[arg-type]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])  # the reference rounds in another order


@pytest.mark.parametrize("secondary", [0.0, 20.0])
def test_D2_result_depends_neither_on_batch_mates_nor_on_threads(secondary: float) -> None:
    grid = VolumeGrid.centred(shape=(40, 42, 44), spacing_mm=7.0)
    views = ViewGeometry.from_angles((0, 40, 90), [secondary] * 3).resized([(96, 100)] * 3)
    assert SAMPLES_A_THREAD < 3 * 96 * 100 * 44  # else one thread is all there is
    projector = Projector(grid, views)
    rng = torch.Generator().manual_seed(0)
    mu = torch.rand(3, *grid.shape, generator=rng)
    images, volumes = projector.forward(mu), projector.adjoint(projector.forward(mu))
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        for case in range(3):
            alone = projector.forward(mu[case])
            assert all(torch.equal(a, b[case]) for a, b in zip(alone, images, strict=True))
            assert torch.equal(projector.adjoint(alone), volumes[case])
    finally:
        numba.set_num_threads(threads)


def test_forward_leaves_its_input_and_takes_any_batch() -> None:
    grid = VolumeGrid.centred(shape=(5, 6, 7), spacing_mm=40.0)
    projector = Projector(grid, ViewGeometry.biplanar().resized([(8, 9), (6, 7)]))
    mu = torch.rand(2, 3, 7, 6, 5, generator=torch.Generator().manual_seed(0)).permute(0, 1, 4, 3, 2)
    before = mu.clone()
    images = projector.forward(mu)
    assert [tuple(image.shape) for image in images] == [(2, 3, 8, 9), (2, 3, 6, 7)]
    assert projector.adjoint(images).shape == mu.shape
    assert torch.equal(mu, before)
    assert torch.equal(projector.forward(mu[1, 2].contiguous())[0], images[0][1, 2])
