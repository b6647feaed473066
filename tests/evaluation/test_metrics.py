"""Metrics are those of scikit-image, on the range that is named (N10)."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from small_models import SETUP, patient

from voxray.data.body_mask import AIR_HU
from voxray.evaluation.metrics import (
    HU_RANGE,
    METRICS,
    cosine,
    gaussian_ssim3d,
    mae_hu,
    psnr,
    rank_correlation,
    residual_rms,
    rmse_hu,
    slice_psnr,
    slice_ssim,
    ssim3d,
    to_unit_range,
)
from voxray.evaluation.trial import Trial
from voxray.geometry import ViewGeometry
from voxray.images import CTVolume, Radiograph
from voxray.methods.base import Estimate


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


def test_N10_slice_psnr_is_the_mean_over_slices_of_all_axes_of_scikit_images() -> None:
    image, truth = (volume.double().numpy() for volume in pair())
    axes = []
    for axis in range(3):
        slices = [
            peak_signal_noise_ratio(np.take(truth, i, axis), np.take(image, i, axis), data_range=3.0)
            for i in range(truth.shape[axis])
        ]
        axes.append(np.mean(slices))
    for error_free_db in (None, 100.0):
        found = slice_psnr(*pair(), data_range=3.0, error_free_db=error_free_db)
        assert found == pytest.approx(np.mean(axes), abs=1e-5)


def test_N10_slices_without_error_are_left_out_or_count_what_is_named() -> None:
    """One voxel of 2^3 is off by 0.2: along each axis one slice has MSE = 0.04 / 4, 20 dB, and one has no error."""
    truth = torch.full((2, 2, 2), 0.5, dtype=torch.float64)
    image = truth.clone()
    image[1, 0, 1] = 0.7
    assert slice_psnr(image, truth, data_range=1.0, error_free_db=None) == pytest.approx(20)
    assert slice_psnr(image, truth, data_range=1.0, error_free_db=100) == pytest.approx(60)
    assert slice_psnr(image, truth, data_range=10.0, error_free_db=50) == pytest.approx(45)
    assert slice_psnr(truth, truth, data_range=1.0, error_free_db=None) == math.inf
    assert slice_psnr(truth, truth, data_range=1.0, error_free_db=100) == 100


def test_N10_3d_ssim_is_that_of_scikit_image_and_monai() -> None:
    from monai.metrics import SSIMMetric

    image, truth = pair((14, 15, 16))
    expected = structural_similarity(image.numpy(), truth.numpy(), win_size=7, data_range=2.0)
    assert ssim3d(image, truth, data_range=2.0) == pytest.approx(expected, abs=1e-12)
    monais = SSIMMetric(spatial_dims=3, data_range=2.0, kernel_type="gaussian", win_size=11, kernel_sigma=1.5)
    found = gaussian_ssim3d(image, truth, data_range=2.0)
    assert found == pytest.approx(float(monais(image[None, None], truth[None, None])), abs=1e-5)


def test_N10_equal_volumes_have_infinite_psnr_and_ssim_1() -> None:
    _, truth = pair((14, 15, 16))
    assert psnr(truth, truth, data_range=1.0) == math.inf
    for ssim in (slice_ssim, ssim3d, gaussian_ssim3d):
        assert ssim(truth, truth, data_range=1.0) == pytest.approx(1.0, abs=1e-12)
    assert mae_hu(truth, truth) == rmse_hu(truth, truth) == 0
    assert cosine(truth, truth) == pytest.approx(1)
    assert residual_rms([truth[0]], [truth[0]]) == 0


@pytest.mark.parametrize("metric", [psnr, slice_psnr, slice_ssim, ssim3d, gaussian_ssim3d])
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
    assert rmse_hu(hu, truth) == pytest.approx(76 / math.sqrt(5))


def test_cosine_by_hand() -> None:
    image, truth = torch.tensor([[[3.0, 0.0, 4.0]]]), torch.tensor([[[4.0, 5.0, 3.0]]])
    assert cosine(image, truth) == pytest.approx(24 / (5 * math.sqrt(50)))
    assert cosine(2 * image, truth) == pytest.approx(cosine(image, truth))  # blind to a factor


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


# ---------------------------------------------------------------- of a trial


def trial(error_hu: torch.Tensor | float, std_hu: torch.Tensor | None = None) -> Trial:
    """A reconstruction with these errors, and with X-rays that are off by 0.5."""
    case, views = patient(20), ViewGeometry.biplanar(setup=SETUP)
    radiograph = Radiograph(tuple(torch.ones(shape) for shape in views.shapes), views)
    grid, hu = case.volume.grid.shifted(-case.isocentre_mm), case.volume.hu + error_hu
    std = None if std_hu is None else CTVolume(std_hu, grid)
    again = tuple(image + 0.5 for image in radiograph.images)
    return Trial(case, "closed", radiograph, "air", Estimate(CTVolume(hu, grid), std=std, reprojections=again))


def test_metrics_of_a_trial_are_the_plain_functions() -> None:
    tried = trial(100.0)
    scores = {metric.name: metric.of(tried) for metric in METRICS}
    assert list(scores) == ["psnr3d", "ssim", "mae_hu", "rmse_hu", "cosine", "residual", "uncertainty"]
    image, truth = to_unit_range(tried.case.volume.hu + 100), to_unit_range(tried.case.volume.hu)
    assert scores["psnr3d"] == psnr(image, truth, data_range=1.0)
    assert scores["ssim"] == slice_ssim(image, truth, data_range=1.0)
    assert scores["mae_hu"] == mae_hu(tried.truth + 100, tried.truth)
    assert scores["rmse_hu"] == rmse_hu(tried.truth + 100, tried.truth)
    assert scores["cosine"] == cosine(image, truth)
    assert scores["residual"] == pytest.approx(0.5)
    assert scores["uncertainty"] is None


def test_uncertainty_is_ranked_over_the_body_alone() -> None:
    """It follows the error inside the body, and runs against it outside."""
    body = patient(20).volume.hu > AIR_HU
    std = 10 + torch.rand(body.shape, generator=torch.Generator().manual_seed(1))
    tried = trial(torch.where(body, std, -1 / std), std)
    assert next(metric for metric in METRICS if metric.name == "uncertainty").of(tried) == pytest.approx(1, abs=1e-3)
