"""Spine, ribs, breastbone, collar bones and shoulder blades."""

from collections.abc import Iterable

import numpy as np
import torch

from voxray.data.phantom.canvas import Canvas, Ellipsoid, Tube
from voxray.data.phantom.chest import Chest

SHELL_MM = 1.3
VERTEBRA_SHELL_MM = 0.8
THIN_BONE_HU = 150.0

# Of each rib, 1 to 12: how far its front end lies below its head, as a fraction of the height of the lungs, and
# the angle from the back at which its bone ends; the first ten go on as cartilage. Heights at which the
# cartilage of ribs 1 to 7 meets the breastbone. Drawn after coronal and sagittal planes of real scans.
RIB_DROP = [0.15, 0.22, 0.28, 0.33, 0.37, 0.39, 0.40, 0.38, 0.35, 0.31, 0.22, 0.14]
RIB_END_DEG = [152, 157, 159, 160, 160, 158, 154, 148, 140, 130, 105, 75]
STERNUM_T = [0.84, 0.70, 0.60, 0.51, 0.43, 0.37, 0.33]
VERTEBRAE = 21  # from the sixth of the neck to the fifth of the loins
FIRST_THORACIC = 2


def vertebra_heights(chest: Chest) -> np.ndarray:
    """Return the middle of each vertebra along z, from the neck down: T1 at the apex, T12 below the lungs."""
    pitch = chest.parameters.height / 10.3 * np.linspace(0.74, 1.3, VERTEBRAE)
    middle = -np.cumsum(pitch) + pitch / 2
    return np.asarray(middle - middle[FIRST_THORACIC] + chest.z(0.98))


def paint_bones(canvas: Canvas, bones: Iterable[Tube], chest: Chest) -> None:
    """Paint tubes of spongy bone in a shell of compact bone; denser inside than the wide vertebrae."""
    hu = chest.parameters.tissues
    canvas.tubes(bones, (0.0, hu.cortical), (SHELL_MM, hu.spongy + THIN_BONE_HU))


def paint_skeleton(canvas: Canvas, chest: Chest) -> None:
    """Paint all bones of the chest and its neighbourhood but those of the arms."""
    paint_spine(canvas, chest)
    paint_ribs(canvas, chest)
    paint_sternum(canvas, chest)
    paint_shoulders(canvas, chest)


def paint_spine(canvas: Canvas, chest: Chest) -> None:
    """Paint vertebrae with their discs, arches and processes, and the canal behind them."""
    hu = chest.parameters.tissues
    heights = vertebra_heights(chest)
    y = [chest.spine_y.at(float(z)) for z in heights]
    x = [float(chest.spine_x(float(z))) for z in heights]
    column = np.stack([x, y, heights], axis=1)
    canvas.tubes([Tube.smooth(column, 14.5)], (0.0, hu.disc))
    arches = []
    for n, (here, height) in enumerate(zip(column, -np.gradient(heights), strict=True)):
        size = 0.8 + 0.35 * n / VERTEBRAE
        ahead, behind = column[max(n - 1, 0)], column[min(n + 1, VERTEBRAE - 1)]
        slope = (ahead[1] - behind[1]) / (ahead[2] - behind[2])
        half = (17.0 * size, 13.4 * size, 0.42 * float(height))
        _paint_vertebral_body(canvas, here, half, slope, hu.cortical, 0.0)
        _paint_vertebral_body(canvas, here, half, slope, hu.spongy, VERTEBRA_SHELL_MM)
        arches += _arch(here, size)
    paint_bones(canvas, arches, chest)
    canal = column + np.array([0.0, 22.0, 0.0])
    canvas.tubes([Tube.smooth(canal, 8.0, pieces=2)], (0.0, hu.canal))


def _paint_vertebral_body(
    canvas: Canvas,
    centre: np.ndarray,
    half: tuple[float, float, float],
    slope: float,
    hu: float,
    shell_mm: float,
) -> None:
    """Paint an elliptic cylinder whose axis leans by `slope` (dy / dz), less a shell."""
    reach = np.array(half) + abs(slope) * max(half) + 1.0 + canvas.edge_mm
    box = canvas.box(centre - reach, centre + reach)
    if box is None:
        return
    x, y, z = (p - float(c) for p, c in zip((box.x, box.y, box.z), centre, strict=True))
    y, z = y - slope * z, z + slope * y
    q = torch.sqrt((x / half[0]).square() + (y / half[1]).square())
    radial = (q - 1) * (half[0] + half[1]) / 2
    canvas.paint(box, canvas.coverage(torch.maximum(radial, z.abs() - half[2]) + shell_mm), hu)


def _arch(body: np.ndarray, size: float) -> list[Tube]:
    """Return pedicles and laminae, and the spinous and transverse processes of one vertebra."""
    bones = []
    tip = body + np.array([0.0, 44.0, -22.0]) * size
    roof = body + np.array([0.0, 33.0, -4.0]) * size
    for side in (-1.0, 1.0):
        foot = body + np.array([side * 12, 10.0, 4.0]) * size
        corner = body + np.array([side * 13, 24.0, 3.0]) * size
        bones.append(Tube(np.array([foot, corner, roof]), 3.4 * size))
        bones.append(Tube(np.array([corner, body + np.array([side * 32, 32.0, 5.0]) * size]), 3.4 * size))
    return [*bones, Tube(np.array([roof, tip]), 3.2 * size)]


