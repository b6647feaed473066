"""Patch discriminators of slices and of volumes, and what they make an autoencoder learn."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call


class SliceAndVolumeCritic(nn.Module):
    """Judges whether volumes are real, patch by patch: one random axial slice of each, and each as a whole.

    As in the training of DVG-Diffusion's autoencoders, after Ge et al., Long Video Generation (TATS), 2022,
    arXiv 2204.03638, section 3.1: two PatchGAN discriminators (Isola et al. 2017, arXiv 1611.07004) of five layers with
    kernels of 4, padding of 2 (1 in the last layer, which MONAI fixes), batch norm and LeakyReLU 0.2; the hinge loss;
    matching of features. MONAI's `PatchAdversarialLoss` is not used: it passes what is judged through a tanh, so that
    its hinge never lets go. Batch norm takes the statistics of the batch at hand and keeps none, our choice: the critic
    then judges the same in training and evaluation, and does not change while the other network learns.

    Args:
        width: channels of the first layer; the next three have 2, 4 and 8 times as many.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        from monai.networks.nets import PatchDiscriminator  # slow to import

        self.slice, self.volume = (
            PatchDiscriminator(
                spatial_dims=axes,
                channels=width,
                in_channels=1,
                padding=2,
                norm=("BATCH", {"track_running_stats": False}),
            )
            for axes in (2, 3)
        )

    def generator_loss(
        self, fake: Float[Tensor, "b 1 z y x"], real: Float[Tensor, "b 1 z y x"], rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Return what the network that made `fake` should make small, term by term; no weights are applied.

        `slice` and `volume`: - mean(D(fake)). `features`: mean |D_l(fake) - D_l(real)|, summed over the layers l but
        the last, and over both discriminators (Wang et al. 2018, arXiv 1711.11585, eq. 3). Gradients reach `fake`, and
        neither `real` nor the critic.
        """
        losses = {"features": fake.new_zeros(())}
        for name, net, f, r in self._pairs(fake, real.detach(), rng):
            frozen = {key: value.detach() for key, value in net.named_parameters()}
            with torch.no_grad():
                *wanted, _ = net(r)
            *features, judgement = functional_call(net, frozen, f)
            losses[name] = -judgement.float().mean()
            for feature, target in zip(features, wanted, strict=True):
                losses["features"] = losses["features"] + F.l1_loss(feature.float(), target.float())
        return losses

    def critic_loss(
        self, fake: Float[Tensor, "b 1 z y x"], real: Float[Tensor, "b 1 z y x"], rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the hinge losses of both discriminators, `slice` and `volume`, and `loss`, their sum.

        (mean(max(0, 1 - D(real))) + mean(max(0, 1 + D(fake)))) / 2. Gradients reach the critic, but not `fake`.
        """
        losses = {}
        for name, net, f, r in self._pairs(fake.detach(), real.detach(), rng):
            on_real, on_fake = net(r)[-1].float(), net(f)[-1].float()
            losses[name] = (F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()) / 2
        return {**losses, "loss": losses["slice"] + losses["volume"]}

    def _pairs(
        self, fake: Tensor, real: Tensor, rng: torch.Generator
    ) -> Sequence[tuple[str, nn.Module, Tensor, Tensor]]:
        z = torch.randint(fake.shape[2], (len(fake),), generator=rng)
        slices = (axial_slices(fake, z), axial_slices(real, z))
        return ("slice", self.slice, *slices), ("volume", self.volume, fake, real)


class ConditionalVolumeCritic(nn.Module):
    """Judges whether volumes belong to their X-rays, patch by patch, by least squares.

    As in X2CT-GAN (Ying et al. 2019, arXiv 1905.06902): a 3D PatchGAN that is given the volume and
    the X-rays, spread through it, as channels; the loss of Mao et al. 2017 (arXiv 1611.04076). Instance normalisation,
    so that it judges each volume for itself.

    Args:
        conditions: channels beside the volume.
        width: of the first layer.
    """

    def __init__(self, conditions: int, width: int = 64) -> None:
        super().__init__()
        from monai.networks.nets import PatchDiscriminator  # slow to import

        self.net = PatchDiscriminator(3, width, 1 + conditions, norm="INSTANCE")

    def generator_loss(self, fake: Float[Tensor, "b z y x"], told: Float[Tensor, "b c z y x"]) -> Tensor:
        """Return `convincing` of the volumes."""
        return convincing(self.net, torch.cat([fake[:, None], told], 1))

    def critic_loss(
        self, fake: Float[Tensor, "b z y x"], real: Float[Tensor, "b z y x"], told: Float[Tensor, "b c z y x"]
    ) -> Tensor:
        """Return `least_squares` of the volumes."""
        return least_squares(self.net, *(torch.cat([volume[:, None], told], 1) for volume in (fake, real)))


def convincing(net: nn.Module, fake: Float[Tensor, "b c *place"]) -> Tensor:
    """Return mean((D(fake) - 1)^2) of a patch discriminator. Gradients reach `fake`, and not the discriminator."""
    frozen = {key: value.detach() for key, value in net.named_parameters()}
    return (functional_call(net, frozen, fake)[-1].float() - 1).square().mean()


def least_squares(net: nn.Module, fake: Float[Tensor, "b c *place"], real: Float[Tensor, "b c *place"]) -> Tensor:
    """Return (mean((D(real) - 1)^2) + mean(D(fake)^2)) / 2. Gradients reach the discriminator alone."""
    on_real, on_fake = (net(images.detach())[-1].float() for images in (real, fake))
    return ((on_real - 1).square().mean() + on_fake.square().mean()) / 2


def axial_slices(volumes: Float[Tensor, "b c z y x"], index: Tensor) -> Float[Tensor, "b c y x"]:
    """Take one axial slice of each volume, `index` (b,) being its place along z."""
    return volumes[torch.arange(len(volumes)), :, index]
