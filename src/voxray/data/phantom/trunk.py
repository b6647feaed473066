"""Skin, fat, muscle, lungs, arms and breasts: the large things."""

import numpy as np
import torch
from torch import Tensor

from voxray.data.phantom.canvas import Box, Canvas, Ellipsoid, Tube
from voxray.data.phantom.chest import Chest

LUNG_TEXTURE_HU = 25.0  # our choice, by eye beside real scans


def paint_trunk(canvas: Canvas, chest: Chest, texture: Tensor) -> None:
    """Paint the body from the outside in: breasts and arms where there are some, wall, lungs."""
    everywhere = canvas.whole()
    if chest.parameters.breasts:
        paint_breasts(canvas, chest)
    paint_body(canvas, chest, everywhere)
    if chest.parameters.arms:
        paint_arms(canvas, chest)
    paint_cavity(canvas, chest, everywhere, texture)


def paint_body(canvas: Canvas, chest: Chest, box: Box) -> None:
    """Paint skin, fat and muscle, with fat in the armpits."""
    p, hu = chest.parameters, chest.parameters.tissues
    distance = chest.body.distance(box)
    canvas.paint(box, canvas.coverage(distance), hu.skin)
    canvas.paint(box, canvas.coverage(distance + 2.0), hu.fat)
    canvas.paint(box, canvas.coverage(distance + p.fat), hu.muscle)
    for side in (-1.0, 1.0):
        centre = (side * (p.half_width + 2), -5.0 * p.depth_scale, chest.z(0.74))
        canvas.ellipsoid(Ellipsoid(centre, (14.0, 22.0, 0.2 * p.height)), hu.fat)


def paint_cavity(canvas: Canvas, chest: Chest, box: Box, texture: Tensor) -> None:
    """Paint the inside of the chest as fat, then both lungs; they are denser towards the back."""
    p, hu = chest.parameters, chest.parameters.tissues
    canvas.paint(box, canvas.coverage(chest.inner.distance(box)), hu.fat)
    lung = hu.lung + p.lung_slope_hu / 100 * box.y + LUNG_TEXTURE_HU * texture
    canvas.paint(box, canvas.coverage(chest.lung_distance(box)), lung)
    dome = chest.above_diaphragm(box)
    diaphragm = torch.maximum(torch.maximum(dome - 4.0, -dome), chest.inner.distance(box))
    canvas.paint(box, canvas.coverage(diaphragm), hu.muscle)


def paint_breasts(canvas: Canvas, chest: Chest) -> None:
    """Paint two breasts, of fat with gland inside; they lie flat; the body is to be painted over them."""
    p, hu = chest.parameters, chest.parameters.tissues
    z = chest.z(0.42)
    for side in (-1.0, 1.0):
        x, front = side * 0.6 * p.half_width, chest.body.front.at(z)
        y, width = 0.7 * front, 60.0 * p.width_scale
        depth = 8.0 + 0.4 * p.fat - 0.3 * front
        canvas.ellipsoid(Ellipsoid((x, y, z), (width, depth + 2, width)), hu.skin)
        canvas.ellipsoid(Ellipsoid((x, y, z), (width - 2, depth, width - 2)), hu.fat)
        gland = Ellipsoid((x, y - 0.65 * depth, z), (0.5 * width, 0.2 * depth, 0.5 * width))
        canvas.ellipsoid(gland, hu.gland)


def paint_arms(canvas: Canvas, chest: Chest) -> None:
    """Paint both upper arms with their bones, up beside the head or down beside the body."""
    p, hu = chest.parameters, chest.parameters.tissues
    out = p.half_width + p.wall + 6
    up = p.arms == "up"
    for side in (-1.0, 1.0):
        shoulder = (side * (out - 8 if up else out + 16), 22.0, chest.z(1.0 if up else 0.92))
        elbow = (side * (out + 20), -10.0, chest.z(2.1)) if up else (side * (out + 62), 25.0, chest.z(-0.25))
        bone = np.array([shoulder, elbow])
        fat = 0.5 * p.fat
        layers = [(0.0, hu.skin), (2.0, hu.fat), (fat, hu.muscle), (fat + 25, hu.cortical), (fat + 29, hu.fat)]
        canvas.tubes([Tube(bone, 36.0 + fat)], *layers)  # marrow is fat
        canvas.ball(shoulder, 23.0, hu.cortical)
        canvas.ball(shoulder, 21.5, hu.spongy)
