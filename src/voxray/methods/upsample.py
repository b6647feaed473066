"""Super-resolution by two: volumes of any method, brought onto voxels half as large by a network."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.data.resample import SMOOTHING
from voxray.errors import RecipeError, VoxrayWarning
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods.anatomy import AgreementConfig, Anatomy, AnatomyConfig
from voxray.methods.base import (
    Estimate,
    Method,
    MethodConfig,
    Outside,
    Progress,
    Steps,
    about_isocentre,
    estimate_of,
    in_bf16,
    line_integrals_of,
    noise_of,
)
from voxray.methods.stages import AnyStage, Batch, GradientStage, Item, Losses, Preparation, Stage, StageOptions
from voxray.nets.upsampling import DetailNet, doubled, placed
from voxray.physics.attenuation import HU_RANGE, hu_to_mu, mu_to_hu, to_unit_range

_HU = HU_RANGE[1] - HU_RANGE[0]
# A model learned of voxels of one size; a warning is given where they are larger or smaller by more than this factor.
_OTHER = 1.25


class UpsampleConfig(MethodConfig):
    """Super-resolution; all numbers are ours."""

    features: int = Field(default=24, gt=0, description="channels of the network")
    blocks: int = Field(default=4, gt=0, description="residual blocks, of two convolutions each")
    crop: int = Field(default=32, ge=8, multiple_of=2, description="side of the random cubes that are learned from")
    window: int = Field(default=64, ge=16, description="side of the patches, in voxels of the given volume")
    overlap: float = Field(default=0.25, gt=0, le=0.75, description="of neighbouring patches, as a part of their side")
    training: StageOptions = StageOptions(
        steps=2000, batch_size=8, variants=12, learning_rate=1e-3, warmup=50, decay="cosine", ema=0.995
    )
    anatomy: AnatomyConfig = AnatomyConfig()
    agreement: AgreementConfig = AgreementConfig(iterations=25, lengths_mm=(5.0, 10.0), scale=1.0, noise=0.02)
    display_noise: float = Field(default=0.15, gt=0, description="noise of display values, whose scale is a guess")


class Upsample(Method):
    """A network that adds to an interpolated volume what interpolation leaves out.

        fine = doubled(given) + net(given)

    It learns from scans on the grid of its recipe, and from what `voxray prepare` would have made of them on voxels
    twice as large. Trained on 2.5 mm it brings 5 mm there; on scans with thin slices and 1.25 mm, 2.5 mm. `finer` is
    what it is for: it works on volumes of any method and any size, in overlapping patches that are blended (MONAI's
    sliding window with Gaussian weights), so that neither seams nor a large memory come with size. L1 alone is learned
    from: what a critic would add is invented.

    As a method of its own it shows what super-resolution gives without any other network: the mean anatomy, in
    agreement with the X-rays on voxels twice as large, brought onto its grid, and in agreement again.
    """

    name = "upsample"
    Config = UpsampleConfig

    def __init__(self, config: UpsampleConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        if any(n % 2 for n in grid.shape) or min(grid.shape) < config.crop:
            raise RecipeError(
                f"The sides of upsample's grid are even, and at least config.crop = {config.crop} voxels, not "
                f"{grid.shape}."
            )
        self.anatomy = Anatomy(config.anatomy, grid)
        self.net = DetailNet(config.features, config.blocks)

    def stages(self) -> Sequence[AnyStage]:
        """Return: the anatomy, for X-rays alone; the network."""
        pairs = Preparation("pairs", self._prepare)
        detail = GradientStage("detail", self.net, pairs, self._loss, self.settings.training, preview=self._preview)
        return [Stage("anatomy", self.anatomy.fit), detail]

    def _prepare(self, sample: TrainingSample) -> Item:
        return {"fine": to_unit_range(sample.hu[0]), "given": to_unit_range(coarsened(sample.hu)[0])}

    def _loss(self, batch: Batch, step: int, rng: torch.Generator) -> Losses:
        side = self.settings.crop // 2
        given, fine = [], []
        for small, large in zip(batch["given"], batch["fine"], strict=True):
            z, y, x = (int(torch.randint(n - side + 1, (), generator=rng)) for n in small.shape)
            given.append(small[z : z + side, y : y + side, x : x + side])
            z, y, x = 2 * z, 2 * y, 2 * x
            fine.append(large[z : z + 2 * side, y : y + 2 * side, x : x + 2 * side])
        told, truth = torch.stack(given)[:, None], torch.stack(fine)[:, None]
        plain = doubled(told)
        loss = F.l1_loss(plain + placed(self.net(told)), truth)
        return {"loss": loss, "interpolated": F.l1_loss(plain, truth)}

    def _preview(self, batch: Batch) -> dict[str, Tensor]:
        given, fine = batch["given"][:1, None], batch["fine"][:1, None]
        plain = doubled(given)
        volumes = {"scan": fine, "interpolated": plain, "upsampled": plain + self._detail(given)}
        middle = fine.shape[3] // 2
        return {name: volume[0, 0, :, middle].flip(0).float().clamp(0, 1) for name, volume in volumes.items()}

    # ---------------------------------------------------------------- use

    @torch.no_grad()
    def finer(self, volume: CTVolume) -> CTVolume:
        """Return the volume on voxels half as large."""
        given_mm, learned_mm = (float(grid.spacing_mm.max()) for grid in (volume.grid, self.grid.coarser(2)))
        if not 1 / _OTHER < given_mm / learned_mm < _OTHER:
            warnings.warn(
                f"This model for finer voxels learned from voxels of {learned_mm:g} mm, the volume has {given_mm:g} "
                "mm: details may be of the wrong size.", VoxrayWarning, 2,
            )  # fmt: skip
        hu = volume.hu.to(self.anatomy.mean.device)[None, None]
        fine = doubled(hu) + _HU * self._detail(to_unit_range(hu))
        return CTVolume(fine[0, 0].clamp_min(HU_RANGE[0]).cpu(), volume.grid.finer(2))

    def _detail(self, unit: Float[Tensor, "1 1 z y x"]) -> Float[Tensor, "1 1 2z 2y 2x"]:
        """Return what to add, patch by patch."""
        from monai.inferers import SlidingWindowInferer  # slow to import

        def of_patch(patch: Tensor) -> Tensor:
            with in_bf16(patch):
                return cast(nn.Module, self.net)(patch)

        sides = [min(self.settings.window, n) for n in unit.shape[2:]]
        windows = SlidingWindowInferer(sides, 1, self.settings.overlap, mode="gaussian")
        return placed(cast(Tensor, windows(unit, of_patch)))

    @torch.no_grad()
    def reconstruct(
        self,
        radiograph: Radiograph,
        *,
        rng: torch.Generator,
        samples: int = 1,
        outside: Outside = "body",
        progress: Progress | None = None,
    ) -> Estimate:
        """Return the mean anatomy in agreement with the X-rays, found on coarse voxels, brought onto fine ones."""
        radiograph, centre_mm = about_isocentre(radiograph)
        views = radiograph.views
        expected = self.anatomy.scene(outside, self.grid.coarser(2))
        measured = line_integrals_of(radiograph, expected)
        noise = noise_of(radiograph, self.settings.display_noise, self.settings.agreement.noise)
        steps = Steps(progress, 3)
        scene = self.anatomy.agree(expected, measured, views, outside, self.settings.agreement, noise)
        steps.done(1)
        fine = self.finer(CTVolume(mu_to_hu(scene.mu).cpu(), scene.grid))
        scene = replace(scene, mu=hu_to_mu(fine.hu).to(scene.mu), grid=self.grid)
        steps.done(1)
        scene = self.anatomy.agree(scene, measured, views, outside, self.settings.agreement, noise)
        steps.done(1)
        return estimate_of(
            scene, views, centre_mm, details={"agreement": self.settings.agreement.model_dump(mode="json")}
        )


def coarsened(hu: Float[Tensor, "b z y x"]) -> Float[Tensor, "b z y x"]:
    """Return volumes on voxels twice as large, as `data.resample` would: a Gaussian, then the mean of eight voxels.

    (Linear interpolation at the middle of eight voxels is their mean.)
    """
    sigma = SMOOTHING * 3**0.5
    places = torch.arange(-4, 5, dtype=hu.dtype, device=hu.device)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel /= kernel.sum()
    smooth = F.pad(hu[:, None], (4,) * 6, mode="replicate")
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = -1
        smooth = F.conv3d(smooth, kernel.reshape(shape))
    return F.avg_pool3d(smooth, 2)[:, 0]
