"""From features of images to features of points in the volume, along the true rays."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid


def pinholes(views: Sequence[ViewGeometry], grid: VolumeGrid) -> Float[Tensor, "b v 3 4"]:
    """Return by which matrix each view shows the points of a volume.

        M (x, y, z, 1) = w (column, row, 1)

    x, y and z run from -1 to 1 between the faces of the volume, columns and rows between the edges of the image, as
    `F.grid_sample` takes them; w is the depth, as a part of that of the volume's middle. (Hartley and Zisserman,
    "Multiple View Geometry", 2004, chapter 6.)

    Args:
        views: of each patient, about the origin; as many for each.
        grid: of the volume, about the origin.
    """
    found = []
    for one in views:
        for n, (rows, columns) in enumerate(one.shapes):
            source, (across, down) = one.source_mm[n], np.linalg.pinv(np.stack([one.u_mm[n], one.v_mm[n]], axis=1))
            normal = np.cross(one.u_mm[n], one.v_mm[n])
            to_centre = one.centre_mm[n] - source
            depth = normal @ to_centre
            matrix = np.stack([
                2 / columns * (depth * across - (across @ to_centre) * normal),
                2 / rows * (depth * down - (down @ to_centre) * normal),
                normal,
            ]) / -(normal @ source)  # fmt: skip
            found.append(np.column_stack([matrix * (grid.size_mm / 2), -matrix @ source]))
    return torch.from_numpy(np.stack(found).astype(np.float32)).unflatten(0, (len(views), -1))


def seen_at(pinholes: Float[Tensor, "b v 3 4"], points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "b v n 3"]:
    """Return where views show points (column, row), and how deep they lie.

    Args:
        pinholes: of the views of some patients.
        points: (x, y, z), -1 and 1 being the faces of the volume; the same for all patients, or some for each.
    """
    points = points.expand(len(pinholes), -1, -1)
    shown = torch.einsum("bvij,bnj->bvni", pinholes[..., :3], points) + pinholes[:, :, None, :, 3]
    column, row, depth = shown.unbind(-1)
    return torch.stack([column / depth, row / depth, depth], -1)


def read_at(maps: Float[Tensor, "b v c h w"], places: Float[Tensor, "b v n 2"]) -> Float[Tensor, "b v c n"]:
    """Return what maps hold at places (column, row), interpolated; nothing beside them."""
    flat = F.grid_sample(maps.flatten(0, 1).float(), places.flatten(0, 1)[:, None], align_corners=False)
    return flat[:, :, 0].unflatten(0, maps.shape[:2])


def lattice(shape: Sequence[int], device: torch.device | None = None) -> Float[Tensor, "z y x 3"]:
    """Return the places (x, y, z) of all voxels of a volume; -1 and 1 are its faces, patient LPS."""
    axes = [(2 * torch.arange(n, device=device) + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)


def along_rays(
    maps: Float[Tensor, "b v c h w"], pinholes: Float[Tensor, "b v 3 4"], shape: Sequence[int]
) -> Float[Tensor, "b v c z y x"]:
    """Spread the maps of views along their rays through a volume of so many voxels (z, y, x).

    Of parallel beams along an axis, that is a map copied along this axis. A voxel has what its view shows it at; the
    map is not averaged, whose pixels should be about as large as the voxels.
    """
    points = lattice(shape, maps.device).reshape(-1, 3)
    return read_at(maps, seen_at(pinholes, points)[..., :2]).unflatten(3, tuple(shape))


def from_slices(slices: Float[Tensor, "b d h w"], pinholes: Float[Tensor, "b 3 4"], shape: Sequence[int]) -> Tensor:
    """Return the volume (b, z, y, x) of slices that lie one behind the other, as a view sees them.

    Methods that draw depth as the channels of an image mean slices across its rays. Here they are: along each ray, at
    equal steps over the depth of the volume, the nearest to the source first. Of parallel beams along an axis, these
    are the volume's slices along it.

    Args:
        slices: d of them, on the view's plane.
        pinholes: of the view that they are drawn in.
        shape: of the volume.
    """
    points = lattice(shape, slices.device).reshape(-1, 3)
    axis = pinholes[:, 2, :3]
    depth = (axis / axis.abs().sum(1, keepdim=True)) @ points.T  # -1 and 1 for the nearest and the farthest corner
    places = torch.cat([seen_at(pinholes[:, None], points)[:, 0, :, :2], depth[..., None]], -1)
    found = F.grid_sample(
        slices[:, None].float(), places[:, None, None], padding_mode="border", align_corners=False
    )  # fmt: skip
    return found[:, 0, 0, 0].unflatten(1, tuple(shape))
