"""Domain randomisation: X-rays as they come out of radiographs, for methods to learn from beside exact ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from voxray.geometry import ViewGeometry
from voxray.geometry._frozen import FloatArray
from voxray.images.fill import fill

# The part of an image's pixels below what the tone errors leave in place.
_TOP = 0.98
# Scattered photons are as blurred as this part of the image's width.
_SCATTER_BLUR = 0.12


@dataclass(frozen=True)
class Randomisation:
    """What is left of a radiograph's unknowns once its line integrals and its geometry have been estimated.

    Sizes are ours: about what `voxray.intake` leaves on projections of CTs that were shown through unknown curves,
    from unknown distances. Domain randomisation: Tobin et al. 2017, arXiv 1703.06907.

    Attributes:
        mass: standard deviation of the logarithm of all line integrals' factor: people differ from how they look.
        balance: the same, of one view against the others.
        gamma: of the logarithm of the exponent that bends them.
        scatter: scattered photons for each that goes straight, at most.
        rotation_deg: standard deviation of a view's rotation about each axis.
        shift_mm: of the detector, in its rows and columns.
        size: of the logarithm of its pixels' size.
        collimated: chance that a side of the detector is covered; by up to `collimation` of its length.
        letters: chance that something is burnt in.
    """

    mass: float = 0.12
    balance: float = 0.03
    gamma: float = 0.1
    scatter: float = 0.3
    rotation_deg: float = 1.0
    shift_mm: float = 4.0
    size: float = 0.02
    collimated: float = 0.15
    collimation: float = 0.12
    letters: float = 0.3

    def placed(self, views: ViewGeometry, rng: torch.Generator) -> ViewGeometry:
        """Return where source and detector truly stood, when they are said to be at `views` about the origin."""
        sources, centres, rows, columns = [], [], [], []
        for view in range(len(views)):
            turns = np.deg2rad(self.rotation_deg) * _normal(3, rng)
            factor = float(np.exp(self.size * _normal(1, rng)[0]))
            u, v = views.u_mm[view], views.v_mm[view]
            du, dv = self.shift_mm * _normal(2, rng)
            turned = _rotation(turns)
            centre = views.centre_mm[view] + du * u / np.linalg.norm(u) + dv * v / np.linalg.norm(v)
            sources.append(turned @ views.source_mm[view])
            centres.append(turned @ centre)
            columns.append(factor * turned @ u)
            rows.append(factor * turned @ v)
        return replace(
            views, source_mm=np.array(sources), centre_mm=np.array(centres), u_mm=np.array(columns), v_mm=np.array(rows)
        )

    def developed(
        self, images: Sequence[Float[Tensor, "_ _"]], rng: torch.Generator
    ) -> tuple[list[Float[Tensor, "_ _"]], list[Bool[Tensor, "_ _"]]]:
        """Return estimated line integrals, and which pixels are measurements; the others are filled from beside."""
        mass, bend = (float(np.exp(size * _normal(1, rng)[0])) for size in (self.mass, self.gamma))
        found, valid = [], []
        for image in images:
            factor = mass * float(np.exp(self.balance * _normal(1, rng)[0]))
            toned = self._toned(image, factor, bend, rng)
            mask = self._mask(toned.shape[0], toned.shape[1], rng)
            found.append(torch.from_numpy(fill(toned.numpy(), ~mask.numpy())))
            valid.append(mask)
        return found, valid

    def _toned(self, image: Float[Tensor, "h w"], factor: float, bend: float, rng: torch.Generator) -> Tensor:
        """Add scattered photons, which estimates from grey values do not tell from fewer line integrals, and bend."""
        top = torch.quantile(image.flatten()[:: max(1, image.numel() // 2**16)], _TOP).clamp_min(1e-3)
        share = self.scatter * float(torch.rand((), generator=rng))
        straight = torch.exp(-image)
        scattered = _blurred(straight, _SCATTER_BLUR)
        seen = -torch.log(((straight + share * scattered) / (1 + share)).clamp_min(1e-6))
        now = torch.quantile(seen.flatten()[:: max(1, seen.numel() // 2**16)], _TOP).clamp_min(1e-3)
        return factor * top * (seen.clamp_min(0) / now) ** bend

    def _mask(self, rows: int, columns: int, rng: torch.Generator) -> Bool[Tensor, "rows columns"]:
        """Draw which pixels are neither covered nor written on; most of the middle always is."""
        mask = torch.ones(rows, columns, dtype=torch.bool)
        covered, depth = torch.rand(2, 4, generator=rng).tolist()
        ends = [int(d * self.collimation * n) for d, n in zip(depth, (rows, rows, columns, columns), strict=True)]
        first, last, left, right = (end if c < self.collimated else 0 for end, c in zip(ends, covered, strict=True))
        mask[:first] = mask[rows - last :] = False
        mask[:, :left] = mask[:, columns - right :] = False
        chance, top, left = torch.rand(3, generator=rng).tolist()
        if chance < self.letters:
            high, wide = max(1, rows // 12), max(1, columns // 10)
            row, column = int(top * (rows // 4)), int(left * (columns - wide))
            mask[row : row + high, column : column + wide] = False
        return mask


def _normal(count: int, rng: torch.Generator) -> FloatArray:
    return torch.randn(count, generator=rng, dtype=torch.float64).numpy()


def _rotation(turns: FloatArray) -> FloatArray:
    """Return the matrix of a rotation by |turns| about the direction of `turns` (Rodrigues)."""
    x, y, z = turns
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)).numpy()


def _blurred(image: Float[Tensor, "h w"], part: float) -> Float[Tensor, "h w"]:
    """Return the image, blurred by a box three times; a side is this part of the image's."""
    for _ in range(3):
        sides = [max(1, int(part * n)) // 2 for n in image.shape]
        padded = F.pad(image[None, None], (sides[1], sides[1], sides[0], sides[0]), mode="replicate")
        image = F.avg_pool2d(padded, (2 * sides[0] + 1, 2 * sides[1] + 1), 1)[0, 0]
    return image
