"""The published X-ray set-ups by name, in real millimetres."""

from dataclasses import dataclass

from voxray.errors import GeometryError


@dataclass(frozen=True)
class Setup:
    """Distances and detector of an X-ray unit.

    Attributes:
        source_detector_mm: source to detector, along the central ray.
        source_isocentre_mm: source to isocentre, along the central ray.
        pixel_mm: distance of neighbouring pixels on the detector (the same along rows and columns).
        shape: pixels of the detector (rows, columns).
    """

    source_detector_mm: float
    source_isocentre_mm: float
    pixel_mm: float
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if not 0 < self.source_isocentre_mm < self.source_detector_mm:
            raise GeometryError(
                f"The isocentre must lie between source and detector: source to isocentre is "
                f"{self.source_isocentre_mm:g} mm, source to detector {self.source_detector_mm:g} mm."
            )
        if not self.pixel_mm > 0:
            raise GeometryError(f"The pixel size must be positive, not {self.pixel_mm:g} mm.")


PRESETS = {
    # An upright chest radiograph at 1.8 m; voxray's default and the set-up of its reference images.
    "chest": Setup(1800.0, 1550.0, 1.6, (256, 256)),
    # X2CT-GAN (Ying et al. 2019, released code): plastimatch, 500-mm panel of 320 x 320 pixels.
    "x2ct": Setup(949.0, 541.0, 500.0 / 320, (320, 320)),
    # PerX2CT (Kyung et al. 2023, released code), and so DX2CT: the whole 320-mm cube is visible.
    "perx2ct": Setup(949.0, 700.0, 500.0 / 320, (320, 320)),
    # XraySyn (Peng et al. 2021) and DVG-Diffusion project a 320-mm chest as if it were 128 mm wide
    # (1200 / 1000 mm, 1-mm pixels); in real millimetres everything is 2.5 times as large.
    "xraysyn": Setup(3000.0, 2500.0, 2.5, (128, 128)),
}


def setup_named(setup: "str | Setup") -> Setup:
    """Return the preset of that name (a `Setup` is returned as it is).

    Raises:
        GeometryError: if there is no preset of that name.
    """
    if isinstance(setup, Setup):
        return setup
    if setup not in PRESETS:
        raise GeometryError(f"There is no preset {setup!r}; the presets are {', '.join(PRESETS)}.")
    return PRESETS[setup]
