"""How a volume may differ from what is expected: a linear model with independent coefficients of unit variance."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from voxray.errors import GeometryError
from voxray.geometry import VolumeGrid


@dataclass(frozen=True, eq=False)
class Variation:
    """Patterns, each weighted by a smooth random field: `change = sum_n patterns[n] * field_n`.

    A field is white noise on knots, blurred by a Gaussian to unit variance everywhere. The change therefore has the
    covariance `sum_n d_n d_n^T o L`, with the patterns d_n and the correlation L of the fields (o: element by
    element). With one pattern, the standard deviation of every voxel, that is a smooth random change. With the
    deviations of many volumes from their mean, divided by the root of their number less one, it is their sample
    covariance, localised so that distant places vary on their own, as in the ensemble Kalman filter (Houtekamer and
    Mitchell, "A sequential ensemble Kalman filter for atmospheric data assimilation", Mon. Weather Rev. 129, 2001).

    Args:
        patterns: (n, z, y, x), in the unit of the change.
        grid: of the patterns.
        length_mm: standard deviation of the blur; fields correlate over sqrt(2) times this.
        knot_mm: distance of the knots, at most `length_mm` for a field without gaps; None for one at every voxel.
    """

    patterns: Float[Tensor, "n z y x"]
    grid: VolumeGrid
    length_mm: float
    knot_mm: float | None = None
    _blurs: tuple[Tensor, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if tuple(self.patterns.shape[1:]) != self.grid.shape:
            raise GeometryError(f"Patterns of shape {tuple(self.patterns.shape[1:])} on a grid of {self.grid.shape}.")
        axes = zip(self.grid.shape, self.grid.spacing_mm[::-1], strict=True)
        object.__setattr__(self, "_blurs", tuple(self._blur(voxels, float(mm)) for voxels, mm in axes))

    def _blur(self, voxels: int, spacing_mm: float) -> Float[Tensor, "voxels knots"]:
        """Return the weights of the knots along one axis, of norm 1 for every voxel."""
        places = torch.arange(voxels, dtype=torch.float64) * spacing_mm
        knots = places
        if self.knot_mm is not None:
            count = max(2, round(voxels * spacing_mm / self.knot_mm))
            knots = (torch.arange(count, dtype=torch.float64) + 0.5) * voxels * spacing_mm / count - spacing_mm / 2
        weights = torch.exp(-0.5 * ((places[:, None] - knots) / self.length_mm) ** 2)
        return (weights / weights.norm(dim=1, keepdim=True)).to(self.patterns)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the coefficients: (n, knots along z, y, x)."""
        return (len(self.patterns), *(blur.shape[1] for blur in self._blurs))

    def synthesise(self, coefficients: Float[Tensor, "n kz ky kx"]) -> Float[Tensor, "z y x"]:
        """Return the change that the coefficients stand for."""
        z, y, x = self._blurs
        return (self.patterns * _along_axes(coefficients, z, y, x)).sum(0)

    def analyse(self, change: Float[Tensor, "z y x"]) -> Float[Tensor, "n kz ky kx"]:
        """Apply the adjoint of `synthesise`."""
        z, y, x = self._blurs
        return _along_axes(self.patterns * change, z.T, y.T, x.T)


def _along_axes(
    fields: Float[Tensor, "n a b c"], z: Float[Tensor, "z a"], y: Float[Tensor, "y b"], x: Float[Tensor, "x c"]
) -> Float[Tensor, "n z y x"]:
    """Multiply each axis of the fields by its matrix."""
    fields = torch.matmul(y, torch.matmul(fields, x.T))
    return torch.matmul(z, fields.flatten(2)).unflatten(2, fields.shape[2:])
