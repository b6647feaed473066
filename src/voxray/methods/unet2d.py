"""A 2D residual U-Net from given X-rays to those of other angles: the baseline of view synthesis."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from voxray.data.dataset import Outside, TrainingSample
from voxray.geometry import FloatArray, ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.methods.anatomy import AgreementConfig
from voxray.methods.base import in_bf16, noise_of
from voxray.methods.one_pass import WHITE, Angles, OnePassConfig, OnPlanes, side_of
from voxray.methods.stages import Batch, Item, Losses, StageOptions
from voxray.physics.attenuation import hu_to_mu
from voxray.physics.consistency import Scene
from voxray.physics.projector import Projector


class Unet2dConfig(OnePassConfig):
    """A 2D U-Net; all sizes are ours, for DVG-Diffusion gives none."""

    angles_deg: Angles = Field(
        default=(0.0,), strict=False, min_length=1, description="primary angles of the given views, a channel each"
    )
    new_deg: Angles = Field(
        default=(90.0,), strict=False, min_length=1, description="primary angles of the views that are made"
    )
    features: tuple[int, ...] = Field(
        default=(64, 128, 256, 512), strict=False, min_length=2,
        description="of the levels, each half as fine as the one before",
    )  # fmt: skip
    units: int = Field(default=2, gt=0, description="convolutions of each residual block")
    volume: AgreementConfig = Field(
        default=AgreementConfig(iterations=25, lengths_mm=(5.0, 10.0), scale=1.0, noise=0.02),
        description="how the mean anatomy is made to agree with given and new X-rays, which makes the volume",
    )
    training: StageOptions = StageOptions(steps=22_900, batch_size=4, learning_rate=2e-4, clip=None)


class Unet2d(OnPlanes):
    """A 2D residual U-Net that makes new X-rays (DVG-Diffusion, Xie et al. 2025, arXiv 2503.17804, Table VI).

    It learns what the cube alone shows at the new angles. A CT is made of it in our own way: the mean anatomy, in
    agreement with the given and the new X-rays. So it is scored as all other methods are, by X-rays of a volume.
    """

    name = "unet2d"
    Config = Unet2dConfig

    def __init__(self, config: Unet2dConfig, grid: VolumeGrid) -> None:
        from monai.networks.nets import UNet  # slow to import

        self.settings, levels = config, len(config.features) - 1
        network = UNet(
            2, len(config.angles_deg), len(config.new_deg), config.features, [2] * levels, num_res_units=config.units
        )
        pixels = side_of(self.name, grid, config.coarser, 2**levels)
        super().__init__(config, grid, network, pixels, config.angles_deg)

    def prepare(self, sample: TrainingSample) -> Item:
        """Return an item of a batch: X-rays, and what the cube shows at the new angles."""
        seen = self.seen([image[0] for image in sample.images], sample.views[0])
        new = self.new(seen["sources_um"].cpu().numpy() / 1000)
        images = Projector(self.coarse, new).forward(hu_to_mu(sample.hu[0]))
        return {**seen, "new": torch.stack(images) / WHITE}

    def new(self, source_mm: FloatArray) -> ViewGeometry:
        """Return the planes of the new views: the first view, turned about the patient's axis."""
        turns = np.deg2rad(np.array(self.settings.new_deg) - self.settings.angles_deg[0])
        x, y, z = source_mm[0]
        c, s = np.cos(turns), np.sin(turns)
        return self.planes(np.stack([c * x - s * y, s * x + c * y, np.full_like(c, z)], -1))

    def draw(self, seen: Batch) -> Float[Tensor, "b n p p"]:
        """Return the new X-rays, as the given ones are seen."""
        found: Tensor = self.network(seen["images"])
        return found

    def losses(self, batch: Batch, rng: torch.Generator, critic: nn.Module | None) -> Losses:
        """Return the mean squared error of the new X-rays."""
        return {"loss": F.mse_loss(self.draw(batch).float(), batch["new"])}

    def preview(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the first new X-ray of the first patient, the true one and the one that is drawn."""
        return {"truth": batch["new"][0, 0].clamp(0, 1), "drawn": self.draw(batch)[0, 0].float().clamp(0, 1)}

    def scene(self, seen: Batch, measured: Sequence[Tensor], radiograph: Radiograph, outside: Outside) -> Scene:
        """Return the mean anatomy in agreement with all X-rays, to the new ones of which the body around is added.

        The new ones are as rough as those that they were drawn from.
        """
        config, views = self.settings.volume, radiograph.views
        with in_bf16(seen["images"]):
            drawn = WHITE * self.draw(seen)[0].float().clamp_min(0)
        mean, new = self.anatomy.scene(outside), self.new(seen["sources_um"][0].cpu().numpy() / 1000)
        rest = replace(mean, mu=torch.zeros_like(mean.mu)).project(new)
        images = [*measured, *(image + more for image, more in zip(drawn, rest, strict=True))]
        vectors: dict[str, Any] = {
            name: np.concatenate([getattr(views, name), getattr(new, name)])
            for name in ("source_mm", "centre_mm", "u_mm", "v_mm")
        }
        both = ViewGeometry(**vectors, shapes=(*views.shapes, *new.shapes), isocentre_mm=np.zeros(3))
        noise = noise_of(radiograph, self.settings.display_noise, config.noise)
        if isinstance(noise, Sequence):
            drawn_noise = self.settings.display_noise if radiograph.rough else config.noise
            noise = [*noise, *(torch.full_like(image, drawn_noise) for image in drawn)]
        return self.anatomy.agree(mean, images, both, outside, config, noise)
