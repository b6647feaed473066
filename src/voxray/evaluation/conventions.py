"""PSNR and SSIM as the published tables of this field compute them, each under its name.

The tables cannot be compared with one another: some divide errors on a range of 2500 into a peak of 4095, some count a
slice without error as 100 dB, one gives SSIM a range that is twice too large. `docs/evaluation.md` says what this does
to a result. Each function takes a reconstruction and the truth in HU, and returns what the released code of the paper
would print for them; where only the paper is known, and it is silent, the docstring says what we chose.
"""

import math
from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from voxray.evaluation.metrics import gaussian_ssim3d, psnr, slice_psnr, slice_ssim, ssim3d
from voxray.evaluation.trial import Metric, Trial
from voxray.physics.attenuation import to_unit_range

STEPS = 2500  # the range of the stored volumes: HU + 1024, from 0 to 2500
PEAK_X2CT = 4095  # the peak that X2CT-GAN's code divides by, though no value is above 2500
ERROR_FREE_DB = 100.0  # what the released codes count where there is no error
DVG_FLOOR = 0.04  # of the unit range: -924 HU

Volume = Float[Tensor, "z y x"]


def stored(hu: Volume) -> Int[Tensor, "z y x"]:
    """Return the whole numbers 0..2500 that the released codes measure PSNR on: `HU + 1024`, clipped and truncated.

    Truncated from 2500 times the unit range in float32, as they do (`astype(int32)`): a whole number of HU may become
    the one below, in both volumes alike.
    """
    return (to_unit_range(hu) * STEPS).int()


def psnr_x2ct(hu: Volume, truth: Volume) -> float:
    """Return the 3D PSNR in dB of X2CT-GAN's code (Ying et al. 2019, `test.py`, "psnr-3d").

    The numbers of `stored` against a peak of 4095: 20 log10(4095 / 2500) = 4.286 dB above the unit range. 100 if equal.
    """
    return _psnr3d(stored(hu), stored(truth), PEAK_X2CT)


def ssim_x2ct(hu: Volume, truth: Volume) -> float:
    """Return the SSIM of X2CT-GAN's code ("SSIM-avg"): `metrics.slice_ssim` on the unit range."""
    return slice_ssim(to_unit_range(hu), to_unit_range(truth), data_range=1.0)


def psnr_perx2ct(hu: Volume, truth: Volume) -> float:
    """Return the PSNR in dB of PerX2CT's code (Kyung et al. 2023, `main_test.py`), which DX2CT's table shares.

    Slice-wise, on the numbers of `stored` with a peak of 4095; a slice without error counts 100 dB. PerX2CT and DX2CT
    reconstruct a stack of slices for each axis; of a method with one volume, its slices along each axis are taken, as
    their code does. X2CT-GAN's code prints the same figure as "PSNR-avg".
    """
    return _slice_psnr(stored(hu), stored(truth), PEAK_X2CT)


def ssim_perx2ct(hu: Volume, truth: Volume) -> float:
    """Return the SSIM of PerX2CT's code: windows of 7^3 voxels on the unit range, but with a data range of 2.

    The code names no range, and scikit-image 0.19 then took 2, that of floating-point images from -1 to 1; so SSIM is
    higher than with 1. It passes `channel_axis=False`, which counts as axis 0 of its (1, N, H, W) arrays and leaves a
    window in 3D. The three axes of one volume then give one and the same value.
    """
    return ssim3d(to_unit_range(hu), to_unit_range(truth), data_range=2.0)


def dvg_cleaned(hu: Volume) -> Volume:
    """Return a reconstruction in the unit range as DVG-Diffusion's code scores it: what is below 0.04 is set to 0.

    The truth is scored as it is. Where it is empty, as in padded slices, the error so becomes exactly zero.
    """
    unit = to_unit_range(hu)
    return unit.where(unit >= DVG_FLOOR, 0.0)


def psnr_dvg(hu: Volume, truth: Volume) -> float:
    """Return the PSNR in dB of DVG-Diffusion (Xie et al. 2026; its evaluation code was public in March 2024).

    Slice-wise, on whole numbers of 0..2500 with a peak of 2500, after `dvg_cleaned`; a slice without error is 100 dB.
    """
    return _slice_psnr((dvg_cleaned(hu) * STEPS).int(), stored(truth), STEPS)


def ssim_dvg(hu: Volume, truth: Volume) -> float:
    """Return the SSIM of DVG-Diffusion: `metrics.slice_ssim` on the unit range, after `dvg_cleaned`."""
    return slice_ssim(dvg_cleaned(hu), to_unit_range(truth), data_range=1.0)


def psnr_psct(hu: Volume, truth: Volume) -> float:
    """Return the slice-wise PSNR in dB of PSCT-Net's code (arXiv 2606.19867): as PerX2CT's, but with a peak of 2500."""
    return _slice_psnr(stored(hu), stored(truth), STEPS)


def psnr3d_psct(hu: Volume, truth: Volume) -> float:
    """Return the "PSNR3D" in dB of PSCT-Net's code: as X2CT-GAN's, but with a peak of 2500. 100 if equal."""
    return _psnr3d(stored(hu), stored(truth), STEPS)


def ssim_psct(hu: Volume, truth: Volume) -> float:
    """Return the SSIM of PSCT-Net's code: as X2CT-GAN's, but on the numbers of `stored` with a range of 2500."""
    return slice_ssim(stored(hu).double(), stored(truth).double(), data_range=STEPS)


