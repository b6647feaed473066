"""What varies from one thorax to the next, and how much."""

from dataclasses import dataclass, fields

import torch

from voxray.data.phantom.tissues import TISSUE_HU, Tissues


def between(rng: torch.Generator, low: float, high: float) -> float:
    """Draw a number evenly from low..high."""
    return low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))


@dataclass(frozen=True)
class ThoraxParameters:
    """One thorax. Lengths in mm, angles in degrees; sizes of the chest are those of a deep breath.

    Attributes:
        half_width: middle to the inner wall of the chest, where it is widest.
        half_depth: half of the depth of the lungs, where they are deepest.
        height: lungs, from the lowest recess to the apex.
        dome: height of the right dome of the diaphragm above the lowest recess.
        dome_step: how much lower the left dome is.
        wall: thickness of the wall of the chest at the side, without fat.
        fat: thickness of the fat under the skin.
        heart: size of the heart, 1 for the usual one.
        heart_turn: of the axis of the heart, from the left towards the feet.
        aorta: radius of the aorta where it ascends.
        rib_drop: how steep the ribs are, 1 for the usual slope.
        bend: sideways bend of the spine in its middle.
        contrast_hu: what a contrast agent adds to blood; 0 without one.
        lung_slope_hu: how much denser lungs are at the back than at the front, for 100 mm.
        arms: "up" beside the head, "down" beside the body, or "" for none.
        breasts: whether there are breasts.
        turn, tilt, lean: of the whole body about z, x and y.
        shift: of the whole body along x, y and z.
        tissues: the HU of each tissue.
    """

    half_width: float
    half_depth: float
    height: float
    dome: float
    dome_step: float
    wall: float
    fat: float
    heart: float
    heart_turn: float
    aorta: float
    rib_drop: float
    bend: float
    contrast_hu: float
    lung_slope_hu: float
    arms: str
    breasts: bool
    turn: float
    tilt: float
    lean: float
    shift: tuple[float, float, float]
    tissues: Tissues

    @property
    def width_scale(self) -> float:
        """Width beside the chest that the anatomy was drawn on."""
        return self.half_width / 132.0

    @property
    def depth_scale(self) -> float:
        """Depth beside the chest that the anatomy was drawn on."""
        return self.half_depth / 94.0

    @property
    def apex_z(self) -> float:
        """Top of the lungs, in body mm; the middle of their height is 0."""
        return self.height / 2

    @property
    def base_z(self) -> float:
        """Lowest recess of the lungs, in body mm."""
        return -self.height / 2


# Measured in the training scans with both lungs open (13 of 17, docs/phantom.md): widest half width of the lungs
# 122 .. 164 mm, median 132; half depth over half width 0.61 .. 0.75, median 0.68; height 183 .. 305 mm, median
# 238; from there to the skin 21 .. 49 mm, median 31 (here wall and fat). Shallow breaths are left out. What was
# not measured there (diaphragm, heart, aorta, slope of ribs, bend) spans usual adults; pose is that of a
# patient who lies on a couch (our choice).
RANGES: dict[str, tuple[float, float]] = {
    "half_width": (120.0, 155.0),
    "flatness": (0.62, 0.75),
    "height": (215.0, 290.0),
    "dome": (75.0, 110.0),
    "dome_step": (4.0, 22.0),
    "wall": (15.0, 22.0),
    "fat": (7.0, 30.0),
    "heart": (0.9, 1.12),
    "heart_turn": (15.0, 50.0),
    "aorta": (13.0, 17.0),
    "rib_drop": (0.85, 1.15),
    "bend": (-6.0, 6.0),
    "lung_slope_hu": (10.0, 45.0),
    "turn": (-5.0, 5.0),
    "tilt": (-5.0, 5.0),
    "lean": (-3.0, 3.0),
}
SHIFT_MM = (8.0, 8.0, 12.0)
CONTRAST_HU = (70.0, 220.0)


def draw_parameters(rng: torch.Generator) -> ThoraxParameters:
    """Draw a thorax: each number evenly from its range; 4 in 10 with contrast agent; arms mostly up."""
    numbers = {name: between(rng, *limits) for name, limits in RANGES.items()}
    numbers["half_depth"] = numbers["half_width"] * numbers.pop("flatness")
    contrast = between(rng, *CONTRAST_HU)
    with_contrast, arms, breasts = (between(rng, 0.0, 1.0) for _ in range(3))
    dx, dy, dz = (between(rng, -limit, limit) for limit in SHIFT_MM)
    hu = {part.name: between(rng, *TISSUE_HU[part.name]) for part in fields(Tissues)}
    return ThoraxParameters(
        **numbers,
        contrast_hu=contrast if with_contrast < 0.4 else 0.0,
        arms="up" if arms < 0.75 else "down" if arms < 0.9 else "",
        breasts=breasts < 0.4,
        shift=(dx, dy, dz),
        tissues=Tissues(**hu),
    )
