"""How the autoencoders of latent diffusions learn: as those of DVG-Diffusion do."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from voxray.methods.stages import Batch, Critic, GradientStage, Losses, MethodConfig, Preparation, StageOptions
from voxray.nets.autoencoder import AutoencoderConfig, VQAutoencoder


class AutoencoderStage(MethodConfig):
    """An autoencoder and its training; the weights of the losses are the release's."""

    sizes: AutoencoderConfig = AutoencoderConfig()
    training: StageOptions = StageOptions(steps=100_000, batch_size=2, learning_rate=3e-4, betas=(0.5, 0.9))
    crop: int | None = Field(default=None, gt=0, description="side of random cubes that are learned from; null for all")
    quantised: float = Field(
        default=1.0, ge=0, le=1,
        description="share of the batches that the decoder sees quantised; the others teach it latents as they are",
    )  # fmt: skip
    l1: float = Field(default=4.0, ge=0, description="weight of the mean absolute error")
    commitment: float = Field(default=0.25, ge=0, description="weight of the latents' squared distance to their codes")
    adversarial: float = Field(default=1.0, ge=0, description="weight of what the critics say; 0 for no critics")
    features: float = Field(default=1.0, ge=0, description="weight of the critics' features")
    adversarial_start: int = Field(default=5_000, ge=0, description="step from which there are critics")
    critic_width: int = Field(default=64, gt=0, description="channels of the critics' first layer")


def autoencoder_stage(
    name: str, network: VQAutoencoder, config: AutoencoderStage, preparation: Preparation, key: str
) -> GradientStage:
    """Return the stage that trains an autoencoder on the volumes `key` of the items.

    The loss is the release's (dvg_diffusion.md, section 2.1): L1, commitment, and, once they have begun, the critics'
    judgement and their features. The perceptual term needs weights that voxray does not have, and is left out.
    """
    critic = None
    if config.adversarial > 0:
        from voxray.nets.discriminators import SliceAndVolumeCritic

        judge = SliceAndVolumeCritic(config.critic_width)

        def critic_loss(batch: Batch, rng: torch.Generator) -> Losses:
            real = crops(batch[key], config.crop, rng)
            with torch.no_grad():
                fake = network(real)[0]
            return judge.critic_loss(fake, real, rng)

        critic = Critic(judge, critic_loss, start=config.adversarial_start)

    def loss(batch: Batch, step: int, rng: torch.Generator) -> Losses:
        real = crops(batch[key], config.crop, rng)
        latents = network.encode(real)
        quantised = network.codebook.learn(latents, rng)
        seen = quantised.latents if float(torch.rand((), generator=rng)) < config.quantised else latents
        fake = network.decoder(network.from_latents(seen)).float()
        l1 = F.l1_loss(fake, real)
        total = config.l1 * l1 + config.commitment * quantised.commitment
        told = {"l1": l1, "mse": F.mse_loss(fake.detach(), real), "commitment": quantised.commitment}
        if critic is not None and step >= critic.start:
            judged = critic.network.generator_loss(fake, real, rng)  # type: ignore[operator]
            total = total + config.adversarial * (judged["slice"] + judged["volume"])
            total = total + config.features * judged["features"]
            told |= judged
        return {"loss": total, **told, **quantised.usage(len(network.codebook.codes))}

    def preview(batch: Batch) -> dict[str, Tensor]:
        real = batch[key][:1, None]
        middle = real.shape[3] // 2
        return {"given": real[0, 0, :, middle].flip(0), "decoded": network(real)[0][0, 0, :, middle].float().flip(0)}

    return GradientStage(name, network, preparation, loss, config.training, critic, preview)


def crops(volumes: Float[Tensor, "b z y x"], side: int | None, rng: torch.Generator) -> Float[Tensor, "b 1 Z Y X"]:
    """Cut a random cube out of each volume."""
    if side is None:
        return volumes[:, None]
    cut = []
    for volume in volumes:
        z, y, x = (int(torch.randint(n - side + 1, (), generator=rng)) for n in volume.shape)
        cut.append(volume[z : z + side, y : y + side, x : x + side])
    return torch.stack(cut)[:, None]
