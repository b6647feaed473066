"""A vector-quantising autoencoder of volumes, in the manner of TATS and medical diffusion.

Ge et al. 2022 (arXiv 2204.03638) and Khader et al. 2023 (arXiv 2211.03364), in the sizes of DVG-Diffusion
(arXiv 2503.17804): a volume of 128^3 becomes 8 x 32^3 latents.
"""

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from voxray.nets.codebook import Codebook, Quantised

Padding = Literal["replicate", "zeros"]


class AutoencoderConfig(BaseModel):
    """Sizes of an autoencoder; the defaults are the paper's, where 0.44 M and 0.95 M parameters are told."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    widths: tuple[int, ...] = Field(
        default=(16, 32, 64), strict=False, min_length=2, description="channels of the encoder, finest level first"
    )
    encoder_blocks: int = Field(default=1, ge=0, description="residual blocks after each halving")
    decoder_widths: tuple[int, ...] = Field(
        default=(64, 32), strict=False, min_length=1, description="channels of the decoder after each doubling"
    )
    decoder_blocks: tuple[int, ...] = Field(
        default=(2, 2), strict=False, min_length=1, description="residual blocks after each doubling"
    )
    latent_blocks: int = Field(default=0, ge=0, description="residual blocks of the decoder before the first doubling")
    latent_channels: int = Field(default=8, gt=0, description="of the latents, and the length of a code")
    codes: int = Field(default=16384, gt=1, description="of the codebook")
    dead_below: float = Field(default=1.0, ge=0, description="uses a batch below which a code is moved")
    padding: Padding = Field(default="replicate", description="of the convolutions, at the border of the volume")


class VQAutoencoder(nn.Module):
    """Encoder, codebook and decoder of volumes of one channel.

    Args:
        config: sizes.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        if not len(config.widths) - 1 == len(config.decoder_widths) == len(config.decoder_blocks):
            raise ValueError("The decoder must double as often as the encoder halves.")
        self.encoder = Encoder(config)
        self.to_latents = nn.Conv3d(config.widths[-1], config.latent_channels, 1)
        self.codebook = Codebook(config.codes, config.latent_channels, dead_below=config.dead_below)
        self.from_latents = nn.Conv3d(config.latent_channels, config.widths[-1], 1)
        self.decoder = Decoder(config)

    def encode(self, volumes: Float[Tensor, "batch 1 z y x"]) -> Float[Tensor, "batch channels Z Y X"]:
        """Return latents before quantisation, on which the diffusion works (as in the release of DVG-Diffusion)."""
        return self.to_latents(self.encoder(volumes))

    def decode(self, latents: Float[Tensor, "batch channels Z Y X"], quantise: bool = True) -> Tensor:
        """Return the volumes (batch, 1, z, y, x) of latents, of their nearest codes where `quantise`."""
        if quantise:
            latents = self.codebook(latents).latents
        return self.decoder(self.from_latents(latents))

    def forward(self, volumes: Float[Tensor, "batch 1 z y x"]) -> tuple[Tensor, Quantised]:
        """Return the volumes after encoding, quantisation and decoding, and what the codebook did."""
        quantised = self.codebook(self.encode(volumes))
        return self.decoder(self.from_latents(quantised.latents)), quantised


class Encoder(nn.Module):
    """Halves the volume several times: a convolution of stride 2, then residual blocks."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        padding = config.padding
        self.first = nn.Conv3d(1, config.widths[0], 3, padding=1, padding_mode=padding)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(before, after, 4, stride=2, padding=1, padding_mode=padding),
                *(ResBlock(after, padding) for _ in range(config.encoder_blocks)),
            )
            for before, after in pairwise(config.widths)
        )
        self.norm = _norm(config.widths[-1])

    def forward(self, x: Float[Tensor, "batch 1 z y x"]) -> Float[Tensor, "batch channels Z Y X"]:
        """Return features at the coarsest level."""
        x = self.first(x)
        for level in self.levels:
            x = level(x)
        return F.silu(self.norm(x))


class Decoder(nn.Module):
    """Doubles the volume several times: a transposed convolution of stride 2, then residual blocks."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        padding, width = config.padding, config.widths[-1]
        self.latent = nn.Sequential(*(ResBlock(width, padding) for _ in range(config.latent_blocks)))
        self.norm = _norm(width)
        self.levels = nn.ModuleList(
            nn.Sequential(Doubling(before, after, padding), *(ResBlock(after, padding) for _ in range(blocks)))
            for (before, after), blocks in zip(
                pairwise((width, *config.decoder_widths)), config.decoder_blocks, strict=True
            )
        )
        self.last = nn.Conv3d(config.decoder_widths[-1], 1, 3, padding=1, padding_mode=padding)

    def forward(self, x: Float[Tensor, "batch channels Z Y X"]) -> Float[Tensor, "batch 1 z y x"]:
        """Return volumes; no activation at the end."""
        x = F.silu(self.norm(self.latent(x)))
        for level in self.levels:
            x = level(x)
        return self.last(x)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, channels: int, padding: Padding) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels), _norm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1, padding_mode=padding)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1, padding_mode=padding)

    def forward(self, x: Float[Tensor, "batch channels z y x"]) -> Float[Tensor, "batch channels z y x"]:
        """Return the sum."""
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Doubling(nn.Module):
    """A transposed convolution (4^3, stride 2) whose result is exactly twice as large."""

    def __init__(self, before: int, after: int, padding: Padding) -> None:
        super().__init__()
        self.replicate = padding == "replicate"
        self.conv = nn.ConvTranspose3d(before, after, 4, stride=2, padding=3 if self.replicate else 1)

    def forward(self, x: Float[Tensor, "batch before z y x"]) -> Float[Tensor, "batch after Z Y X"]:
        """Return the doubled features."""
        return self.conv(F.pad(x, (1,) * 6, mode="replicate") if self.replicate else x)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels), channels, eps=1e-6)
