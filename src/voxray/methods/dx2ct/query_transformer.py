"""The 3D positional query transformer (3DPQT): from features of X-rays to those of a slice."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class QueryTransformer(nn.Module):
    """Blocks of cross-attention: the places of a slice ask, the places of the X-rays answer.

    Paper, section 2.2; it says no more than "multi-head cross-attention" and the number of blocks. Ours: normalisation
    before each part, an MLP of four times the width, no dropout, as in ViT.

    Args:
        channels: of all maps.
        blocks: how many.
        heads: of each attention; divides the channels.
    """

    def __init__(self, channels: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(_CrossAttention(channels, heads) for _ in range(blocks))

    def forward(self, query: Float[Tensor, "b c h w"], tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b c h w"]:
        """Return the features of slices.

        Args:
            query: encoded places of the slices.
            tokens: features of all X-rays, with their encoded places.
        """
        x, tokens = query.flatten(2).transpose(1, 2), self.norm(tokens)
        for block in self.blocks:
            x = block(x, tokens)
        return x.transpose(1, 2).reshape(query.shape)


class _CrossAttention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = x + self.attention(self.before(x), tokens, tokens, need_weights=False)[0]
        return torch.add(x, self.mlp(self.between(x)))
