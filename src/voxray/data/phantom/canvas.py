"""A volume that shapes are painted on: signed distances in body millimetres become soft-edged voxels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
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

    index: tuple[slice, ...]
    x: Tensor
    y: Tensor
    z: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the block along (z, y, x)."""
        return tuple(part.stop - part.start for part in self.index)


Distance = Callable[[Box], Tensor]


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid in body mm; the columns of `axes` are the directions of its half axes."""

    centre: Point
    half_axes: Point
    axes: np.ndarray = field(default_factory=lambda: np.eye(3))

    def distance(self, box: Box) -> Tensor:
        """Return the signed distance to first order, (q - 1) / |grad q| with q the scaled radius.

        Source: Taubin, Distance approximations for rasterizing implicit curves, ACM Trans. Graph. 13 (1994).
        """
        offset = [p - c for p, c in zip((box.x, box.y, box.z), self.centre, strict=True)]
        level, slope = torch.zeros(1), torch.zeros(1)
        for half_axis, (u, v, w) in zip(self.half_axes, self.axes.T.tolist(), strict=True):
            along = (_times(offset[0], u) + _times(offset[1], v) + _times(offset[2], w)) / half_axis
            level = level + along.square()
            slope = slope + (along / half_axis).square()
        q = torch.sqrt(level)
        return (q - 1) * q / torch.sqrt(slope).clamp_min(1e-6)

    def less(self, depth_mm: float) -> "Ellipsoid":
        """Return the ellipsoid whose half axes are shorter by `depth_mm`."""
        a, b, c = (half - depth_mm for half in self.half_axes)
        return Ellipsoid(self.centre, (a, b, c), self.axes)


def _times(coordinate: Tensor, factor: float) -> Tensor:
    """Return the product; a lone zero for a factor of zero, so that an upright box stays broadcastable."""
    return coordinate * factor if factor != 0.0 else torch.zeros(1)


@dataclass(frozen=True, eq=False)
class Tube:
    """A round tube along a polyline: points (n, 3) in body mm, and a radius for each of the n - 1 pieces."""

    points: np.ndarray
    radius_mm: float | np.ndarray

    def segments(self) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Yield start, end and radius of each piece."""
        radii = np.broadcast_to(np.asarray(self.radius_mm, dtype=np.float64), (len(self.points) - 1,))
        for start, end, radius in zip(self.points[:-1], self.points[1:], radii, strict=True):
            yield start, end, float(radius)

    def distance(self, box: Box) -> Tensor:
        """Return the signed distance (< 0 inside)."""
        return torch.stack([_distance_to_segment(box, a, b) - r for a, b, r in self.segments()]).amin(0)

    @classmethod
    def smooth(cls, points: npt.ArrayLike, radius_mm: float, pieces: int = 4) -> "Tube":
        """Return the tube along a smooth curve (a PCHIP spline over arc length) through a few points."""
        nodes = np.asarray(points, dtype=np.float64)
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
        where = np.interp(np.arange(pieces * (len(nodes) - 1) + 1) / pieces, np.arange(len(nodes)), length)
        return cls(PchipInterpolator(length, nodes)(where), radius_mm)


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
        to_body = centred if pose is None else np.linalg.solve(pose, centred)
        self._to_index = np.linalg.inv(to_body)
        self.grid = grid
        self.edge_mm = float(abs(np.linalg.det(to_body[:3, :3])) ** (1 / 3))
        self._positions = [self._coordinate(row) for row in to_body[:3]]
        self.hu: Float[Tensor, "z y x"] = torch.full(grid.shape, float(background_hu))

    def box(self, low: np.ndarray, high: np.ndarray) -> Box | None:
        """Return the block of voxels around the box between two corners (body mm); None if it is empty."""
        middle, half = np.add(high, low) / 2, np.subtract(high, low) / 2
        index = self._to_index[:3, :3] @ middle + self._to_index[:3, 3]
        reach = np.abs(self._to_index[:3, :3]) @ half
        start = np.maximum(np.floor(index - reach), 0).astype(int)
        stop = np.minimum(np.ceil(index + reach) + 1, self.grid.shape[::-1]).astype(int)
        if (stop <= start).any():
            return None
        return self._block(tuple(slice(int(a), int(b)) for a, b in zip(start[::-1], stop[::-1], strict=True)))

    def whole(self) -> Box:
        """Return all voxels."""
        return self._block(tuple(slice(0, n) for n in self.grid.shape))

    def _block(self, index: tuple[slice, ...]) -> Box:
        x, y, z = (
            p[tuple(part if n > 1 else slice(None) for part, n in zip(index, p.shape, strict=True))]
            for p in self._positions
        )
        return Box(index, x, y, z)

    def _coordinate(self, row: np.ndarray) -> Tensor:
        """Return one body coordinate of all voxels, of extent 1 along the axes that it does not depend on."""
        total = torch.full((1, 1, 1), float(row[3]))
        for n, view in enumerate([(1, 1, -1), (1, -1, 1), (-1, 1, 1)]):
            if abs(row[n]) > 1e-9 * self.edge_mm:
                total = total + (torch.arange(self.grid.shape[2 - n]) * float(row[n])).view(view)
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

    def ball(self, centre: Sequence[float], radius_mm: float, hu: float) -> None:
        """Paint a ball."""
        box = self.box(*_bounds([centre], radius_mm + self.edge_mm))
        if box is not None:
            distance = torch.sqrt(_squared_distance(box, centre))
            self.paint(box, self.thin_coverage(distance, radius_mm, 3), hu)

    def ellipsoid(self, shape: Ellipsoid, hu: float | Tensor, inside: Distance | None = None) -> None:
        """Paint an ellipsoid, or the part of it that is inside another shape."""
        reach = np.sqrt(np.square(shape.axes * np.array(shape.half_axes)).sum(axis=1)) + self.edge_mm
        box = self.box(np.array(shape.centre) - reach, np.array(shape.centre) + reach)
        if box is None:
            return
        distance = shape.distance(box)
        if inside is not None:
            distance = torch.maximum(distance, inside(box))
        self.paint(box, self.coverage(distance), hu)

    def tubes(self, tubes: Iterable[Tube], *layers: tuple[float, float]) -> None:
        """Paint the union of tubes, layer by layer.

        Args:
            tubes: what to paint.
            layers: how deep under the surface (mm) each layer begins, and its HU, from the outside in.
        """
        totals = [torch.zeros(self.grid.shape) for _ in layers]
        ends = []
        for tube in tubes:
            for start, end, radius in tube.segments():
                low, high = _bounds([start, end], max(radius - layers[0][0], self.edge_mm) + self.edge_mm)
                box = self.box(low, high)
                if box is None:
                    continue
                ends += [low, high]
                distance = _distance_to_segment(box, start, end)
                for total, (depth, _) in zip(totals, layers, strict=True):
                    if radius > depth:
                        block = total[box.index]
                        torch.maximum(block, self.thin_coverage(distance, radius - depth, 2), out=block)
        union = self.box(*_bounds(ends, 0.0)) if ends else None
        if union is not None:
            for total, (_, hu) in zip(totals, layers, strict=True):
                self.paint(union, total[union.index], hu)


def _squared_distance(box: Box, centre: Sequence[float]) -> Tensor:
    dx, dy, dz = (p - c for p, c in zip((box.x, box.y, box.z), centre, strict=True))
    return dx.square() + dy.square() + dz.square()


def _distance_to_segment(box: Box, start: np.ndarray, end: np.ndarray) -> Tensor:
    along = end - start
    x, y, z = box.x - float(start[0]), box.y - float(start[1]), box.z - float(start[2])
    u, v, w = (float(a) for a in along / max(float(along @ along), 1e-9))
    part = (x * u + y * v + z * w).clamp_(0.0, 1.0)
    dx, dy, dz = (p - part * float(a) for p, a in zip((x, y, z), along, strict=True))
    return torch.sqrt(dx.square() + dy.square() + dz.square())


def _bounds(points: Iterable[npt.ArrayLike], margin_mm: float) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(list(points), dtype=np.float64)
    return array.min(axis=0) - margin_mm, array.max(axis=0) + margin_mm
