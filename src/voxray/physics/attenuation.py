"""From Hounsfield units to linear attenuation, and from line integrals to photons, and back."""

import torch
from jaxtyping import Float
from torch import Tensor

# Linear attenuation of liquid water at 70 keV, a usual mean energy of a chest radiograph at 120 kV: NIST XCOM gives
# 0.193 cm2/g (Berger et al., NIST Standard Reference Database 8), at 1.00 g/cm3.
MU_WATER_PER_MM = 0.0193

# What 0..1 stands for in volumes: the range of the X2CT-GAN pipeline, which all papers of this field share.
HU_RANGE = (-1024.0, 1476.0)

# Attenuation is zero here: no X-ray tells the -1024 HU of prepared air from the -1000 HU of a reconstruction.
VACUUM_HU = -1000.0


def hu_to_mu(hu: Float[Tensor, "*shape"], mu_water_per_mm: float = MU_WATER_PER_MM) -> Float[Tensor, "*shape"]:
    """Return linear attenuation per mm, `mu_water (1 + HU / 1000)`, clipped at 0 (the definition of the HU scale)."""
    return (mu_water_per_mm * (1.0 + hu / 1000.0)).clamp_min(0.0)


def mu_to_hu(mu: Float[Tensor, "*shape"], mu_water_per_mm: float = MU_WATER_PER_MM) -> Float[Tensor, "*shape"]:
    """Return Hounsfield units of linear attenuation per mm; the inverse of `hu_to_mu` from -1000 HU upwards."""
    return 1000.0 * (mu / mu_water_per_mm - 1.0)


def to_unit_range(hu: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Clip to `HU_RANGE` and scale it to 0..1."""
    low, high = HU_RANGE
    return (hu.clamp(low, high) - low) / (high - low)


def from_unit_range(unit: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bring 0..1 to `HU_RANGE`; what lies beyond is clipped."""
    low, high = HU_RANGE
    return unit.clamp(0, 1) * (high - low) + low


def mu_from_unit(unit: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bring 0..1 to attenuation per mm."""
    return hu_to_mu(from_unit_range(unit))


def transmit(line_integrals: Float[Tensor, "*shape"], photons: float) -> Float[Tensor, "*shape"]:
    """Return the photons that arrive, `photons exp(-p)` (Beer-Lambert), of `photons` sent to every pixel."""
    return photons * torch.exp(-line_integrals)


def line_integrals_from_counts(counts: Float[Tensor, "*shape"], photons: float) -> Float[Tensor, "*shape"]:
    """Invert `transmit`. A pixel that no photon reached counts as half a photon (our choice; the log needs one)."""
    return torch.log(photons / counts.clamp_min(0.5))


def add_photon_noise(
    line_integrals: Float[Tensor, "*shape"], photons: float, *, rng: torch.Generator
) -> Float[Tensor, "*shape"]:
    """Return the line integrals that a detector measures which counts `photons` a pixel in air (Poisson noise)."""
    return line_integrals_from_counts(torch.poisson(transmit(line_integrals, photons), generator=rng), photons)
