"""What is inside the lungs: trees of vessels, and nodules."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from voxray.data.phantom.canvas import Box, Canvas, Ellipsoid, Point, Tube
from voxray.data.phantom.chest import Chest
from voxray.data.phantom.organs import great_vessels, heart_chambers
from voxray.data.phantom.parameters import between

LEAF_MM = 0.95  # radius of the finest vessel that is drawn (our choice: finer ones are texture)
MURRAY = 2.6  # radii add as r ** 2.6 where vessels join; Murray (1926) has 3, equal cross-section 2 (our choice)


@dataclass(frozen=True)
class Nodule:
    """A ball in a lung.

    Attributes:
        centre_mm: LPS in a `Phantom`; body coordinates while it is drawn.
        radius_mm: of the ball.
        kind: solid, or ground glass (its vessels are not drawn).
        hu: of its inside.
    """

    centre_mm: Point
    radius_mm: float
    kind: Literal["solid", "ground glass"]
    hu: float


def points_inside(chest: Chest, count: int, side: float, depth_mm: float, rng: torch.Generator) -> np.ndarray:
    """Draw points (up to count, 3) of one lung evenly, at least `depth_mm` inside and away from the heart."""
    p = chest.parameters
    raw = torch.rand((12 * count, 3), generator=rng)
    x = side * (12.0 + raw[:, 0] * (p.half_width - 12.0))
    y = (2 * raw[:, 1] - 1) * 1.05 * p.half_depth
    z = p.base_z + raw[:, 2] * p.height
    box = Box((slice(0, 0),) * 3, x, y, z)
    inside = chest.lung_distance(box) < -depth_mm
    shapes: list[Ellipsoid | Tube] = [*heart_chambers(chest), *great_vessels(chest)]
    for shape in shapes:
        inside &= shape.distance(box) > depth_mm
    return torch.stack([x, y, z], dim=1)[inside][:count].double().numpy()


def vessel_tree(root: np.ndarray, targets: np.ndarray, root_pull: float = 0.4) -> list[Tube]:
    """Return the tubes of a tree from `root` that reaches every target (n, 3).

    Targets join one by one, the nearest to the root first, at the node where the new piece plus `root_pull`
    times the way back to the root is shortest: between the least total length and the least path to each leaf
    (Cuntz et al., PLoS Comput. Biol. 6 (2010), have this balance for nerve cells; for lungs it is our choice).
    """
    targets = targets[np.argsort(np.linalg.norm(targets - root, axis=1))]
    nodes = np.concatenate([root[None], targets])
    parent = np.zeros(len(nodes), dtype=int)
    way = np.zeros(len(nodes))
    for n in range(1, len(nodes)):
        length = np.linalg.norm(nodes[:n] - nodes[n], axis=1)
        parent[n] = np.argmin(length + root_pull * way[:n])
        way[n] = way[parent[n]] + length[parent[n]]
    flow = np.zeros(len(nodes))
    children = np.bincount(parent[1:], minlength=len(nodes))
    for n in range(len(nodes) - 1, 0, -1):  # parents have smaller numbers: leaves come first
        flow[n] += LEAF_MM**MURRAY if children[n] == 0 else 0.0
        flow[parent[n]] += flow[n]
    return [Tube(nodes[[parent[n], n]], float(flow[n] ** (1 / MURRAY))) for n in range(1, len(nodes))]


def paint_vessels(canvas: Canvas, chest: Chest, rng: torch.Generator, leaves: int = 440) -> None:
    """Paint the vessels of both lungs, an arterial and a venous tree each, from the hilum."""
    p, hu = chest.parameters, chest.parameters.tissues
    trees = []
    for side, hilum_t in ((-1.0, 0.53), (1.0, 0.55)):
        targets = points_inside(chest, leaves, side, 4.0, rng)
        for start, (dy, dz) in enumerate([(16.0, 8.0), (-2.0, -14.0)]):
            root = np.array([side * 38.0 * p.width_scale, dy, chest.z(hilum_t) + dz])
            trees += vessel_tree(root, targets[start::2])
    canvas.tubes(trees, (0.0, hu.blood + 0.8 * p.contrast_hu))


def draw_nodules(chest: Chest, rng: torch.Generator, most: int) -> list[Nodule]:
    """Draw 0 to `most` nodules of 4 to 30 mm; small ones are commoner; 3 in 10 are ground glass."""
    count = int(torch.randint(0, most + 1, (), generator=rng))
    nodules: list[Nodule] = []
    for _ in range(count):
        radius = 2.0 * 7.5 ** between(rng, 0.0, 1.0)  # even in the logarithm
        glass = between(rng, 0.0, 1.0) < 0.3
        hu = between(rng, -680.0, -480.0) if glass else between(rng, 10.0, 70.0)
        side = -1.0 if between(rng, 0.0, 1.0) < 0.54 else 1.0  # the right lung is larger
        for x, y, z in points_inside(chest, 20, side, radius + 2.0, rng):
            apart = [np.linalg.norm(np.subtract(n.centre_mm, (x, y, z))) - n.radius_mm - radius for n in nodules]
            if min(apart, default=1.0) > 0:
                centre = (float(x), float(y), float(z))
                nodules.append(Nodule(centre, radius, "ground glass" if glass else "solid", hu))
                break
    return nodules
