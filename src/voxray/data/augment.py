"""Patients who stand a little differently, are larger or smaller, and built a little differently."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.data.body_mask import AIR_HU
from voxray.errors import InputError
from voxray.geometry import VolumeGrid
from voxray.geometry._frozen import FloatArray
from voxray.images import CTVolume

# Knots of the field that says which parts of a patient are another one's, and what it changes by where they meet.
_PARTS_MM, _SEAM = 80.0, 0.03


@dataclass(frozen=True)
class AugmentOptions:
    """How much a training case may change; every number is the end of a uniform range about nothing.

    There is no mirroring: a mirrored chest has its heart on the wrong side. The values are our choice: patients
    stand before the detector to within a few degrees, and adults of one sex differ by about 10 % in size.

    Attributes:
        rotation_deg: about each of the three axes.
        scale: relative, the same along all axes.
        shift_mm: along each axis.
        elastic_mm: displacement of the knots of a cubic B-spline, along each axis.
        knots_mm: distance of the knots.
        shape: part of the way to the shape of another patient (`ShapeModel`), from 0 to this; 0 for none.
        mixed: chance that parts of another patient, brought to the same shape, take the place of a patient's own.

    Raises:
        InputError: if a number is negative, the elastic part could fold space, or `mixed` is no chance or without
            `shape`.
    """

    rotation_deg: float = 5.0
    scale: float = 0.1
    shift_mm: float = 10.0
    elastic_mm: float = 12.0
    knots_mm: float = 64.0
    shape: float = 0.0
    mixed: float = 0.0

    def __post_init__(self) -> None:
        if min(self.rotation_deg, self.scale, self.shift_mm, self.elastic_mm, self.shape) < 0 or not self.scale < 1:
            raise InputError(f"Ranges of augmentation cannot be negative, and scale must be below 1: {self}.")
        if not 0 <= self.mixed <= 1 or (self.mixed and not self.shape):
            raise InputError(f"mixed is a chance, and needs shape above 0: patients are mixed in one shape ({self}).")
        # Choi and Lee 2000 ("Injectivity conditions of 2D and 3D uniform cubic B-spline functions", Graphical
        # Models 62): a displacement below 1 / 2.48 of the knots' distance never folds.
        if self.elastic_mm * 2.48 > self.knots_mm:
            raise InputError(
                f"elastic_mm must be at most {self.knots_mm / 2.48:.1f} with knots every {self.knots_mm:g} mm, "
                f"not {self.elastic_mm:g}: space would fold."
            )


@dataclass(frozen=True, eq=False)
class Spline:
    """A smooth displacement: cubic B-splines, whose knots lie about the isocentre.

    Attributes:
        knots: coefficients, mm.
        knots_mm: distance of the knots.
    """

    knots: Float[Tensor, "3 nz ny nx"]
    knots_mm: float

    def at(self, z: Tensor, y: Tensor, x: Tensor) -> Float[Tensor, "z y x 3"]:
        """Return the displacement at all places of a grid with these axes, mm."""
        bases = [_b_spline(c, n, self.knots_mm) for c, n in zip((z, y, x), self.knots.shape[1:], strict=True)]
        return torch.einsum("dkji,zk,yj,xi->zyxd", self.knots, *bases)


@dataclass(frozen=True, eq=False)
class Deformation:
    """Where each point of an augmented patient comes from: q = R p / s + t + u(p), millimetres about the isocentre.

    Attributes:
        matrix: R / s, 3 x 3.
        shift_mm: t, (3,).
        splines: whose sum is u.
    """

    matrix: FloatArray
    shift_mm: FloatArray
    splines: tuple[Spline, ...] = ()

    @classmethod
    def draw(
        cls, options: AugmentOptions, size_mm: FloatArray, rng: torch.Generator, shape: Spline | None = None
    ) -> "Deformation":
        """Draw a deformation for a patient of `size_mm` (x, y, z), who is to have another shape besides."""

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(*shape, generator=rng, dtype=torch.float64) - 1

        angles = uniform(3).numpy() * math.radians(options.rotation_deg)
        scale = 1 + options.scale * float(uniform(1))
        shift = uniform(3).numpy() * options.shift_mm
        nx, ny, nz = (int(n) for n in np.ceil(size_mm / options.knots_mm) + 4)
        splines = [] if shape is None else [shape]
        if options.elastic_mm > 0:
            splines.append(Spline((uniform(3, nz, ny, nx) * options.elastic_mm).float(), options.knots_mm))
        return cls(_rotation(angles) / scale, shift, tuple(splines))

    @classmethod
    def none(cls) -> "Deformation":
        """Return the deformation that changes nothing."""
        return cls(np.eye(3), np.zeros(3))

    def then(self, matrix: FloatArray, shift: FloatArray) -> "Deformation":
        """Return this deformation followed by q -> matrix q + shift."""
        turn = torch.from_numpy(matrix).float()
        splines = [Spline(torch.einsum("ed,dkji->ekji", turn, s.knots), s.knots_mm) for s in self.splines]
        return Deformation(matrix @ self.matrix, matrix @ self.shift_mm + shift, tuple(splines))

    def box_mm(self, corners_mm: FloatArray) -> FloatArray:
        """Return a box, (2, 3), that holds what comes from within the corners (n, 3) of the patient."""
        inverse = np.linalg.inv(self.matrix)
        moved = (corners_mm - self.shift_mm) @ inverse.T
        reach_mm = sum(float(spline.knots.abs().max()) for spline in self.splines)
        spare = reach_mm * np.abs(inverse).sum(1)
        return np.stack([moved.min(0) - spare, moved.max(0) + spare])

    def points_mm(self, grid: VolumeGrid) -> Float[Tensor, "z y x 3"]:
        """Return q for every voxel centre p of an upright grid."""
        z, y, x = _axes_mm(grid)
        matrix = torch.from_numpy(self.matrix).float()
        points = (z[:, None, None, None] * matrix[:, 2] + y[:, None, None] * matrix[:, 1]) + (
            x[:, None] * matrix[:, 0] + torch.from_numpy(self.shift_mm).float()
        )
        for spline in self.splines:
            points += spline.at(z, y, x)
        return points


def _axes_mm(grid: VolumeGrid) -> list[Tensor]:
    """Return the coordinates of an upright grid's voxels along z, y and x."""
    ranges = [torch.arange(n, dtype=torch.float32) for n in grid.shape]
    return [r * float(grid.spacing_mm[2 - axis]) + float(grid.origin_mm[2 - axis]) for axis, r in enumerate(ranges)]