def rib(chest: Chest, n: int, side: float) -> tuple[Tube, Tube | None]:
    """Return the bone of rib n (0 to 11) of a side (-1 right, 1 left), and its cartilage if it has some.

    The bone leaves the spine beside the vertebra, turns around the inner wall of the chest, and falls towards
    the front.
    """
    p = chest.parameters
    head_z = float(vertebra_heights(chest)[FIRST_THORACIC + n])
    radius = 4.6 + 0.7 * np.sin(np.pi * (n + 1) / 12)
    drop = RIB_DROP[n] * p.height * p.rib_drop
    angles = np.linspace(16.0, RIB_END_DEG[n], 14)
    part = (angles - angles[0]) / (160.0 - angles[0])
    end_part = part[-1]
    heights = head_z - drop * (0.85 * part / end_part + 0.15 * (part / end_part) ** 2)
    heights = np.minimum(heights, chest.z(0.955))
    around = [chest.inner.point(float(z), float(a), radius + 1.5) for z, a in zip(heights, angles, strict=True)]
    points = np.array([(side * x, y, z) for (x, y), z in zip(around, heights, strict=True)])
    x, y = float(chest.spine_x(head_z)), chest.spine_y.at(head_z)
    head = [(x + side * 16.0, y + 10.0, head_z), (x + side * 26.0, y + 22.0, head_z + 1.0)]
    bone = Tube(np.concatenate([head, points]), radius)
    if n >= 10:
        return bone, None
    end_z = chest.z(STERNUM_T[min(n, 6)])
    front = (side * 15.0, sternum_y(chest, end_z), end_z)
    low = min(float(heights[-1]), end_z)
    between = np.array([side * 34.0, chest.inner.point(low, 164.0, 6.0)[1], 0.5 * (low + end_z)])
    path = [points[-1], between, front] if n > 1 else [points[-1], front]
    return bone, Tube.smooth(path, radius - 0.3, pieces=5)


def sternum_y(chest: Chest, z_mm: float) -> float:
    """Return the y of the middle of the breastbone at a height: 7 mm in front of the inner wall."""
    return chest.inner.front.at(z_mm) - 7.0


def paint_ribs(canvas: Canvas, chest: Chest) -> None:
    """Paint 12 pairs of ribs, and the cartilage of the first ten pairs."""
    pairs = [rib(chest, n, side) for n in range(12) for side in (-1.0, 1.0)]
    canvas.tubes(
        [cartilage for _, cartilage in pairs if cartilage is not None], (0.0, chest.parameters.tissues.cartilage)
    )
    paint_bones(canvas, [bone for bone, _ in pairs], chest)


def paint_sternum(canvas: Canvas, chest: Chest) -> None:
    """Paint the breastbone: a plate of tubes side by side, wide at the top."""
    levels = [0.86, 0.8, 0.71, 0.6, 0.48, 0.36, 0.29]
    widths = [13.0, 14.0, 8.0, 9.0, 10.0, 9.0, 2.0]
    plates = []
    for across in np.linspace(-1.0, 1.0, 7):
        points = [(across * w, sternum_y(chest, chest.z(t)), chest.z(t)) for t, w in zip(levels, widths, strict=True)]
        plates.append(Tube(np.array(points), 5.5))
    paint_bones(canvas, plates, chest)


def paint_shoulders(canvas: Canvas, chest: Chest) -> None:
    """Paint collar bones, and shoulder blades with their spines."""
    p, hu = chest.parameters, chest.parameters.tissues
    raised = 22.0 if p.arms == "up" else 0.0
    for side in (-1.0, 1.0):
        inner = np.array([side * 16.0, sternum_y(chest, chest.z(0.86)) - 2.0, chest.z(0.87)])
        tip = np.array([side * (p.half_width + 8.0), 26.0, chest.z(0.99) + raised])
        bow = inner + 0.35 * (tip - inner) + np.array([0.0, -12.0, 0.0])
        dip = inner + 0.75 * (tip - inner) + np.array([0.0, 4.0, 2.0])
        paint_bones(canvas, [Tube.smooth([inner, bow, dip, tip], 5.8)], chest)
        angle = np.deg2rad(52.0)
        x, y = chest.inner.point(chest.z(0.66), 50.0, 19.0)
        across = np.array([side * np.sin(angle), -np.cos(angle), 0.25])
        across /= np.linalg.norm(across)
        normal = np.cross(across, [0.0, 0.0, 1.0])
        normal /= np.linalg.norm(normal)
        axes = np.stack([across, normal, np.cross(across, normal)], axis=1)
        blade = Ellipsoid((side * x, y, chest.z(0.68)), (42.0, 3.8, 62.0), axes)
        canvas.ellipsoid(blade, hu.cortical)
        canvas.ellipsoid(Ellipsoid(blade.centre, (40.5, 2.4, 60.5), axes), hu.spongy)
        medial = np.array(blade.centre) - 32 * across + np.array([0.0, 5.0, 22.0])
        paint_bones(canvas, [Tube.smooth([medial, 0.5 * (medial + tip) + np.array([0.0, 12.0, 4.0]), tip], 5.0)], chest)
