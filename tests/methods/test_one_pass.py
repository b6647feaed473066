"""What methods have in common that draw a volume in one pass: which view is which, and how X-rays are seen."""

import pytest
import torch
from contract_models import small
from learn_stages import item_of, sample_of
from small_models import SETUP, patient, xrays_of

from voxray.errors import GeometryError
from voxray.geometry import ViewGeometry
from voxray.methods.one_pass import OnePass, order_of
from voxray.methods.stages import GradientStage

VIEWS = ViewGeometry.biplanar(setup=SETUP)


def method() -> OnePass:
    with torch.random.fork_rng():
        made = small("x2ct-gan", brief=True).build()
    assert isinstance(made, OnePass)
    made.anatomy.fit([patient(seed) for seed in range(2)], None)
    return made.eval()


def test_each_angle_has_its_view_in_any_order() -> None:
    views = ViewGeometry.from_angles([95.0, -10.0, 184.0], setup=SETUP)
    assert order_of(views, (0.0, 90.0, 180.0)) == [1, 0, 2]


@pytest.mark.parametrize("angles", [[0.0], [0.0, 90.0, 45.0], [0.0, 70.0], [0.0, -90.0], [0.0, 5.0]])
def test_other_views_are_refused_by_what_is_served(angles: list[float]) -> None:
    with pytest.raises(GeometryError, match="primary angles 0, 90"):
        order_of(ViewGeometry.from_angles(angles, setup=SETUP), (0.0, 90.0))


def test_a_tilted_view_is_far_from_its_angle() -> None:
    with pytest.raises(GeometryError):
        order_of(ViewGeometry.from_angles([0.0], [20.0], setup=SETUP), (0.0,))


def test_X_rays_of_training_are_those_of_use() -> None:
    made = method()
    stage = made.stages()[-1]
    assert isinstance(stage, GradientStage)
    item = item_of(stage.preparation, sample_of(patient(0), VIEWS))
    measured, used = made.read(xrays_of(patient(0), VIEWS.subset([1, 0])), "body")
    assert torch.allclose(used["images"][0], item["images"])
    assert torch.equal(used["sources_um"][0], item["sources_um"])
    assert 0.5 < float(item["images"].max()) < 1.5
    assert len(measured) == 2
