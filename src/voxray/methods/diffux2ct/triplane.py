"""The tri-plane decoupling generator: from X-rays to planes of features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.geometry import FloatArray, ViewGeometry, VolumeGrid
from voxray.methods.diffux2ct.config import PlanesConfig
from voxray.methods.diffux2ct.sight import Sight
from voxray.nets.plain_unet import PlainUNet
from voxray.physics.planes import pixels_at_origin


@dataclass(frozen=True, eq=False)
class Planes:
    """What is known of some patients.

    Attributes:
        views: where each patient's view planes stand (`planes_of`).
        own: features of each view's plane.
        axial: features of the plane that no view took, over the box of the grid; None where X-rays are smeared.
    """

    views: Sequence[ViewGeometry]
    own: Float[Tensor, "b v c p p"]
    axial: Float[Tensor, "b c y x"] | None


class TriPlanes(nn.Module):
    """Three orthogonal planes from any number of views, the third made of what the views share.

    One 2D U-Net reads each X-ray on its plane through the isocentre, and is told where the pixels are in the patient
    (the specification proposes one for each of two views; with one, views may come from anywhere). Two 1x1 convolutions
    decouple what it finds: features of the view's own plane, and shared ones. These are spread along their rays
    over the axial plane, the mean over heights, apart by the ray's direction: of parallel PA and lateral beams, that is
    a vector along x and one along y, at each (x, y) side by side. A second U-Net makes the third plane of it.

    At a point, the coronal features are those of the views that look along y, the sagittal ones of those that look
    along x, each read where the very ray through the point meets the view's plane: so perspective and oblique views
    are exact. A view between both counts for both by the squares of its direction's components. A view along z joins
    the axial plane.

    Args:
        config: sizes.
        grid: of the volume, about the origin.
        side_mm: of the views' planes.
    """

    def __init__(self, config: PlanesConfig, grid: VolumeGrid, side_mm: float) -> None:
        super().__init__()
        self.config, self.grid, self.side_mm = config, grid, side_mm
        width, c = config.features[0], config.channels
        self.encoder = PlainUNet(2, config.features, 5)
        self.own = nn.Conv2d(width, c, 1)
        self.triplane = config.lifting == "triplane"
        if self.triplane:
            self.shared = nn.Conv2d(width, c, 1)
            self.axial = nn.Sequential(PlainUNet(2, config.features, 3 * c + 2), nn.Conv2d(width, c, 1))

    @property
    def channels(self) -> int:
        """Return how many features a point has."""
        return (3 if self.triplane else 1) * self.config.channels + 3

    def forward(self, images: Float[Tensor, "b v 2 p p"], views: Sequence[ViewGeometry]) -> Planes:
        """Return the planes of some patients.

        Args:
            images: X-rays on their planes (`onto_planes`).
            views: the planes, of each patient.
        """
        places = torch.stack([pixels_at_origin(one, self.side_mm) for one in views]).to(images)
        found = self.encoder(torch.cat([images, places], 2).flatten(0, 1))
        own = self.own(found).unflatten(0, images.shape[:2])
        if not self.triplane:
            return Planes(views, own, None)
        shared = self.shared(found).unflatten(0, images.shape[:2])
        side = self.config.pixels // 2
        points = lattice_mm(self.grid.resized((self.config.heights, side, side)))
        spread = Sight.of(views, points, images.device).by_direction(shared).flatten(1, 2)
        spread = spread.unflatten(2, (self.config.heights, side, side)).mean(2)
        line = torch.linspace(-1, 1, side, device=images.device)
        where = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(len(images), -1, -1, -1)
        return Planes(views, own, self.axial(torch.cat([spread, where], 1)))

    def at(self, planes: Planes, points_mm: FloatArray, voxel_mm: float) -> Float[Tensor, "b n c"]:
        """Return the features of points.

        Args:
            planes: of some patients.
            points_mm: (n, 3), LPS about the isocentre, any.
            voxel_mm: what a point stands for; planes are averaged to that before they are read (ours).
        """
        sight = Sight.of(planes.views, points_mm, planes.own.device)
        own = _averaged(planes.own.flatten(0, 1), voxel_mm / (self.side_mm / self.config.pixels))
        own = own.unflatten(0, planes.own.shape[:2])
        if planes.axial is None:
            seen = sight.weights.sum(-1)  # 1 or 0
            features = torch.einsum("bvcn,bvn->bcn", sight.read(own), seen) / seen.sum(1).clamp_min(1)[:, None]
        else:
            slots = sight.by_direction(own)
            width_mm = float(self.grid.size_mm[:2].max())
            axial = _averaged(planes.axial, voxel_mm / (width_mm / planes.axial.shape[-1]))
            part = points_mm[:, :2] / (self.grid.size_mm[:2] / 2)
            place = torch.from_numpy(part.astype(np.float32)).to(axial.device).expand(len(axial), 1, -1, -1)
            third = F.grid_sample(axial.float(), place, padding_mode="border", align_corners=False)[:, :, 0]
            x, y, z = slots.unbind(1)
            features = torch.cat([x, y, z + third], 1)
        # How often the point is seen along each axis, brought to 0..1.
        count = sight.weights.sum(1)
        return torch.cat([features.transpose(1, 2), count / (1 + count)], 2)


def lattice_mm(grid: VolumeGrid) -> FloatArray:
    """Return the middles of all voxels, (n, 3) LPS, in the order of a volume's array."""
    k, j, i = np.meshgrid(*map(np.arange, grid.shape), indexing="ij")
    return grid.index_to_mm(np.stack([i, j, k], axis=-1).reshape(-1, 3).astype(np.float64))


def _averaged(maps: Float[Tensor, "n c h w"], pixels: float) -> Tensor:
    """Average squares of a power of two of pixels, the largest that is at most `pixels` and divides the sides."""
    side = 1
    while 2 * side <= pixels * (1 + 1e-6) and not any(n % (2 * side) for n in maps.shape[-2:]):
        side *= 2
    return F.avg_pool2d(maps.float(), side)
