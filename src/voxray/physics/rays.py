"""What the X-rays say at each place: which rays go through it, in which direction, and what they met on their way."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics.sampling import on_detector

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
    k, j, i = np.meshgrid(*map(np.arange, grid.shape), indexing="ij")
    places = grid.index_to_mm(np.stack([i, j, k], axis=-1))
    rays, smeared = (torch.zeros(DIRECTIONS, *grid.shape, device=device) for _ in range(2))
    for n, image in enumerate(images):
        place, seen = on_detector(places, views, n)
        value = F.grid_sample(
            image[None, None].float(), place.reshape(1, 1, -1, 2).to(device), padding_mode="border", align_corners=False
        ).reshape(grid.shape)
        away = torch.from_numpy((places - views.source_mm[n]).astype(np.float32)).to(device)
        unit = F.normalize(away, dim=-1)
        outer = torch.stack([unit[..., a] * unit[..., b] for a, b in _PAIRS]) * seen.to(device)
        rays += outer
        smeared += outer * value
    return rays, smeared / rays[:3].sum(0).clamp_min(1)
