"""Style transfer: radiographs whose line integrals were estimated, made to look like projections of CTs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from voxray.data.dataset import TrainingSample
from voxray.errors import GeometryError
from voxray.geometry import VolumeGrid
from voxray.geometry.axial import primary_angles_deg
from voxray.geometry.views import ViewGeometry
from voxray.images import Radiograph
from voxray.images.fill import fill
from voxray.methods.anatomy import AgreementConfig, Anatomy, AnatomyConfig
from voxray.methods.base import (
    Estimate,
    Method,
    MethodConfig,
    Outside,
    Progress,
    about_isocentre,
    estimate_of,
    noise_of,
)
from voxray.methods.stages import AnyStage, Batch, Critic, GradientStage, Item, Losses, Preparation, Stage, StageOptions
from voxray.nets.translation import Cycle, CycleCritic
from voxray.physics.display import as_line_integrals
from voxray.physics.planes import onto_planes, planes_of
from voxray.physics.sampling import on_detector

# Views further from a style's angle than this are not its own; as `intake` takes frontal and lateral views.
_OBLIQUE_DEG = 20.0


class StyleConfig(MethodConfig):
    """Style transfer. Weights, pool, Adam and its decay are CycleGAN's; other numbers are ours, for a CPU.

    Losses of absolute differences have a kink at no change, where our networks begin: with the paper's weights they are
    still there after hundreds of steps.
    """

    angle_deg: float = Field(default=0.0, description="of its views, and of those opposite: 0 frontal, 90 lateral")
    pixels: int = Field(default=128, ge=32, multiple_of=4, description="along each side of the images it works on")
    side_mm: float = Field(default=360.0, gt=0, description="of these images, at the isocentre")
    scale: float = Field(default=4.0, gt=0, description="line integral that counts as 1")
    width: int = Field(default=16, gt=0, description="channels of the generators' first layer; 64 in the paper")
    blocks: int = Field(default=4, ge=0, description="residual blocks; 6 in the paper")
    critic_width: int = Field(default=16, gt=0, description="channels of the critics' first layer; 64 in the paper")
    critic_layers: int = Field(default=2, gt=0, description="with strides: patches of 34 pixels; 3 (70) in the paper")
    pool: int = Field(default=50, gt=0, description="translations that each critic remembers")
    cycle: float = Field(default=10.0, ge=0, description="weight of what is lost there and back")
    identity: float = Field(default=5.0, ge=0, description="weight of what is done to images of the wanted kind")
    jitter: float = Field(default=0.05, ge=0, lt=0.5, description="random shift, up to this part of the side")
    training: StageOptions = StageOptions(
        steps=20000, learning_rate=2e-4, betas=(0.5, 0.999), decay="linear", clip=None, ema=0.995
    )
    anatomy: AnatomyConfig = AnatomyConfig()
    agreement: AgreementConfig = AgreementConfig(iterations=25, lengths_mm=(5.0, 10.0), scale=1.0)
    display_noise: float = Field(default=0.15, gt=0, description="noise of display values, whose scale is a guess")


class Style(Method):
    """CycleGAN (Zhu et al. 2017, arXiv 1703.10593, eq. 3 and section 5.2), as DX2CT, PerX2CT and X2CT-GAN use it.

        L = L_adv(G) + L_adv(F) + cycle (|F(G(r)) - r| + |G(F(s)) - s|) + identity (|G(s) - s| + |F(r) - r|)

    r are radiographs, s projections of CTs; G, which is kept, leads from r to s, F back. Both are laid on the plane
    through the isocentre as one side of the body shows it, so that position, size and mirroring are no style. A pair is
    shown where both show something, so that borders, letters and the ends of scans are none either.

    As a method of its own it shows what style gives without any other network: the mean anatomy, in agreement with
    translated X-rays.
    """

    name = "style"
    Config = StyleConfig
    training_only = ("cycle.back.",)

    real: Float[Tensor, "n 2 p p"]

    def __init__(self, config: StyleConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.settings = config
        self.anatomy = Anatomy(config.anatomy, grid)
        self.cycle = Cycle(config.width, config.blocks)
        self.register_buffer("real", torch.zeros(0, 2, config.pixels, config.pixels), persistent=False)

    # ---------------------------------------------------------------- training

    def learn_from(self, real: Float[Tensor, "n 2 p p"]) -> None:
        """Take the radiographs to learn from, each as `laid_out` returns it."""
        self.real = real.half().to(self.real.device)

    def stages(self) -> Sequence[AnyStage]:
        """Return: the anatomy, for the method alone; the networks, which `learn_from` has given radiographs."""
        config = self.settings
        judge = CycleCritic(config.critic_width, config.critic_layers, config.pool, config.pixels)

        def loss(batch: Batch, step: int, rng: torch.Generator) -> Losses:
            return self._loss(judge, batch, rng)

        def judged(batch: Batch, rng: torch.Generator) -> Losses:
            real, synthetic, seen = self._pair(batch, rng)
            with torch.no_grad():
                fake = self.cycle.there(real, seen), self.cycle.back(synthetic, seen)
            there, back = judge.critic_loss(fake, (synthetic, real), rng)
            return {"loss": there + back, "there": there, "back": back}

        networks = GradientStage(
            "style", self.cycle, Preparation("projections", self._prepare), loss, config.training,
            Critic(judge, judged), self._preview,
        )  # fmt: skip
        return [Stage("anatomy", self.anatomy.fit), networks]

    def _prepare(self, sample: TrainingSample) -> Item:
        image, seen = self.laid_out(sample.radiograph())[0]
        return {"synthetic": torch.stack([image, seen]) * in_scan(image)}

    def _loss(self, judge: CycleCritic, batch: Batch, rng: torch.Generator) -> Losses:
        real, synthetic, seen = self._pair(batch, rng)
        there, back, count = self.cycle.there, self.cycle.back, len(seen)
        both = torch.cat([seen, seen])
        like_synthetic, same_synthetic = there(torch.cat([real, synthetic]), both).split(count)
        like_real, same_real = back(torch.cat([synthetic, real]), both).split(count)
        adversarial = judge.generator_loss(like_synthetic, like_real)
        lost = F.l1_loss(back(like_synthetic, seen), real) + F.l1_loss(there(like_real, seen), synthetic)
        changed = F.l1_loss(same_synthetic, synthetic) + F.l1_loss(same_real, real)
        loss = sum(adversarial) + self.settings.cycle * lost + self.settings.identity * changed
        return {"loss": loss, "there": adversarial[0], "back": adversarial[1], "cycle": lost, "identity": changed}

    def _pair(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return radiographs by chance, projections, and where both show something, shifted by chance."""
        synthetic = batch["synthetic"]
        chosen = torch.randint(len(self.real), (len(synthetic),), generator=rng)
        real, synthetic = (self._shifted(images, rng) for images in (self.real[chosen.to(self.real.device)], synthetic))
        seen = real[:, 1:] * synthetic[:, 1:]
        return real[:, :1] * seen, synthetic[:, :1] * seen, seen

    def _shifted(self, images: Tensor, rng: torch.Generator) -> Tensor:
        most = int(self.settings.jitter * self.settings.pixels)
        rows, columns = torch.randint(2 * most + 1, (2,), generator=rng).tolist()
        padded = F.pad(images.float(), (most,) * 4)
        return padded[..., rows : rows + images.shape[2], columns : columns + images.shape[3]]

    def _preview(self, batch: Batch) -> dict[str, Tensor]:
        synthetic, real = batch["synthetic"][:1], self.real[:1].float()
        images = {
            "radiograph": real[:, :1], "translated": self.cycle.there(real[:, :1], real[:, 1:]),
            "projection": synthetic[:, :1], "back": self.cycle.back(synthetic[:, :1], synthetic[:, 1:]),
        }  # fmt: skip
        return {name: (image[0, 0].float() / 2).clamp(0, 1) for name, image in images.items()}

    # ---------------------------------------------------------------- use

    def own(self, views: ViewGeometry) -> list[int]:
        """Return the numbers of the views that the style is for."""
        off = np.deg2rad(primary_angles_deg(views) - self.settings.angle_deg)
        return np.flatnonzero(abs(np.sin(off)) < np.sin(np.deg2rad(_OBLIQUE_DEG))).tolist()

    def laid_out(self, radiograph: Radiograph) -> Float[Tensor, "v 2 p p"]:
        """Return its own views as it works on them: line integrals in units of `scale`, and 1 where they are measured.

        Raises:
            GeometryError: if none of the views is its own.
        """
        own = self.own(radiograph.views)
        if not own:
            raise GeometryError(
                f"The style is for views near {self.settings.angle_deg:g} degrees, not for "
                f"{', '.join(radiograph.views.names)}."
            )
        radiograph, _ = about_isocentre(radiograph)
        views, planes = radiograph.views, self._planes(radiograph.views)
        image, seen = onto_planes(radiograph.images, views, planes)[own].split(1, 1)
        if radiograph.valid:
            seen = (onto_planes([mask.float() for mask in radiograph.valid], views, planes)[own, :1] > 0.5).to(seen)
        return self._turned(torch.cat([image / self.settings.scale * seen, seen], 1), planes.subset(own))

    @torch.no_grad()
    def translated(self, radiograph: Radiograph) -> Radiograph:
        """Return line integrals with its own views as a CT would show them; what is not valid stays without meaning.

        The change is found on the style's own pixels, and added to those of the X-rays, which keep their detail.

        Raises:
            GeometryError: if none of the views is its own.
        """
        own, given = self.own(radiograph.views), self.laid_out(radiograph).to(self.anatomy.mean.device)
        here, planes = about_isocentre(radiograph)[0].views, self._planes(radiograph.views)
        change = self.settings.scale * (self.cycle.there(given[:, :1], given[:, 1:]) - given[:, :1])
        images = list(radiograph.images)
        for n, added in zip(own, self._turned(change, planes.subset(own)).cpu(), strict=True):
            place, _ = on_detector(here.pixels_mm(n), planes, n)
            images[n] = images[n] + F.grid_sample(added[None], place[None], align_corners=False)[0, 0]
            images[n] = images[n].clamp_min(0)
            if radiograph.valid:
                images[n] = torch.from_numpy(fill(images[n].numpy(), ~radiograph.valid[n].numpy()))
        return replace(radiograph, images=tuple(images))

    def _planes(self, views: ViewGeometry) -> ViewGeometry:
        return planes_of(views.source_mm - views.isocentre(), self.settings.side_mm, self.settings.pixels)

    def _turned(self, images: Float[Tensor, "v c p p"], planes: ViewGeometry) -> Float[Tensor, "v c p p"]:
        """Mirror images on planes that are seen from the side opposite to the style's, or mirror them back."""
        angle = np.deg2rad(self.settings.angle_deg)
        mirrored = planes.u_mm @ [np.cos(angle), np.sin(angle), 0.0] < 0
        return torch.stack([image.flip(-1) if m else image for image, m in zip(images, mirrored, strict=True)])

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
        """Return the mean anatomy in agreement with the X-rays, translated where their line integrals are estimated."""
        if radiograph.kind == "estimated" and self.own(radiograph.views):
            radiograph = self.translated(radiograph)
        radiograph, centre_mm = about_isocentre(radiograph)
        views, config = radiograph.views, self.settings
        images = [image.to(self.anatomy.mean.device) for image in radiograph.images]
        expected = self.anatomy.scene(outside)
        measured = as_line_integrals(images, radiograph.kind, expected.project(views))
        noise = noise_of(radiograph, config.display_noise, config.agreement.noise)
        scene = self.anatomy.agree(expected, measured, views, outside, config.agreement, noise)
        if progress is not None:
            progress(1, 1)
        return estimate_of(scene, views, centre_mm, details={"agreement": config.agreement.model_dump(mode="json")})


def in_scan(image: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows 1"]:
    """Return 1 for the rows of a projection in which rays stay within the scan, else 0.

    Where a scan ends there is air, which no radiograph shows. Ours: beyond the ends the densest ray of the middle third
    is below half of what it is in most rows; what is nearer to that than a twentieth of the image is left out, too.
    """
    third = image.shape[1] // 3
    densest = image[:, third:-third].amax(1)
    ended = (densest < 0.5 * densest.median()).float()
    margin = max(1, len(image) // 20)
    return 1 - F.max_pool1d(ended[None], 2 * margin + 1, 1, margin)[0, :, None]
