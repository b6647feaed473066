"""PerX2CT: slices drawn from features that the true geometry of the X-rays gives to each of their points."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from voxray.data.store import Case
from voxray.geometry import FloatArray, VolumeGrid
from voxray.images import Radiograph
from voxray.images.weights_file import read_weights
from voxray.methods.base import Outside, Progress, Steps, about_isocentre, in_bf16
from voxray.methods.one_pass import Angles, OnePass, OnePassConfig, picture, side_of
from voxray.methods.slices import PLANES, Plane, points_of, volume_of
from voxray.methods.stages import AnyStage, Batch, Losses, Stage, StageOptions
from voxray.nets.fourier import frequencies_of, waves_of
from voxray.nets.lifting import read_at, seen_at
from voxray.nets.resnet_features import ResNetFeatures
from voxray.physics.attenuation import from_unit_range

# Windows that are learned from: of 32 to 128 pixels of a slice of 128, their middle up to 8 pixels beside it.
_SMALLEST, _BESIDE = 32 / 128, 8 / 128


class Perx2ctConfig(OnePassConfig):
    """PerX2CT; the defaults are the sizes of its code."""

    angles_deg: Angles = Field(
        default=(0.0, 90.0), strict=False, min_length=1, description="primary angles of the views, in their order"
    )
    resnet_width: float = Field(default=1.0, gt=0, le=1, description="of the encoder, as a part of ResNet-101")
    resnet_weights: str | None = Field(
        default=None,
        description="file with torchvision's weights of ResNet-101 that training begins from; null for random ones",
    )
    whole: int = Field(
        default=0, ge=0, description="channels of what is told of each X-ray as a whole: 256 in the global variant"
    )
    zoom: float = Field(default=0.0, ge=0, le=1, description="share of windows, beside whole slices, in training")
    bands: int = Field(default=10, gt=0, description="frequencies of the encoded places")
    channels: tuple[int, ...] = Field(
        default=(128, 256, 512), strict=False, min_length=2,
        description="of the decoder, from fine to coarse; each level is half as fine",
    )  # fmt: skip
    blocks: int = Field(default=3, gt=0, description="residual blocks a level of the decoder")
    slices: int = Field(default=1, gt=0, description="of each patient in a step of training")
    planes: tuple[Plane, ...] = Field(
        default=PLANES, strict=False, min_length=1,
        description="in which slices are drawn; the result is the mean of the volumes (ours; the paper scores each)",
    )  # fmt: skip
    batch: int = Field(default=16, gt=0, description="slices that are drawn together")
    training: StageOptions = StageOptions(
        steps=1_760_000, batch_size=20, learning_rate=9e-5, betas=(0.5, 0.9), clip=None
    )


class Perx2ct(OnePass):
    """PerX2CT and its global variant (Kyung et al. 2023, arXiv 2303.05297).

        slice = decoder(f_1(p), f_2(p), ..., encoded p [, g_1, g_2, ...]),    p the points of a coarser slice

    f_i(p) are the features of X-ray i where the ray through p meets it; g_i (global) are those of all of it. As p may
    be any points, so may the window and its size (`window`). The perceptual loss needs weights that voxray does not
    have, and is left out. docs/methods/perx2ct.md says what is ours.
    """

    name = "perx2ct"
    Config = Perx2ctConfig
    network: "_Network"

    def __init__(self, config: Perx2ctConfig, grid: VolumeGrid) -> None:
        self.settings = config
        side = side_of(self.name, grid, config.coarser, 2 ** (len(config.channels) - 1))
        super().__init__(config, grid, _Network(config), side, config.angles_deg)

    def stages(self) -> Sequence[AnyStage]:
        """Return: the anatomy, published weights if any, and the network."""
        anatomy, network = super().stages()
        if self.settings.resnet_weights is None:
            return [anatomy, network]
        return [anatomy, Stage("published", self._begin_from_published), network]

    def _begin_from_published(self, _: Sequence[Case], progress: Progress | None) -> None:
        assert self.settings.resnet_weights is not None
        self.network.encoder.load_published(read_weights(Path(self.settings.resnet_weights)))
        Steps(progress, 1).done(1)

    def losses(self, batch: Batch, rng: torch.Generator, critic: nn.Module | None) -> Losses:
        """Return the absolute error of some slices of each patient, or of windows of them.

        Planes and slices are drawn evenly. Beside a volume there is air.
        """
        side, config, error = self.coarse.shape[0], self.settings, []
        features = self.network.read(batch["images"])
        shown = self.shown(batch)
        for _ in range(config.slices):
            plane = PLANES[int(torch.randint(len(PLANES), (), generator=rng))]
            n = len(shown)
            along = (2 * torch.randint(side, (n,), generator=rng) + 1) / side - 1
            zoomed = torch.rand(n, generator=rng) < config.zoom
            halves = torch.where(zoomed, _SMALLEST + (1 - _SMALLEST) * torch.rand(n, generator=rng), 1.0)
            reach = (1 - halves + 2 * _BESIDE * zoomed)[:, None]
            middles = reach * (2 * torch.rand(n, 2, generator=rng) - 1)
            along, middles, halves = (part.to(shown) for part in (along, middles, halves))
            drawn = self._window(features, shown, plane, along, middles, halves).float()
            points = points_of(plane, along, middles, halves, side)[:, None]
            error.append(F.l1_loss(drawn, F.grid_sample(batch["ct"][:, None], points, align_corners=False)[:, 0, 0]))
        return {"loss": torch.stack(error).mean()}

    def _window(
        self, features: list[Tensor], shown: Tensor, plane: Plane, along: Tensor, middles: Tensor, halves: Tensor
    ) -> Float[Tensor, "n h w"]:
        """Return a window of each patient, or n of one (`points_of`)."""
        coarse = self.coarse.shape[0] // 2 ** (len(self.settings.channels) - 1)
        return self.network(features, shown, points_of(plane, along, middles, halves, coarse))

    def draw(self, seen: Batch) -> Float[Tensor, "b z y x"]:
        """Return the mean of the volumes that are drawn in each plane, one patient after another."""
        side, volumes = self.coarse.shape[0], []
        along = (2 * torch.arange(side, device=self.anatomy.mean.device) + 1) / side - 1
        for images, shown in zip(seen["images"], self.shown(seen), strict=True):
            features = self.network.read(images[None])
            planes = []
            for plane in self.settings.planes:
                parts = []
                for part in along.split(self.settings.batch):
                    middles, halves = part.new_zeros(len(part), 2), torch.ones_like(part)
                    parts.append(self._window(features, shown[None], plane, part, middles, halves))
                planes.append(volume_of(torch.cat(parts), plane))
            volumes.append(torch.stack(planes).mean(0))
        return torch.stack(volumes)

    def preview(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the middle coronal slice of the first patient, of the truth and as it is drawn."""
        one = {name: tensor[:1] for name, tensor in batch.items()}
        middle = torch.zeros(1, device=one["ct"].device)
        features = self.network.read(one["images"])
        drawn = self._window(features, self.shown(one), "coronal", middle, middle.new_zeros(1, 2), middle + 1)
        return {"truth": picture(one["ct"]), "drawn": picture(drawn[:, :, None])}

    @torch.no_grad()
    def window(
        self, radiograph: Radiograph, plane: Plane, middle_mm: FloatArray, side_mm: float, outside: Outside = "body"
    ) -> Float[Tensor, "h w"]:
        """Draw a square window of any slice, magnified to as many pixels as a whole slice has, in HU.

        Args:
            radiograph: as for `reconstruct`.
            plane: of the slice.
            middle_mm: of the window, LPS.
            side_mm: of the window; the global variant learned from a quarter of the volume's side on.
            outside: as for `reconstruct`.
        """
        radiograph, centre_mm = about_isocentre(radiograph)
        _, seen = self.read(radiograph, outside)
        half_mm = self.grid.size_mm / 2
        place = torch.from_numpy(((middle_mm - centre_mm) / half_mm)[::-1].astype(np.float32)).to(seen["images"])
        across = PLANES.index(plane)
        middle = torch.cat([place[:across], place[across + 1 :]])
        half = place.new_full((1,), side_mm / 2 / float(half_mm[0]))
        with in_bf16(place):
            features = self.network.read(seen["images"])
            unit = self._window(features, self.shown(seen), plane, place[across, None], middle[None], half)
        return from_unit_range(unit[0].float()).cpu()


