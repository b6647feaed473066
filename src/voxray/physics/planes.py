"""X-rays on planes through the isocentre: in mm of the patient, whatever detector they were taken with."""

from collections.abc import Sequence

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