def liftxr_window(hu: Volume) -> Volume:
    """Return HU -1024..1024 as 0..1, clipped."""
    return (hu.clamp(-1024, 1024) + 1024) / 2048


def psnr_liftxr(hu: Volume, truth: Volume) -> float:
    """Return the PSNR in dB of LiftXR: HU -1024..1024 as unit range.

    Whether slices or volumes are meant is not known; over the whole volume is our choice, as no blank slice counts.
    """
    return psnr(liftxr_window(hu), liftxr_window(truth), data_range=1.0)


def ssim_liftxr(hu: Volume, truth: Volume) -> float:
    """Return the SSIM in percent of LiftXR: HU -1024..1024 as unit range.

    The window is not known; that of X2CT-GAN, slice by slice, is our choice, as it is the most used of this field.
    """
    return 100 * slice_ssim(liftxr_window(hu), liftxr_window(truth), data_range=1.0)


def _psnr3d(image: Tensor, truth: Tensor, peak: int) -> float:
    value = psnr(image, truth, data_range=peak)
    return ERROR_FREE_DB if math.isinf(value) else value


def _slice_psnr(image: Tensor, truth: Tensor, peak: int) -> float:
    return slice_psnr(image, truth, data_range=peak, error_free_db=ERROR_FREE_DB)


def _unit(score: Callable[[Volume, Volume], float]) -> Callable[[Volume, Volume], float]:
    return lambda hu, truth: score(to_unit_range(hu), to_unit_range(truth))


def _metric(name: str, heading: str, unit: str, about: str, score: Callable[[Volume, Volume], float]) -> Metric:
    digits = 3 if unit == "" else 2
    return Metric(name, heading, unit, "higher", about, lambda trial: score(trial.hu, trial.truth), digits)


def _gaussian(trial: Trial) -> float | None:
    if min(trial.truth.shape) < 11:  # the window does not fit
        return None
    return gaussian_ssim3d(trial.unit, trial.unit_truth, data_range=1.0)


METRICS: tuple[Metric, ...] = (
    _metric(
        "psnr_slice", "slice PSNR", "dB",
        "PSNR of 2D slices, mean over all three axes, HU -1024..1476 as unit range; slices without error left out.",
        _unit(lambda image, truth: slice_psnr(image, truth, data_range=1.0, error_free_db=None)),
    ),
    _metric(
        "psnr_slice_blank", "slice PSNR, blank 100", "dB",
        "PSNR of 2D slices as psnr_slice, but slices without error count 100 dB: what blank slices add.",
        _unit(lambda image, truth: slice_psnr(image, truth, data_range=1.0, error_free_db=ERROR_FREE_DB)),
    ),
    _metric(
        "ssim3d", "3D SSIM", "",
        "Structural similarity in 3D with a uniform window of 7^3 voxels, HU -1024..1476 as unit range.",
        _unit(lambda image, truth: ssim3d(image, truth, data_range=1.0)),
    ),
    Metric(
        "ssim3d_gaussian", "3D SSIM, Gaussian", "", "higher",
        "Structural similarity in 3D with the Gaussian window of Wang et al. 2004, HU -1024..1476 as unit range.",
        _gaussian, digits=3,
    ),
    _metric("psnr_x2ct", "PSNR (X2CT)", "dB", "3D PSNR as X2CT-GAN: range 2500, but a peak of 4095.", psnr_x2ct),
    _metric("ssim_x2ct", "SSIM (X2CT)", "", "SSIM as X2CT-GAN: 2D slices of three axes; the same as ssim.", ssim_x2ct),
    _metric(
        "psnr_perx2ct", "PSNR (PerX2CT)", "dB",
        "Slice PSNR as PerX2CT and DX2CT: range 2500, but a peak of 4095; slices without error count 100 dB.",
        psnr_perx2ct,
    ),
    _metric(
        "ssim_perx2ct", "SSIM (PerX2CT)", "",
        "SSIM as PerX2CT and DX2CT: 7^3 windows on a unit range, but with a data range of 2.", ssim_perx2ct,
    ),
    _metric(
        "psnr_dvg", "PSNR (DVG)", "dB",
        "Slice PSNR as DVG-Diffusion: below 0.04 set to 0, peak 2500; slices without error count 100 dB.", psnr_dvg,
    ),
    _metric(
        "ssim_dvg", "SSIM (DVG)", "", "SSIM as DVG-Diffusion: 2D slices of three axes, below 0.04 set to 0.", ssim_dvg
    ),
    _metric(
        "psnr_psct", "PSNR (PSCT)", "dB", "Slice PSNR as PSCT-Net: peak 2500; slices without error count 100 dB.",
        psnr_psct,
    ),
    _metric("psnr3d_psct", "PSNR3D (PSCT)", "dB", "3D PSNR as PSCT-Net: whole numbers, peak 2500.", psnr3d_psct),
    _metric("ssim_psct", "SSIM (PSCT)", "", "SSIM as PSCT-Net: 2D slices of three axes, range 2500.", ssim_psct),
    _metric("psnr_liftxr", "PSNR (LiftXR)", "dB", "PSNR as LiftXR: HU -1024..1024 as unit range.", psnr_liftxr),
    _metric("ssim_liftxr", "SSIM (LiftXR)", "%", "SSIM as LiftXR: HU -1024..1024 as unit range.", ssim_liftxr),
)  # fmt: skip
