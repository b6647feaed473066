"""3DPriorNet of XraySyn: from back-projected X-rays to bone and soft tissue."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from voxray.errors import RecipeError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.methods.one_pass import OnePass, OnePassConfig
from voxray.methods.projections import along_axes
from voxray.methods.stages import Batch, Item, Losses, StageOptions
from voxray.physics.attenuation import MU_WATER_PER_MM, to_unit_range
from voxray.physics.backprojection import back_project
from voxray.physics.projector import Projector


class PriornetConfig(OnePassConfig):
    """3DPriorNet; the defaults are the sizes of XraySyn's code."""

    features: tuple[int, ...] = Field(
        default=(96, 192, 384, 768, 768, 768), strict=False, min_length=2,
        description="of the U-Net, each level half as fine as the one before, the first half as fine as the volume",
    )  # fmt: skip
    bone_hu: float = Field(default=200.0, description="bone has at least this; no masks were published")
    bone: float = Field(default=1.0, ge=0, description="weight of the mask's error, beside that of the volume")
    projections: float = Field(default=1.0, ge=0, description="weight of the loss of projections")
    training: StageOptions = StageOptions(steps=11_450, batch_size=8, learning_rate=1e-4, betas=(0.5, 0.9), clip=None)


class Priornet(OnePass):
    """3DPriorNet of XraySyn (Peng et al. 2021, arXiv 2012.02407), for any number of views from anywhere.

        volume = m bone + (1 - m) tissue,    m, bone, tissue = U-Net(mean of back-projected X-rays)
        L = |volume - y| + |m - bone mask of y| + L_projections

    Back-projection is `voxray.physics.backprojection`, relative to water; the mean over the views, so that any number
    is of one size (DVG-Diffusion has results of two, and does not say how). L_projections is along the three axes, not
    along the X-ray's own rays (ours). docs/methods/priornet.md says what else is.
    """

    name = "priornet"
    Config = PriornetConfig

    def __init__(self, config: PriornetConfig, grid: VolumeGrid) -> None:
        self.settings, coarse, lowest = config, grid.coarser(config.coarser), 2 ** len(config.features)
        if any(n % lowest for n in coarse.shape):
            raise RecipeError(
                f"The sides of priornet's grid are multiples of {config.coarser * lowest} voxels, not {grid.shape}."
            )
        super().__init__(config, grid, _UNet(config.features), max(coarse.shape), None)

    def seen(self, images: Sequence[Float[Tensor, "_ _"]], views: ViewGeometry) -> Item:
        """Return the back-projected X-rays: the attenuation along their rays, relative to water."""
        lifted = back_project(images, Projector(self.coarse, views))
        return {"lifted": lifted / (len(views) * MU_WATER_PER_MM)}

    def draw(self, seen: Batch) -> Float[Tensor, "b z y x"]:
        """Return bone where the mask says so, and soft tissue elsewhere."""
        return self._parts(seen)[1]

    def losses(self, batch: Batch, rng: torch.Generator, critic: nn.Module | None) -> Losses:
        """Return the absolute errors of volume, bone mask and projections."""
        config, truth = self.settings, batch["ct"]
        mask, drawn = self._parts(batch)
        told = {
            "l1": F.l1_loss(drawn, truth),
            "bone": F.l1_loss(mask, (truth > to_unit_range(truth.new_tensor(config.bone_hu))).float()),
            "projections": along_axes(drawn - truth).mean(),
        }
        loss = told["l1"] + config.bone * told["bone"] + config.projections * told["projections"]
        return {"loss": loss, **told}

    def _parts(self, seen: Batch) -> tuple[Float[Tensor, "b z y x"], Float[Tensor, "b z y x"]]:
        """Return the bone mask and the volume."""
        mask, bone, tissue = ((self.network(seen["lifted"][:, None]).float() + 1) / 2).unbind(1)
        return mask, mask * bone + (1 - mask) * tissue


class _UNet(nn.Module):
    """The U-Net of pix2pix (Isola et al. 2017, arXiv 1611.07004) in 3D, with interpolation in place of strides upwards.

    Neither the first nor the coarsest convolution is normalised, as there.
    """

    def __init__(self, features: Sequence[int]) -> None:
        super().__init__()
        self.downs, last = nn.ModuleList(), len(features) - 1
        for level, (given, own) in enumerate(pairwise([1, *features])):
            before = [nn.LeakyReLU(0.2)] if level else []
            after = [nn.BatchNorm3d(own)] if 0 < level < last else []
            self.downs.append(nn.Sequential(*before, nn.Conv3d(given, own, 4, 2, 1, bias=not after), *after))
        self.ups = nn.ModuleList()
        for level, (given, own) in enumerate(pairwise(reversed([3, *features]))):
            final = level == last
            self.ups.append(
                nn.Sequential(
                    nn.ReLU(), nn.Upsample(scale_factor=2.0),
                    nn.Conv3d(given if level == 0 else 2 * given, own, 3, padding=1, bias=final),
                    nn.Tanh() if final else nn.BatchNorm3d(own),
                )
            )  # fmt: skip

    def forward(self, x: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b 3 z y x"]:
        kept = []
        for down in self.downs:
            x = down(x)
            kept.append(x)
        x = self.ups[0](kept.pop())
        for up in self.ups[1:]:
            x = up(torch.cat([x, kept.pop()], 1))
        return x
