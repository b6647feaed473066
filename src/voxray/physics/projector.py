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

    def adjoint(self, images: Sequence[Float[Tensor, "*batch rows columns"]]) -> Float[Tensor, "*batch z y x"]:
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
        return np.stack([self.grid.mm_to_index(source), to_voxels @ (corner - source), to_voxels @ v, to_voxels @ u])

    def _run(
        self, direction: Literal["project", "backproject"], volume: np.ndarray, images: Sequence[np.ndarray]
    ) -> None:
        """Add the projection of `volume` to `images`, or the adjoint of `images` to `volume`."""
        from voxray.physics import joseph_numba, joseph_upright  # numba imports slowly: only when it is needed

        rays = [self._rays(view) for view in range(len(images))]
        upright = [joseph_upright.is_upright(r, *image.shape) for r, image in zip(rays, images, strict=True)]
        with joseph_numba.threads_for(sum(image.size for image in images) * max(self.grid.shape)):
            for kernels, chosen in ((joseph_upright, True), (joseph_numba, False)):
                views = [view for view, is_upright in enumerate(upright) if is_upright == chosen]
                if views:
                    run = getattr(kernels, direction)
                    run(volume, [rays[v] for v in views], self.grid.spacing_mm, [images[v] for v in views])


class _Forward(torch.autograd.Function):
    """The compiled forward projection (batch, z, y, x) -> a tuple of (batch, rows, columns)."""

    @staticmethod
    def forward(ctx: Any, projector: Projector, mu: Tensor) -> tuple[Tensor, ...]:
        ctx.projector = projector
        images = [mu.new_zeros(mu.shape[0], *shape) for shape in projector.views.shapes]
        for i, volume in enumerate(mu.contiguous().numpy()):
            projector._run("project", volume, [image[i].numpy() for image in images])
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
            projector._run("backproject", volume, [array[i] for array in arrays])
        return mu

    @staticmethod
    def backward(ctx: Any, mu: Tensor) -> tuple[None, *tuple[Tensor, ...]]:
        return None, *_Forward.apply(ctx.projector, mu)
