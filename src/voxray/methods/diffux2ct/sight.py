"""Which ray of which view goes through which point."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import FloatArray, ViewGeometry
from voxray.nets.lifting import read_at
from voxray.physics.sampling import on_detector


@dataclass(frozen=True, eq=False)
class Sight:
    """How views see points.

    Attributes:
        places: on the views' planes, as `F.grid_sample` takes them.
        weights: squares of the components x, y, z of the ray's direction, whose sum is 1; 0 where a plane ends.
    """

    places: Float[Tensor, "b v n 2"]
    weights: Float[Tensor, "b v n 3"]

    @classmethod
    def of(cls, planes: Sequence[ViewGeometry], points_mm: FloatArray, device: torch.device) -> "Sight":
        """Return how the views of some patients see points (n, 3), LPS about the isocentre."""
        places, weights = [], []
        for views in planes:
            for n in range(len(views)):
                place, seen = on_detector(points_mm, views, n)
                ray = torch.from_numpy((points_mm - views.source_mm[n]).astype(np.float32))
                places.append(place)
                weights.append(F.normalize(ray, dim=-1).square() * seen[:, None])
        shape = (len(planes), len(planes[0]))
        return cls(*(torch.stack(part).unflatten(0, shape).to(device) for part in (places, weights)))

    def read(self, maps: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b v c n"]:
        """Return what the maps hold at the points' places."""
        return read_at(maps, self.places)

    def by_direction(self, maps: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b 3 c n"]:
        """Return the mean of what the views hold, apart by the axis x, y, z that their rays run along.

        sum_n w_n f_n / max(1, sum_n w_n): of PA and lateral alone, y holds the one and x the other.
        """
        total = torch.einsum("bvcn,bvnk->bkcn", self.read(maps), self.weights)
        return total / self.weights.sum(1).clamp_min(1).transpose(1, 2)[:, :, None]
