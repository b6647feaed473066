"""DVG-Diffusion: from X-rays by way of a first volume and a new view to a diffusion in latent space."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.diffusion import GaussianDiffusion, antithetic_noise, cosine_betas, draw, times_and_noise
from voxray.diffusion.sampling import Between
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.methods.anatomy import Anatomy
from voxray.methods.autoencoding import autoencoder_stage
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
from voxray.methods.dvg.config import DvgConfig
from voxray.methods.dvg.new_view import new_views
from voxray.methods.lifted import lift, lift_new
from voxray.methods.stages import AnyStage, Batch, GradientStage, Item, Losses, Preparation, Stage, StageOptions
from voxray.nets.autoencoder import VQAutoencoder
from voxray.nets.ensemble import members
from voxray.physics.attenuation import MU_WATER_PER_MM, mu_from_unit, mu_to_hu, to_unit_range
from voxray.physics.consistency import Noise, Scene

# A ViewGeometry as numbers: micrometres, for items keep whole numbers exactly and others in half precision.
_VECTORS = ("source_mm", "centre_mm", "u_mm", "v_mm")


class Dvg(Method):
    """DVG-Diffusion (arXiv 2503.17804): the VPGE, DVG-Net, the new view, and dual-view guided latent diffusion.

    Where the paper and its release differ, the paper is followed, but for two points that the paper's own sampler
    needs: latents are taken before quantisation, and noise is added at each ancestral step. docs/methods/dvg.md
    lists every choice.
    """

    name = "dvg"
    Config = DvgConfig
    training_only = (
        "lifted.decoder.", "new.decoder.",
        *(f"{part}.codebook.{name}" for part in ("ct", "lifted", "new") for name in ("shares", "sums", "started")),
    )  # fmt: skip

    def __init__(self, config: DvgConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        self.anatomy = Anatomy(config.anatomy, grid)
        self.ct = VQAutoencoder(config.ct.sizes)
        latents = config.ct.sizes.latent_channels
        self.lifted = self.new = self.coarse = self.denoiser = None
        given = 1
        if config.lifted is not None:
            self.lifted = VQAutoencoder(config.lifted.sizes)
            given = config.lifted.sizes.latent_channels
            if config.new_view is not None and config.new_view.own_encoder:
                self.new = VQAutoencoder(config.lifted.sizes)
        if config.coarse is not None:
            self.coarse = config.coarse.build(given, latents)
        if config.denoiser is not None:
            channels = given * (1 + (config.new_view is not None)) + latents * (1 + config.denoiser.on_coarse)
            self.denoiser = config.denoiser.net.build(channels, latents, time=True)
            self.process = GaussianDiffusion(cosine_betas(config.denoiser.steps), prediction=config.denoiser.target)

    # ---------------------------------------------------------------- parts

    def encode_ct(self, unit: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b c Z Y X"]:
        """Return the CT's latents, brought to -1..1 by the least and the largest number in the codebook."""
        return _scaled(self.ct.encode(unit), self.ct)

    def decode_ct(self, latents: Float[Tensor, "b c Z Y X"]) -> Float[Tensor, "b 1 z y x"]:
        """Return volumes of 0..1 from latents of -1..1."""
        return self.ct.decode(_unscaled(latents, self.ct), self.settings.quantise).clamp(0, 1)

    def encode_lifted(self, lifted: Float[Tensor, "b 1 z y x"], *, new: bool = False) -> Float[Tensor, "b c Z Y X"]:
        """Return z_in, or z_new where `new`: the latents of lifted X-rays (VPGE, eq. 2)."""
        if self.lifted is None:  # the paper does not say what takes the place of the VPGE in its ablations
            return F.avg_pool3d(lifted, 2 ** (len(self.settings.ct.sizes.widths) - 1))
        encoder = self.new if new and self.new is not None else self.lifted
        latents = encoder.encode(lifted)
        return _scaled(latents, encoder) if self.settings.scale_conditions else latents

    def predict(self, z_in: Float[Tensor, "b c Z Y X"]) -> Float[Tensor, "b d Z Y X"]:
        """Return G_z(z_in), the first guess of the CT's latents (DVG-Net, eq. 8), in -1..1."""
        return self._predicted_by(cast(nn.Module, self.coarse), z_in)

    def _predicted_by(self, net: nn.Module, z_in: Tensor) -> Tensor:
        found: Tensor = net(z_in, None)
        return found if self.settings.scale_conditions else _scaled(found, self.ct)

    def synthesise(
        self,
        z_coarse: Float[Tensor, "1 c Z Y X"],
        views: ViewGeometry,
        around: Float[Tensor, "Z Y X"],
        outside: Outside,
    ) -> Float[Tensor, "z y x"]:
        """Return the lifted new views of the first volume: V_init = D(G_z), I_new = FP(V_init), BP(I_new)."""
        with in_bf16(z_coarse):
            first = self.decode_ct(z_coarse)[0, 0].float()
        return lift_new(self.settings.lift, self.anatomy, first, views, around, outside)

    def denoise(self, x: Tensor, t: Tensor, conditions: Batch) -> Tensor:
        """Return g(z_in, z_new, x_t, t) (eq. 3): what `denoiser.target` names, before the process turns it into x0."""
        parts = [conditions[key] for key in ("z_in", "z_new", "z_coarse") if key in conditions]
        found = cast(nn.Module, self.denoiser)(torch.cat([*parts, x], dim=1), t).float()
        return found + conditions["z_coarse"] if "z_coarse" in conditions else found

    # ---------------------------------------------------------------- training

    def stages(self) -> Sequence[AnyStage]:
        """Return: anatomy, autoencoder of CT, of lifted X-rays (and of new views), G_z, diffusion."""
        config = self.settings
        volumes = Preparation("volumes", self._prepare_volumes)
        latents = Preparation("latents", self._prepare_latents, after=volumes)
        stages: list[AnyStage] = [
            Stage("anatomy", self.anatomy.fit),
            autoencoder_stage("ct", self.ct, config.ct, volumes, "ct"),
        ]
        if config.lifted is not None and self.lifted is not None:
            stages.append(autoencoder_stage("lifted", self.lifted, config.lifted, volumes, "lifted"))
            if self.new is not None:
                stages.append(autoencoder_stage("new", self.new, config.lifted, volumes, "lifted_new"))
        if config.coarse is not None and self.coarse is not None:
            trainings = (config.coarse.training, *config.coarse.more)
            for i, (net, training) in enumerate(zip(members(self.coarse), trainings, strict=True)):
                stages.append(self._coarse_stage("coarse" if i == 0 else f"coarse-{i + 1}", net, latents, training))
        if config.denoiser is not None and self.denoiser is not None:
            dual = Preparation("dual", self._prepare_dual, after=latents)
            training, net = config.denoiser.training, self.denoiser
            stages.append(GradientStage("denoiser", net, dual, self._denoiser_loss, training))
        return stages

    def _coarse_stage(self, name: str, net: nn.Module, latents: Preparation, training: StageOptions) -> GradientStage:
        """Return the stage that trains one net of G_z, from its own error."""

        def loss(batch: Batch, step: int, rng: torch.Generator) -> Losses:
            return {"loss": F.mse_loss(self._predicted_by(net, batch["z_in"]).float(), batch["z_ct"])}

        def preview(batch: Batch) -> dict[str, Tensor]:
            pair = torch.cat([batch["z_ct"][:1], self._predicted_by(net, batch["z_in"][:1]).float()])
            decoded = self.decode_ct(pair)[:, 0]
            middle = decoded.shape[2] // 2
            return {"ct": decoded[0, :, middle].flip(0), "coarse": decoded[1, :, middle].flip(0)}

        return GradientStage(name, net, latents, loss, training, preview=preview)

    def _prepare_volumes(self, sample: TrainingSample) -> Item:
        images, views = [image[0] for image in sample.images], sample.views[0]
        unit = to_unit_range(sample.hu[0])
        noise = self._noise(sample.radiograph())
        lifted, around = lift(self.settings.lift, self.anatomy, images, views, sample.outside, noise)
        item = {"ct": unit, "lifted": lifted, "around": around / MU_WATER_PER_MM,
                "air": torch.tensor(sample.outside == "air")}  # fmt: skip
        if self.settings.new_view is not None:
            new = new_views(views, self.settings.new_view)
            vectors = np.stack([getattr(new, name) for name in _VECTORS])
            item["new_views_um"] = torch.from_numpy(np.rint(vectors * 1000).astype(np.int64))
            item["new_shapes"] = torch.tensor(new.shapes)
            if self.new is not None:
                item["lifted_new"] = lift_new(self.settings.lift, self.anatomy, unit, new, around, sample.outside)
        return item

    def _prepare_latents(self, item: Item) -> Item:
        kept = ("around", "air", "new_views_um", "new_shapes")
        with in_bf16(item["ct"]):  # items are kept in half precision anyway
            z_ct = self.encode_ct(item["ct"][None, None])[0]
            z_in = self.encode_lifted(item["lifted"][None, None])[0]
        return {"z_ct": z_ct.float(), "z_in": z_in.float(), **{key: item[key] for key in kept if key in item}}

    def _prepare_dual(self, item: Item) -> Item:
        outside: Outside = "air" if bool(item["air"]) else "body"
        new = None
        if self.settings.new_view is not None:
            vectors = zip(_VECTORS, item["new_views_um"].cpu().numpy() / 1000, strict=True)
            shapes = tuple((int(rows), int(columns)) for rows, columns in item["new_shapes"])
            new = ViewGeometry(**dict(vectors), shapes=shapes, isocentre_mm=np.zeros(3))
        conditions = self._conditions(item["z_in"][None], new, item["around"] * MU_WATER_PER_MM, outside)
        return {"z_ct": item["z_ct"], **{key: value[0] for key, value in conditions.items()}}

    def _conditions(
        self, z_in: Float[Tensor, "1 c Z Y X"], new: ViewGeometry | None, around: Tensor, outside: Outside
    ) -> dict[str, Tensor]:
        """Return what guides the diffusion: z_in, z_new and G_z's latents, as far as the recipe has them."""
        conditions = {"z_in": z_in}
        if self.coarse is None:
            return conditions
        with in_bf16(z_in):
            z_coarse = self.predict(z_in).float()
        if new is not None:
            lifted = self.synthesise(z_coarse, new, around, outside)
            with in_bf16(lifted):
                conditions["z_new"] = self.encode_lifted(lifted[None, None], new=True).float()
        if self.settings.denoiser is not None and self.settings.denoiser.on_coarse:
            conditions["z_coarse"] = z_coarse
        return conditions

    def _denoiser_loss(self, batch: Batch, step: int, rng: torch.Generator) -> Losses:
        x0 = batch["z_ct"]
        t, noise = times_and_noise(x0, self.process.steps, rng)
        found = self.denoise(self.process.add_noise(x0, noise, t), t, batch)
        return {"loss": F.mse_loss(found, self.process.target(x0, noise, t))}

    # ---------------------------------------------------------------- inference

    def _noise(self, radiograph: Radiograph) -> Noise | None:
        return noise_of(radiograph, self.settings.consistency.display_noise, self.settings.consistency.noise)

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

        Samples come in pairs of opposite noise, for the sake of their mean (`antithetic_noise`). Without a denoiser
        there is one result and no spread. Where `consistency.final` says so, each sample is made to agree with the
        X-rays, and so is their mean.
        """
        config = self.settings
        radiograph, centre_mm = about_isocentre(radiograph)
        views = radiograph.views
        measured = line_integrals_of(radiograph, self.anatomy.scene(outside))
        count = max(config.ensemble, samples) if self.denoiser is not None else 1
        steps = Steps(progress, 1 + (config.sampler.steps if self.denoiser is not None else 0) + count)

        noise = self._noise(radiograph)
        lifted, around = lift(config.lift, self.anatomy, measured, views, outside, noise=noise)
        new = new_views(views, config.new_view) if config.new_view is not None else None
        with in_bf16(lifted):
            z_in = self.encode_lifted(lifted[None, None]).float()

        def agree(scene: Scene) -> Scene:
            return self.anatomy.agree(scene, measured, views, outside, config.consistency, noise)

        def between(x0: Tensor, step: int, total: int) -> Tensor:
            units = [self.decode_ct(one[None])[0, 0].float() for one in x0]
            scenes = [agree(Scene(mu_from_unit(unit), self.grid, around, self.anatomy.support)) for unit in units]
            return torch.cat([self.encode_ct(to_unit_range(mu_to_hu(scene.mu))[None, None]) for scene in scenes])

        if self.denoiser is None:
            with in_bf16(z_in):
                latents = self.predict(z_in).float()
            steps.done(1)
        else:
            conditions = self._conditions(z_in, new, around, outside)
            steps.done(1)
            latents = self._sample(conditions, count, rng, between if config.consistency.between else None, steps)
        scenes = []
        for latent in latents:
            with in_bf16(latent):
                unit = self.decode_ct(latent[None])[0, 0].float()
            if config.lift_share:
                unit = unit.lerp(lifted, config.lift_share)
            scene = Scene(mu_from_unit(unit), self.grid, around, self.anatomy.support)
            scenes.append(agree(scene) if config.consistency.final else scene)
            steps.done(1)
        details = {
            "ensemble": len(scenes),
            "sampler": config.sampler.model_dump() if self.denoiser is not None else None,
            "consistency": config.consistency.model_dump(mode="json"),
        }
        return estimate_of_samples(scenes, views, centre_mm, samples, details)

    def _sample(
        self,
        conditions: dict[str, Tensor],
        count: int,
        rng: torch.Generator,
        between: Between | None,
        steps: Steps,
    ) -> Float[Tensor, "n c Z Y X"]:
        repeated = {key: value.expand(count, *value.shape[1:]) for key, value in conditions.items()}
        z_in = conditions["z_in"]
        shape = (count, self.settings.ct.sizes.latent_channels, *z_in.shape[2:])

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            steps.done(1)
            with in_bf16(x):
                return self.denoise(x, t, repeated)

        return draw(
            self.process, self.settings.sampler, denoise, antithetic_noise(shape, rng),
            rng=rng, device=z_in.device, between=between,
        )  # fmt: skip


def _range(network: VQAutoencoder) -> tuple[Tensor, Tensor]:
    return network.codebook.codes.min(), network.codebook.codes.max()


def _scaled(latents: Tensor, network: VQAutoencoder) -> Tensor:
    low, high = _range(network)
    return 2 * (latents - low) / (high - low) - 1


def _unscaled(latents: Tensor, network: VQAutoencoder) -> Tensor:
    low, high = _range(network)
    return (latents + 1) / 2 * (high - low) + low
