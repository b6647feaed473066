"""Heart, great vessels, airways, and the organs under the diaphragm."""

import numpy as np
import torch
from torch import Tensor

from voxray.data.phantom.canvas import Box, Canvas, Distance, Ellipsoid, Point, Tube
from voxray.data.phantom.chest import Chest
from voxray.data.phantom.parameters import between


def heart_centre(chest: Chest) -> np.ndarray:
    """Return the middle of the ventricles: left of the middle, in front, on the left dome."""
    p = chest.parameters
    return np.array([30.0 * p.width_scale, -35.0 * p.depth_scale, chest.dome_left_z + 22.0 * p.heart])


def heart_axes(chest: Chest) -> np.ndarray:
    """Return the axes of the ventricles as columns: the long one points to the left, the front and the feet."""
    down, forward = np.deg2rad(chest.parameters.heart_turn), np.deg2rad(35.0)
    long = np.array([np.cos(down) * np.cos(forward), -np.cos(down) * np.sin(forward), -np.sin(down)])
    across = np.cross(long, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)
    return np.stack([long, across, np.cross(long, across)], axis=1)


def heart_part(chest: Chest, offset: Point, half_axes: Point, axes: np.ndarray) -> Ellipsoid:
    """Return an ellipsoid beside the middle of the ventricles, scaled with the heart."""
    size = chest.parameters.heart * (0.5 + 0.5 * chest.parameters.width_scale)
    x, y, z = (float(c) for c in heart_centre(chest) + size * np.array(offset))
    return Ellipsoid((x, y, z), (size * half_axes[0], size * half_axes[1], size * half_axes[2]), axes)


def heart_chambers(chest: Chest) -> list[Ellipsoid]:
    """Return ventricles, right atrium, left atrium and the root of the great arteries, with their fat."""
    return [
        heart_part(chest, (0, 0, 0), (63, 42, 44), heart_axes(chest)),
        heart_part(chest, (-42, 14, 12), (32, 32, 40), np.eye(3)),
        heart_part(chest, (-16, 40, 26), (40, 26, 30), np.eye(3)),
        heart_part(chest, (-14, 0, 42), (30, 30, 34), np.eye(3)),
    ]


def paint_heart(canvas: Canvas, chest: Chest) -> None:
    """Paint the heart: fat, muscle and blood, and the thick wall of the left ventricle."""
    p, hu = chest.parameters, chest.parameters.tissues
    muscle, blood = hu.heart + 0.4 * p.contrast_hu, hu.blood + p.contrast_hu

    def inside(box: Box) -> Tensor:
        return torch.maximum(chest.inner.distance(box) + 5.0, chest.above_diaphragm(box))

    for depth, tissue in ((0.0, hu.fat), (3.5, muscle), (6.0, blood)):
        for shape in heart_chambers(chest):
            canvas.ellipsoid(shape.less(depth), tissue, inside)
    left_ventricle = heart_part(chest, (14, 8, -2), (48, 30, 31), heart_axes(chest))
    canvas.ellipsoid(left_ventricle, muscle, inside)
    canvas.ellipsoid(left_ventricle.less(10.0), blood, inside)


def great_vessels(chest: Chest) -> list[Tube]:
    """Return aorta with arch, its branches, both caval veins and the trunk of the lung arteries."""
    p = chest.parameters
    h = heart_centre(chest)
    r, top, w = p.aorta, chest.z(0.73), p.width_scale

    def spine(t: float, left: float, front: float) -> tuple[float, float, float]:
        return left, chest.spine_y.at(chest.z(t)) - front, chest.z(t)

    ascending = [(h[0] - 18, h[1] + 18, h[2] + 30), (-14.0 * w, h[1] + 14, h[2] + 62)]
    arch = [(-10.0 * w, -8.0, top - 12), (6.0 * w, 8.0, top), (24.0 * w, 30.0, top - 8)]
    descending = [spine(0.62, 29 * w, 4), spine(0.4, 27 * w, 10), spine(0.2, 20 * w, 20), spine(0.0, 10, 28)]
    abdominal = [spine(-0.3, 8, 28), spine(-0.6, 6, 28)]
    trunk = (h[0] + 2, h[1] - 6, h[2] + 36)
    fork = (14.0 * w, 0.0, chest.z(0.58))
    return [
        Tube.smooth(ascending + arch, r),
        Tube.smooth([arch[-1], *descending], 0.84 * r),
        Tube.smooth([descending[-1], *abdominal], 0.75 * r),
        Tube.smooth([arch[0], (-20.0, 2.0, chest.z(0.9)), (-34.0, 8.0, chest.z(1.15))], 6.0),
        Tube.smooth([arch[1], (14.0, 8.0, chest.z(0.9)), (26.0, 10.0, chest.z(1.15))], 4.5),
        Tube.smooth([arch[2], (30.0, 22.0, chest.z(0.92)), (52.0, 16.0, chest.z(1.06))], 5.0),
        Tube.smooth(
            [(h[0] - 44, h[1] + 16, h[2] + 20), (-27.0 * w, 2.0, chest.z(0.7)), (-22.0, -4.0, chest.z(0.92))], 9.5
        ),
        Tube.smooth([(h[0] - 42, h[1] + 22, h[2]), (-24.0, 26.0, chest.dome_right_z - 40)], 12.0),
        Tube.smooth([trunk, fork], 13.5),
        Tube.smooth([fork, (-12.0 * w, 10.0, chest.z(0.57)), (-44.0 * w, 16.0, chest.z(0.54))], 10.5),
        Tube.smooth([fork, (38.0 * w, 22.0, chest.z(0.585)), (48.0 * w, 30.0, chest.z(0.55))], 10.0),
    ]


