"""Which rays go through each place, and in which direction."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid

# Of a symmetric 3 x 3 matrix: xx, yy, zz, xy, xz, yz.
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
DIRECTIONS = len(_PAIRS)


def ray_directions(grid: VolumeGrid, views: ViewGeometry) -> Float[Tensor, "6 z y x"]:
    """Return sum_n w_n d_n d_n^T at every voxel: d_n is the unit vector of the ray of view n through its middle.

    w_n is 1 where that ray meets the detector, else 0. The trace counts the views that see a voxel; along directions in
    which the matrix is large the X-rays leave open where something is. Entries xx, yy, zz, xy, xz, yz, patient LPS.
    """
    k, j, i = np.meshgrid(*map(np.arange, grid.shape), indexing="ij")
    places = grid.index_to_mm(np.stack([i, j, k], axis=-1))
    total = np.zeros((DIRECTIONS, *grid.shape))
    for n, (rows, columns) in enumerate(views.shapes):
        ray = places - views.source_mm[n]
        u, v = views.u_mm[n], views.v_mm[n]
        normal = np.cross(u, v)
        reach = np.dot(views.centre_mm[n] - views.source_mm[n], normal) / (ray @ normal)
        on_detector = ray * reach[..., None] + views.source_mm[n] - views.centre_mm[n]
        column, row = np.moveaxis(on_detector @ np.linalg.pinv(np.stack([u, v], axis=-1)).T, -1, 0)
        seen = (reach > 0) & (np.abs(column) <= columns / 2) & (np.abs(row) <= rows / 2)
        unit = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
        total += np.stack([unit[..., a] * unit[..., b] for a, b in _PAIRS]) * seen
    return torch.from_numpy(total).float()
