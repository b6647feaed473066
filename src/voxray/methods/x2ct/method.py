"""X2CT-CNN and X2CT-GAN: one generator, with or without a critic."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from voxray.geometry import VolumeGrid
from voxray.methods.one_pass import OnePass, side_of
from voxray.methods.projections import along_axes
from voxray.methods.stages import Batch, Critic, Losses
from voxray.methods.x2ct.config import X2ctConfig
from voxray.methods.x2ct.generator import Generator
from voxray.nets.discriminators import ConditionalVolumeCritic
from voxray.nets.lifting import along_rays


class X2ct(OnePass):
    """X2CT-GAN (Ying et al. 2019, arXiv 1905.06902), and X2CT-CNN, which is the same without a critic.

        L = 0.1 L_adversarial + 10 |G(x) - y|^2 + 10 L_projections

    L_adversarial is that of least squares (`ConditionalVolumeCritic`), L_projections that of `along_axes`. The critic
    is told the X-rays, spread through the volume. docs/methods/x2ct.md says what is ours.
    """

    name = "x2ct"
    Config = X2ctConfig

    def __init__(self, config: X2ctConfig, grid: VolumeGrid) -> None:
        self.settings = config
        side = side_of(self.name, grid, config.coarser, 2 ** len(config.generator.blocks))
        network = Generator(config.generator, len(config.angles_deg), side)
        super().__init__(config, grid, network, side, config.angles_deg)

    def draw(self, seen: Batch) -> Float[Tensor, "b z y x"]:
        """Return what the generator draws."""
        found: Tensor = self.network(seen["images"], self.shown(seen))
        return found

    def losses(self, batch: Batch, rng: torch.Generator, critic: nn.Module | None) -> Losses:
        """Return the squared error, and what projections and the critic say, as far as they have a weight."""
        config, drawn, truth = self.settings, self.draw(batch).float(), batch["ct"]
        told = {"mse": F.mse_loss(drawn, truth)}
        loss = config.reconstruction * told["mse"]
        if config.projections > 0:
            told["projections"] = along_axes(drawn - truth).mean()
            loss = loss + config.projections * told["projections"]
        if isinstance(critic, ConditionalVolumeCritic):
            told["adversarial"] = critic.generator_loss(drawn, self._spread(batch))
            loss = loss + config.adversarial * told["adversarial"]
        return {"loss": loss, **told}

    def critic(self) -> Critic | None:
        """Return the critic of X2CT-GAN; None for X2CT-CNN."""
        if self.settings.adversarial == 0:
            return None
        judge = ConditionalVolumeCritic(len(self.settings.angles_deg), self.settings.critic_width)

        def loss(batch: Batch, rng: torch.Generator) -> Losses:
            with torch.no_grad():
                drawn = self.draw(batch).float()
            return {"loss": judge.critic_loss(drawn, batch["ct"], self._spread(batch))}

        return Critic(judge, loss)

    def _spread(self, seen: Batch) -> Float[Tensor, "b v z y x"]:
        return along_rays(seen["images"][:, :, None], self.shown(seen), self.coarse.shape)[:, :, 0]