class _Network(nn.Module):
    """Features of X-rays, and a decoder of what points of a slice are told."""

    frequencies: Float[Tensor, " bands"]

    def __init__(self, config: Perx2ctConfig) -> None:
        super().__init__()
        from monai.networks.nets.autoencoderkl import Decoder  # slow to import

        self.encoder = ResNetFeatures(config.resnet_width, 101, 3 if config.whole else 2)
        self.whole = nn.Conv2d(self.encoder.channels[-1], config.whole, 1) if config.whole else None
        self.register_buffer("frequencies", frequencies_of(config.bands), persistent=False)
        told = len(config.angles_deg) * (self.encoder.channels[1] + config.whole) + 3 * (1 + 2 * config.bands)
        levels = len(config.channels)
        self.decoder = Decoder(
            2, config.channels, told, 1, [config.blocks] * levels, norm_num_groups=min(32, config.channels[0]),
            norm_eps=1e-6, attention_levels=[level + 1 == levels for level in range(levels)],
        )  # fmt: skip

    def read(self, images: Float[Tensor, "b v p p"]) -> list[Tensor]:
        """Return the maps (b, v, c, h, w) of X-rays, and what is told of each as a whole (b, v * c), if anything."""
        maps = self.encoder(images.flatten(0, 1))
        found = [maps[1].unflatten(0, images.shape[:2])]
        if self.whole is not None:
            found.append(self.whole(maps[2]).mean((2, 3)).unflatten(0, images.shape[:2]).flatten(1))
        return found

    def forward(
        self, features: Sequence[Tensor], pinholes: Float[Tensor, "b v 3 4"], points: Float[Tensor, "n h w 3"]
    ) -> Float[Tensor, "n H W"]:
        """Return slices at points (x, y, z), one of each patient, or n of one."""
        n, side = points.shape[:2]
        places = seen_at(pinholes, points.reshape(len(pinholes), -1, 3))[..., :2]
        local = read_at(features[0], places).flatten(1, 2).unflatten(2, (-1, side * side))  # b c n h*w
        local = local.transpose(1, 2).reshape(n, -1, side, side)
        parts = [local, waves_of(points, self.frequencies).movedim(-1, 1)]
        parts += [whole[:, :, None, None].expand(n, -1, side, side) for whole in features[1:]]
        found: Tensor = self.decoder(torch.cat(parts, 1))
        return found[:, 0]
