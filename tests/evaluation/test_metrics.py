"""Metrics are those of scikit-image, on the range that is named (N10)."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from voxray.evaluation.metrics import (
    HU_RANGE,
    mae_hu,
    psnr,
    rank_correlation,
    residual_rms,
    slice_ssim,
    to_unit_range,
)


def pair(shape: tuple[int, int, int] = (9, 10, 12)) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(3)
    truth = torch.rand(shape, generator=rng)
    return (truth + 0.1 * torch.randn(shape, generator=rng)).clamp(0, 1), truth


@pytest.mark.parametrize("data_range", [1.0, 2500.0])
def test_N10_psnr_is_that_of_scikit_image(data_range: float) -> None:
    image, truth = pair()
    expected = peak_signal_noise_ratio(truth.double().numpy(), image.double().numpy(), data_range=data_range)
    assert psnr(image, truth, data_range=data_range) == pytest.approx(expected, abs=1e-9)


def test_N10_ssim_is_the_mean_over_slices_of_all_axes_of_scikit_images() -> None:
    image, truth = (volume.numpy() for volume in pair())
    for data_range in (1.0, 3.0):
        axes = []
        for axis in range(3):
            slices = [
                structural_similarity(np.take(image, i, axis), np.take(truth, i, axis), data_range=data_range)
                for i in range(truth.shape[axis])
            ]
            axes.append(np.mean(slices))
        found = slice_ssim(*pair(), data_range=data_range)
        assert found == pytest.approx(np.mean(axes), abs=1e-12)


def test_N10_equal_volumes_have_infinite_psnr_and_ssim_1() -> None:
    _, truth = pair()
    assert psnr(truth, truth, data_range=1.0) == math.inf
    assert slice_ssim(truth, truth, data_range=1.0) == pytest.approx(1.0, abs=1e-12)
    assert mae_hu(truth, truth) == 0
    assert residual_rms([truth[0]], [truth[0]]) == 0


@pytest.mark.parametrize("metric", [psnr, slice_ssim])
def test_N10_the_range_must_be_named(metric: object) -> None:
    image, truth = pair()
    with pytest.raises(TypeError, match="data_range"):
        metric(image, truth)  # type: ignore[operator]
    with pytest.raises(TypeError, match="positional"):
        metric(image, truth, 1.0)  # type: ignore[operator]


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_N10_axes_may_be_exchanged_and_flipped(axes: tuple[int, int, int]) -> None:
    image, truth = pair()
    turned = [volume.permute(axes).flip(1) for volume in (image, truth)]
    assert psnr(*turned, data_range=1.0) == pytest.approx(psnr(image, truth, data_range=1.0), abs=1e-9)
    assert slice_ssim(*turned, data_range=1.0) == pytest.approx(slice_ssim(image, truth, data_range=1.0), abs=1e-6)


def test_N10_hu_are_clipped_to_the_range_of_the_papers() -> None:
    hu = torch.tensor([-3000.0, -1024.0, 226.0, 1476.0, 9000.0])
    assert HU_RANGE == (-1024.0, 1476.0)
    assert to_unit_range(hu).tolist() == [0, 0, 0.5, 1, 1]
    truth = torch.tensor([-1024.0, -1024.0, 226.0, 1476.0, 1400.0])
    assert mae_hu(hu, truth) == pytest.approx(76 / 5)


def test_N10_the_residual_counts_every_pixel_of_every_view_alike() -> None:
    images, measured = [torch.ones(2, 3), torch.zeros(4, 5)], [torch.full((2, 3), 4.0), torch.zeros(4, 5)]
    assert residual_rms(images, measured) == pytest.approx(math.sqrt(6 * 9 / 26))


def test_rank_correlation_is_scipys_and_looks_at_the_size_of_the_error() -> None:
    generator = torch.Generator().manual_seed(0)
    std = torch.rand(6, 6, 6, generator=generator)
    error = std.exp() * torch.where(torch.rand(6, 6, 6, generator=generator) > 0.5, 1.0, -1.0)
    everywhere = torch.ones(6, 6, 6, dtype=torch.bool)
    assert rank_correlation(std, error, everywhere) == pytest.approx(1.0)
    half = std > 0.5
    error[~half] = 100.0  # does not count
    assert rank_correlation(std, error, half) == pytest.approx(1.0)
    assert rank_correlation(-std, error, half) == pytest.approx(-1.0)
