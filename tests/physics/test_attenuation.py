"""HU, attenuation, photons: there and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxray.physics.attenuation import (
    MU_WATER_PER_MM,
    add_photon_noise,
    hu_to_mu,
    line_integrals_from_counts,
    mu_to_hu,
    transmit,
)


def test_N7_air_and_water_are_fixed_points() -> None:
    mu = hu_to_mu(torch.tensor([-1000.0, 0.0], dtype=torch.float64))
    assert mu.tolist() == [0.0, MU_WATER_PER_MM]
    assert mu_to_hu(mu).tolist() == [-1000.0, 0.0]


def test_N7_water_attenuates_as_measured_at_70_kev() -> None:
    assert pytest.approx(0.193, abs=0.0005) == MU_WATER_PER_MM * 10  # per cm, NIST XCOM
    assert float(hu_to_mu(torch.tensor(1000.0))) == pytest.approx(2 * MU_WATER_PER_MM)


@given(st.lists(st.floats(-1000, 4000), min_size=1, max_size=8))
def test_N7_hu_come_back(hu: list[float]) -> None:
    values = torch.tensor(hu, dtype=torch.float64)
    torch.testing.assert_close(mu_to_hu(hu_to_mu(values)), values, rtol=0, atol=1e-9)


@given(st.floats(-5000, -1000))
def test_N7_nothing_attenuates_less_than_air(hu: float) -> None:
    assert float(hu_to_mu(torch.tensor(hu))) == 0.0


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.floats(1e5, 1e7))
def test_N7_line_integrals_come_back_from_counts(integrals: list[float], photons: float) -> None:
    values = torch.tensor(integrals, dtype=torch.float64)
    counts = transmit(values, photons)
    assert bool((counts <= photons).all())
    torch.testing.assert_close(line_integrals_from_counts(counts, photons), values, rtol=0, atol=1e-9)


def test_N7_a_pixel_without_photons_is_finite() -> None:
    integral = line_integrals_from_counts(torch.zeros(1, dtype=torch.float64), 2e5)
    assert float(integral) == pytest.approx(12.899, abs=1e-3)  # ln(2e5 / 0.5)


def test_N7_photon_noise_has_the_spread_of_counting() -> None:
    """Poisson: the standard deviation of -ln(n / n0) is 1 / sqrt(n), to first order."""
    rng = torch.Generator().manual_seed(0)
    clean = torch.full((200_000,), 3.0, dtype=torch.float64)
    noisy = add_photon_noise(clean, 2e5, rng=rng)
    expected = float(transmit(clean[:1], 2e5)) ** -0.5
    assert float(noisy.std()) == pytest.approx(expected, rel=0.01)
    assert float(noisy.mean()) == pytest.approx(3.0, abs=1e-3)


def test_D3_photon_noise_draws_from_its_argument_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (
        add_photon_noise(torch.ones(50), 1e3, rng=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
