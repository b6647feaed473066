"""How patients differ in shape: each scan as a deformation of the mean anatomy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from voxray.data.augment import Spline
from voxray.data.body_mask import AIR_HU
from voxray.data.resample import resample
from voxray.data.store import Case, Store
from voxray.errors import InputError
from voxray.geometry import VolumeGrid
from voxray.images import CTVolume

# All ours: a cube about the isocentre that holds a chest, voxels that are fine enough for the outlines of organs, and
# knots at about the distance of large organs.
_VOXELS, _VOXEL_MM, _KNOTS, _KNOTS_MM = 50, 8.0, 11, 50.0
# Beyond these, HU do not count: bone and contrast agent would rule the fit.
_HU = (float(AIR_HU), 200.0)
# Steps of Adam, each of up to so many mm, and what the roughness of a deformation costs.
_STEPS, _STEP_MM, _ROUGHNESS = 60, 3.0, 5e-5


@dataclass(frozen=True, eq=False)
class ShapeModel:
    """Where each point of the mean anatomy is in each patient: cubic B-splines, as in Rueckert et al. 2003.

    "Automatic construction of 3-D statistical deformation models of the brain using nonrigid registration", IEEE TMI
    22. There, new shapes are drawn from the principal components; here, from the way between two patients.

    Attributes:
        ids: of the patients' cases.
        knots: coefficients of the displacement from the mean anatomy, mm, about the isocentre.
        knots_mm: distance of the knots.
    """

    ids: tuple[str, ...]
    knots: Float[Tensor, "patients 3 nz ny nx"]
    knots_mm: float = _KNOTS_MM

    @classmethod
    def of(cls, store: Store, ids: Sequence[str]) -> "ShapeModel":
        """Register the mean of these cases with each of them, twice: the second mean is of scans in one shape.

        Registration is least squares by Adam. (SimpleITK's takes a minute for a scan, twenty times as long.)

        Raises:
            InputError: if there are fewer than two cases.
        """
        if len(ids) < 2:
            raise InputError(f"To learn how patients differ in shape, two cases are needed; there are {len(ids)}.")
        grid = VolumeGrid.centred(shape=(_VOXELS,) * 3, spacing_mm=_VOXEL_MM)
        scans = [_unit(store.load(name), grid) for name in ids]
        knots = [torch.zeros(3, _KNOTS, _KNOTS, _KNOTS) for _ in ids]
        for _ in range(2):
            mean = torch.stack([_moved(scan, k, grid) for scan, k in zip(scans, knots, strict=True)]).mean(0)
            knots = [_register(mean, scan, k, grid) for scan, k in zip(scans, knots, strict=True)]
        return cls(tuple(ids), torch.stack(knots))

    def another(self, name: str, rng: torch.Generator) -> str:
        """Draw another patient."""
        own = self.ids.index(name)
        return self.ids[(own + 1 + int(torch.randint(len(self.ids) - 1, (), generator=rng))) % len(self.ids)]

    def between(self, name: str, other: str) -> Spline:
        """Return where the points of a patient are in another one, to first order: u_other - u_own."""
        own, its = (self.knots[self.ids.index(one)] for one in (name, other))
        return Spline(its - own, self.knots_mm)

    def towards_another(self, name: str, most: float, rng: torch.Generator) -> Spline:
        """Return how a patient deforms on the way to the shape of another one, who is drawn.

        With displacements u_i from the mean anatomy, t (u_i - u_j), t uniform from 0 to `most`: to first order, the
        points of a patient whose shape lies between those of i (t = 0) and j (t = 1) come from there in i.
        """
        way = self.between(self.another(name, rng), name)
        share = most * float(torch.rand((), generator=rng))
        return Spline(share * way.knots, self.knots_mm)


def _unit(case: Case, grid: VolumeGrid) -> Float[Tensor, "z y x"]:
    """Return a case's whole scan about its isocentre, 0..1."""
    low, high = _HU
    scan = CTVolume(case.scan.hu, case.scan.grid.shifted(-case.isocentre_mm))
    return (resample(scan, grid).hu.float().clamp(low, high) - low) / (high - low)


def _moved(volume: Float[Tensor, "z y x"], knots: Float[Tensor, "3 k k k"], grid: VolumeGrid) -> Tensor:
    """Return the volume that has at each point what `volume` has where the deformation leads."""
    axes = [torch.linspace(-1, 1, n) * (n - 1) / 2 * _VOXEL_MM for n in grid.shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    places = torch.stack([x, y, z], -1) + Spline(knots, _KNOTS_MM).at(*axes)
    half = _VOXELS * _VOXEL_MM / 2
    return F.grid_sample(volume[None, None], places[None] / half, padding_mode="zeros", align_corners=False)[0, 0]


def _register(fixed: Tensor, moving: Tensor, start: Tensor, grid: VolumeGrid) -> Tensor:
    """Return the knots of where the points of one volume are in another."""
    knots = start.clone().requires_grad_()
    adam = torch.optim.Adam([knots], _STEP_MM, betas=(0.9, 0.99))
    for step in range(_STEPS):
        adam.param_groups[0]["lr"] = _STEP_MM * (1 - step / _STEPS)
        rough = sum(knots.diff(dim=axis).square().mean() for axis in (1, 2, 3))
        loss = (_moved(moving, knots, grid) - fixed).square().mean() + _ROUGHNESS * rough
        (knots.grad,) = torch.autograd.grad(loss, knots)
        adam.step()
    return knots.detach()
