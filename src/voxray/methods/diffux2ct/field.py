"""From planes to features at any set of points, for every level of the U-Net."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from voxray.geometry import FloatArray, VolumeGrid
from voxray.methods.diffux2ct.config import FieldConfig
from voxray.methods.diffux2ct.triplane import Planes, TriPlanes, lattice_mm
from voxray.nets.fourier import FourierEncoding


class FeatureField(nn.Module):
    """The implicit neural decoder: a network that is asked for features at points, not on a grid.

        f_l(p) = W_l MLP(planes at p, encoded p)

    One network serves all levels of the U-Net, each with a last layer W_l of its own; a level asks at the middles of
    its voxels, but any points of the patient can be asked for. The paper's sizes are unknown. Points are not jittered
    in training: the levels ask at different points already, and a condition that is not where the voxel is would blur
    it.

    Its ablation (`trilinear`) has features on a grid: a linear map of the planes at the voxels of the finest
    level, interpolated in between, and averaged for coarser levels.

    Args:
        config: sizes.
        planes: where the features come from.
        grids: of the levels, from fine to coarse.
        channels: of the levels.
    """

    def __init__(
        self, config: FieldConfig, planes: TriPlanes, grids: Sequence[VolumeGrid], channels: Sequence[int]
    ) -> None:
        super().__init__()
        self.config, self.planes, self.grids = config, planes, tuple(grids)
        self.first = nn.Linear(planes.channels, config.hidden)
        self.heads = nn.ModuleList(nn.Linear(config.hidden, n) for n in channels)
        if config.kind == "implicit":
            self.place = FourierEncoding(config.bands, config.hidden, config.hidden)
            layers: list[nn.Module] = []
            for _ in range(config.layers - 1):
                layers += [nn.SiLU(), nn.Linear(config.hidden, config.hidden)]
            self.layers = nn.Sequential(*layers, nn.SiLU())
        self.checkpointing = False

    def level(self, planes: Planes, level: int) -> Float[Tensor, "b c z y x"]:
        """Return the conditions of a level of the U-Net."""
        grid = self.grids[level]
        return self.at(planes, lattice_mm(grid), level).transpose(1, 2).unflatten(2, grid.shape)

    def at(self, planes: Planes, points_mm: FloatArray, level: int) -> Float[Tensor, "b n c"]:
        """Return the features that a level has at points (n, 3), LPS about the isocentre.

        Points beyond the box of the grid have those of its border in the ablation, and what the network makes of them
        else.
        """
        voxel_mm = float(self.grids[level].spacing_mm.max())
        head = self.heads[level]
        if self.config.kind == "trilinear":
            return cast(Tensor, head(self._interpolated(planes, points_mm, voxel_mm)))
        parts = np.array_split(points_mm, -(-len(points_mm) // self.config.chunk))
        found = []
        for part in parts:
            features = self.planes.at(planes, part, voxel_mm)
            place = torch.from_numpy((part / (self._box.size_mm / 2)).astype(np.float32)).to(features.device)
            if self.checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(self._decode, features, place, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden = self._decode(features, place)
            found.append(head(hidden))
        return torch.cat(found, 1)

    @property
    def _box(self) -> VolumeGrid:
        return self.grids[0]

    def _decode(self, features: Tensor, place: Tensor) -> Tensor:
        return cast(Tensor, self.layers(self.first(features) + self.place(place)))

    def _interpolated(self, planes: Planes, points_mm: FloatArray, voxel_mm: float) -> Tensor:
        grid = self._box
        volume = self.first(self.planes.at(planes, lattice_mm(grid), float(grid.spacing_mm.max())))
        volume = volume.transpose(1, 2).unflatten(2, grid.shape).float()
        volume = F.avg_pool3d(volume, round(voxel_mm / float(grid.spacing_mm.max())))
        place = torch.from_numpy((points_mm / (grid.size_mm / 2)).astype(np.float32)).to(volume.device)
        place = place.expand(len(volume), 1, 1, -1, -1)
        found = F.grid_sample(volume, place, padding_mode="border", align_corners=False)
        return found[:, :, 0, 0].transpose(1, 2)
