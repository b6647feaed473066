"""Which ray of which view goes through which point, and where the views' planes stand in the world."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import FloatArray, ViewGeometry
from voxray.physics.sampling import on_detector

# Above this cosine to the patient's long axis, a view has no side that is up.
_UPRIGHT = 0.99


def planes_of(source_mm: FloatArray, side_mm: float, pixels: int) -> ViewGeometry:
    """Return the planes of some X-rays: across the line from the source to the origin, the isocentre, and through it.

    Of PA that is the coronal plane, of a lateral the sagittal one, each seen from the detector, with rows towards the
    feet. Whatever the detector was, a plane depends on the source alone: so however an image is cut, turned or
    mirrored, the network sees the same. As geometry, each plane is moved along its rays to behind the volume, so that
    `Projector` can draw on it.

    Args:
        source_mm: (views, 3), about the origin.
        side_mm: of the planes, at the origin.
        pixels: along each side.
    """
    distance = np.linalg.norm(source_mm, axis=1, keepdims=True)
    axis = -source_mm / distance
    up = np.where(abs(axis[:, 2:]) > _UPRIGHT, [[0.0, -1.0, 0.0]], [[0.0, 0.0, 1.0]])
    u = np.cross(up, axis)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    behind = 1 + side_mm / distance
    step = behind * side_mm / pixels
    return ViewGeometry(
        source_mm, source_mm + behind * distance * axis, step * u, step * np.cross(u, axis),
        shapes=((pixels, pixels),) * len(source_mm), isocentre_mm=np.zeros(3),
    )  # fmt: skip


def onto_planes(
    images: Sequence[Float[Tensor, "_ _"]], views: ViewGeometry, planes: ViewGeometry
) -> Float[Tensor, "v 2 p p"]:
    """Bring X-rays onto their planes: what was measured there, and 1 where anything was.

    Args:
        images: one a view.
        views: about the origin.
        planes: see `planes_of`.
    """
    at_origin = np.linalg.norm(planes.source_mm, axis=1) / np.linalg.norm(planes.centre_mm - planes.source_mm, axis=1)
    pixel_mm = float((np.linalg.norm(planes.u_mm, axis=1) * at_origin).min())
    factors = views.bins(pixel_mm, np.zeros(3))
    binned = views.binned(factors)
    found = []
    for n, image in enumerate(images):
        place, seen = on_detector(planes.pixels_mm(n), binned, n)
        mean = F.avg_pool2d(image[None, None].float(), factors[n])
        value = F.grid_sample(mean, place[None].to(image.device), padding_mode="border", align_corners=False)[0, 0]
        found.append(torch.stack([value * seen.to(value), seen.to(value)]))
    return torch.stack(found)


def pixels_at_origin(planes: ViewGeometry, side_mm: float) -> Float[Tensor, "v 3 p p"]:
    """Return where the pixels are on the planes through the origin, as parts of half their side."""
    found = []
    for n in range(len(planes)):
        source = planes.source_mm[n]
        share = np.linalg.norm(source) / np.linalg.norm(planes.centre_mm[n] - source)
        found.append((source + share * (planes.pixels_mm(n) - source)) / (side_mm / 2))
    return torch.from_numpy(np.stack(found).astype(np.float32)).movedim(-1, 1)


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
        flat = F.grid_sample(maps.flatten(0, 1).float(), self.places.flatten(0, 1)[:, None], align_corners=False)
        return flat[:, :, 0].unflatten(0, maps.shape[:2])

    def by_direction(self, maps: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b 3 c n"]:
        """Return the mean of what the views hold, apart by the axis x, y, z that their rays run along.

        sum_n w_n f_n / max(1, sum_n w_n): of PA and lateral alone, y holds the one and x the other.
        """
        total = torch.einsum("bvcn,bvnk->bkcn", self.read(maps), self.weights)
        return total / self.weights.sum(1).clamp_min(1).transpose(1, 2)[:, :, None]
