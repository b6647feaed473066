"""Where the voxels of a volume are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxray.errors import GeometryError
from voxray.geometry._frozen import FloatArray, frozen_array


@dataclass(frozen=True, eq=False)
class VolumeGrid:
    """A regular grid of voxels in patient coordinates (LPS: x to the left, y to the back, z to the head).

    The voxel `array[k, j, i]` (axes z, y, x) has its centre at `affine @ (i, j, k, 1)`, in millimetres: the
    convention of ITK. Axes are perpendicular (ITK can hold no other), but may be turned or flipped; axes that are
    so to 1e-3 are made so exactly.

    Args:
        shape: number of voxels along (z, y, x).
        affine: 4 x 4, from (i, j, k, 1) to LPS millimetres.

    Raises:
        GeometryError: if the shape is not three positive numbers, or the affine is singular or sheared.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"A grid needs three positive numbers of voxels (z, y, x), not {self.shape}.")
        affine = frozen_array(self.affine, (4, 4), "The affine of a grid")
        if not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise GeometryError(f"The last row of an affine must be 0 0 0 1, not {affine[3].tolist()}.")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() < 1e-6:
            raise GeometryError("The affine of a grid is singular: a voxel has no extent along some axis.")
        cosines = (affine[:3, :3] / lengths).T @ (affine[:3, :3] / lengths) - np.eye(3)
        if np.abs(cosines).max() > 1e-3:
            raise GeometryError(
                "The axes of the grid are not perpendicular (a tilted gantry?): resample the volume first."
            )
        if np.abs(cosines).max() > 1e-6:  # rounded in some file: the nearest perpendicular axes
            left, _, right = np.linalg.svd(affine[:3, :3] / lengths)
            straight = np.array(affine)
            straight[:3, :3] = left @ right * lengths
            affine = frozen_array(straight, (4, 4), "The affine of a grid")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def centred(
        cls,
        centre_mm: Sequence[float] | FloatArray = (0.0, 0.0, 0.0),
        shape: tuple[int, int, int] = (128, 128, 128),
        spacing_mm: float | Sequence[float] | FloatArray = 2.5,
    ) -> "VolumeGrid":
        """Return the upright grid of `shape` (z, y, x) and `spacing_mm` (one, or x, y, z) about `centre_mm`."""
        spacing = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (3,))
        extent = (np.array(shape[::-1]) - 1) * spacing
        affine = np.eye(4)
        affine[:3, :3] = np.diag(spacing)
        affine[:3, 3] = np.asarray(centre_mm, dtype=np.float64) - extent / 2
        return cls(shape, affine)

    @property
    def spacing_mm(self) -> FloatArray:
        """Distance of neighbouring voxel centres along (x, y, z) of the array."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def direction(self) -> FloatArray:
        """3 x 3; its columns are the unit vectors of the array's x, y and z axes in LPS."""
        return np.asarray(self.affine[:3, :3] / self.spacing_mm)

    @property
    def origin_mm(self) -> FloatArray:
        """LPS position of the centre of voxel (0, 0, 0)."""
        return np.asarray(self.affine[:3, 3])

    @property
    def centre_mm(self) -> FloatArray:
        """LPS position of the middle of the grid."""
        return self.index_to_mm((np.array(self.shape[::-1]) - 1) / 2)

    @property
    def size_mm(self) -> FloatArray:
        """Extent along the array's (x, y, z), from outer voxel edge to outer voxel edge."""
        return np.asarray(np.array(self.shape[::-1]) * self.spacing_mm)

    def index_to_mm(self, ijk: Sequence[float] | FloatArray) -> FloatArray:
        """Map voxel indices (..., 3) in the order (i, j, k) = (x, y, z) to LPS millimetres."""
        return np.asarray(np.asarray(ijk, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def mm_to_index(self, xyz_mm: Sequence[float] | FloatArray) -> FloatArray:
        """Map LPS millimetres (..., 3) to voxel indices in the order (i, j, k) = (x, y, z)."""
        offset = np.asarray(xyz_mm, dtype=np.float64) - self.affine[:3, 3]
        return np.asarray(offset @ np.linalg.inv(self.affine[:3, :3]).T)

    def corners_mm(self) -> FloatArray:
        """Return the eight outer corners of the grid (voxel edges, not centres), (8, 3) in LPS millimetres."""
        ends = [(-0.5, n - 0.5) for n in self.shape[::-1]]
        return self.index_to_mm(np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, 8).T)

    def contains_mm(self, xyz_mm: Sequence[float] | FloatArray) -> bool:
        """Tell whether a point (LPS, mm) lies inside the outer edges of the grid."""
        index = self.mm_to_index(xyz_mm)
        return bool(np.all(index > -0.5) and np.all(index < np.array(self.shape[::-1]) - 0.5))

    def resized(self, shape: tuple[int, int, int]) -> "VolumeGrid":
        """Return the grid that fills the same box with another number of voxels (z, y, x)."""
        ratio = np.array(self.shape[::-1]) / np.array(shape[::-1])
        affine = np.array(self.affine)
        affine[:3, :3] = self.affine[:3, :3] * ratio
        affine[:3, 3] = self.index_to_mm(ratio / 2 - 0.5)
        return VolumeGrid(shape, affine)

    def coarser(self, factor: int) -> "VolumeGrid":
        """Return the grid of the same box whose voxels are cubes of `factor` voxels; its sides are multiples of it."""
        z, y, x = (n // factor for n in self.shape)
        return self.resized((z, y, x))

    def finer(self, factor: int) -> "VolumeGrid":
        """Return the grid of the same box in whose voxels each of these is a cube of `factor` voxels."""
        z, y, x = (n * factor for n in self.shape)
        return self.resized((z, y, x))

    def shifted(self, offset_mm: Sequence[float] | FloatArray) -> "VolumeGrid":
        """Return the same grid, `offset_mm` (x, y, z) further on; its axes keep their directions."""
        affine = np.array(self.affine)
        affine[:3, 3] += np.asarray(offset_mm, dtype=np.float64)
        return VolumeGrid(self.shape, affine)

    def is_close(self, other: "VolumeGrid", tolerance_mm: float = 1e-3) -> bool:
        """Tell whether both grids have the same shape and the same corners, to `tolerance_mm`."""
        return self.shape == other.shape and bool(np.abs(self.corners_mm() - other.corners_mm()).max() <= tolerance_mm)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VolumeGrid):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))
