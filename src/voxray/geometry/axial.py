"""From which sides views look, about the patient's axis."""

import numpy as np

from voxray.geometry._frozen import FloatArray
from voxray.geometry.views import ViewGeometry


def primary_angles_deg(views: ViewGeometry) -> FloatArray:
    """Return from where each view looks about the patient's axis, as in `ViewGeometry.from_angles`, (views,)."""
    x, y, _ = (views.isocentre() - views.source_mm).T
    return np.asarray(np.rad2deg(np.arctan2(x, -y)))


def widest_gap_deg(angles_deg: FloatArray) -> float:
    """Return the middle of the widest gap between the axes of views, on the side that is nearest to all of them.

    Views from opposite sides have one axis, for parallel rays see the same. So 0 and 90 degrees give 45, not 135, and
    0 alone gives 90. Of equals it is the first from 0 upwards, so that the order of the views does not matter.

    Args:
        angles_deg: primary angles, at least one.

    Returns:
        From 0 up to 360.
    """
    axes = np.sort(angles_deg.round(6) % 180)
    gaps = np.diff(np.append(axes, axes[0] + 180))
    middles = (axes + gaps / 2)[gaps > gaps.max() - 1e-5]
    middles = np.sort(np.concatenate([middles, middles + 180]).round(5) % 360)
    distances = np.abs((middles[:, None] - angles_deg + 180) % 360 - 180).sum(1)
    return float(middles[np.argmax(distances < distances.min() + 1e-4)])
