"""Where the synthesised views stand."""

import numpy as np

from voxray.geometry import ViewGeometry
from voxray.geometry.axial import primary_angles_deg, widest_gap_deg
from voxray.methods.dvg.config import NewViewConfig


def new_views(views: ViewGeometry, config: NewViewConfig) -> ViewGeometry:
    """Turn the first view about the patient's axis into the synthesised ones.

    Angles are those of the sources about the isocentre in the axial plane. What is opposite counts as the same
    axis, for parallel rays would see the same.

    Args:
        views: of the X-rays, about the origin.
        config: which angles.

    Returns:
        One view for each angle, with the distances and the detector of the first.
    """
    angles = primary_angles_deg(views)
    if config.angles_deg is None:
        return _turned(views, [widest_gap_deg(angles) - angles[0]])
    turns = (angles - angles[0] + 180) % 360 - 180
    turns = np.where(np.abs(turns) > 90 + 1e-6, turns - np.copysign(180, turns), turns)  # of the axes
    others = turns[np.abs(turns) > 1e-6]
    towards = np.sign(others[0]) if len(others) else 1.0  # from PA to a left lateral: from +y to -x
    return _turned(views, [float(towards * angle) for angle in config.angles_deg])


def _turned(views: ViewGeometry, degrees: list[float]) -> ViewGeometry:
    centre = views.isocentre()
    first = views.subset([0])
    vectors = {name: [] for name in ("source_mm", "centre_mm", "u_mm", "v_mm")}  # type: dict[str, list[np.ndarray]]
    for angle in np.deg2rad(degrees):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        for name in ("source_mm", "centre_mm"):
            vectors[name].append(turn @ (getattr(first, name)[0] - centre) + centre)
        for name in ("u_mm", "v_mm"):
            vectors[name].append(turn @ getattr(first, name)[0])
    return ViewGeometry(
        **{name: np.array(rows) for name, rows in vectors.items()},
        shapes=first.shapes * len(degrees),
        names=tuple(f"new{i}" for i in range(len(degrees))),
        isocentre_mm=centre,
    )
