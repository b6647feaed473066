"""A method that learns in moments: what tests of training train.

Two stages: a small autoencoder with a codebook-like buffer, dropout, a critic and an average; then a map from the
X-rays' means to its latents, which are prepared by the frozen autoencoder from what the first stage prepared.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.methods.base import Estimate, Method, MethodConfig, Outside, Progress
from voxray.methods.stages import Batch, Critic, GradientStage, Item, Losses, Preparation, StageOptions
from voxray.recipes import Recipe
from voxray.recipes.sections import DataRecipe

SHAPE, SPACING_MM = (32, 32, 32), 10.0


class TinyConfig(MethodConfig):
    channels: int = Field(default=4, gt=0, description="of the networks")
    first: StageOptions = Field(
        default=StageOptions(steps=6, batch_size=2, learning_rate=1e-2, warmup=2, ema=0.9), description="autoencoder"
    )
    second: StageOptions = Field(
        default=StageOptions(steps=4, batch_size=2, learning_rate=1e-2, decay="cosine", clip=None), description="map"
    )


class Autoencoder(nn.Module):
    mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Conv3d(1, channels, 4, 4)
        self.decoder = nn.ConvTranspose3d(channels, 1, 4, 4)
        self.register_buffer("mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        z = F.dropout(self.encoder(x), 0.1, self.training)
        if self.training:
            self.mean += 0.1 * (z.detach().float().mean((0, 2, 3, 4)) - self.mean)
        out: Tensor = self.decoder(z)
        return out


class Tiny(Method):
    name = "tiny_learner"
    Config = TinyConfig

    def __init__(self, config: TinyConfig, grid: VolumeGrid) -> None:
        super().__init__(config, grid)
        self.options = config
        self.autoencoder = Autoencoder(config.channels)
        self.map = nn.Linear(1, config.channels)

    def stages(self) -> Sequence[GradientStage]:
        critic = nn.Conv3d(1, 1, 4, 4)
        volumes = Preparation("volumes", self._volumes)
        latents = Preparation("latents", self._latents, after=volumes)

        def reconstruct(batch: Batch, step: int, rng: torch.Generator) -> Losses:
            noisy = batch["hu"] + 0.1 * torch.randn(batch["hu"].shape, generator=rng)
            found = self.autoencoder(noisy)
            l1 = (found - batch["hu"]).abs().mean()
            return {"loss": l1 - 0.01 * critic(found).mean(), "l1": l1}

        def criticise(batch: Batch, rng: torch.Generator) -> Losses:
            assert not any(parameter.requires_grad for parameter in self.autoencoder.parameters())
            found = self.autoencoder(batch["hu"])
            return {"loss": F.relu(1 - critic(batch["hu"])).mean() + F.relu(1 + critic(found)).mean()}

        def regress(batch: Batch, step: int, rng: torch.Generator) -> Losses:
            assert not self.autoencoder.training
            return {"loss": F.mse_loss(self.map(batch["seen"]), batch["latent"])}

        def preview(batch: Batch) -> dict[str, Tensor]:
            return {"axial": self.autoencoder(batch["hu"])[0, 0, 16]}

        return [
            GradientStage(
                "the autoencoder", self.autoencoder, volumes, reconstruct, self.options.first,
                Critic(critic, criticise, start=2), preview,
            ),
            GradientStage("map", self.map, latents, regress, self.options.second),
        ]  # fmt: skip

    @staticmethod
    def _volumes(sample: TrainingSample) -> Item:
        seen = torch.stack([image.mean() for image in sample.images]).mean()
        return {"hu": sample.hu / 1000, "seen": seen[None], "air": torch.tensor([sample.outside == "air"])}

    def _latents(self, item: Item) -> Item:
        return {"latent": self.autoencoder.encoder(item["hu"][None])[0].mean((1, 2, 3)), "seen": item["seen"]}

    @torch.no_grad()
    def reconstruct(
        self, radiograph: Radiograph, *, rng: torch.Generator, samples: int = 1, outside: Outside = "body",
        progress: Progress | None = None,
    ) -> Estimate:  # fmt: skip
        seen = torch.stack([image.mean() for image in radiograph.images]).mean()
        z = self.map(seen[None])[:, None, None, None].expand(-1, *(n // 4 for n in self.grid.shape))
        return Estimate(CTVolume(1000 * self.autoencoder.decoder(z[None])[0, 0], self.grid), reprojections=())


def tiny_recipe(data: DataRecipe | None = None, precision: str = "fp32", seed: int = 0, **config: object) -> Recipe:
    """Return a recipe for a store of `small_models`."""
    return Recipe(
        name="tiny", method="tiny_learner", grid={"shape": SHAPE, "spacing_mm": SPACING_MM}, config=config,
        data=data or DataRecipe(variants=2), training={"precision": precision, "seed": seed},
    )  # fmt: skip


def install(folder: Path) -> Path:
    """Write what pip would: a folder that, on the path of Python, brings the method as an installed package does."""
    info = folder / "voxray_tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: voxray-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[voxray.methods]\ntiny_learner = tiny_learner:Tiny\n")
    return folder
