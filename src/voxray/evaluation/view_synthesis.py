"""X-rays made from the reconstruction at other angles, against the true ones (DVG-Diffusion, Table VI).

The paper's tasks are 0 -> 90, 0 -> 45 and 0 + 90 -> 45 degrees: evaluate with one view for the first two, with two for
the third. It gives 2D PSNR and SSIM, and says neither how the images were scaled nor what range was used; here they are
line integrals of the cube alone (see `reprojection`) on the detector of the first given view, and the range is that of
the true image. That is our choice: whoever compares should keep it in mind.
"""

from collections.abc import Callable

import numpy as np
from skimage.metrics import structural_similarity

from voxray.evaluation.metrics import psnr
from voxray.evaluation.reprojection import Image, image_range, projected, views_at
from voxray.evaluation.trial import Metric, Trial
from voxray.geometry.axial import primary_angles_deg

# Closer than this, two views are the same.
_SAME_DEG = 0.5


def synthesised(trial: Trial, turn_deg: float) -> tuple[Image, Image] | None:
    """Return the X-ray of the reconstruction and the true one at `turn_deg` from the first given view.

    Returns:
        Line integrals (no unit); None where the method was given this view or the opposite one, or where the truth
        casts no shadow.
    """
    views = trial.radiograph.views
    given = primary_angles_deg(views)
    apart = np.abs((given - given[0] - turn_deg + 90) % 180 - 90)
    if apart.min() < _SAME_DEG:
        return None
    (image,), (truth,) = projected(trial, views_at(views, [given[0] + turn_deg]))
    return (image, truth) if image_range(truth) > 0 else None


def ssim2d(image: Image, truth: Image) -> float:
    """Return the structural similarity of two images in the range of the true one, by scikit-image's defaults.

    That is Wang et al., IEEE Trans. Image Processing 13(4), 2004, with a 7 x 7 uniform window and sample covariance.
    """
    return float(structural_similarity(image.numpy(), truth.numpy(), data_range=image_range(truth)))


def psnr2d(image: Image, truth: Image) -> float:
    """Return the PSNR of two images in dB, in the range of the true one."""
    return psnr(image, truth, data_range=image_range(truth))


def _at(turn_deg: float, score: Callable[[Image, Image], float]) -> Callable[[Trial], float | None]:
    def of(trial: Trial) -> float | None:
        images = synthesised(trial, turn_deg)
        return None if images is None else score(*images)

    return of


METRICS: tuple[Metric, ...] = tuple(
    Metric(f"{name}_view{turn}", f"{name.upper()} of a view at {turn}°", unit, "higher",
           f"2D {name.upper()} of the X-ray made from the reconstruction {turn} degrees from the first view, in the "
           "range of the true one, where the method was not given it (the task of DVG-Diffusion's Table VI).",
           _at(turn, score), digits)
    for turn in (45, 90)
    for name, unit, score, digits in (("psnr", "dB", psnr2d, 2), ("ssim", "", ssim2d, 3))
)  # fmt: skip
