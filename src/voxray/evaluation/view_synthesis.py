"""X-rays made from the reconstruction at other angles, against the true ones (DVG-Diffusion, Table VI).

The paper's tasks are 0 -> 90, 0 -> 45 and 0 + 90 -> 45 degrees: evaluate with one view for the first two, with two for
the third. It gives 2D PSNR, SSIM and LPIPS, and says neither how the images were scaled nor what range was used, nor of
which network LPIPS is; here they are line integrals of the cube alone (see `reprojection`) on the detector of the first
given view, the range is that of the true image, and the network VGG16, as in the paper's other tables. That is our
choice: whoever compares should keep it in mind.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from skimage.metrics import structural_similarity

from voxray.evaluation.lpips import SMALLEST, Lpips, user_model
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


def lpips2d(model: Lpips, image: Image, truth: Image) -> float:
    """Return LPIPS of two images, the range of the true one as -1..1; what the other has beyond is clipped."""
    device = next(model.parameters()).device
    shown = [2 * ((x - truth.min()) / image_range(truth)).clamp(0, 1) - 1 for x in (image, truth)]
    return float(model(*(x[None, None].float().to(device) for x in shown)))


def _at(turn_deg: float, score: Callable[[Image, Image], float]) -> Callable[[Trial], float | None]:
    def of(trial: Trial) -> float | None:
        images = synthesised(trial, turn_deg)
        return None if images is None else score(*images)

    return of


def _lpips_at(turn_deg: float) -> Callable[[Trial], float | None]:
    def of(trial: Trial) -> float | None:
        model = user_model("vgg", trial.device)
        if model is None or min(trial.radiograph.views.shapes[0]) < SMALLEST["vgg"]:
            return None
        return _at(turn_deg, partial(lpips2d, model))(trial)

    return of


_VIEW = (
    "of the X-ray made from the reconstruction {} degrees from the first view, in the range of the true one, where the "
    "method was not given it (the task of DVG-Diffusion's Table VI)."
)

METRICS: tuple[Metric, ...] = (
    *(
        Metric(f"{name}_view{turn}", f"{name.upper()} of a view at {turn}°", unit, "higher",
               f"2D {name.upper()} {_VIEW.format(turn)}", _at(turn, score), digits)
        for turn in (45, 90)
        for name, unit, score, digits in (("psnr", "dB", psnr2d, 2), ("ssim", "", ssim2d, 3))
    ),
    *(
        Metric(f"lpips_view{turn}", f"LPIPS of a view at {turn}°", "", "lower",
               f"LPIPS 0.1 with VGG16 {_VIEW.format(turn)}", _lpips_at(turn), 3)
        for turn in (45, 90)
    ),
)  # fmt: skip
