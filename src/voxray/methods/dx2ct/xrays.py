"""X-rays as the feature extractor sees them, and where their pixels are."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.physics.attenuation import MU_WATER_PER_MM

# Line integral that the extractor sees as 1: 400 mm of water, more than a chest holds.
_WHITE = 400 * MU_WATER_PER_MM


def as_seen(
    images: Sequence[Float[Tensor, "_ _"]], views: ViewGeometry, grid: VolumeGrid
) -> tuple[Float[Tensor, "v n n"], Float[Tensor, "v n n 3"]]:
    """Return X-rays of the size of a slice, about 0..1, and the places of their pixels.

    Convolutions tell left from right. So however an image is shown, mirrored or upside down, it is brought to how
    `ViewGeometry.from_angles` shows it (ours): rows run towards the feet, seen from the detector.

    Args:
        images: line integrals, one image a view.
        views: about the origin.
        grid: of the volume, a cube about the origin with n voxels a side.
    """
    size = grid.shape[0]
    images, views = _upright(images, views)
    small = [F.interpolate(i[None, None], (size, size), mode="bilinear", antialias=True)[0, 0] for i in images]
    return torch.stack(small) / _WHITE, xray_places(views, grid, size).to(images[0])


def _upright(
    images: Sequence[Float[Tensor, "_ _"]], views: ViewGeometry
) -> tuple[list[Float[Tensor, "_ _"]], ViewGeometry]:
    u, v, turned = np.array(views.u_mm), np.array(views.v_mm), []
    for n, image in enumerate(images):
        if v[n, 2] > 0:
            v[n], image = -v[n], image.flip(0)
        if np.cross(u[n], v[n]) @ (views.centre_mm[n] - views.source_mm[n]) > 0:
            u[n], image = -u[n], image.flip(1)
        turned.append(image)
    return turned, ViewGeometry(views.source_mm, views.centre_mm, u, v, views.shapes, views.names, views.isocentre_mm)


def xray_places(views: ViewGeometry, grid: VolumeGrid, size: int) -> Float[Tensor, "v n n 3"]:
    """Return the places of the X-rays' pixels: where their rays meet the plane at the far end of the volume.

    The paper gives an X-ray's pixels coordinates in the volume, with the one along the beam held at one of its ends
    (section 2.2). For any angle, and for beams that diverge, that is the plane across the central ray which touches the
    sphere within the volume on the detector's side: for PA the front of the patient, y = -1.

    Args:
        views: about the origin.
        grid: of the volume, about the origin.
        size: the images are brought to size x size pixels.
    """
    half = grid.size_mm / 2
    resized = views.resized([(size, size)] * len(views))
    found = []
    for n in range(len(views)):
        axis = views.centre_mm[n] - views.source_mm[n]
        axis = axis / np.linalg.norm(axis)
        rays = resized.pixels_mm(n) - views.source_mm[n]
        reach = (half.min() - views.source_mm[n] @ axis) / (rays @ axis)
        found.append((views.source_mm[n] + reach[..., None] * rays) / half)
    return torch.from_numpy(np.stack(found).astype(np.float32))
