"""DX2CT: a volume drawn slice by slice by a 2D diffusion."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.data.store import Case
from voxray.diffusion import GaussianDiffusion, antithetic_noise, draw, linear_betas, times_and_noise
from voxray.errors import RecipeError
from voxray.geometry import VolumeGrid
from voxray.images import Radiograph
from voxray.images.weights_file import read_weights
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
from voxray.methods.dx2ct.conditions import SCALES, Conditioner
from voxray.methods.dx2ct.config import Dx2ctConfig
from voxray.methods.dx2ct.xrays import as_seen
from voxray.methods.slices import PLANES, Plane, slices_of, volume_of
from voxray.methods.stages import AnyStage, Batch, GradientStage, Item, Losses, Preparation, Stage
from voxray.nets.guided_unet import GuidedUNet
from voxray.nets.lifting import lattice
from voxray.physics.attenuation import mu_from_unit, to_unit_range

# Places are kept on disk as whole numbers of this fraction: half precision would spoil their highest frequencies.
_FINE = 2**20


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
    """DX2CT (Jeong et al. 2025, arXiv 2409.08850): features of X-rays, 3DPQT, and a denoiser guided through SPADE.

    No code was released; what the paper leaves open is chosen in `config.py`, and docs/methods/dx2ct.md names it.
    """

    name = "dx2ct"
    Config = Dx2ctConfig
    places: Float[Tensor, "z y x 3"]

    def __init__(self, config: Dx2ctConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        if len(set(grid.shape)) > 1 or grid.shape[0] % max(SCALES):
            raise RecipeError(f"dx2ct's grid is a cube with sides of a multiple of {max(SCALES)}, not {grid.shape}.")
        self.anatomy = Anatomy(config.anatomy, grid)
        self.network = _Network(config)
        self.process = GaussianDiffusion(linear_betas(config.steps, 1e-4, 0.02), prediction=config.target)
        self.register_buffer("places", lattice(grid.shape), persistent=False)

    # ---------------------------------------------------------------- training

    def stages(self) -> Sequence[AnyStage]:
        """Return: the anatomy around the volume, published weights if any, and all networks together."""
        stages: list[AnyStage] = [Stage("anatomy", self.anatomy.fit)]
        if self.settings.condition.resnet_weights is not None:
            stages.append(Stage("published", self._begin_from_published))
        preparation = Preparation("xrays", self._prepare)
        return [*stages, GradientStage("slices", self.network, preparation, self._loss, self.settings.training)]

    def _begin_from_published(self, _: Sequence[Case], progress: Progress | None) -> None:
        """Load them where training begins and nowhere else: a trained model is used without the file."""
        assert self.settings.condition.resnet_weights is not None
        self.network.conditioner.extractor.load_published(read_weights(Path(self.settings.condition.resnet_weights)))
        Steps(progress, 1).done(1)

    def _prepare(self, sample: TrainingSample) -> Item:
        images, places = as_seen([image[0] for image in sample.images], sample.views[0], self.grid)
        return {"ct": to_unit_range(sample.hu[0]), "images": images, "places": (_FINE * places).round().int()}

    def _loss(self, batch: Batch, step: int, rng: torch.Generator) -> Losses:
        """Return the error of what is predicted of `slices` slices of each patient.

        Planes and positions are drawn evenly (ours), each with a time and a noise of its own.
        """
        read = self.network.conditioner.read(batch["images"], batch["places"] / _FINE)
        shape = (len(batch["ct"]), self.settings.slices)
        planes = torch.randint(len(PLANES), shape, generator=rng).tolist()
        numbers = torch.randint(self.grid.shape[0], shape, generator=rng).tolist()

        def chosen(patient: int, volume: Tensor) -> Tensor:
            pairs = zip(planes[patient], numbers[patient], strict=True)
            return torch.stack([slices_of(volume, PLANES[plane])[number] for plane, number in pairs])

        places = torch.stack([chosen(patient, self.places) for patient in range(len(planes))])
        conditions = self.network.conditioner(read, places)
        x0 = 2 * torch.cat([chosen(patient, ct) for patient, ct in enumerate(batch["ct"])])[:, None] - 1
        t, noise = times_and_noise(x0, self.process.steps, rng)
        found = self.network.denoiser(self.process.add_noise(x0, noise, t), t, conditions).float()
        return {"loss": F.mse_loss(found, self.process.target(x0, noise, t))}

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
        """Return the mean of the volumes that are drawn in each plane; of several samples their mean and deviation.

        All slices of a sample begin from the same noise, and nothing random follows, so that they differ by their
        conditions alone (paper, section 2.3). Samples come in pairs of opposite noise, as those of DVG-Diffusion do.
        """
        config, size = self.settings, self.grid.shape[0]
        radiograph, centre_mm = about_isocentre(radiograph)
        views = radiograph.views
        around = self.anatomy.scene(outside)
        measured = line_integrals_of(radiograph, around)
        seen, places = as_seen(measured, views, self.grid)
        with in_bf16(seen):
            read = self.network.conditioner.read(seen[None], places[None])
        steps = Steps(progress, samples * len(config.planes) * -(-size // config.batch) * config.sampler.steps)
        noise = antithetic_noise((samples, 1, size, size), rng)
        planes = [self._draw(plane, read, noise, rng, steps) for plane in config.planes]
        scenes = [replace(around, mu=mu_from_unit(unit)) for unit in torch.stack(planes).mean(0)]
        if config.consistency is not None:
            trust = noise_of(radiograph, config.display_noise, config.consistency.noise)
            scenes = [
                self.anatomy.agree(scene, measured, views, outside, config.consistency, trust) for scene in scenes
            ]
        details = {
            "planes": list(config.planes),
            "sampler": config.sampler.model_dump(),
            "consistency": None if config.consistency is None else config.consistency.model_dump(mode="json"),
        }
        return estimate_of_samples(scenes, views, centre_mm, samples, details)

    def _draw(
        self,
        plane: Plane,
        read: Sequence[Tensor],
        noise: Float[Tensor, "samples 1 h w"],
        rng: torch.Generator,
        steps: Steps,
    ) -> Float[Tensor, "samples z y x"]:
        """Return volumes of 0..1, one of each noise, drawn in slices of one plane."""
        found = []
        for places in slices_of(self.places, plane).split(self.settings.batch):
            with in_bf16(places):
                conditions = self.network.conditioner(read, places[None])

            def denoise(x: Tensor, t: Tensor, conditions: list[Tensor] = conditions) -> Tensor:
                steps.done(1)
                with in_bf16(x):
                    return self.network.denoiser(x, t, conditions).float()

            same = [one.expand(len(places), 1, -1, -1) for one in noise]
            drawn = [draw(self.process, self.settings.sampler, denoise, x, rng=rng, device=places.device) for x in same]
            found.append(torch.stack(drawn)[:, :, 0])
        slices = ((torch.cat(found, 1) + 1) / 2).clamp(0, 1)
        return torch.stack([volume_of(one, plane) for one in slices])
