"""AXON-style: from lifted X-rays over a bridge to the CT's latents, which a ControlNet then refines."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.data.resample import resample
from voxray.data.store import Case
from voxray.diffusion import (
    BrownianBridge,
    GaussianDiffusion,
    antithetic_noise,
    cosine_betas,
    cross,
    draw,
    times_and_noise,
)
from voxray.diffusion.sampling import Between
from voxray.errors import CheckpointError, RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.images.weights_file import read_weights
from voxray.methods.anatomy import Anatomy
from voxray.methods.autoencoding import autoencoder_stage
from voxray.methods.axon.config import AxonConfig
from voxray.methods.axon.control import ControlledUNet
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
from voxray.methods.lifted import lift
from voxray.methods.stages import AnyStage, Batch, GradientStage, Item, Losses, Preparation, Stage
from voxray.nets.autoencoder import VQAutoencoder
from voxray.physics.attenuation import MU_WATER_PER_MM, mu_from_unit, mu_to_hu, to_unit_range
from voxray.physics.consistency import Noise, Scene
from voxray.physics.rays import DIRECTIONS, smear

# Brings line integrals to values near 1; what is beyond is cut off, for items are kept in half precision.
_THICKNESS, _MOST = 1 / (MU_WATER_PER_MM * 150), 5.0
# Latents that hardly vary are not blown up: no channel counts as less than this part of the one that varies most.
_LEAST = 0.01


class Axon(Method):
    """A method in the manner of AXON (Rath et al. 2026, arXiv 2603.26509), no reproduction of it.

    Known of AXON, and built: one or two X-rays; a Brownian-bridge diffusion for the global structure; then a refinement
    of the local intensities by a ControlNet; then super-resolution, which is a model of its own here (`upsample`), for
    all methods. Neither code nor details are public, so all else is our choice:

        y = E(lift(X-rays))            the bridge joins volumes of one shape, so X-rays are lifted first
        z_1 = bridge from y, told y and where rays go           an end of the bridge that is near, in cheap latents
        z_2 = latent diffusion from z_1 in noise, steered by ControlNet(z_1, X-rays along their rays)       SDEdit
        CT = mean over samples of agree(D(z_2))

    X-rays reach the networks smeared along their rays, apart by direction (`physics.rays`), beside the rays themselves:
    so a view that is missing is known to be missing, and any number of views from anywhere is one kind of input.
    Latents have mean 0 and standard deviation 1 in each channel over the training scans, for the noise of bridge and
    diffusion is relative to them. Networks learn by mean squares: the bridge's steps need the posterior mean of x0,
    where BBDM's L1 would give the median.
    """

    name = "axon"
    Config = AxonConfig
    training_only = ("ct.codebook.shares", "ct.codebook.sums", "ct.codebook.started")
    latent_mean: Float[Tensor, "c 1 1 1"]
    latent_std: Float[Tensor, "c 1 1 1"]

    def __init__(self, config: AxonConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        self.factor = 2 ** (len(config.ct.sizes.widths) - 1)
        levels = [len(config.bridge.net.channels)] if config.bridge is not None else []
        levels += [len(config.refine.channels)] if config.refine is not None else []
        multiple = self.factor * 2 ** (max(levels, default=1) - 1)
        if any(n % multiple for n in grid.shape):
            raise RecipeError(f"The sides of axon's grid are multiples of {multiple} voxels, not {grid.shape}.")
        self.anatomy = Anatomy(config.anatomy, grid)
        self.ct = VQAutoencoder(config.ct.sizes)
        latents = config.ct.sizes.latent_channels
        self.register_buffer("latent_mean", torch.zeros(latents, 1, 1, 1))
        self.register_buffer("latent_std", torch.ones(latents, 1, 1, 1))
        self.bridge: nn.Module | None = None
        self.refiner: ControlledUNet | None = None
        if (stage := config.bridge) is not None:
            self.bridge = stage.net.build(2 * latents + DIRECTIONS, latents, time=True)
            self.way = BrownianBridge(stage.steps, stage.variance, stage.target)
        if (refine := config.refine) is not None:
            self.refiner = ControlledUNet(latents, latents + 2 * DIRECTIONS, refine.channels, refine.blocks)
            self.process = GaussianDiffusion(cosine_betas(refine.steps), prediction="v_prediction", clamp=None)

    # ---------------------------------------------------------------- parts

    def encode(self, unit: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b c Z Y X"]:
        """Return the latents of volumes of 0..1."""
        return (self.ct.encode(unit) - self.latent_mean) / self.latent_std

    def decode(self, latents: Float[Tensor, "b c Z Y X"]) -> Float[Tensor, "b 1 z y x"]:
        """Return volumes of 0..1."""
        return self.ct.decode(latents * self.latent_std + self.latent_mean, self.settings.quantise).clamp(0, 1)

    def seen(self, measured: Sequence[Tensor], views: ViewGeometry) -> dict[str, Tensor]:
        """Return which rays go through each place of the latents, and what they met; see `physics.rays.smear`."""
        finer = max(1, self.factor // 2)  # two samples along each side of a latent's voxel
        rays, smeared = smear(measured, views, self.grid.coarser(finer))
        pooled = {"rays": rays, "smeared": (smeared * _THICKNESS).clamp(-_MOST, _MOST)}
        return {name: F.avg_pool3d(values, self.factor // finer) for name, values in pooled.items()}

    def first(
        self,
        known: Batch,
        rng: torch.Generator,
        between: Between | None = None,
        steps: Steps | None = None,
    ) -> Float[Tensor, "b c Z Y X"]:
        """Return samples of stage 1, in pairs of opposite noise; without a bridge, where it would begin.

        Args:
            known: latents where the bridge begins, and rays; see `seen`.
            rng: of the CPU.
            between: see `draw`.
            steps: counts calls of the network.
        """
        if self.bridge is None or self.settings.bridge is None:
            return known["z_start"]

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            if steps is not None:
                steps.done(1)
            with in_bf16(x):
                return self.cross_from(x, t, known)

        return cross(
            self.way, self.settings.bridge.sampler, denoise, known["z_start"], rng=rng, between=between, paired=True
        )

    def cross_from(self, x: Tensor, t: Tensor, known: Batch) -> Float[Tensor, "b c Z Y X"]:
        """Return what the bridge's network says of x_t."""
        return cast(nn.Module, self.bridge)(torch.cat([x, known["z_start"], known["rays"]], 1), t).float()

    def steer(self, x: Tensor, t: Tensor, known: Batch) -> Float[Tensor, "b c Z Y X"]:
        """Return what the latent diffusion predicts of x_t where the ControlNet knows stage 1 and the X-rays."""
        told = torch.cat([known["z_first"], known["rays"], known["smeared"]], 1)
        return cast(ControlledUNet, self.refiner)(x, t, told).float()

    # ---------------------------------------------------------------- training

    def stages(self) -> Sequence[AnyStage]:
        """Return: anatomy, autoencoder, size of latents, bridge, latent diffusion, its ControlNet."""
        config = self.settings
        volumes = Preparation("volumes", self._prepare_volumes)
        latents = Preparation("latents", self._prepare_latents, after=volumes)
        stages: list[AnyStage] = [Stage("anatomy", self.anatomy.fit)]
        if config.ct_weights is None:
            stages.append(autoencoder_stage("ct", self.ct, config.ct, volumes, "ct"))
        else:
            stages.append(Stage("ct", self._take_over_autoencoder))
        stages.append(Stage("latents", self._fit_latents))
        if config.bridge is not None and self.bridge is not None:
            stages.append(GradientStage("bridge", self.bridge, latents, self._bridge_loss, config.bridge.training))
        if config.refine is not None and self.refiner is not None:
            first = Preparation("first", self._prepare_first, after=latents)
            prior, control = self.refiner.prior, self.refiner.control
            stages += [
                GradientStage("prior", prior, latents, self._prior_loss, config.refine.prior),
                Stage("copy", self._copy_prior),
                GradientStage("control", control, first, self._control_loss, config.refine.training),
            ]
        return stages

    def _take_over_autoencoder(self, _: Sequence[Case], progress: Progress | None) -> None:
        """Load it where training begins and nowhere else: a trained model is used without the file."""
        path = Path(cast(str, self.settings.ct_weights))
        begins = "ct."
        given = {n.removeprefix(begins): w for n, w in read_weights(path).items() if n.startswith(begins)}
        own = self.ct.state_dict()
        wanted = {name for name in own if not f"{begins}{name}".startswith(self.training_only)}
        wrong = [name for name in sorted(wanted) if name not in given or given[name].shape != own[name].shape]
        if wrong:
            raise CheckpointError(
                f"'{path}' does not hold the autoencoder of this recipe ({begins}{wrong[0]} and {len(wrong) - 1} more "
                "are missing or of another size): give config.ct the sizes of the model that it is of, or another file."
            )
        self.ct.load_state_dict({name: given[name] for name in wanted}, strict=False)
        Steps(progress, 1).done(1)

    @torch.no_grad()
    def _fit_latents(self, cases: Sequence[Case], progress: Progress | None) -> None:
        """Set mean and standard deviation of each channel."""
        total, squares = (torch.zeros_like(self.latent_mean, dtype=torch.float64) for _ in range(2))
        for i, case in enumerate(cases):
            latents = self.ct.encode(to_unit_range(case.volume.hu).to(self.latent_mean)[None, None])[0].double()
            total += latents.mean((1, 2, 3), keepdim=True) / len(cases)
            squares += latents.square().mean((1, 2, 3), keepdim=True) / len(cases)
            if progress is not None:
                progress(i + 1, len(cases))
        std = (squares - total.square()).clamp_min(0).sqrt()
        self.latent_mean.copy_(total)
        self.latent_std.copy_(std.clamp_min(_LEAST * float(std.max()) or 1.0))

    def _copy_prior(self, _: Sequence[Case], progress: Progress | None) -> None:
        cast(ControlledUNet, self.refiner).copy_prior()
        Steps(progress, 1).done(1)

    def _prepare_volumes(self, sample: TrainingSample) -> Item:
        images, views = [image[0] for image in sample.images], sample.views[0]
        return {
            "ct": to_unit_range(sample.hu[0]),
            "lifted": self._lifted(images, views, sample.outside, self._noise(sample.radiograph()))[0],
            **self.seen(images, views),
        }

    def _prepare_latents(self, item: Item) -> Item:
        z_ct, z_start = (self._encoded(item[name])[0] for name in ("ct", "lifted"))
        return {"z_ct": z_ct, "z_start": z_start, "rays": item["rays"], "smeared": item["smeared"]}

    def _prepare_first(self, item: Item) -> Item:
        # Its noise is the item's own, for a preparation is a function of the item alone.
        rng = torch.Generator().manual_seed(int(1e3 * item["z_ct"].double().abs().sum()))
        known = {name: tensor[None] for name, tensor in item.items()}
        return {**item, "z_first": self.first(known, rng)[0]}

    def _bridge_loss(self, batch: Batch, step: int, rng: torch.Generator) -> Losses:
        x0, y = batch["z_ct"], batch["z_start"]
        t, noise = times_and_noise(x0, self.way.steps, rng)
        found = self.cross_from(self.way.add_noise(x0, y, noise, t), t, batch)
        return {"loss": F.mse_loss(found, self.way.target(x0, y, noise, t))}

    def _prior_loss(self, batch: Batch, step: int, rng: torch.Generator) -> Losses:
        x0 = batch["z_ct"]
        t, noise = times_and_noise(x0, self.process.steps, rng)
        found = cast(ControlledUNet, self.refiner).prior(self.process.add_noise(x0, noise, t), t).float()
        return {"loss": F.mse_loss(found, self.process.target(x0, noise, t))}

    def _control_loss(self, batch: Batch, step: int, rng: torch.Generator) -> Losses:
        assert self.settings.refine is not None
        x0 = batch["z_ct"]
        t, noise = times_and_noise(x0, max(1, round(self.settings.refine.strength * self.process.steps)), rng)
        found = self.steer(self.process.add_noise(x0, noise, t), t, batch)
        return {"loss": F.mse_loss(found, self.process.target(x0, noise, t))}

    # ---------------------------------------------------------------- inference

    def _noise(self, radiograph: Radiograph) -> Noise | None:
        return noise_of(radiograph, self.settings.consistency.display_noise, self.settings.consistency.noise)

    def _lifted(
        self, measured: Sequence[Tensor], views: ViewGeometry, outside: Outside, noise: Noise | None = None
    ) -> tuple[Float[Tensor, "z y x"], Float[Tensor, "Z Y X"]]:
        """Return where the bridge begins (0..1), and what is around it; a mean over views, so that one is like two."""
        lifted, around = lift(self.settings.lift, self.anatomy, measured, views, outside, noise)
        return lifted / len(views) if self.settings.lift.kind == "path_length" else lifted, around

    @torch.no_grad()
    def reconstruct(
        self,
        radiograph: Radiograph,
        *,
        rng: torch.Generator,
        samples: int = 1,
        outside: Outside = "body",
        progress: Progress | None = None,
        start: CTVolume | None = None,
    ) -> Estimate:
        """Return the mean of several samples (`ensemble`), and their standard deviation.

        Samples come in pairs of opposite noise. Without both stages the result is where the bridge would begin.

        Args:
            radiograph: as for `Method.reconstruct`, and so are the others.
            rng: of the CPU.
            samples: see there.
            outside: see there.
            progress: see there.
            start: a volume of this patient from elsewhere, of another method say, from which the bridge begins; on any
                grid, in the coordinates of the views.
        """
        config = self.settings
        radiograph, centre_mm = about_isocentre(radiograph)
        views = radiograph.views
        measured = line_integrals_of(radiograph, self.anatomy.scene(outside))
        noise = self._noise(radiograph)
        lifted, around = self._lifted(measured, views, outside, noise)
        if start is not None:
            lifted = to_unit_range(resample(start, self.grid.shifted(centre_mm)).hu).to(lifted)

        def scene_of(unit: Tensor, agree: bool) -> Scene:
            scene = Scene(mu_from_unit(unit), self.grid, around, self.anatomy.support)
            return self.anatomy.agree(scene, measured, views, outside, config.consistency, noise) if agree else scene

        def between(x0: Tensor, step: int, total: int) -> Tensor:
            scenes = [scene_of(self._decoded(one), agree=True) for one in x0]
            return torch.cat([self._encoded(to_unit_range(mu_to_hu(scene.mu))) for scene in scenes])

        stages = [stage for stage in (config.bridge, config.refine) if stage is not None]
        count = max(config.ensemble, samples) if stages else 1
        steps = Steps(progress, 1 + sum(stage.sampler.steps for stage in stages) + count)
        steps.done(1)
        units = [lifted]
        if stages:
            known = self._known(lifted, measured, views, count)
            latents = self._sampled(known, rng, between if config.consistency.between else None, steps)
            units = [self._decoded(one) for one in latents]
        scenes = []
        for unit in units:
            scenes.append(scene_of(unit, config.consistency.final))
            steps.done(1)
        details = {
            "start": config.lift.kind if start is None else "given",
            "bridge": None if config.bridge is None else config.bridge.sampler.model_dump(),
            "refine": None if config.refine is None else
            {"strength": config.refine.strength, "sampler": config.refine.sampler.model_dump()},
            "ensemble": count,
            "consistency": config.consistency.model_dump(mode="json"),
        }  # fmt: skip
        return estimate_of_samples(scenes, views, centre_mm, samples, details)

    def _known(
        self, lifted: Tensor, measured: Sequence[Tensor], views: ViewGeometry, count: int
    ) -> dict[str, Float[Tensor, "n c Z Y X"]]:
        """Return what all samples are told, once for each."""
        known = {"z_start": self._encoded(lifted)[0], **self.seen(measured, views)}
        return {name: values.expand(count, *values.shape) for name, values in known.items()}

    def _sampled(
        self, known: dict[str, Tensor], rng: torch.Generator, between: Between | None, steps: Steps
    ) -> Float[Tensor, "n c Z Y X"]:
        """Return samples, of stage 1 or of both."""
        first = self.first(known, rng, between, steps)
        if (refine := self.settings.refine) is None:
            return first
        known = {**known, "z_first": first}

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            steps.done(1)
            with in_bf16(x):
                return self.steer(x, t, known)

        noise = antithetic_noise(first.shape, rng)
        return draw(
            self.process, refine.sampler, denoise, noise,
            rng=rng, device=first.device, between=between, start=(first, refine.strength),
        )  # fmt: skip

    def _encoded(self, unit: Float[Tensor, "z y x"]) -> Float[Tensor, "1 c Z Y X"]:
        with in_bf16(unit):
            return self.encode(unit[None, None]).float()

    def _decoded(self, latent: Float[Tensor, "c Z Y X"]) -> Float[Tensor, "z y x"]:
        with in_bf16(latent):
            return self.decode(latent[None])[0, 0].float()