def pull(scan: CTVolume, centre_mm: FloatArray, grid: VolumeGrid, deformation: Deformation) -> Float[Tensor, "z y x"]:
    """Resample a scan onto `grid`, which lies about the isocentre, through a deformation, in one step.

    Args:
        scan: in patient coordinates.
        centre_mm: the isocentre in patient coordinates, LPS.
        grid: upright, in coordinates about the isocentre.
        deformation: where each point comes from.

    Returns:
        HU; -1024 outside the scan.
    """
    factors = np.maximum(1, (grid.spacing_mm / scan.grid.spacing_mm + 0.25).astype(int))
    dense = (scan.hu - AIR_HU)[None, None]
    if factors.max() > 1:  # blocks of voxels, so that fine scans do not alias
        dense = F.avg_pool3d(dense, factors[::-1].tolist(), ceil_mode=True, count_include_pad=False)
    to_index = np.linalg.inv(scan.grid.affine[:3, :3]) / factors[:, None]
    first = scan.grid.mm_to_index(centre_mm) / factors - (factors - 1) / (2 * factors)
    # -1 and 1 are the edges of the scan.
    scale = 2 / np.array(dense.shape[:1:-1])
    places = deformation.then(scale[:, None] * to_index, scale * (first + 0.5) - 1).points_mm(grid)
    return F.grid_sample(dense, places[None], padding_mode="zeros", align_corners=False)[0, 0] + AIR_HU


def mix(
    own: Float[Tensor, "z y x"], other: Float[Tensor, "z y x"], grid: VolumeGrid, rng: torch.Generator
) -> Float[Tensor, "z y x"]:
    """Put parts of one patient in the place of another one's, who has the same shape.

    Which parts is the sign of a random smooth field, so that they are of the size of organs, and about half; they
    pass into each other over some 30 mm. Where either has nothing (-1024 HU), it is the first patient, with an edge
    there. Ours, after CutMix, which puts parts of one sample in another: Yun et al. 2019, arXiv 1905.04899.

    Args:
        own: HU.
        other: HU.
        grid: of both.
        rng: draws the field.
    """
    nx, ny, nz = (int(n) for n in np.ceil(2 * np.abs(grid.corners_mm()).max(0) / _PARTS_MM) + 4)  # about 0
    field = Spline(torch.randn(1, nz, ny, nx, generator=rng), _PARTS_MM).at(*_axes_mm(grid))[..., 0]
    share = torch.sigmoid(field / _SEAM) * ((own > AIR_HU + 1) & (other > AIR_HU + 1))
    return own.lerp(other, share)


def _rotation(angles: FloatArray) -> FloatArray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _b_spline(x: Float[Tensor, " n"], knots: int, knots_mm: float) -> Float[Tensor, "n knots"]:
    """Return the weights of uniform cubic B-splines, whose knots lie about 0, at positions `x` (mm)."""
    t = (x[:, None] / knots_mm - (torch.arange(knots) - (knots - 1) / 2)).abs()
    return torch.where(t < 1, 2 / 3 - t**2 + t**3 / 2, (2 - t).clamp(min=0) ** 3 / 6)
