"""The same views are the same set, however they are asked for."""

from collections.abc import Sequence

import numpy as np
import pytest
from comparing import TINY

from voxray.errors import GeometryError
from voxray.evaluation.published import VIEWS
from voxray.evaluation.results import ViewSet, spread_of
from voxray.geometry import ViewGeometry


@pytest.mark.parametrize(("views", "name"), [
    (["0"], "pa"), (1, "pa"), (["0", "90"], "pa,lateral"), (["pa", "left_lateral"], "pa,lateral"), (2, "pa,lateral"),
    (["0.0", "45.0", "450"], "pa,45,lateral"), (3, "pa,60,120"), (["180", "-90"], "ap,right_lateral"),
    (["270"], "right_lateral"), (["-180"], "ap"), (["lateral", "pa"], "lateral,pa"), (["22.5", "-0.5"], "22.5,-0.5"),
    (4, "4 over 180"), (["pa", "45", "90", "135"], "4 over 180"), (["0", "90", "ap", "-90"], "4 over 360"),
    (7, "7 over 180"), (["pa", "10", "20", "40"], "pa,10,20,40"), (["10", "20", "30", "40"], "10,20,30,40"),
])  # fmt: skip
def test_views_have_one_name(views: Sequence[str] | int, name: str) -> None:
    found = ViewSet.of(views, setup=TINY)
    assert found.name == name
    number, range_deg = spread_of(name)
    again = (
        ViewSet.of(number, range_deg or 180.0, TINY) if " over " in name else ViewSet.of(name.split(","), setup=TINY)
    )
    assert again.geometry.to_json() == found.geometry.to_json()


@pytest.mark.parametrize("views", [["0", "90"], 2, 3, 7, ["180", "-90"], ["22.5", "-0.5"], ["0", "90", "ap", "-90"]])
def test_the_views_are_those_that_were_asked_for(views: Sequence[str] | int) -> None:
    """Sources stand where they should; only which way round a lateral is shown follows its name."""

    asked = (
        ViewGeometry.circular(views, setup=TINY)
        if isinstance(views, int)
        else ViewGeometry.from_names(views, setup=TINY)
    )
    found = ViewSet.of(views, setup=TINY).geometry
    assert np.allclose(found.source_mm, asked.source_mm, atol=1e-3)
    assert np.allclose(found.centre_mm, asked.centre_mm, atol=1e-3)
    assert np.allclose(np.abs(found.u_mm), np.abs(asked.u_mm), atol=1e-3)


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_published_tables_are_called_as_there(name: str) -> None:
    assert ViewSet.of(name.split(",")).name == name


@pytest.mark.parametrize("views", [["0", "pa"], ["lateral", "90"], ["ap", "-180"]])
def test_a_view_is_not_asked_for_twice(views: list[str]) -> None:
    with pytest.raises(GeometryError, match="ask for each X-ray once"):
        ViewSet.of(views)


@pytest.mark.parametrize(("name", "spread"), [
    ("pa", (1, None)), ("pa,lateral", (2, 180)), ("pa,45,lateral", (3, 135)), ("lateral,pa", (2, None)),
    ("pa,60,120", (3, 180)), ("pa,60,lateral", (3, None)), ("8 over 90", (8, 90)), ("45,lateral", (2, None)),
    ("pa,120,-120", (3, 360)),
])  # fmt: skip
def test_a_name_tells_over_which_range_its_views_are_spread(name: str, spread: tuple[int, float | None]) -> None:
    assert spread_of(name) == spread
