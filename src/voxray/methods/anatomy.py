"""The mean anatomy of the training scans: what is expected before any X-ray is seen, in and around the volume."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from voxray.data.dataset import Outside
from voxray.data.resample import resample
from voxray.data.store import Case
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume
from voxray.methods.stages import MethodConfig, Progress
from voxray.physics.attenuation import MU_WATER_PER_MM, hu_to_mu
from voxray.physics.consistency import Noise, Scene, inside, interpolate_onto, make_consistent
from voxray.physics.variation import Variation


class AnatomyConfig(MethodConfig):
    """Where the body may be, around the volume. The numbers are our choice, those of the method `atlas`."""

    support_mm: float = Field(default=400.0, gt=0, le=2000, description="side of the cube in which the body may change")
    spacing_mm: float = Field(default=5.0, ge=0.5, description="voxels of that cube")
    floor: float = Field(default=0.02, ge=0, description="least standard deviation of a voxel, as a part of water")


class AgreementConfig(MethodConfig):
    """How a scene is made to agree with the X-rays (`voxray.physics.consistency`); all numbers are ours."""

    iterations: int = Field(default=10, ge=0, description="of conjugate gradients")
    lengths_mm: tuple[float, ...] = Field(default=(5.0,), strict=False, description="blurs of the change")
    scale: float = Field(default=0.5, gt=0, description="of the anatomy's standard deviation, for what is left")
    noise: float = Field(default=0.05, gt=0, description="standard deviation of a line integral")


class SampleAgreementConfig(AgreementConfig):
    """The same for the samples of a diffusion; all ours, no paper does it."""

    final: bool = Field(default=True, description="make each sample consistent")
    between: bool = Field(default=False, description="and each prediction of it between the steps: slower")
    display_noise: float = Field(default=0.15, gt=0, description="noise of display values, whose scale is a guess")


class Anatomy(nn.Module):
    """Mean and standard deviation of the training scans, relative to water: 1 for 0 HU and 0 for -1000 HU.

    Both are known on the support, also within the volume: a mean of patients has nothing finer.

    Args:
        config: the support around the volume.
        grid: of the volume, about the origin.
    """

    mean: Float[Tensor, "Z Y X"]
    std: Float[Tensor, "Z Y X"]

    def __init__(self, config: AnatomyConfig, grid: VolumeGrid) -> None:
        super().__init__()
        self.config, self.grid = config, grid
        self.support = support_of(config.support_mm, config.spacing_mm)
        self.register_buffer("mean", torch.zeros(self.support.shape))
        self.register_buffer("std", torch.zeros(self.support.shape))

    def fit(self, cases: Sequence[Case], progress: Progress | None) -> None:
        """Set mean and standard deviation from the cases, in one pass."""
        total, squares = (torch.zeros_like(b, dtype=torch.float64) for b in (self.mean, self.std))
        for i, case in enumerate(cases):
            whole = relative_to_water(case, self.support)
            total += whole
            squares += whole.double().square()
            if progress is not None:
                progress(i + 1, len(cases))
        n = len(cases)
        self.mean.copy_(total / n)
        self.std.copy_(((squares / n - (total / n).square()).clamp_min(0) * n / max(n - 1, 1)).sqrt())

    def scene(self, outside: Outside, grid: VolumeGrid | None = None) -> Scene:
        """Return the mean anatomy, per mm; on another grid of the same box where one is given."""
        grid = grid or self.grid
        return mean_scene(interpolate_onto(self.mean, self.support, grid), grid, self.mean, self.support, outside)

    def variations(self, outside: Outside, lengths_mm: Sequence[float], scale: float = 1.0) -> list[Variation]:
        """Return smooth random changes of the voxels, per mm; each length has an equal part of the variance.

        Args:
            outside: whether anything may change around the volume.
            lengths_mm: blurs of the changes.
            scale: of the standard deviation.
        """
        std = self.std * MU_WATER_PER_MM
        return fine_variations(scale * std, self.support, where(outside, self.support, self.grid), lengths_mm,
                               scale * self.config.floor * MU_WATER_PER_MM)  # fmt: skip

    def agree(
        self,
        scene: Scene,
        measured: Sequence[Float[Tensor, "_ _"]],
        views: ViewGeometry,
        outside: Outside,
        config: AgreementConfig,
        noise: Noise | None = None,
    ) -> Scene:
        """Return the scene made to agree with line integrals, changing as the anatomy does.

        Args:
            scene: on the anatomy's grid and support.
            measured: one image (rows, columns) a view.
            views: about the origin.
            outside: whether anything may change around the volume.
            config: how.
            noise: standard deviation of a line integral, or of each pixel's, where it is not the configuration's.
        """
        changes = self.variations(outside, config.lengths_mm, config.scale)
        noise = config.noise if noise is None else noise
        return make_consistent(scene, measured, views, changes, noise=noise, iterations=config.iterations).scene


def support_of(side_mm: float, spacing_mm: float) -> VolumeGrid:
    """Return the grid of a cube about the origin."""
    return VolumeGrid.centred(shape=(round(side_mm / spacing_mm),) * 3, spacing_mm=spacing_mm)


def relative_to_water(case: Case, support: VolumeGrid) -> Float[Tensor, "Z Y X"]:
    """Return a case's attenuation as a part of water's: its whole scan on the support."""
    scan = CTVolume(case.scan.hu, case.scan.grid.shifted(-case.isocentre_mm))
    return hu_to_mu(resample(scan, support).hu, 1.0)


def mean_scene(mean: Tensor, grid: VolumeGrid, around: Tensor, support: VolumeGrid, outside: Outside) -> Scene:
    """Return what X-rays pass through, per mm, from attenuations relative to water."""
    rest = MU_WATER_PER_MM * around * ~inside(support, grid).to(around.device)
    return Scene(MU_WATER_PER_MM * mean, grid, torch.zeros_like(rest) if outside == "air" else rest, support)


def where(outside: Outside, support: VolumeGrid, grid: VolumeGrid) -> Bool[Tensor, "Z Y X"]:
    """Mark the voxels of the support that may hold anything but air."""
    core = inside(support, grid)
    return core if outside == "air" else torch.ones_like(core)


def smooth(values: Float[Tensor, "z y x"], grid: VolumeGrid) -> Float[Tensor, "z y x"]:
    """Blur by 1 / sqrt(2) of a voxel, as a weighted mean also at the border."""
    blur = Variation(torch.ones_like(values)[None], grid, float(grid.spacing_mm.min()) / 2**0.5)
    ones = torch.ones_like(values)[None]
    return blur.synthesise(values[None]) / blur.synthesise(ones)


def fine_variations(
    std: Float[Tensor, "z y x"],
    support: VolumeGrid,
    somewhere: Bool[Tensor, "z y x"],
    lengths_mm: Sequence[float],
    floor: float,
) -> list[Variation]:
    """Return smooth random changes with a standard deviation for each voxel, one of each length, in equal parts."""
    fine = ((smooth(std, support) + floor) * somewhere.to(std.device))[None] / len(lengths_mm) ** 0.5
    return [Variation(fine, support, length) for length in lengths_mm]
