"""A volume that shapes are painted on: signed distances in body millimetres become soft-edged voxels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import VolumeGrid

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """A block of voxels and where they are.

    Attributes:
        index: the slices of the block along (z, y, x).
        x, y, z: body coordinates of the voxel centres in mm. On an upright grid each has extent 1 along the
            axes that it does not depend on: they broadcast to the block.
    """

    index: tuple[slice, slice, slice]
    x: Tensor
    y: Tensor
    z: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the block along (z, y, x)."""
        return tuple(part.stop - part.start for part in self.index)


class Canvas:
    """Hounsfield units on a grid, and the way from body coordinates to voxels.

    Body coordinates are LPS millimetres about the middle of the grid, after the inverse of `pose`. A voxel
    counts as covered by a shape in proportion to how far it reaches inside, over an edge one voxel wide: the
    partial-volume effect of a CT.

    Args:
        grid: any grid; oblique ones cost a little more.
        background_hu: what the volume is filled with.
        pose: 4 x 4, from body coordinates to LPS millimetres about the middle of the grid (rotation, scaling
            and shift); the identity where none is given.
    """

    def __init__(self, grid: VolumeGrid, background_hu: float, pose: np.ndarray | None = None) -> None:
        centred = np.array(grid.affine)
        centred[:3, 3] -= grid.centre_mm
        self._to_body = centred if pose is None else np.linalg.solve(pose, centred)
        self._to_index = np.linalg.inv(self._to_body)
        self.grid = grid
        self.edge_mm = float(abs(np.linalg.det(self._to_body[:3, :3])) ** (1 / 3))
        self.hu: Float[Tensor, "z y x"] = torch.full(grid.shape, float(background_hu))

    def box(self, low: npt.ArrayLike, high: npt.ArrayLike) -> Box | None:
        """Return the voxels between two corners (body mm) and one voxel around; None if there are none."""
        corners = np.array(np.meshgrid(*np.transpose([low, high]), indexing="ij")).reshape(3, 8)
        index = self._to_index[:3, :3] @ corners + self._to_index[:3, 3:]
        start = np.maximum(np.floor(index.min(axis=1)).astype(int), 0)
        stop = np.minimum(np.ceil(index.max(axis=1)).astype(int) + 1, self.grid.shape[::-1])
        if (stop <= start).any():
            return None
        x, y, z = (self._coordinate(axis, start, stop) for axis in range(3))
        i, j, k = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return Box((k, j, i), x, y, z)

    def whole(self) -> Box:
        """Return all voxels."""
        x, y, z = (self._coordinate(axis, (0, 0, 0), self.grid.shape[::-1]) for axis in range(3))
        k, j, i = (slice(0, n) for n in self.grid.shape)
        return Box((k, j, i), x, y, z)

    def _coordinate(self, axis: int, start: Sequence[int], stop: Sequence[int]) -> Tensor:
        row = self._to_body[axis]
        total = torch.full((1, 1, 1), float(row[3]))
        for n, view in enumerate([(1, 1, -1), (1, -1, 1), (-1, 1, 1)]):
            if abs(row[n]) > 1e-9 * self.edge_mm:
                total = total + (torch.arange(start[n], stop[n]) * float(row[n])).view(view)
        return total

    def coverage(self, distance_mm: Tensor) -> Tensor:
        """Return how much of each voxel (0..1) a shape covers, from its signed distance (mm, < 0 inside)."""
        return (0.5 - distance_mm / self.edge_mm).clamp_(0.0, 1.0)

    def thin_coverage(self, distance_mm: Tensor, radius_mm: float, dimensions: int) -> Tensor:
        """Return the coverage of a ball (dimensions 3) or a tube (2) that keeps its mass when it is thin.

        A soft edge is a mean over radii r + u, with u uniform within half a voxel w either way; a ball of n
        dimensions gains mass by it, about n (n - 1) r^(n - 2) w^2 / 24. So r is made less by
        (n - 1) w^2 / (24 r), and what is thinner than w / 2 then becomes a cone of radius w and weight
        (n + 1) (r / w)^n. (Our choice: line integrals stay equal on fine and coarse grids.)

        Args:
            distance_mm: distance from the centre or the axis.
            radius_mm: a radius r.
            dimensions: n.
        """
        n, edge = dimensions, self.edge_mm
        radius = radius_mm - (n - 1) * edge**2 / (24 * radius_mm)
        if radius >= edge / 2:
            return self.coverage(distance_mm - radius)
        return self.coverage(distance_mm - edge / 2).mul_(min(1.0, (n + 1) * (radius_mm / edge) ** n))

    def paint(self, box: Box, coverage: Tensor, hu: float | Tensor) -> None:
        """Blend `hu` into the block, where `coverage` is 1 altogether."""
        block = self.hu[box.index]
        block += coverage * (hu - block)

    def ball(self, centre: Point, radius_mm: float, hu: float) -> None:
        """Paint a ball."""
        box = self.box(*_bounds([centre], radius_mm + self.edge_mm))
        if box is not None:
            distance = torch.sqrt(sum_of_squares(box, centre))
            self.paint(box, self.thin_coverage(distance, radius_mm, 3), hu)


def sum_of_squares(box: Box, centre: Point, half_axes: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """Return the squared distance to `centre`, each axis (x, y, z) measured in its half axis."""
    x, y, z = ((p - c) / a for p, c, a in zip((box.x, box.y, box.z), centre, half_axes, strict=True))
    return x.square() + y.square() + z.square()


def _bounds(points: Iterable[Sequence[float]], margin_mm: float) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(list(points), dtype=np.float64)
    return array.min(axis=0) - margin_mm, array.max(axis=0) + margin_mm
