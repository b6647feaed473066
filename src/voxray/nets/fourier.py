"""Places as numbers that a network can tell apart."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FourierEncoding(nn.Module):
    """Sine and cosine of the coordinates at doubling frequencies, and a network on top (Mildenhall et al. 2020, eq. 4).

    Args:
        bands: how many frequencies, pi, 2 pi, 4 pi, ...
        hidden: width of the network.
        channels: of the result.
    """

    frequencies: Float[Tensor, " bands"]

    def __init__(self, bands: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies_of(bands), persistent=False)
        self.net = nn.Sequential(
            nn.Linear(3 * (1 + 2 * bands), hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, channels),
        )  # fmt: skip

    def forward(self, places: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape c"]:
        """Encode places, coordinates from -1 to 1."""
        found: Tensor = self.net(waves_of(places, self.frequencies))
        return found


def frequencies_of(bands: int) -> Float[Tensor, " bands"]:
    """Return pi, 2 pi, 4 pi, ..."""
    return torch.pi * 2.0 ** torch.arange(bands)


def waves_of(
    places: Float[Tensor, "*shape 3"], frequencies: Float[Tensor, " bands"]
) -> Float[Tensor, "*shape 3+6*bands"]:
    """Return places, and sine and cosine of each coordinate at each frequency."""
    waves = (places[..., None] * frequencies).flatten(-2)
    return torch.cat([places, waves.sin(), waves.cos()], -1)
