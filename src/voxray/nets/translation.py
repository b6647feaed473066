"""Networks that turn images of one kind into images of another without pairs of them: CycleGAN's, made small."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxray.nets.convolution import convolution
from voxray.nets.discriminators import convincing, least_squares


class Translator(nn.Module):
    """CycleGAN's generator (Zhu et al. 2017, arXiv 1703.10593, appendix 7.2), which says what to change.

    Layers c7s1-w, d2w, d4w, blocks of R4w, u2w, uw, c7s1-1 with instance norms. Ours: it is told which pixels are
    seen, the others are 0 before and after; what it draws is added to the image, and its last layer begins with zeros,
    so that it begins with changing nothing; zeros instead of reflections beyond the border; pixels are repeated and
    convolved where the paper has transposed convolutions, which leave a chequered pattern (Odena et al. 2016,
    doi 10.23915/distill.00003).

    Args:
        width: channels of the first layer (64 in the paper).
        blocks: residual blocks (6 for 128 pixels, 9 for 256 in the paper).
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, 1, 7, padding=3)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.net = nn.Sequential(
            convolution(2, 2, width, norm="instance", kernel=7),
            convolution(2, width, 2 * width, norm="instance", stride=2),
            convolution(2, 2 * width, 4 * width, norm="instance", stride=2),
            *(_Residual(4 * width) for _ in range(blocks)),
            nn.Upsample(scale_factor=2), convolution(2, 4 * width, 2 * width, norm="instance"),
            nn.Upsample(scale_factor=2), convolution(2, 2 * width, width, norm="instance"),
            last,
        )  # fmt: skip

    def forward(self, image: Float[Tensor, "b 1 h w"], seen: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return images as the other kind shows them; sides are multiples of 4.

        Args:
            image: values near 1; 0 where nothing is seen.
            seen: 1 where something is seen, else 0.
        """
        return (image + self.net(torch.cat([image, seen], 1)).float()) * seen


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            convolution(2, width, width, norm="instance"),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.net(x)
        return out


class Cycle(nn.Module):
    """Two translators, there and back.

    Args:
        width, blocks: of each.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.there, self.back = Translator(width, blocks), Translator(width, blocks)


class ImagePool(nn.Module):
    """The last translations, from which a critic learns beside the newest one.

    Shrivastava et al. 2017, arXiv 1612.07828, section 2.3. Its images are buffers, so that a checkpoint holds them.

    Args:
        size: images (50 in CycleGAN).
        pixels: along each side.
    """

    images: Tensor
    held: Tensor

    def __init__(self, size: int, pixels: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, 1, pixels, pixels))
        self.register_buffer("held", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def exchanged(self, images: Float[Tensor, "b 1 p p"], rng: torch.Generator) -> Float[Tensor, "b 1 p p"]:
        """Return each image or, with a chance of one half, another that is kept here, whose place it takes."""
        found = images.clone()
        for n, image in enumerate(images):
            held, (chance, place) = int(self.held), torch.rand(2, generator=rng).tolist()
            if held < len(self.images):
                self.images[held] = image
                self.held += 1
            elif chance < 0.5:
                other = int(place * held)
                found[n] = self.images[other]
                self.images[other] = image
        return found


class CycleCritic(nn.Module):
    """CycleGAN's two critics: of the images that `there` makes, and of those that `back` makes.

    PatchGANs (appendix 7.2), by least squares (section 4), each with its pool.

    Args:
        width: channels of the first layer (64 in the paper).
        layers: with strides; 3 see patches of 70 pixels as in the paper, 2 of 34.
        pool: images that each remembers.
        pixels: of an image's side.
    """

    def __init__(self, width: int, layers: int, pool: int, pixels: int) -> None:
        super().__init__()
        from monai.networks.nets import PatchDiscriminator  # slow to import

        self.there, self.back = (
            PatchDiscriminator(2, width, 1, num_layers_d=layers, norm="INSTANCE") for _ in range(2)
        )  # fmt: skip
        self.pools = nn.ModuleList(ImagePool(pool, pixels) for _ in range(2))

    def generator_loss(self, there: Float[Tensor, "b 1 p p"], back: Float[Tensor, "b 1 p p"]) -> tuple[Tensor, Tensor]:
        """Return what the translations there, and those back, should make small."""
        return convincing(self.there, there), convincing(self.back, back)

    def critic_loss(
        self, fake: tuple[Tensor, Tensor], real: tuple[Tensor, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of either critic.

        Args:
            fake: translations (b, 1, p, p): there, back.
            real: what they should look like.
            rng: of the pools.
        """
        old = [pool.exchanged(images, rng) for pool, images in zip(self.pools, fake, strict=True)]  # type: ignore[operator]
        return least_squares(self.there, old[0], real[0]), least_squares(self.back, old[1], real[1])
