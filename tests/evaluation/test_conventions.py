"""The published conventions: each by hand on a tiny example, and what they do to a figure."""

import math
from types import SimpleNamespace

import pytest
import torch
from skimage.metrics import structural_similarity

from voxray.evaluation import conventions
from voxray.evaluation.conventions import (
    METRICS,
    dvg_cleaned,
    liftxr_window,
    psnr3d_psct,
    psnr_dvg,
    psnr_liftxr,
    psnr_perx2ct,
    psnr_psct,
    psnr_x2ct,
    ssim_dvg,
    ssim_liftxr,
    ssim_perx2ct,
    ssim_psct,
    ssim_x2ct,
    stored,
)
from voxray.evaluation.metrics import psnr, slice_psnr, slice_ssim, ssim3d
from voxray.physics.attenuation import to_unit_range

PEAKS_APART = 20 * math.log10(4095 / 2500)  # 4.286 dB


def one_wrong_voxel(step: float) -> tuple[torch.Tensor, torch.Tensor]:
    """2 x 2 x 2 voxels of 226 HU, one of which is off: each axis has one slice with an error and one without."""
    truth = torch.full((2, 2, 2), 226.0)
    hu = truth.clone()
    hu[0, 0, 0] += step
    return hu, truth


def lifelike(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    truth = 2500 * torch.rand(size, size, size, generator=rng) - 1024
    return truth + 150 * torch.randn(truth.shape, generator=rng), truth


def test_stored_numbers_are_clipped_and_truncated() -> None:
    hu = torch.tensor([-2000.0, -1024.0, -1023.1, -0.5, 226.75, 1476.0, 3000.0])
    assert stored(hu).tolist() == [0, 0, 0, 1023, 1250, 2500, 2500]


# ---------------------------------------------------------------- by hand


def test_N10_x2ct_by_hand() -> None:
    """One of eight voxels is 100 off: MSE = 10000 / 8 = 1250, against a peak of 4095."""
    assert psnr_x2ct(*one_wrong_voxel(100)) == pytest.approx(10 * math.log10(4095**2 / 1250))
    assert psnr3d_psct(*one_wrong_voxel(100)) == pytest.approx(10 * math.log10(2500**2 / 1250))
    assert psnr_x2ct(*one_wrong_voxel(0.4)) == 100.0  # no error is left after truncation
    assert psnr3d_psct(*one_wrong_voxel(0)) == 100.0


def test_N10_slice_wise_conventions_by_hand() -> None:
    """Along each axis one slice is free of error (100 dB), and one has MSE = 10000 / 4 = 2500."""
    hu, truth = one_wrong_voxel(100)
    assert psnr_perx2ct(hu, truth) == pytest.approx((100 + 10 * math.log10(4095**2 / 2500)) / 2)
    assert psnr_psct(hu, truth) == pytest.approx((100 + 10 * math.log10(2500)) / 2)
    assert psnr_dvg(hu, truth) == pytest.approx((100 + 10 * math.log10(2500)) / 2)


def test_N10_dvg_sets_to_zero_what_is_below_4_percent() -> None:
    """0.04 of the unit range are 100 HU above -1024: noise in the air vanishes, and its slices are free of error."""
    hu = torch.tensor([-1024.0, -925.0, -923.0, 226.0, 3000.0])
    assert dvg_cleaned(hu).tolist() == pytest.approx([0, 0, 0.0404, 0.5, 1.0])
    air = torch.full((2, 2, 2), -1024.0)
    assert psnr_dvg(air + 99, air) == 100.0
    assert psnr_dvg(air + 156.25, air) == pytest.approx(20 * math.log10(2500 / 156))
    assert psnr_psct(air + 78.125, air) == pytest.approx(20 * math.log10(2500 / 78))  # 1/32 of the range stays


def test_N10_liftxr_by_hand() -> None:
    """One of eight voxels is 512 HU off, a quarter of the window of 2048 HU: MSE = 1 / 128."""
    assert liftxr_window(torch.tensor([-3000.0, -1024.0, 0.0, 1024.0, 3000.0])).tolist() == [0, 0, 0.5, 1, 1]
    assert psnr_liftxr(*one_wrong_voxel(512)) == pytest.approx(10 * math.log10(128))
    hu, truth = one_wrong_voxel(0)
    hu[0, 0, 0], truth[0, 0, 0] = 2000.0, 1100.0  # both beyond the window
    assert psnr_liftxr(hu, truth) == math.inf


def test_N10_ssim_of_flat_volumes_by_hand() -> None:
    """Without any structure SSIM is `(2ab + C1) / (a^2 + b^2 + C1)`, C1 = (0.01 L)^2, whatever the window."""

    def flat(a: float, b: float, data_range: float = 1.0) -> float:
        c = (0.01 * data_range) ** 2
        return (2 * a * b + c) / (a * a + b * b + c)

    def of(hu: float) -> torch.Tensor:
        return torch.full((8, 8, 8), hu, dtype=torch.float64)

    hu, truth = of(-974.0), of(-899.0)  # 0.02 and 0.05 of the unit range; 50/2048 and 125/2048 of LiftXR's
    assert ssim_x2ct(hu, truth) == pytest.approx(flat(0.02, 0.05))
    assert ssim_perx2ct(hu, truth) == pytest.approx(flat(0.02, 0.05, data_range=2))
    assert ssim_dvg(hu, truth) == pytest.approx(flat(0.0, 0.05))
    assert ssim_dvg(truth, hu) == pytest.approx(flat(0.02, 0.05))  # the truth keeps what is below 0.04
    assert ssim_psct(hu, truth) == pytest.approx(flat(50, 125, data_range=2500))
    assert ssim_liftxr(hu, truth) == pytest.approx(100 * flat(50 / 2048, 125 / 2048))


# ---------------------------------------------------------------- the windows


def test_N10_windows_and_ranges_are_those_of_the_released_codes() -> None:
    hu, truth = lifelike()
    image, target = to_unit_range(hu), to_unit_range(truth)
    assert ssim_x2ct(hu, truth) == pytest.approx(slice_ssim(image, target, data_range=1.0), abs=1e-12)
    expected = structural_similarity(image.double().numpy(), target.double().numpy(), win_size=7, data_range=2.0)
    assert ssim_perx2ct(hu, truth) == pytest.approx(expected, abs=1e-6)
    assert ssim_psct(hu, truth) == pytest.approx(ssim_x2ct(hu, truth), abs=1e-3)  # truncation alone


def test_perx2cts_ssim_is_what_scikit_image_makes_of_its_call() -> None:
    """`structural_similarity(arr[1, N, H, W], data_range=None, channel_axis=False)`, where None stood for 2."""
    hu, truth = lifelike()
    axes = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        stacks = [to_unit_range(v).permute(order)[None].double().numpy() for v in (hu, truth)]
        axes.append(structural_similarity(*stacks, data_range=2.0, channel_axis=False))
    assert ssim_perx2ct(hu, truth) == pytest.approx(sum(axes) / 3, abs=1e-6)


# ---------------------------------------------------------------- the known effects


def test_N10_a_peak_of_4095_is_worth_4_286_dB() -> None:
    assert pytest.approx(4.286, abs=5e-4) == PEAKS_APART
    hu, truth = lifelike()
    assert psnr_x2ct(hu, truth) - psnr3d_psct(hu, truth) == pytest.approx(PEAKS_APART, abs=1e-9)
    assert psnr_perx2ct(hu, truth) - psnr_psct(hu, truth) == pytest.approx(PEAKS_APART, abs=1e-9)  # no blank slice
    unit = psnr(to_unit_range(hu), to_unit_range(truth), data_range=1.0)
    assert psnr_x2ct(hu, truth) - unit == pytest.approx(PEAKS_APART, abs=0.01)  # the rest is truncation


@pytest.mark.parametrize("blank", [2, 4])
def test_N10_blank_slices_raise_a_slice_average_and_nothing_else(blank: int) -> None:
    """`blank` of 16 axial slices are air in both: along the other axes each slice loses that share of its error."""
    hu, truth = lifelike()
    hu[:blank], truth[:blank] = -1024.0, -1024.0
    image, target = to_unit_range(hu), to_unit_range(truth)
    counted = slice_psnr(image, target, data_range=1.0, error_free_db=100)
    left_out = slice_psnr(image, target, data_range=1.0, error_free_db=None)
    axial = [psnr(a, b, data_range=1.0) for a, b in zip(image[blank:], target[blank:], strict=True)]
    gain = blank / 16 * (100 - sum(axial) / len(axial)) / 3
    assert counted - left_out == pytest.approx(gain, abs=1e-9)
    assert gain > 1.5 * blank
    assert abs(left_out - psnr(image, target, data_range=1.0)) < 1.5


def test_dvgs_threshold_makes_slices_blank() -> None:
    """Faint noise in empty slices costs the plain slice average its 100 dB a slice; DVG's threshold brings it back."""
    hu, truth = lifelike()
    truth[:4] = -1024.0
    hu[:4] = -1000.0
    assert psnr_dvg(hu, truth) - psnr_psct(hu, truth) > 4


def test_a_data_range_of_2_raises_ssim() -> None:
    hu, truth = lifelike()
    image, target = to_unit_range(hu), to_unit_range(truth)
    assert ssim_perx2ct(hu, truth) > structural_similarity(image.numpy(), target.numpy(), data_range=1.0)


# ---------------------------------------------------------------- all of them


PSNRS = [psnr_x2ct, psnr_perx2ct, psnr_dvg, psnr_psct, psnr3d_psct]


@pytest.mark.parametrize("score", PSNRS, ids=lambda score: score.__name__)
def test_N10_equal_volumes_are_100_dB_in_the_released_codes(score: object) -> None:
    truth = torch.full((8, 8, 8), 40.0)
    assert score(truth, truth.clone()) == 100.0  # type: ignore[operator]


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_N10_axes_may_be_exchanged(axes: tuple[int, int, int]) -> None:
    hu, truth = lifelike()
    names = [name for name in dir(conventions) if name.startswith(("psnr_", "psnr3d_", "ssim_"))]
    assert len(names) == 11
    for name in names:
        score = getattr(conventions, name)
        assert score(hu.permute(axes), truth.permute(axes)) == pytest.approx(score(hu, truth), abs=1e-6), name


def test_metric_names_are_columns_each_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {"psnr_slice", "psnr_slice_blank", "psnr_x2ct", "ssim_x2ct", "psnr_perx2ct", "ssim_perx2ct", "psnr_dvg",
            "ssim_dvg", "psnr_liftxr", "ssim_liftxr", "psnr_psct"} <= set(names)  # fmt: skip
    assert all(name.isidentifier() and name == name.lower() for name in names)


def test_metrics_of_a_trial_are_the_plain_functions_and_fit_the_smallest_grid() -> None:
    """A grid has at least 8 voxels along an axis; only the Gaussian window of 11 does not fit then."""
    for size in (8, 12):
        hu, truth = lifelike(size)
        trial = SimpleNamespace(hu=hu, truth=truth, unit=to_unit_range(hu), unit_truth=to_unit_range(truth))
        scores = {metric.name: metric.of(trial) for metric in METRICS}  # type: ignore[arg-type]
        assert {name for name, score in scores.items() if score is None} == (
            {"ssim3d_gaussian"} if size == 8 else set()
        )
        for name in ("psnr_x2ct", "psnr_perx2ct", "psnr_dvg", "psnr_psct", "psnr3d_psct", "psnr_liftxr", "ssim_dvg"):
            assert scores[name] == getattr(conventions, name)(hu, truth)
        assert scores["psnr_slice"] == slice_psnr(trial.unit, trial.unit_truth, data_range=1.0, error_free_db=None)
        assert scores["ssim3d"] == ssim3d(trial.unit, trial.unit_truth, data_range=1.0)