def airways(chest: Chest) -> list[Tube]:
    """Return the inside of trachea, main bronchi and lobar bronchi."""
    w = chest.parameters.width_scale
    carina = np.array([-2.0, 27.0, chest.z(0.64)])
    right = carina + np.array([-32.0 * w, 3.0, -26.0])
    left = carina + np.array([44.0 * w, 5.0, -34.0])

    def branch(start: np.ndarray, *way: float) -> np.ndarray:
        return np.stack([start, start + np.array(way)])

    return [
        Tube.smooth(np.stack([(0.0, -6.0, chest.z(1.3)), (0.0, 8.0, chest.z(0.9)), carina]), 8.5),
        Tube(np.stack([carina, right]), 6.5),
        Tube(np.stack([carina, left]), 5.8),
        Tube(branch(0.4 * carina + 0.6 * right, -34.0, -1.0, 2.0), 4.0),
        Tube(branch(right, -8.0, 12.0, -34.0), 4.2),
        Tube(branch(left, 10.0, -16.0, 12.0), 3.8),
        Tube(branch(left, 6.0, 10.0, -32.0), 4.0),
    ]


def paint_mediastinum(canvas: Canvas, chest: Chest) -> None:
    """Paint heart, gullet, great vessels and airways."""
    hu, p = chest.parameters.tissues, chest.parameters
    paint_heart(canvas, chest)
    heights = np.linspace(1.25, 0.05, 9)
    gullet = [(4.0, chest.spine_y.at(chest.z(t)) - 26.0, chest.z(t)) for t in heights]
    canvas.tubes([Tube.smooth(gullet, 8.0)], (0.0, hu.muscle))
    canvas.tubes(great_vessels(chest), (0.0, hu.blood + p.contrast_hu))
    canvas.tubes(airways(chest), (-1.6, hu.vessel_wall), (0.0, hu.airway))


def paint_abdomen(canvas: Canvas, chest: Chest, rng: torch.Generator) -> None:
    """Paint liver on the right, stomach with its bubble and spleen on the left, kidneys, some bowel gas."""
    p, hu = chest.parameters, chest.parameters.tissues
    w, d = p.width_scale, p.depth_scale
    right, left = chest.dome_right_z, chest.dome_left_z

    def inside(box: Box) -> Tensor:
        return chest.below_diaphragm(box) - 0.5

    def liver(box: Box) -> Tensor:
        # Its lower face rises to the left; it ends left of the middle, under the heart.
        under = 0.62 * (box.x - 20.0 * w) - 0.75 * (box.z - (right - 80.0)) + 0.2 * box.y
        back = 0.5 * box.x + 0.85 * (box.y - 42.0 * d)  # leaves room for spine and aorta
        return torch.maximum(inside(box), torch.maximum(under, torch.where(box.x > -0.5 * p.half_width, back, under)))

    _paint_bowel(canvas, chest, inside, rng)
    reach = (p.half_width + 5, 110.0 * d, 200.0)
    canvas.ellipsoid(Ellipsoid((-20.0 * w, 0.0, right - 95.0), reach), hu.liver + 0.3 * p.contrast_hu, liver)
    spleen = Ellipsoid((0.72 * p.half_width, 42.0 * d, left - 62.0), (34.0, 48.0 * d, 56.0))
    canvas.ellipsoid(spleen, hu.spleen + 0.4 * p.contrast_hu, inside)
    stomach = (58.0 * w, -22.0 * d, left - 48.0)
    canvas.ellipsoid(Ellipsoid(stomach, (44.0 * w, 52.0 * d, 48.0)), hu.muscle, inside)
    canvas.ellipsoid(Ellipsoid(stomach, (40.0 * w, 48.0 * d, 44.0)), hu.fluid, lambda box: inside(box) + 3.0)
    level = stomach[1] - 20.0 * d  # the patient lies on the back: gas rises to the front
    canvas.ellipsoid(
        Ellipsoid(stomach, (40.0 * w, 48.0 * d, 44.0)),
        hu.airway,
        lambda box: torch.maximum(inside(box) + 3.0, box.y - level),
    )
    for side in (-1.0, 1.0):
        kidney = (side * 60.0 * w, 52.0 * d, right - 150.0 + 6.0 * side)
        canvas.ellipsoid(Ellipsoid(kidney, (27.0, 24.0, 54.0)), hu.kidney + 0.5 * p.contrast_hu, inside)


def _paint_bowel(canvas: Canvas, chest: Chest, inside: Distance, rng: torch.Generator) -> None:
    """Paint random loops of bowel below liver and stomach, two with gas."""
    p, hu = chest.parameters, chest.parameters.tissues
    for n in range(16):
        x = between(rng, -0.75, 0.75) * p.half_width
        y = between(rng, -0.75, 0.15) * p.half_depth
        z = chest.dome_left_z - between(rng, 85.0, 190.0)
        a, b, c = (between(rng, 16.0, 30.0) for _ in range(3))
        canvas.ellipsoid(Ellipsoid((x, y, z), (a, b, c)), hu.muscle - 15.0, inside)
        if n >= 14:
            canvas.ellipsoid(Ellipsoid((x, y, z), (a - 5, b - 5, c - 5)), hu.airway, inside)
