"""The random thorax."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from voxray.data.phantom.canvas import Box, Canvas
from voxray.data.phantom.chest import Chest
from voxray.data.phantom.lungs import Nodule, draw_nodules, paint_vessels
from voxray.data.phantom.organs import paint_abdomen, paint_mediastinum
from voxray.data.phantom.parameters import ThoraxParameters, draw_parameters
from voxray.data.phantom.skeleton import paint_skeleton
from voxray.data.phantom.trunk import paint_trunk
from voxray.errors import InputError
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume

# Texture is noise on two lattices of these spacings, interpolated, within this distance (and mirrored beyond);
# it stands for what is finer than the anatomy. Lattices and strength are our choice, by eye beside real scans.
TEXTURE_MM = (5.0, 16.0)
TEXTURE_REACH_MM = 300.0
SOFT_TEXTURE_HU = 6.0


@dataclass(frozen=True, eq=False)
class Phantom:
    """A random thorax.

    Attributes:
        volume: the CT; air is -1000 HU.
        nodules: those whose centre lies in the grid.
        parameters: what the thorax was drawn from.
    """

    volume: CTVolume
    nodules: tuple[Nodule, ...]
    parameters: ThoraxParameters


def thorax_phantom(
    grid: VolumeGrid,
    *,
    rng: torch.Generator,
    parameters: ThoraxParameters | None = None,
    max_nodules: int = 4,
) -> Phantom:
    """Return a random adult thorax in deep breath, with its lungs about the middle of the grid.

    Everything is painted from signed distances in body millimetres, so the same generator state gives the same
    thorax on any grid: coarse or fine, small or large, upright, turned or flipped. Edges are one voxel soft.
    What it has, and what it lacks, is in docs/phantom.md.

    Args:
        grid: where the voxels are.
        rng: a CPU generator; 0.3 to 1.5 million numbers are drawn from it. The global one is not touched.
        parameters: a given thorax instead of a drawn one (vessels, bowel, texture and nodules are still drawn).
        max_nodules: 0 to this many nodules are drawn.

    Raises:
        InputError: if `max_nodules` is negative.
    """
    if max_nodules < 0:
        raise InputError(f"max_nodules must be 0 or more, not {max_nodules}.")
    p = draw_parameters(rng) if parameters is None else parameters
    chest, pose = Chest(p), _pose(p)
    canvas = Canvas(grid, p.tissues.air, pose)
    texture = _texture(canvas.whole(), rng)
    paint_trunk(canvas, chest, texture)
    paint_vessels(canvas, chest, rng)
    paint_mediastinum(canvas, chest)
    paint_abdomen(canvas, chest, rng)
    paint_skeleton(canvas, chest)
    nodules = []
    for nodule in draw_nodules(chest, rng, max_nodules):
        canvas.ball(nodule.centre_mm, nodule.radius_mm, nodule.hu)
        x, y, z = (float(c) for c in pose[:3, :3] @ nodule.centre_mm + pose[:3, 3] + grid.centre_mm)
        if grid.contains_mm((x, y, z)):
            nodules.append(replace(nodule, centre_mm=(x, y, z)))
    canvas.hu += SOFT_TEXTURE_HU * texture * (canvas.hu > -300.0)
    return Phantom(CTVolume(canvas.hu.clamp_(min=p.tissues.air), grid), tuple(nodules), p)


def _pose(p: ThoraxParameters) -> np.ndarray:
    """Return 4 x 4, from body mm to LPS mm about the middle of the grid."""
    pose = np.eye(4)
    for axis, angle_deg in ((2, p.turn), (0, p.tilt), (1, p.lean)):
        c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(4)
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = c, -s, s, c
        pose = turn @ pose
    pose[:3, 3] = p.shift
    return pose


def _texture(box: Box, rng: torch.Generator) -> Tensor:
    """Return smooth noise of about unit size that is fixed to the body, the same on every grid."""
    total = torch.zeros(1)
    where = torch.stack(torch.broadcast_tensors(box.x, box.y, box.z), dim=-1)[None] / TEXTURE_REACH_MM
    for scale_mm in TEXTURE_MM:
        n = int(2 * TEXTURE_REACH_MM / scale_mm)
        noise = torch.randn((1, 1, n, n, n), generator=rng)
        total = total + F.grid_sample(noise, where, padding_mode="reflection", align_corners=False)[0, 0]
    return total
