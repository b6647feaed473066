"""What the X-rays say at each place: which rays go through it, in which direction, and what they met on their way."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid

# Of a symmetric 3 x 3 matrix: xx, yy, zz, xy, xz, yz.
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
DIRECTIONS = len(_PAIRS)


def smear(
    images: Sequence[Float[Tensor, "_ _"]], views: ViewGeometry, grid: VolumeGrid
) -> tuple[Float[Tensor, "6 z y x"], Float[Tensor, "6 z y x"]]:
    """Smear images back along their rays, kept apart by direction.

    With d_n the unit vector of the ray of view n through the middle of a voxel, I_n the image where that ray meets the
    detector, and w_n = 1 where it does, else 0:

        rays = sum_n w_n d_n d_n^T,  smeared = sum_n w_n I_n d_n d_n^T / max(1, sum_n w_n)

    Whatever the number of views, they are two symmetric matrices a voxel, and views of different direction stay apart
    in them: of PA and lateral alone, yy holds the one and xx the other. The trace of `rays` counts the views that see a
    voxel.

    Args:
        images: one a view, in any unit.
        views: where they were taken.
        grid: of the result.

    Returns:
        rays and smeared, entries xx, yy, zz, xy, xz, yz, patient LPS; smeared in the images' unit.
    """
    device = images[0].device
    axes = [torch.arange(n, dtype=torch.float64) for n in grid.shape]
    k, j, i = torch.meshgrid(*axes, indexing="ij")
    places = torch.from_numpy(grid.index_to_mm(torch.stack([i, j, k], -1).numpy())).float().to(device)
    rays, smeared = (torch.zeros(DIRECTIONS, *grid.shape, device=device) for _ in range(2))
    for n, (image, (rows, columns)) in enumerate(zip(images, views.shapes, strict=True)):
        source, centre, u, v = (
            torch.tensor(vector[n], dtype=torch.float32, device=device)
            for vector in (views.source_mm, views.centre_mm, views.u_mm, views.v_mm)
        )
        ray = places - source
        normal = torch.linalg.cross(u, v)
        reach = torch.dot(centre - source, normal) / (ray @ normal)
        on_detector = ray * reach[..., None] + (source - centre)
        pixel = on_detector @ torch.linalg.pinv(torch.stack([u, v], -1)).T  # column and row, from the middle
        place = pixel * pixel.new_tensor([2 / columns, 2 / rows])
        seen = (reach > 0) & (place.abs() <= 1).all(-1)
        value = F.grid_sample(
            image[None, None].float(), place.reshape(1, 1, -1, 2), padding_mode="border", align_corners=False
        ).reshape(grid.shape)
        unit = F.normalize(ray, dim=-1)
        outer = torch.stack([unit[..., a] * unit[..., b] for a, b in _PAIRS]) * seen
        rays += outer
        smeared += outer * value
    return rays, smeared / rays[:3].sum(0).clamp_min(1)
