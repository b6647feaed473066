"""DX2CT: a volume drawn slice by slice by a 2D diffusion."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.diffusion import GaussianDiffusion, draw, linear_betas
from voxray.errors import NumericalError, RecipeError
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods.anatomy import Anatomy
from voxray.methods.base import Estimate, Method, Outside, Progress, Steps, about_isocentre, as_volume, estimate_of
from voxray.methods.dx2ct.conditions import SCALES, Conditioner
from voxray.methods.dx2ct.config import Dx2ctConfig
from voxray.methods.dx2ct.slices import PLANES, Plane, slices_of, volume_of, voxel_places, xray_places
from voxray.methods.stages import AnyStage, Batch, GradientStage, Item, Losses, Preparation, Stage
from voxray.nets.guided_unet import GuidedUNet
from voxray.physics.attenuation import MU_WATER_PER_MM, mu_from_unit, to_unit_range
from voxray.physics.display import as_line_integrals

# Line integral that the extractor sees as 1: 400 mm of water, more than a chest holds.
_WHITE = 400 * MU_WATER_PER_MM


class _Network(nn.Module):
    """All that is learned, from end to end."""

    def __init__(self, config: Dx2ctConfig) -> None:
        super().__init__()
        self.conditioner = Conditioner(config.condition)
        self.denoiser = GuidedUNet(
            config.channels,
            [config.condition.channels] * len(SCALES),
            config.blocks,
            config.attention,
            config.guide,
            config.spade_channels,
        )


class Dx2ct(Method):
    """DX2CT (arXiv 2409.08850): ResNet features of X-rays, 3DPQT, and a denoiser guided through SPADE.

    No code was released; what the paper leaves open is chosen in `config.py`, and docs/methods/dx2ct.md names it.
    """

    name = "dx2ct"
    Config = Dx2ctConfig
    places: Float[Tensor, "z y x 3"]

    def __init__(self, config: Dx2ctConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        least = 2 ** (len(config.channels) - 1)
        if len(set(grid.shape)) > 1 or grid.shape[0] % least or grid.shape[0] % max(SCALES):
            raise RecipeError(f"dx2ct's grid is a cube with sides of a multiple of {least} voxels, not {grid.shape}.")
        self.anatomy = Anatomy(config.anatomy, grid)
        self.network = _Network(config)
        self.process = GaussianDiffusion(linear_betas(config.steps, 1e-4, 0.02), prediction=config.target)
        self.register_buffer("places", voxel_places(grid), persistent=False)

    # ---------------------------------------------------------------- training

    def stages(self) -> Sequence[AnyStage]:
        """Return: the anatomy around the volume, and all networks together, from end to end."""
        preparation = Preparation("xrays", self._prepare)
        return [
            Stage("anatomy", self.anatomy.fit),
            GradientStage("slices", self.network, preparation, self._loss, self.settings.training),
        ]

    def _prepare(self, sample: TrainingSample) -> Item:
        images = torch.stack(self._seen([image[0] for image in sample.images]))
        return {
            "ct": to_unit_range(sample.hu[0]),
            "images": images,
            "places": xray_places(sample.views[0], self.grid, self.grid.shape[0]).to(images),
        }

    def _seen(self, images: Sequence[Float[Tensor, "_ _"]]) -> list[Float[Tensor, "h w"]]:
        """Return the X-rays as the extractor sees them: of a slice's size, about 0..1."""
        return [F.adaptive_avg_pool2d(image[None], self.grid.shape[0])[0] / _WHITE for image in images]

    def _loss(self, batch: Batch, step: int, rng: torch.Generator) -> Losses:
        """Return the error of what is predicted of `slices` slices of each patient, in random planes."""
        read = self.network.conditioner.read(batch["images"], batch["places"])
        count, size = self.settings.slices, self.grid.shape[0]
        truth, places, whose = [], [], []
        for patient, volume in enumerate(batch["ct"]):
            for _ in range(count):
                plane = PLANES[int(torch.randint(len(PLANES), (), generator=rng))]
                place = int(torch.randint(size, (), generator=rng))
                truth.append(slices_of(volume, plane)[place])
                places.append(self._places(plane)[place])
                whose.append(patient)
        conditions = self.network.conditioner([f[whose] for f in read], torch.stack(places))
        x0 = 2 * torch.stack(truth)[:, None] - 1
        t = torch.randint(self.process.steps, (len(x0),), generator=rng).to(x0.device)
        noise = torch.randn(x0.shape, generator=rng).to(x0)
        found = self.network.denoiser(self.process.add_noise(x0, noise, t), t, conditions).float()
        return {"loss": F.mse_loss(found, self.process.target(x0, noise, t))}

    def _places(self, plane: Plane) -> Float[Tensor, "n h w 3"]:
        return self.places.movedim(PLANES.index(plane), 0)

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
        """Return a sample: the mean of the volumes that are drawn in each plane.

        All slices begin from the same noise, and nothing random follows, so that they differ by their conditions alone
        (paper, section 2.3). With `samples`, the first is the result.
        """
        config = self.settings
        radiograph, centre_mm = about_isocentre(radiograph)
        views = radiograph.views
        images = [image.to(self.anatomy.mean.device) for image in radiograph.images]
        around = self.anatomy.scene(outside)
        measured = as_line_integrals(images, radiograph.kind, around.project(views))
        batches = -(-self.grid.shape[0] // config.batch)
        steps = Steps(progress, samples * len(config.planes) * batches * config.sampler.steps)
        places = xray_places(views, self.grid, self.grid.shape[0]).to(images[0])
        with torch.autocast(places.device.type, dtype=torch.bfloat16):
            read = self.network.conditioner.read(torch.stack(self._seen(measured))[None], places[None])
        scenes = []
        for _ in range(samples):
            noise = torch.randn(1, 1, *self.grid.shape[1:], generator=rng)
            drawn = [self._draw(plane, read, noise, rng, steps) for plane in config.planes]
            scene = replace(around, mu=mu_from_unit(torch.stack(drawn).mean(0)))
            if config.consistency is not None:
                scene = self.anatomy.agree(scene, measured, views, outside, config.consistency)
            scenes.append(scene)
        if not bool(torch.isfinite(scenes[0].mu).all()):
            raise NumericalError("The reconstruction is not finite: are the X-rays line integrals of a usual size?")
        grid = self.grid.shifted(centre_mm)
        volumes = [as_volume(scene, grid) for scene in scenes]
        std = torch.stack([volume.hu for volume in volumes]).std(0) if samples > 1 else None
        return estimate_of(
            scenes[0],
            views,
            centre_mm,
            samples=tuple(volumes) if samples > 1 else (),
            std=None if std is None else CTVolume(std, grid),
            details={"planes": list(config.planes), "sampler": config.sampler.model_dump()},
        )

    def _draw(
        self, plane: Plane, read: Sequence[Tensor], noise: Float[Tensor, "1 1 h w"], rng: torch.Generator, steps: Steps
    ) -> Float[Tensor, "z y x"]:
        """Return a volume of 0..1, drawn in slices of one plane."""
        found = []
        for places in self._places(plane).split(self.settings.batch):
            count = len(places)

            with torch.autocast(places.device.type, dtype=torch.bfloat16):
                conditions = self.network.conditioner([f.expand(count, *f.shape[1:]) for f in read], places)

            def denoise(x: Tensor, t: Tensor, conditions: list[Tensor] = conditions) -> Tensor:
                steps.done(1)
                with torch.autocast(x.device.type, dtype=torch.bfloat16):
                    return self.network.denoiser(x, t, conditions).float()

            same = noise.expand(count, -1, -1, -1)
            found.append(draw(self.process, self.settings.sampler, denoise, same, rng=rng, device=places.device))
        return volume_of((torch.cat(found)[:, 0] + 1) / 2, plane).clamp(0, 1)
