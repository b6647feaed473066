"""DiffuX2CT: a diffusion of voxels that is told what the X-rays say at every place."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.diffusion import GaussianDiffusion, antithetic_noise, draw, linear_betas, times_and_noise
from voxray.errors import RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.methods.anatomy import Anatomy
from voxray.methods.base import (
    Estimate,
    Method,
    Outside,
    Progress,
    Steps,
    about_isocentre,
    estimate_of_samples,
    in_bf16,
    line_integrals_of,
    noise_of,
)
from voxray.methods.diffux2ct.config import Diffux2ctConfig
from voxray.methods.diffux2ct.denoiser import CoherentUNet
from voxray.methods.diffux2ct.field import FeatureField
from voxray.methods.diffux2ct.triplane import TriPlanes
from voxray.methods.projections import along_axes, along_rays
from voxray.methods.stages import AnyStage, Batch, GradientStage, Item, Losses, Preparation, Stage
from voxray.physics.attenuation import MU_WATER_PER_MM, mu_from_unit, mu_to_hu, to_unit_range
from voxray.physics.consistency import Scene
from voxray.physics.planes import onto_planes, planes_of

# Brings line integrals to values near 1.
_THICKNESS = 1 / (MU_WATER_PER_MM * 150)
# A view's plane is so much longer than the volume: what is nearer to the source is seen larger.
_REACH = 1.2
# Places that the U-Net has along each axis at its lowest level, at least. With 2, bf16 gradients of a convolution were
# seen to be wrong by many orders of magnitude (PyTorch 2.13, CPU).
_LOWEST = 4


class _Network(nn.Module):
    """All that is learned, from end to end."""

    def __init__(self, config: Diffux2ctConfig, grid: VolumeGrid, side_mm: float) -> None:
        super().__init__()
        planes = TriPlanes(config.planes, grid, side_mm)
        sizes = [config.denoiser.patch * 2**level for level in range(len(config.denoiser.channels))]
        grids = [grid.coarser(size) for size in sizes]
        self.field = FeatureField(config.field, planes, grids, config.denoiser.channels)
        self.field.checkpointing = config.denoiser.checkpointing
        self.denoiser = CoherentUNet(config.denoiser)

    def conditions(self, images: Float[Tensor, "b v 2 p p"], views: Sequence[ViewGeometry]) -> list[Tensor]:
        """Return what each level of the U-Net is told, from fine to coarse."""
        planes = self.field.planes(images, views)
        return [self.field.level(planes, level) for level in range(len(self.field.grids))]


class Diffux2ct(Method):
    """DiffuX2CT (ECCV 2024, arXiv 2407.13545): tri-plane decoupling, an implicit decoder, windows, a projection loss.

        L = |eps - eps_theta(y_t, t, c)|^2 + alpha_bar_t / T L_proj(y0_hat, y0),    y0_hat of y_t and eps_theta

    No code was released, and the paper could be read in part only. What it leaves open is chosen in the parts that have
    it; here: volumes are 2 v - 1 with v of 0..1 (the usual range of a DDPM). The weight 1 / T is the paper's; the
    factor alpha_bar_t is ours, for without it the error of y0_hat grows without bound in steps of much noise, and
    drowns all others. The anatomy and agreement with the X-rays are ours, too.
    """

    name = "diffux2ct"
    Config = Diffux2ctConfig

    def __init__(self, config: Diffux2ctConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        lowest = config.coarser * config.denoiser.lowest
        if any(n % lowest or n < _LOWEST * lowest for n in grid.shape):
            raise RecipeError(
                f"The sides of diffux2ct's grid are multiples of {lowest} voxels, from {_LOWEST * lowest} on, for "
                f"the levels of this denoiser; not {grid.shape}."
            )
        self.coarse = grid.coarser(config.coarser)
        self.side_mm = _REACH * float(grid.size_mm.max())
        self.anatomy = Anatomy(config.anatomy, grid)
        self.network = _Network(config, self.coarse, self.side_mm)
        scale = 1000 / config.steps
        betas = linear_betas(config.steps, 1e-4 * scale, min(0.02 * scale, 0.999))
        self.process = GaussianDiffusion(betas, prediction=config.target)

    # ---------------------------------------------------------------- training

    def stages(self) -> Sequence[AnyStage]:
        """Return: the anatomy around the volume, and all networks together."""
        preparation = Preparation("planes", self._prepare, coarser=self.settings.coarser)
        stage = GradientStage(
            "diffusion", self.network, preparation, self._loss, self.settings.training, preview=self._preview
        )
        return [Stage("anatomy", self.anatomy.fit), stage]

    def _prepare(self, sample: TrainingSample) -> Item:
        images, views = [image[0] for image in sample.images], sample.views[0]
        return {
            "ct": to_unit_range(sample.hu[0]),
            "images": self._seen(images, views),
            # Whole numbers are kept as they are: half precision would move the sources by metres.
            "sources_um": torch.from_numpy(np.rint(1000 * views.source_mm).astype(np.int64)),
        }

    def _loss(self, batch: Batch, step: int, rng: torch.Generator) -> Losses:
        x0, views = 2 * batch["ct"] - 1, self._views(batch["sources_um"])
        t, noise = times_and_noise(x0, self.process.steps, rng)
        x = self.process.add_noise(x0, noise, t)
        found = self.network.denoiser(x, t, self.network.conditions(batch["images"], views))
        simple = F.mse_loss(found, self.process.target(x0, noise, t))
        if (config := self.settings.projection) is None:
            return {"loss": simple}
        difference = self.process.to_sample(found, x, t) - x0
        if config.kind == "axes":
            projected = along_axes(difference)
        else:
            pixels = max(self.coarse.shape)
            seen = [planes_of(one.source_mm, self.side_mm, pixels) for one in views]
            projected = along_rays(difference, self.coarse, seen)
        weighted = (self.process.alpha_bar.to(x0)[t] * projected).mean()
        weight = config.weight or 1 / self.process.steps
        return {"loss": simple + weight * weighted, "simple": simple, "projections": weighted}

    def _preview(self, batch: Batch) -> dict[str, Tensor]:
        """Return the truth, and the guess of it when nothing is known but the X-rays."""
        one = {name: tensor[:1] for name, tensor in batch.items()}
        x = torch.randn(one["ct"].shape, generator=torch.Generator().manual_seed(0)).to(one["ct"])
        t = torch.full((1,), self.process.steps // 2, device=x.device)
        x = self.process.add_noise(2 * one["ct"] - 1, x, t)
        conditions = self.network.conditions(one["images"], self._views(one["sources_um"]))
        guess = self.process.to_sample(self.network.denoiser(x, t, conditions), x, t)
        middle = x.shape[2] // 2
        volumes = {"truth": one["ct"], "noisy": (x + 1) / 2, "guess": (guess + 1) / 2}
        return {name: volume[0, :, middle].flip(0).clamp(0, 1) for name, volume in volumes.items()}

    def _seen(self, images: Sequence[Tensor], views: ViewGeometry) -> Float[Tensor, "v 2 p p"]:
        """Return line integrals on their planes, near 1, and where they were measured."""
        value, seen = onto_planes(images, views, self._planes(views.source_mm)).unbind(1)
        return torch.stack([_THICKNESS * value, seen], 1)

    def _planes(self, source_mm: np.ndarray) -> ViewGeometry:
        return planes_of(source_mm, self.side_mm, self.settings.planes.pixels)

    def _views(self, sources_um: Int64[Tensor, "b v 3"]) -> list[ViewGeometry]:
        return [self._planes(one) for one in sources_um.cpu().numpy() / 1000]

    # ---------------------------------------------------------------- inference

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
        """Return the mean of several samples (`ensemble`), and their standard deviation.

        Samples come in pairs of opposite noise, for the sake of their mean (`antithetic_noise`).
        """
        config = self.settings
        radiograph, centre_mm = about_isocentre(radiograph)
        views = radiograph.views
        measured = line_integrals_of(radiograph, self.anatomy.scene(outside))
        count = max(config.ensemble, samples)
        steps = Steps(progress, 1 + config.sampler.steps + count)

        def agree(unit: Float[Tensor, "z y x"], grid: VolumeGrid) -> Scene:
            scene = replace(self.anatomy.scene(outside, grid), mu=mu_from_unit(unit))
            if config.consistency is None:
                return scene
            noise = noise_of(radiograph, config.display_noise, config.consistency.noise)
            return self.anatomy.agree(scene, measured, views, outside, config.consistency, noise)

        def between(x0: Tensor, step: int, total: int) -> Tensor:
            scenes = [agree((one + 1) / 2, self.coarse) for one in x0]
            return torch.stack([2 * to_unit_range(mu_to_hu(scene.mu)) - 1 for scene in scenes])

        conditions = self._conditions(measured, views)
        steps.done(1)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            steps.done(1)
            with in_bf16(x):
                told = [one.expand(len(x), -1, -1, -1, -1) for one in conditions]
                return cast(Tensor, self.network.denoiser(x, t, told))

        drawn = draw(
            self.process, config.sampler, denoise, antithetic_noise((count, *self.coarse.shape), rng),
            rng=rng, device=self.anatomy.mean.device, between=between if config.between else None,
        )  # fmt: skip
        scenes = []
        for one in (drawn + 1) / 2:
            fine = F.interpolate(one[None, None], self.grid.shape, mode="trilinear")
            scenes.append(agree(fine[0, 0], self.grid))
            steps.done(1)
        details = {
            "ensemble": count,
            "sampler": config.sampler.model_dump(),
            "consistency": None if config.consistency is None else config.consistency.model_dump(mode="json"),
        }
        return estimate_of_samples(scenes, views, centre_mm, samples, details)

    def _conditions(self, measured: Sequence[Tensor], views: ViewGeometry) -> list[Tensor]:
        with in_bf16(measured[0]):
            return self.network.conditions(self._seen(measured, views)[None], [self._planes(views.source_mm)])
