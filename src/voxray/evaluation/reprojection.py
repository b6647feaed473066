"""What a reconstruction looks like from where the method was not shown it.

A volume that fits its own X-rays may still be wrong along their rays; views from elsewhere tell. In both protocols
these are projections of the two cubes alone: what lies around the cube is not reconstructed, so that in `clinical`
the numbers may not be held against `residual`, whose X-rays show the whole body, with noise.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from torch import Tensor

from voxray.evaluation.metrics import psnr, residual_rms
from voxray.evaluation.trial import Metric, Trial
from voxray.geometry import Setup, ViewGeometry
from voxray.geometry.axial import primary_angles_deg, widest_gap_deg
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu

Image = Float[Tensor, "rows columns"]


def views_at(views: ViewGeometry, angles_deg: Sequence[float]) -> ViewGeometry:
    """Stand an upright X-ray unit with the distances and the pixels of the first view at other primary angles."""
    to_isocentre_mm = float(np.linalg.norm(views.isocentre() - views.source_mm[0]))
    to_detector_mm = float(np.linalg.norm(views.centre_mm[0] - views.source_mm[0]))
    pixel_mm = float(np.linalg.norm(views.u_mm[0]))
    setup = Setup(to_detector_mm, to_isocentre_mm, pixel_mm, views.shapes[0])
    return ViewGeometry.from_angles(list(angles_deg), setup=setup, isocentre_mm=views.isocentre())


def unseen_view(views: ViewGeometry) -> ViewGeometry:
    """Return one view from the middle of the widest gap between the given ones (`geometry.axial.widest_gap_deg`).

    So 0 and 90 degrees give 45, and 0 alone gives 90. The choice is ours.
    """
    return views_at(views, [widest_gap_deg(primary_angles_deg(views))])


@lru_cache(maxsize=2)
def projected(trial: Trial, views: ViewGeometry) -> tuple[list[Image], list[Image]]:
    """Return line integrals (no unit) of the reconstruction and of the truth, each alone in air.

    The last two answers are kept, for several metrics ask for the same view.

    Args:
        trial: both volumes.
        views: about the origin, as those of the trial.
    """
    projector = Projector(trial.grid, views)
    return projector.forward(hu_to_mu(trial.hu)), projector.forward(hu_to_mu(trial.truth))


def image_range(image: Image) -> float:
    """Return the largest minus the smallest value of an image."""
    return float(image.max() - image.min())


def _residual_unseen(trial: Trial) -> float:
    return residual_rms(*projected(trial, unseen_view(trial.radiograph.views)))


def _psnr_unseen(trial: Trial) -> float | None:
    (image,), (truth,) = projected(trial, unseen_view(trial.radiograph.views))
    data_range = image_range(truth)
    return psnr(image, truth, data_range=data_range) if data_range > 0 else None


_VIEW = "line integrals of reconstruction and truth, each alone in air, seen from the middle of the widest gap of views"

METRICS: tuple[Metric, ...] = (
    Metric("residual_unseen", "residual, unseen view", "", "lower",
           f"Root mean square difference of {_VIEW}.", _residual_unseen, 4),
    Metric("psnr_unseen", "PSNR, unseen view", "dB", "higher",
           f"PSNR, in the range of the true image, of {_VIEW}.", _psnr_unseen),
)  # fmt: skip
