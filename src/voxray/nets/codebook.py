"""Vector quantisation: the nearest of many codes, found in little memory, learned as a moving average."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

# Distances held at a time; 64 MiB in single precision.
_CHUNK = 2**24


@dataclass(frozen=True, eq=False)
class Quantised:
    """Latents replaced by their nearest codes.

    Attributes:
        latents: the codes; gradients pass to the latents as they are (straight-through).
        indices: of the codes.
        commitment: mean squared distance of the latents to their codes; pulls the latents alone.
    """

    latents: Float[Tensor, "batch dim *space"]
    indices: Int[Tensor, "batch *space"]
    commitment: Float[Tensor, ""]

    def usage(self, codes: int) -> dict[str, Tensor]:
        """Return the share of the codes that occur in this batch, and the perplexity of their distribution."""
        counts = torch.bincount(self.indices.flatten(), minlength=codes).float()
        p = counts / counts.sum()
        return {
            "codes_used": (counts > 0).float().mean(),
            "perplexity": torch.exp(-(p * (p + 1e-10).log()).sum()),
        }


class Codebook(nn.Module):
    """Codes that follow the latents as moving averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A.1).

    Uses are kept as shares of all latents of a batch, not as counts, which half precision could not hold.

    The codes start as latents of the first batch. A code that is hardly used any more is put onto a latent of the
    present batch.

    Args:
        codes: their number.
        dim: of a code.
        decay: of the moving averages.
        dead_below: a code whose average count of uses a batch falls below this is moved (1 in the release of
            DVG-Diffusion, where a batch has four latents for each code).
    """

    codes: Float[Tensor, "codes dim"]
    shares: Float[Tensor, " codes"]
    sums: Float[Tensor, "codes dim"]
    started: Tensor

    def __init__(self, codes: int = 16384, dim: int = 8, decay: float = 0.99, dead_below: float = 1.0) -> None:
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("codes", torch.randn(codes, dim))
        self.register_buffer("shares", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, dim))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, latents: Float[Tensor, "batch dim *space"]) -> Quantised:
        """Replace latents by their nearest codes; the codes stay as they are."""
        return self._replaced(latents, nearest(_flat(latents), self.codes))

    def learn(self, latents: Float[Tensor, "batch dim *space"], rng: torch.Generator) -> Quantised:
        """Replace latents by their nearest codes, and then move the codes towards the latents that they stand for.

        Args:
            latents: of a batch; with several processes each gives its own, and all end with the same codes.
            rng: of the CPU; which latents dead codes are put onto.
        """
        flat = _flat(latents)
        if not bool(self.started):
            start = self._pick(flat, len(self.codes), rng)
            latents_of_all = len(flat) * (dist.get_world_size() if dist.is_initialized() else 1)
            self.codes.copy_(start)
            self.sums.copy_(start / latents_of_all)
            self.shares.fill_(1 / latents_of_all)
            self.started.fill_(True)
        indices = nearest(flat, self.codes)
        quantised = self._replaced(latents, indices)
        self._follow(flat, indices, rng)
        return quantised

    def _replaced(self, latents: Float[Tensor, "batch dim *space"], flat: Int[Tensor, " n"]) -> Quantised:
        indices = flat.view(latents.shape[0], *latents.shape[2:])
        found = self.codes[indices].movedim(-1, 1)
        commitment = F.mse_loss(latents.float(), found)
        through = latents + (found - latents).detach() if latents.requires_grad else found
        return Quantised(through, indices, commitment)

    def _follow(self, flat: Float[Tensor, "n dim"], indices: Int[Tensor, " n"], rng: torch.Generator) -> None:
        counts = torch.bincount(indices, minlength=len(self.codes)).to(flat)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, flat)
        if dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        n = float(counts.sum())
        self.shares.lerp_(counts / n, 1 - self.decay)
        self.sums.lerp_(sums / n, 1 - self.decay)
        self.codes.copy_(self.sums / self.shares.clamp_min(1e-5 / n)[:, None])
        dead = (self.shares * n < self.dead_below).nonzero()[:, 0]
        if len(dead):
            moved = self._pick(flat, len(dead), rng)
            self.codes[dead] = moved
            self.sums[dead] = moved / n
            self.shares[dead] = 1 / n

    def _pick(self, flat: Float[Tensor, "n dim"], count: int, rng: torch.Generator) -> Tensor:
        """Choose latents, the same in all processes; with a little noise where there are too few to be distinct."""
        chosen = flat[torch.randint(len(flat), (count,), generator=rng).to(flat.device)]
        if count > len(flat):
            chosen = chosen + 0.01 * flat.std() * torch.randn(chosen.shape, generator=rng).to(flat)
        if dist.is_initialized():
            dist.broadcast(chosen, 0)
        return chosen


def _flat(latents: Float[Tensor, "batch dim *space"]) -> Float[Tensor, "n dim"]:
    return latents.detach().movedim(1, -1).flatten(0, -2).float()


def nearest(latents: Float[Tensor, "n dim"], codes: Float[Tensor, "codes dim"]) -> Int[Tensor, " n"]:
    """Return the index of the code that is nearest to each latent, by |c|^2 / 2 - z c, some latents at a time.

    32 768 latents (128^3 voxels, f = 4) and 16 384 codes are 2.1 GB of distances at once; here it is 64 MiB.
    """
    half = codes.square().sum(1) / 2
    rows = max(1, _CHUNK // len(codes))
    with torch.autocast(latents.device.type, enabled=False):
        return torch.cat([torch.addmm(half, part, codes.T, alpha=-1).argmin(1) for part in latents.split(rows)])
