"""The shape of a chest: outline of the body, inner wall, diaphragm, mediastinum, spine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from voxray.data.phantom.canvas import Box
from voxray.data.phantom.parameters import ThoraxParameters

STEP_MM = 0.25


@dataclass(frozen=True)
class Profile:
    """A number that changes along z: a smooth curve through knots, constant beyond them."""

    start_mm: float
    table: Tensor

    @classmethod
    def through(cls, z_mm: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> "Profile":
        """Return the monotone cubic (PCHIP) curve through the knots; z rises."""
        curve = PchipInterpolator(z_mm, values)(np.arange(z_mm[0], z_mm[-1] + STEP_MM, STEP_MM).clip(max=z_mm[-1]))
        return cls(float(z_mm[0]), torch.from_numpy(curve).float())

    def __call__(self, z_mm: Tensor) -> Tensor:
        """Return the value at every z."""
        index = ((z_mm - self.start_mm) / STEP_MM + 0.5).clamp_(0, len(self.table) - 1)
        return self.table[index.long()]

    def at(self, z_mm: float) -> float:
        """Return the value at one z."""
        return float(self(torch.tensor(z_mm)))


@dataclass(frozen=True)
class Section:
    """Cross-sections that change along z: superellipses |x / a|^n + |(y - c) / b|^n = 1."""

    half_width: Profile
    front: Profile
    back: Profile
    power: float

    def distance(self, box: Box) -> Tensor:
        """Return the signed distance to the outline within its slice, measured along the ray from its middle."""
        front, back = self.front(box.z), self.back(box.z)
        y = box.y - (front + back) / 2
        a, b = self.half_width(box.z), (back - front) / 2
        n = self.power
        level = (box.x / a).abs().pow(n) + (y / b).abs().pow(n)
        radius = torch.sqrt(box.x.square() + y.square())
        return radius * (1 - level.clamp_min(1e-6).pow(-1 / n))

    def point(self, z_mm: float, angle_deg: float, outside_mm: float) -> tuple[float, float]:
        """Return (x, y) at an angle from the back (0) over the left (90) to the front (180)."""
        a, front, back = self.half_width.at(z_mm), self.front.at(z_mm), self.back.at(z_mm)
        u, v = np.sin(np.deg2rad(angle_deg)), np.cos(np.deg2rad(angle_deg))
        level = abs(u / a) ** self.power + abs(2 * v / (back - front)) ** self.power
        radius = level ** (-1 / self.power) + outside_mm
        return float(radius * u), float(radius * v + (front + back) / 2)


# Heights are fractions of the height of the lungs: 0 the lowest recess, 1 the apex. Lengths are mm on a chest
# of half width 132 and half depth 94 mm. Inner wall: width and depth after the medians of the training scans at 12
# heights (docs/phantom.md); where it stands front to back, and the rest, drawn after planes of two of them.
INNER_T = [-0.6, -0.1, 0.15, 0.3, 0.5, 0.66, 0.74, 0.82, 0.9, 0.95, 0.98, 1.0]
INNER_WIDTH = [0.95, 0.99, 1.0, 0.985, 0.94, 0.88, 0.83, 0.76, 0.65, 0.53, 0.41, 0.22]
INNER_FRONT = [-95, -95, -95, -94, -87, -70, -57, -38, -15, 4, 16, 27]
INNER_BACK = [78, 86, 92, 95, 95, 90, 84, 76, 65, 57, 52, 45]
# Outline without fat: half width beyond the inner wall's widest, then front and back.
BODY_T = [-0.6, 0.0, 0.3, 0.5, 0.7, 0.85, 0.97, 1.08, 1.2, 1.35]
BODY_WIDTH = [-4, 0, 1, 3, 12, 16, 8, -20, -55, -72]
BODY_FRONT = [-104, -107, -108, -103, -88, -70, -54, -42, -34, -30]
BODY_BACK = [108, 113, 119, 121, 117, 108, 98, 90, 82, 76]
SPINE_T = [-0.6, -0.2, 0.0, 0.25, 0.5, 0.75, 1.0, 1.3, 1.6]
SPINE_Y = [46, 50, 56, 64, 66, 58, 38, 26, 22]
MEDIASTINUM_T = [0.0, 0.3, 0.55, 0.7, 0.85, 1.0]
MEDIASTINUM_WIDTH = [20, 15, 13, 17, 22, 25]


class Chest:
    """The surfaces of one chest, as signed distances in body mm (< 0 inside)."""

    def __init__(self, parameters: ThoraxParameters) -> None:
        p = self.parameters = parameters
        depth, width = p.depth_scale, p.width_scale
        fat, wall = p.fat, p.wall
        self.inner = Section(
            self.profile(INNER_T, np.array(INNER_WIDTH) * p.half_width),
            self.profile(INNER_T, np.array(INNER_FRONT) * depth),
            self.profile(INNER_T, np.array(INNER_BACK) * depth),
            power=2.15,
        )
        neck = np.interp(BODY_T, [0.85, 1.2], [1.0, 0.4])  # there is less fat at the neck
        self.body = Section(
            self.profile(BODY_T, p.half_width + wall + fat * neck + np.array(BODY_WIDTH) * width),
            self.profile(BODY_T, np.array(BODY_FRONT) * depth - (wall - 18) - 0.8 * fat * neck),
            self.profile(BODY_T, np.array(BODY_BACK) * depth + 0.6 * fat * neck),
            power=2.3,
        )
        self.spine_y = self.profile(SPINE_T, np.array(SPINE_Y) * depth)
        self.mediastinum = self.profile(MEDIASTINUM_T, np.array(MEDIASTINUM_WIDTH) * width)
        self.dome_right_z = p.base_z + p.dome
        self.dome_left_z = p.base_z + p.dome - p.dome_step

    def z(self, fraction: float) -> float:
        """Return the body z of a fraction of the height of the lungs."""
        return self.parameters.base_z + fraction * self.parameters.height

    def profile(self, fractions: Sequence[float], values: Sequence[float] | np.ndarray) -> Profile:
        """Return the curve through values at fractions of the height of the lungs."""
        return Profile.through(np.array([self.z(t) for t in fractions]), values)

    def spine_x(self, z_mm: float | np.ndarray) -> float | np.ndarray:
        """Return where the spine is at a height: bent sideways, most in its middle."""
        return self.parameters.bend * np.exp(-np.square(z_mm / (0.4 * self.parameters.height)))

    def diaphragm_z(self, box: Box) -> Tensor:
        """Return the height of the diaphragm over each (x, y): a dome on each side, lowest at the back.

        Each dome falls off with the square of the distance from its top, with a rate of its own towards the
        middle, the side, the front and the back (our choice, after sagittal and frontal planes of real scans).
        """
        p = self.parameters
        u = (box.x.abs() - 0.5 * p.half_width) / (0.55 * p.half_width)
        v = (box.y + 0.15 * p.half_depth) / p.half_depth
        sideways = torch.where(u > 0, 0.55, 0.2) * u.square()
        depthways = torch.where(v > 0, 0.85, 0.4) * v.square()
        top = torch.where(box.x < 0, self.dome_right_z, self.dome_left_z)
        return top - p.dome * (sideways + depthways)

    def above_diaphragm(self, box: Box) -> Tensor:
        """Return the distance to the region above the diaphragm; 0.75 stands for the mean slope of a dome."""
        return 0.75 * (self.diaphragm_z(box) - box.z)

    def below_diaphragm(self, box: Box) -> Tensor:
        """Return the distance to the abdomen: inside the wall and 3 mm, the muscle, below the diaphragm."""
        return torch.maximum(self.inner.distance(box), 3.0 - self.above_diaphragm(box))

    def lung_distance(self, box: Box) -> Tensor:
        """Return the distance to both lungs, heart and vessels not yet taken out."""
        inside = torch.maximum(self.inner.distance(box), self.above_diaphragm(box))
        p = self.parameters
        u = (box.x.abs() - 0.36 * p.half_width) / (0.42 * p.half_width)
        v = (box.y - self.spine_y.at(p.apex_z)) / (0.9 * p.half_depth)
        below_apex = 0.6 * (box.z - (p.apex_z - 0.2 * p.height * (u.square() + v.square())))
        inside = torch.maximum(inside, below_apex)
        narrow = ((box.y + 0.9 * p.half_depth) / (0.8 * p.half_depth)).clamp(0.15, 1.0)
        return torch.maximum(inside, self.mediastinum(box.z) * narrow - box.x.abs())
