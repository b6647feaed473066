"""Accord: networks that improve a volume, block by block, each followed by agreement with the X-rays."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from statistics import NormalDist

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.diffusion import follow, on_path
from voxray.errors import NumericalError, RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods.accord.block import PatchUNet
from voxray.methods.accord.config import AccordConfig, TextureConfig
from voxray.methods.anatomy import Anatomy
from voxray.methods.base import (
    Estimate,
    Method,
    Outside,
    Progress,
    Steps,
    about_isocentre,
    as_volume,
    estimate_of,
    in_bf16,
    line_integrals_of,
    noise_of,
)
from voxray.methods.stages import AnyStage, Batch, GradientStage, Item, Losses, Preparation, Stage, StageOptions
from voxray.nets.ensemble import joined, members
from voxray.nets.patches import patches
from voxray.physics.attenuation import HU_RANGE, MU_WATER_PER_MM, VACUUM_HU, mu_from_unit, mu_to_hu, to_unit_range
from voxray.physics.backprojection import back_project
from voxray.physics.consistency import Noise, Scene, interpolate_onto
from voxray.physics.projector import Projector
from voxray.physics.rays import DIRECTIONS, smear

# Brings what the X-rays still hold against a volume to values near 1; at its rim, rays are short and values large.
_RESIDUAL, _MOST = 30 / MU_WATER_PER_MM, 5.0
# What blocks add is of this size. Without it, the first steps of Adam go far beyond, and learning takes many times as
# long: 60 steps on two samples bring the loss from 0.0092 to 0.0056 with it, and to 0.0091 without.
_CHANGE = 0.1
# The logarithm of the spread, in units of `_CHANGE`, is kept within this.
_LOG_MOST = 5.0
# Brings line integrals to values near 1.
_THICKNESS = 1 / (MU_WATER_PER_MM * 150)
# HU of water over air, and of the range 0..1.
_WATER = 1000
_HU = HU_RANGE[1] - HU_RANGE[0]
# Voxels that a network has along each axis at its lowest level, at least. With 2, bf16 gradients of a convolution were
# seen to be wrong by many orders of magnitude (PyTorch 2.13, CPU).
_LOWEST = 4
# X-rays are smeared over a grid that is coarser by this.
_COARSER = 2


class Accord(Method):
    """An unrolled reconstruction: the mean anatomy in agreement with the X-rays, improved block by block.

        x_0 = agree(mean anatomy)
        x_k = agree(x_{k-1} + net_k(x_{k-1}, back-projected residual, smeared X-rays, ray directions, anatomy, place))

    Each network learns the posterior mean (least squares), one after another, and where the truth may lie below and
    above it: two quantiles (`tails`; quantile regression: Koenker and Bassett 1978, doi 10.2307/1913643), told as the
    standard deviations of two halves of Gaussians that have them. A rectified flow then goes from the posterior
    mean to volumes that look like CTs (posterior-mean rectified flow: Ohayon et al. 2024, arXiv 2410.00418), and
    `realism` chooses a place between both. Ours; docs/methods/accord.md.
    """

    name = "accord"
    Config = AccordConfig

    def __init__(self, config: AccordConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        lowest = [block.coarser * block.lowest for block in config.blocks]
        if config.texture is not None:
            lowest.append(config.texture.lowest)
        if any(n % max(lowest) or n < _LOWEST * max(lowest) for n in grid.shape):
            raise RecipeError(
                f"The sides of accord's grid are multiples of {max(lowest)} voxels, from {_LOWEST * max(lowest)} on, "
                f"not {grid.shape}."
            )
        self.grids = [grid.coarser(block.coarser) for block in config.blocks]
        self.anatomy = Anatomy(config.anatomy, grid)
        self.blocks = nn.ModuleList(
            joined(
                [
                    PatchUNet(block.features, _channels(block.patch, volumes=2), block.patch, volumes=3)
                    for _ in block.networks
                ]
            )
            for block in config.blocks
        )
        self.texture: PatchUNet | None = None
        if (texture := config.texture) is not None:
            channels = _channels(texture.patch, volumes=3) + 1
            self.texture = PatchUNet(texture.features, channels, texture.patch, volumes=1)

    # ---------------------------------------------------------------- parts

    def start(self, measured: Sequence[Tensor], views: ViewGeometry, outside: Outside, noise: Noise | None) -> Scene:
        """Return x_0: the mean anatomy made to agree with the X-rays, on the first block's grid."""
        mean = self.anatomy.scene(outside, self.grids[0])
        return self.anatomy.agree(mean, measured, views, outside, self.settings.start, noise)

    def known(self, scene: Scene, measured: Sequence[Tensor], views: ViewGeometry) -> Item:
        """Return what a block is told of a scene: the volume (0..1), the residual, smeared X-rays, ray directions."""
        rays, smeared = smear(measured, views, scene.grid.coarser(_COARSER))
        residual = [(m - p) / len(views) for m, p in zip(measured, scene.project(views), strict=True)]
        return {
            "present": to_unit_range(mu_to_hu(scene.mu)),
            "residual": (back_project(residual, Projector(scene.grid, views)) * _RESIDUAL).clamp(-_MOST, _MOST),
            "smeared": (smeared * _THICKNESS).clamp(-_MOST, _MOST),
            "rays": rays,
        }

    def improve(
        self, block: int, known: Batch, net: nn.Module | None = None
    ) -> tuple[Float[Tensor, "b z y x"], Float[Tensor, "b 2 z y x"]]:
        """Return the next volumes (0..1, not yet clipped) of a batch, and each voxel's spread below and above.

        Args:
            block: number of the block.
            known: see `known`.
            net: one of the block's networks, where not all of them are asked.
        """
        net = net or self.blocks[block]
        said = net(self._told(known, [], self.settings.blocks[block].patch))
        return known["present"] + _CHANGE * said[:, 0], _CHANGE * said[:, 1:].clamp(-_LOG_MOST, _LOG_MOST).exp()

    def reach(self, spread: Iterable[Tensor]) -> list[Tensor]:
        """Return how far the 90 % interval reaches below and above the mean, of the spread below and above."""
        tails = self.settings.tails
        return [NormalDist().inv_cdf(1 - tail) * side for tail, side in zip(tails, spread, strict=True)]

    def velocity(self, x: Float[Tensor, "b z y x"], t: Float[Tensor, " b"], known: Batch) -> Float[Tensor, "b z y x"]:
        """Return where the flow from the posterior mean to a sample goes from x at time t (0..1)."""
        assert self.texture is not None
        told = self._told(known, [x], self.texture.patch)
        times = t.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *told.shape[2:])
        return _CHANGE * self.texture(torch.cat([told, times], 1))[:, 0]

    def _told(self, known: Batch, more: Sequence[Tensor], side: int) -> Float[Tensor, "b c z y x"]:
        """Return the input of a network with patches of `side`: what is known, and more volumes."""
        volumes = patches(torch.stack([known["present"], known["residual"], *more], 1), side)
        shape = volumes.shape[2:]
        seen = F.interpolate(torch.cat([known["smeared"], known["rays"]], 1), shape, mode="trilinear")
        place = self._place(self.grid.coarser(self.grid.shape[0] // shape[0])).expand(len(volumes), -1, *shape)
        return torch.cat([volumes, seen, place], 1)

    def _place(self, grid: VolumeGrid) -> Float[Tensor, "5 z y x"]:
        """Return mean and standard deviation of the anatomy, and coordinates, -1..1."""
        anatomy = [interpolate_onto(v, self.anatomy.support, grid) for v in (self.anatomy.mean, self.anatomy.std)]
        axes = [torch.linspace(-1, 1, n, device=anatomy[0].device) for n in grid.shape]
        return torch.stack([*anatomy, *torch.meshgrid(*axes, indexing="ij")])

    def run_block(
        self,
        block: int,
        scene: Scene,
        measured: Sequence[Tensor],
        views: ViewGeometry,
        outside: Outside,
        noise: Noise | None = None,
    ) -> tuple[Scene, Float[Tensor, "2 z y x"]]:
        """Return the scene after a block and agreement with the X-rays, and each voxel's spread (0..1) below and above.

        Where no ray goes, that is at least the anatomy's.
        """
        scene = _onto(scene, self.grids[block])
        known = {name: tensor[None] for name, tensor in self.known(scene, measured, views).items()}
        with in_bf16(scene.mu):
            unit, spread = (volumes[0] for volumes in self.improve(block, known))
        rays = F.interpolate(known["rays"][:, :3].sum(1, keepdim=True), scene.grid.shape, mode="trilinear")[0, 0]
        anatomy = interpolate_onto(self.anatomy.std, self.anatomy.support, scene.grid) * _WATER / _HU
        spread = spread.where(rays >= 0.5, spread.maximum(anatomy))
        improved = replace(scene, mu=mu_from_unit(unit))
        return self.anatomy.agree(improved, measured, views, outside, self.settings.consistency, noise), spread

    # ---------------------------------------------------------------- training

    def stages(self) -> Sequence[AnyStage]:
        """Return: the anatomy, then the blocks."""
        stages: list[AnyStage] = [Stage("anatomy", self.anatomy.fit)]
        for i, (block, config) in enumerate(zip(self.blocks, self.settings.blocks, strict=True)):
            for n, (net, trainings) in enumerate(zip(members(block), config.networks, strict=True)):
                name = f"block-{i + 1}" if n == 0 else f"block-{i + 1}-{n + 1}"
                for k, training in enumerate(trainings):
                    stages.append(self._block_stage(f"{name}-again-{k}" if k else name, i, net, training))
        if self.texture is not None and self.settings.texture is not None:
            stages.append(self._texture_stage(self.texture, self.settings.texture))
        return stages

    def _block_stage(self, name: str, i: int, net: nn.Module, training: StageOptions) -> GradientStage:
        """Return the stage that trains one network of block i."""
        weight, tails = self.settings.blocks[i].spread_weight, self.settings.tails

        def loss(batch: Batch, step: int, rng: torch.Generator) -> Losses:
            improved, spread = self.improve(i, batch, net)
            error = (improved - batch["truth"]) / _CHANGE
            mean = error.square().mean()
            # The mean learns from its own error alone, so that it stays the posterior mean where the spread is small.
            off = (error.detach(), -error.detach())
            width = error.new_zeros(())
            for side, reach, tail in zip(off, self.reach(spread.unbind(1)), tails, strict=True):
                beyond = side - reach / _CHANGE
                width = width + torch.maximum((1 - tail) * beyond, -tail * beyond).mean()
            return {"loss": mean + weight * width, "mean": mean, "spread": width}

        def preview(batch: Batch) -> dict[str, Tensor]:
            middle = self.grids[i].shape[1] // 2
            volumes = {"truth": batch["truth"], "present": batch["present"], "improved": self.improve(i, batch, net)[0]}
            return {name: volume[0, :, middle].flip(0).clamp(0, 1) for name, volume in volumes.items()}

        make, coarser = partial(self._prepare, i, self.grids[i]), self.settings.blocks[i].coarser
        preparation = Preparation(f"block-{i + 1}", make, coarser=coarser)
        return GradientStage(name, net, preparation, loss, training, preview=preview)

    def _texture_stage(self, net: nn.Module, config: TextureConfig) -> GradientStage:
        def loss(batch: Batch, step: int, rng: torch.Generator) -> Losses:
            noise = torch.randn(batch["truth"].shape, generator=rng).to(batch["truth"])
            t = torch.rand(len(noise), generator=rng).to(noise)
            x, target = on_path(batch["present"] + config.noise * noise, batch["truth"], t)
            return {"loss": ((self.velocity(x, t, batch) - target) / _CHANGE).square().mean()}

        preparation = Preparation("texture", partial(self._prepare, len(self.blocks), self.grid))
        return GradientStage("texture", net, preparation, loss, config.training)

    def _prepare(self, blocks: int, grid: VolumeGrid, sample: TrainingSample) -> Item:
        """Return the truth on a grid, and what is known there after some blocks."""
        measured, views = [image[0] for image in sample.images], sample.views[0]
        noise = noise_of(sample.radiograph(), self.settings.display_noise, self.settings.consistency.noise)
        scene = self.start(measured, views, sample.outside, noise)
        for i in range(blocks):
            scene, _ = self.run_block(i, scene, measured, views, sample.outside, noise)
        return {"truth": to_unit_range(sample.hu[0]), **self.known(_onto(scene, grid), measured, views)}

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
        """Return the posterior mean, as the blocks have learned it, in agreement with the X-rays.

        With texture, `samples` are drawn by the flow, and `realism` r brings the volume the part r of the way from the
        posterior mean to the first of them. With the ideal flow (optimal transport) no estimate is nearer to the truth
        at the same distance from the distribution of CTs (Freirich et al. 2021, arXiv 2107.02555).
        """
        radiograph, centre_mm = about_isocentre(radiograph)
        views = radiograph.views
        measured = line_integrals_of(radiograph, self.anatomy.scene(outside))
        noise = noise_of(radiograph, self.settings.display_noise, self.settings.consistency.noise)
        count, texture = 0, self.settings.texture
        if texture is not None and (samples > 1 or self.settings.realism > 0):
            count = samples
        steps = Steps(progress, 1 + len(self.blocks) + count * (texture.steps if texture is not None else 0))
        scene = self.start(measured, views, outside, noise)
        steps.done(1)
        for i in range(len(self.blocks)):
            scene, spread = self.run_block(i, scene, measured, views, outside, noise)
            steps.done(1)
        if not bool(torch.isfinite(scene.mu).all()):
            raise NumericalError("The reconstruction is not finite: are the X-rays line integrals of a usual size?")
        drawn = [self._sample(scene, measured, views, outside, noise, rng, steps) for _ in range(count)]
        grid, scales = self.grid.shifted(centre_mm), self.settings.spread_scale
        spread = spread * scales[min(len(views), len(scales)) - 1]
        below, above = (_HU * side for side in self.reach(spread.cpu()))
        mean = as_volume(scene, grid)
        if self.settings.realism > 0:
            r, one = self.settings.realism, drawn[0]
            scene = replace(scene, mu=scene.mu.lerp(one.mu, r), around=scene.around.lerp(one.around, r))
        return estimate_of(
            scene,
            views,
            centre_mm,
            samples=tuple(as_volume(one, grid) for one in drawn) if samples > 1 else (),
            std=CTVolume(_HU * spread.cpu().mean(0), grid),
            interval=(CTVolume((mean.hu - below).clamp_min(VACUUM_HU), grid), CTVolume(mean.hu + above, grid)),
            details={
                "blocks": len(self.blocks),
                "realism": self.settings.realism,
                "consistency": self.settings.consistency.model_dump(mode="json"),
            },
        )

    def _sample(
        self,
        mean: Scene,
        measured: Sequence[Tensor],
        views: ViewGeometry,
        outside: Outside,
        noise: Noise | None,
        rng: torch.Generator,
        steps: Steps,
    ) -> Scene:
        """Follow the flow from the posterior mean to a sample; what each step expects is made to agree."""
        config = self.settings.texture
        assert config is not None
        known = {name: tensor[None] for name, tensor in self.known(mean, measured, views).items()}
        present = known["present"]
        scene = mean

        def velocity(x: Tensor, t: float) -> Tensor:
            with in_bf16(x):
                return self.velocity(x, x.new_full((1,), t), known)

        def between(unit: Tensor, step: int, count: int) -> Tensor:
            nonlocal scene
            expected = replace(mean, mu=mu_from_unit(unit[0]))
            scene = self.anatomy.agree(expected, measured, views, outside, config.consistency, noise)
            steps.done(1)
            return to_unit_range(mu_to_hu(scene.mu))[None]

        start = present + config.sampling_noise * torch.randn(present.shape, generator=rng).to(present)
        follow(velocity, start, config.steps, between=between)
        return scene


def _channels(side: int, volumes: int) -> int:
    """Return how many numbers a network is told at a place of `side`^3 voxels of some volumes."""
    return volumes * side**3 + 2 * DIRECTIONS + 5


def _onto(scene: Scene, grid: VolumeGrid) -> Scene:
    """Return the scene with its volume interpolated onto a finer grid of the same box."""
    mu = F.interpolate(scene.mu[None, None], grid.shape, mode="trilinear")[0, 0]
    return replace(scene, mu=mu, grid=grid)
