"""Where views show points."""

import torch

from voxray.geometry import ViewGeometry
from voxray.physics.sampling import on_detector


def test_places_on_a_detector_are_pixels_between_its_edges() -> None:
    views = ViewGeometry.from_angles([20.0, 110.0], [5.0, 0.0])
    pixels = views.pixels_mm(1)
    halfway = (pixels + views.source_mm[1]) / 2
    place, seen = on_detector(halfway, views, 1)
    rows, columns = views.shapes[1]
    assert bool(seen.all())
    assert torch.allclose(place[0, 0], torch.tensor([1 / columns - 1, 1 / rows - 1]), atol=1e-5)
    assert torch.allclose(place[-1, 5], torch.tensor([11 / columns - 1, 1 - 1 / rows]), atol=1e-5)
    behind = 2 * views.source_mm[1] - halfway
    assert not on_detector(behind, views, 1)[1].any()
    assert not on_detector(pixels + columns * views.u_mm[1], views, 1)[1].any()
