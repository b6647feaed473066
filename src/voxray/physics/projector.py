"""Line integrals of a volume, and their exact adjoint."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from voxray.errors import GeometryError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics.sampling import Rays, joseph, rays_in_voxels

Backend = Literal["auto", "numba", "torch"]


class Projector:
    """Line integrals of attenuation along the rays of any views, by Joseph's method, with the exact adjoint.

    Both directions are differentiable, any number of times. `forward` and `adjoint` are an exact pair:
    <forward(x), y> = <x, adjoint(y)> to rounding.

    Args:
        grid: the volume's grid.
        views: sources and detectors; each source must lie outside the grid.
        backend: "numba" (compiled, CPU), "torch" (any device), or "auto": numba for tensors on the CPU.

    Raises:
        GeometryError: if a source lies inside the grid.
    """

    def __init__(self, grid: VolumeGrid, views: ViewGeometry, backend: Backend = "auto") -> None:
        for name, source in zip(views.names, views.source_mm, strict=True):
            if grid.contains_mm(source):
                raise GeometryError(f"The X-ray source of view {name!r} lies inside the volume.")
        if backend not in ("auto", "numba", "torch"):
            raise GeometryError(f"A projector's backend is 'auto', 'numba' or 'torch', not {backend!r}.")
        self.grid, self.views, self.backend = grid, views, backend

    def forward(self, mu: Float[Tensor, "*batch z y x"]) -> list[Float[Tensor, "*batch rows columns"]]:
        """Return one image of line integrals (no unit) a view, of attenuation `mu` per mm.

        Raises:
            GeometryError: if the volume is not of the grid's shape.
        """
        if tuple(mu.shape[-3:]) != self.grid.shape:
            raise GeometryError(f"The projector is for volumes {self.grid.shape}, not {tuple(mu.shape)}.")
        batch = mu.shape[:-3]
        flat = mu.reshape(-1, *self.grid.shape)
        images = _Forward.apply(self, flat) if self._compiled(mu) else self._torch_forward(flat)
        return [image.reshape(*batch, *image.shape[-2:]) for image in images]

    def adjoint(
        self, images: Sequence[Float[Tensor, "*batch rows columns"]]
    ) -> Float[Tensor, "*batch z y x"]:
        """Return the adjoint of `forward`: every pixel smeared back along its ray, with the same weights.

        Raises:
            GeometryError: if there is not one image of the right shape a view.
        """
        if [tuple(image.shape[-2:]) for image in images] != list(self.views.shapes):
            shapes = [tuple(image.shape) for image in images]
            raise GeometryError(f"The projector is for images {self.views.shapes}, not {shapes}.")
        batch = images[0].shape[:-2]
        flat = [image.reshape(-1, *image.shape[-2:]) for image in images]
        volume = _Adjoint.apply(self, *flat) if self._compiled(flat[0]) else self._torch_adjoint(flat)
        return volume.reshape(*batch, *self.grid.shape)

    def _compiled(self, tensor: Tensor) -> bool:
        if self.backend == "numba" and tensor.device.type != "cpu":
            raise GeometryError("The numba backend is for tensors on the CPU; use 'auto' or 'torch'.")
        return self.backend != "torch" and tensor.device.type == "cpu"

    # ---------------------------------------------------------------- torch, any device

    def _torch_forward(self, mu: Float[Tensor, "batch z y x"]) -> list[Tensor]:
        spacing = torch.from_numpy(self.grid.spacing_mm.copy()).to(mu.device)
        images = []
        for view, shape in enumerate(self.views.shapes):
            rays: Rays = rays_in_voxels(self.grid, self.views, view, mu.device)
            images.append(joseph(mu, spacing, rays).reshape(-1, *shape))
        return images

    def _torch_adjoint(self, images: Sequence[Tensor]) -> Tensor:
        with torch.enable_grad():
            mu = images[0].new_zeros(images[0].shape[0], *self.grid.shape, requires_grad=True)
            (volume,) = torch.autograd.grad(
                self._torch_forward(mu), mu, list(images),
                create_graph=any(image.requires_grad for image in images),
            )  # fmt: skip
        return volume

    # ---------------------------------------------------------------- numba, CPU

    def _rays(self, view: int) -> np.ndarray:
        """Return source, direction of pixel (0, 0), and its change by row and by column, in voxels (x, y, z)."""
        to_voxels = np.linalg.inv(self.grid.affine[:3, :3])
        rows, columns = self.views.shapes[view]
        u, v = self.views.u_mm[view], self.views.v_mm[view]
        corner = self.views.centre_mm[view] - (columns - 1) / 2 * u - (rows - 1) / 2 * v
        source = self.views.source_mm[view]
        return np.stack(
            [self.grid.mm_to_index(source), to_voxels @ (corner - source), to_voxels @ v, to_voxels @ u]
        )

    def _run(
        self, direction: Literal["forward", "adjoint"], volume: np.ndarray, images: list[np.ndarray]
    ) -> None:
        """Add the projection of `volume` to `images`, or the adjoint of `images` to `volume`."""
        import numba  # both import slowly: only when they are needed

        from voxray.physics import joseph_numba

        nz, ny, nx = self.grid.shape
        # Along x, planes of a (z, y, x) array are scattered in memory: these rays work on a copy with axes (x, z, y).
        turned: np.ndarray | None = None
        for view, image in enumerate(images):
            rays = self._rays(view)
            for axis in np.flatnonzero(joseph_numba.axes_used(rays, *image.shape)):
                if axis == 0:
                    if turned is None:
                        turned = volume.transpose(2, 0, 1)
                        turned = (
                            np.ascontiguousarray(turned)
                            if direction == "forward"
                            else np.zeros_like(turned, order="C")
                        )
                    target, strides, size, axes = turned, (nz * ny, ny, 1), (nx, nz, ny), (0, 2, 1)
                elif axis == 1:
                    target, strides, size, axes = volume, (nx, ny * nx, 1), (ny, nz, nx), (1, 2, 0)
                else:
                    target, strides, size, axes = volume, (ny * nx, nx, 1), (nz, ny, nx), (2, 1, 0)
                arguments = (
                    target.reshape(-1), np.array(strides), np.array(size), np.array(axes),
                    rays, self.grid.spacing_mm, image,
                )  # fmt: skip
                if direction == "forward":
                    joseph_numba.forward_view(*arguments)
                else:
                    joseph_numba.adjoint_view(*arguments, numba.get_num_threads())
        if direction == "adjoint" and turned is not None:
            volume += turned.transpose(1, 2, 0)


class _Forward(torch.autograd.Function):
    """The compiled forward projection (batch, z, y, x) -> a tuple of (batch, rows, columns)."""

    @staticmethod
    def forward(ctx: Any, projector: Projector, mu: Tensor) -> tuple[Tensor, ...]:
        ctx.projector = projector
        images = [mu.new_zeros(mu.shape[0], *shape) for shape in projector.views.shapes]
        for i, volume in enumerate(mu.contiguous().numpy()):
            projector._run("forward", volume, [image[i].numpy() for image in images])
        return tuple(images)

    @staticmethod
    def backward(ctx: Any, *images: Tensor) -> tuple[None, Tensor]:
        return None, _Adjoint.apply(ctx.projector, *images)


class _Adjoint(torch.autograd.Function):
    """The compiled adjoint, tuple of (batch, rows, columns) -> (batch, z, y, x)."""

    @staticmethod
    def forward(ctx: Any, projector: Projector, *images: Tensor) -> Tensor:
        ctx.projector = projector
        mu = images[0].new_zeros(images[0].shape[0], *projector.grid.shape)
        arrays = [image.contiguous().numpy() for image in images]
        for i, volume in enumerate(mu.numpy()):
            projector._run("adjoint", volume, [array[i] for array in arrays])
        return mu

    @staticmethod
    def backward(ctx: Any, mu: Tensor) -> tuple[None, *tuple[Tensor, ...]]:
        return None, *_Forward.apply(ctx.projector, mu)
