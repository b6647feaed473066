"""Attention within the slices of a volume and across them; each adds its result to its input.

Volumes have axes (batch, channel, depth, height, width). In memory, the channel had better be last
(`torch.channels_last_3d`): then nothing is copied on the way into the attention.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class _Attention(nn.Module):
    """What the kinds of attention have in common: a norm over channels, and projections to heads and back."""

    def __init__(self, channels: int, heads: int, head_channels: int, out_bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.scale = nn.Parameter(torch.ones(channels))
        self.qkv = nn.Linear(channels, 3 * heads * head_channels, bias=False)
        self.out = nn.Linear(heads * head_channels, channels, bias=out_bias)

    def _split(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "3 b d h w heads e"]:
        x = F.layer_norm(x.movedim(1, -1), self.scale.shape, self.scale)
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0)

    def _join(self, x: Float[Tensor, "b c d h w"], heads: Float[Tensor, "b d h w heads e"]) -> Tensor:
        result: Tensor = x + self.out(heads.flatten(-2)).movedim(-1, 1)
        return result


class LinearAttention(_Attention):
    """Attention within each slice at a cost linear in its pixels (Shen et al. 2018, arXiv 1812.01243, section 3.2).

    softmax(q) / sqrt(e) @ (softmax(k)^T v), where the first softmax is over channels, the second over pixels.
    """

    def __init__(self, channels: int, heads: int, head_channels: int) -> None:
        super().__init__(channels, heads, head_channels, out_bias=True)

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d h w"]:
        """Let the pixels of each slice attend to each other."""
        q, k, v = (part.flatten(2, 3).transpose(2, 3) for part in self._split(x))  # b d heads (h w) e
        context = k.softmax(dim=-2).transpose(-1, -2) @ v
        out = (q.softmax(dim=-1) * q.shape[-1] ** -0.5) @ context
        return self._join(x, out.transpose(2, 3).unflatten(2, x.shape[3:]))


class SliceAttention(_Attention):
    """Full attention within each slice (Vaswani et al. 2017, arXiv 1706.03762, eq. 1); positions are not told."""

    def forward(self, x: Float[Tensor, "b c d h w"]) -> Float[Tensor, "b c d h w"]:
        """Let the pixels of each slice attend to each other."""
        q, k, v = (part.flatten(2, 3).transpose(2, 3).flatten(0, 1) for part in self._split(x))  # (b d) heads (h w) e
        out = F.scaled_dot_product_attention(q, k, v).unflatten(0, (x.shape[0], x.shape[2]))
        return self._join(x, out.transpose(2, 3).unflatten(2, x.shape[3:]))


class DepthAttention(_Attention):
    """Attention along depth, at each pixel of the slice by itself; the only place where slices meet.

    Queries and keys are rotated by their depth, and a bias for the distance in depth is added.
    """

    def forward(self, x: Float[Tensor, "b c d h w"], bias: Float[Tensor, "heads d d"]) -> Float[Tensor, "b c d h w"]:
        """Let each voxel attend to those before and behind it."""
        q, k, v = (part.movedim(1, 4).flatten(0, 2) for part in self._split(x))  # (b h w) heads d e
        out = F.scaled_dot_product_attention(rotated(q), rotated(k), v, attn_mask=bias.to(v.dtype)[None])
        return self._join(x, out.unflatten(0, (x.shape[0], *x.shape[3:])).movedim(4, 1))


def rotated(x: Float[Tensor, "*batch n e"]) -> Float[Tensor, "*batch n e"]:
    """Turn each pair of neighbouring channels by an angle proportional to the position.

    The product of two such vectors depends on their positions through the difference alone (Su et al. 2021,
    arXiv 2104.09864, eq. 15 and 34): position times 10000^(-2 i / e) for pair i.
    """
    n, e = x.shape[-2:]
    pairs = torch.arange(0, e, 2, device=x.device) / e
    angles = torch.arange(n, device=x.device)[:, None] * 10000.0**-pairs
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    turned = torch.view_as_complex(precise.unflatten(-1, (-1, 2)).contiguous()) * torch.exp(1j * angles)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


class DepthBias(nn.Module):
    """A learned bias for each head and each bucket of distances (Raffel et al. 2019, arXiv 1910.10683, section 2.1).

    Args:
        heads: of the attention.
        buckets: half of them for either direction.
        farthest: distances from here on share the last bucket.
    """

    def __init__(self, heads: int, buckets: int = 32, farthest: int = 32) -> None:
        super().__init__()
        self.farthest = farthest
        self.values = nn.Embedding(buckets, heads)

    def forward(self, depth: int) -> Float[Tensor, "heads d d"]:
        """Return what is added to the product of query i and key j, at [head, i, j]."""
        position = torch.arange(depth, device=self.values.weight.device)
        bucket = distance_bucket(position[None] - position[:, None], self.values.num_embeddings, self.farthest)
        result: Tensor = self.values(bucket).movedim(-1, 0)
        return result


def distance_bucket(offset: Int[Tensor, "*shape"], buckets: int, farthest: int) -> Int[Tensor, "*shape"]:
    """Sort offsets (of the key, seen from the query) into buckets: first one by one, then by their logarithm.

    Of each direction's buckets, the first half holds one distance each, the second half grows to `farthest`. Offsets
    above zero come after all others.
    """
    half = buckets // 2
    single = half // 2
    distance = offset.abs()
    ratio = (distance.clamp(min=single) / single).log() / math.log(farthest / single)
    grouped = (single + (ratio * (half - single)).long()).clamp(max=half - 1)
    return torch.where(distance < single, distance, grouped) + half * (offset > 0)
