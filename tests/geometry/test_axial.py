"""Sides of views about the patient's axis, and the middle of their widest gap."""

import numpy as np
import pytest

from voxray.geometry import ViewGeometry
from voxray.geometry.axial import primary_angles_deg, widest_gap_deg


def test_angles_are_those_that_views_are_made_from() -> None:
    angles = [0.0, 90.0, -170.0, 33.0]
    views = ViewGeometry.from_angles(angles, [0, 10, -20, 0], isocentre_mm=(5, 6, 7))
    assert primary_angles_deg(views) == pytest.approx(angles, abs=1e-4)


@pytest.mark.parametrize(("angles", "middle"), [
    ([0], 90), ([30], 120), ([0, 90], 45), ([0, 180], 90), ([0, 190], 275), ([0, 50], 115), ([0, -50], 65),
    ([0, 10, 20, 100], 60), ([0, 60, 120], 30), ([0, 45, 90], 135),
])  # fmt: skip
def test_N5_the_widest_gap_has_its_middle_whatever_the_order(angles: list[float], middle: float) -> None:
    assert widest_gap_deg(np.array(angles, float)) == pytest.approx(middle)
    assert widest_gap_deg(np.array(angles[::-1], float)) == pytest.approx(middle)
