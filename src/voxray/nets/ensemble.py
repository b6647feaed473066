"""Several nets that do the same."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def joined(nets: Sequence[nn.Module]) -> nn.Module:
    """Return the one net as it is, several as an `Ensemble`."""
    return Ensemble(nets) if len(nets) > 1 else nets[0]


def members(net: nn.Module) -> list[nn.Module]:
    """Return the nets that were joined."""
    return list(net.members) if isinstance(net, Ensemble) else [net]


class Ensemble(nn.Module):
    """The mean of what several nets say, which errs less than they do: each has learned something else by chance.

    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017.

    Args:
        members: with fresh weights of their own; all are given the same.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, *given: Tensor | None) -> Float[Tensor, "b ..."]:
        """Return the mean over the members."""
        return torch.stack([member(*given) for member in self.members]).mean(0)
