"""The 3D positional query transformer (3DPQT): from features of X-rays to those of places in the volume."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class QueryTransformer(nn.Module):
    """Blocks of cross-attention: places of slices ask, places of X-rays answer.

        x <- x + attention(norm(x), tokens),    x <- x + mlp(norm(x))

    Paper, section 2.2; it says no more than "multi-head cross-attention" and the number of blocks. Ours: normalisation
    before each part, an MLP of four times the width, no dropout, as in ViT. No place hears of another, so any number of
    slices can ask at once.

    Args:
        channels: of places and tokens.
        blocks: how many.
        heads: of each attention; divides the channels.
    """

    def __init__(self, channels: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(_CrossAttention(channels, heads) for _ in range(blocks))

    def forward(self, asked: Float[Tensor, "b n c"], tokens: Float[Tensor, "b m c"]) -> Float[Tensor, "b n c"]:
        """Return the features of places.

        Args:
            asked: encoded places of slices.
            tokens: features of all X-rays, with their encoded places.
        """
        tokens = self.norm(tokens)
        for block in self.blocks:
            asked = block(asked, tokens)
        return asked


class _CrossAttention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = x + self.attention(self.before(x), tokens, tokens, need_weights=False)[0]
        return torch.add(x, self.mlp(self.between(x)))
