"""ViewGeometry: valid or not there, its constructors, its files, and where a point is seen."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import view_geometries

from voxray.errors import GeometryError
from voxray.geometry import PRESETS, Setup, ViewGeometry

GOOD: dict[str, Any] = {
    "source_mm": [[0, 1000, 0]], "centre_mm": [[0, -200, 0]], "u_mm": [[1, 0, 0]], "v_mm": [[0, 0, -1]],
    "shapes": ((8, 9),),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": ()}, "at least one view"),
        ({"shapes": ((8, 0),)}, "at least one row"),
        ({"source_mm": [[0, 1000]]}, r"shape \(1, 3\)"),
        ({"source_mm": [[0, np.inf, 0]]}, "not finite"),
        ({"names": ("a", "b")}, "1 views need 1 different names"),
        ({"v_mm": [[2, 0, 0]]}, "parallel or zero"),
        ({"v_mm": [[0, 0, 0]]}, "parallel or zero"),
        ({"source_mm": [[50, -200, 9]]}, "in the plane of the detector"),
        ({"isocentre_mm": [1, 2]}, "isocentre"),
    ],
)
def test_an_impossible_view_is_refused(change: dict[str, Any], message: str) -> None:
    assert len(ViewGeometry(**GOOD)) == 1
    with pytest.raises(GeometryError, match=message):
        ViewGeometry(**(GOOD | change))


def test_names_may_not_repeat() -> None:
    with pytest.raises(GeometryError, match="2 different names"):
        ViewGeometry.from_angles((0, 90), names=("pa", "pa"))


def test_views_are_frozen() -> None:
    views = ViewGeometry(**GOOD)
    with pytest.raises(ValueError, match="read-only"):
        views.source_mm[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        views.names = ("other",)  # type: ignore[misc]


@given(view_geometries())
def test_equal_views_are_equal_and_hash_alike(views: ViewGeometry) -> None:
    same = views.subset(range(len(views)))
    assert same == views
    assert hash(same) == hash(views)
    moved = dataclasses.replace(views, u_mm=views.u_mm * 1.01)
    assert moved != views
    assert views.renamed([f"other{i}" for i in range(len(views))]) != views
    assert views != "views"


# ---------------------------------------------------------------- constructors


def seen_at(views: ViewGeometry, point: tuple[float, float, float], view: int = 0) -> np.ndarray:
    """Where a point is shown, as (right, up) of the middle of the image in pixels."""
    row, column = views.project_mm(point, view) - (np.array(views.shapes[view]) - 1) / 2
    return np.array([column, -row])


@pytest.mark.parametrize(
    ("name", "source", "right", "anterior"),
    [
        ("pa", (0, 1550, 0), (1, 0, 0), "right"),
        ("ap", (0, -1550, 0), (1, 0, 0), "right"),
        ("lateral", (-1550, 0, 0), (0, -1, 0), "right"),
        ("left_lateral", (-1550, 0, 0), (0, -1, 0), "right"),
        ("right_lateral", (1550, 0, 0), (0, -1, 0), "right"),
        ("left_lateral", (-1550, 0, 0), (0, 1, 0), "left"),
        ("right_lateral", (1550, 0, 0), (0, 1, 0), "left"),
        ("0", (0, 1550, 0), (1, 0, 0), "right"),
        ("90", (-1550, 0, 0), (0, 1, 0), "right"),
        ("-30", (775, 1550 * np.cos(np.pi / 6), 0), (np.cos(np.pi / 6), -0.5, 0), "right"),
    ],
)
def test_N4_a_named_view_stands_and_is_shown_as_its_name_says(
    name: str, source: tuple[float, ...], right: tuple[float, ...], anterior: Any
) -> None:
    views = ViewGeometry.from_names([name], lateral_anterior=anterior)
    np.testing.assert_allclose(views.source_mm[0], source, atol=1e-9)
    np.testing.assert_allclose(views.centre_mm[0], -np.array(source) * 250 / 1550, atol=1e-9)
    np.testing.assert_allclose(views.u_mm[0], 1.6 * np.array(right), atol=1e-9)
    np.testing.assert_allclose(views.v_mm[0], (0, 0, -1.6), atol=1e-9)


def test_N4_secondary_angle_moves_the_detector_to_the_head() -> None:
    views = ViewGeometry.from_angles((0,), (30,))
    assert views.centre_mm[0, 2] == pytest.approx(125)
    assert views.source_mm[0, 2] == pytest.approx(-775)
    assert seen_at(views, (0, 0, 10))[1] > 0


@given(st.floats(-180, 180), st.floats(-60, 60), st.tuples(*[st.floats(-100, 100)] * 3))
def test_central_ray_meets_isocentre_and_the_middle_of_the_image(
    primary: float, secondary: float, isocentre: tuple[float, float, float]
) -> None:
    views = ViewGeometry.from_angles((primary,), (secondary,), setup="x2ct", isocentre_mm=isocentre)
    np.testing.assert_allclose(seen_at(views, isocentre), 0, atol=1e-6)
    assert np.linalg.norm(views.centre_mm - views.source_mm) == pytest.approx(949)
    assert np.linalg.norm(np.array(isocentre) - views.source_mm) == pytest.approx(541)
    steps = np.stack([views.u_mm[0], views.v_mm[0], views.centre_mm[0] - views.source_mm[0]])
    np.testing.assert_allclose(steps @ steps.T, np.diag([1.5625**2, 1.5625**2, 949**2]), atol=1e-6)


def test_unequal_numbers_of_angles_and_unknown_names_are_refused() -> None:
    with pytest.raises(GeometryError, match="2 primary angles, but 1 secondary"):
        ViewGeometry.from_angles((0, 90), (0,))
    with pytest.raises(GeometryError, match="right_lateral, or an angle"):
        ViewGeometry.from_names(["oblique"])
    with pytest.raises(GeometryError, match="angle"):
        ViewGeometry.from_names(["nan"])
    with pytest.raises(GeometryError, match="lateral_anterior"):
        ViewGeometry.from_names(["pa"], lateral_anterior="up")  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="'pa' or 'ap'"):
        ViewGeometry.biplanar("front")  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="At least one view"):
        ViewGeometry.circular(0)


def test_circular_spreads_views_over_the_range_without_its_end() -> None:
    views = ViewGeometry.circular(4, 180, 10)
    expected = ViewGeometry.from_angles((10, 55, 100, 145))
    np.testing.assert_allclose(views.source_mm, expected.source_mm, atol=1e-9)
    np.testing.assert_allclose(views.u_mm, expected.u_mm, atol=1e-9)
    assert views.names == ("view0", "view1", "view2", "view3")


def test_parallel_beams_do_not_magnify() -> None:
    views = ViewGeometry.parallel((0,), pixel_mm=2.0, shape=(64, 64))
    for depth in (-250.0, 0.0, 250.0):
        np.testing.assert_allclose(seen_at(views, (100, depth, 60)), (50, 30), atol=4e-3)


# ---------------------------------------------------------------- files


@given(view_geometries())
def test_json_keeps_views_exactly(views: ViewGeometry) -> None:
    assert ViewGeometry.from_json(views.to_json()) == views


def test_json_has_the_format_of_the_reference() -> None:
    data = json.loads(ViewGeometry.biplanar(isocentre_mm=(1, 2, 3)).to_json())
    assert data["isocentre_mm"] == [1, 2, 3]
    assert list(data["views"]) == ["pa", "lateral"]
    assert data["views"]["pa"].keys() == {"source_mm", "centre_mm", "u_mm", "v_mm", "shape"}
    assert data["views"]["pa"]["shape"] == [256, 256]


@pytest.mark.parametrize("case", ["lidc0004", "lidc0028", "lungdx_a0001"])
def test_biplanar_is_the_geometry_of_the_reference_images(shared_data: Path, case: str) -> None:
    reference = ViewGeometry.from_json((shared_data / "reference" / case / "geometry.json").read_bytes())
    ours = ViewGeometry.biplanar(isocentre_mm=reference.isocentre())
    assert reference.names == ours.names
    assert reference.shapes == ours.shapes
    for key in ("source_mm", "centre_mm", "u_mm", "v_mm"):
        np.testing.assert_allclose(getattr(reference, key), getattr(ours, key), atol=1e-4)
    assert ViewGeometry.from_json(reference.to_json()) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no geometry file"),
        (b"\xff\xfe\x00", "no geometry file"),
        ("[1, 2]", "no geometry file"),
        ("[" * 100_000, "no geometry file"),
        ("{}", "lacks the key 'views'"),
        ('{"views": {}}', "at least one view"),
        ('{"views": [1]}', "no geometry file"),
        ('{"views": {"pa": 3}}', "no geometry file"),
        ('{"views": {"pa": {"source_mm": [0, 0, 0]}}}', "lacks the key 'centre_mm'"),
    ],
)
def test_a_damaged_geometry_file_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        ViewGeometry.from_json(text)


@pytest.mark.parametrize("shape", ["[8]", "8", '"ab"', "[1e999, 8]", "[NaN, 8]", "[0, 8]", "[8, 9.5]"])
def test_a_damaged_shape_in_a_geometry_file_is_refused(shape: str) -> None:
    text = ViewGeometry(**GOOD).to_json().replace("\n", "")
    start = text.index('"shape":') + len('"shape":')
    with pytest.raises(GeometryError):
        ViewGeometry.from_json(text[:start] + shape + text[text.index("]", start) + 1 :])


# ---------------------------------------------------------------- derived


@given(view_geometries())
def test_project_is_the_inverse_of_pixels(views: ViewGeometry) -> None:
    for view, (rows, columns) in enumerate(views.shapes):
        on_the_way = views.source_mm[view] + 0.3 * (views.pixels_mm(view) - views.source_mm[view])
        expected = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1)
        np.testing.assert_allclose(views.project_mm(on_the_way, view), expected, atol=1e-6)


def test_isocentre_is_where_central_rays_meet() -> None:
    views = ViewGeometry.biplanar(isocentre_mm=(10, -20, 300))
    np.testing.assert_allclose(dataclasses.replace(views, isocentre_mm=None).isocentre(), (10, -20, 300), atol=1e-5)


@pytest.mark.parametrize("names", [["pa"], ["pa", "ap"]])
def test_isocentre_of_parallel_central_rays_is_a_point_on_them(names: list[str]) -> None:
    views = dataclasses.replace(ViewGeometry.from_names(names, isocentre_mm=(5, 6, 7)), isocentre_mm=None)
    np.testing.assert_allclose(views.isocentre(), (5, 6, 7), atol=1e-3)


def test_subset_keeps_order_names_and_isocentre() -> None:
    views = ViewGeometry.circular(5, isocentre_mm=(1, 2, 3))
    two = views.subset([4, 1])
    assert two.names == ("view4", "view1")
    np.testing.assert_array_equal(two.source_mm, views.source_mm[[4, 1]])
    np.testing.assert_array_equal(two.isocentre(), (1, 2, 3))


@given(view_geometries())
def test_resized_detectors_keep_their_corners(views: ViewGeometry) -> None:
    other = views.resized([(2 * rows, 3 * columns) for rows, columns in views.shapes])
    for n in range(len(views)):
        for before, after in ((views, other),):
            (r, c), (r2, c2) = before.shapes[n], after.shapes[n]
            corner = before.centre_mm[n] - c / 2 * before.u_mm[n] - r / 2 * before.v_mm[n]
            same = after.centre_mm[n] - c2 / 2 * after.u_mm[n] - r2 / 2 * after.v_mm[n]
            np.testing.assert_allclose(same, corner, atol=1e-9)


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize(
    ("name", "source_detector", "source_isocentre", "field_mm"),
    [
        ("chest", 1800, 1550, 256 * 1.6 * 1550 / 1800),
        ("x2ct", 949, 541, 285.0),
        ("perx2ct", 949, 700, 368.8),
        ("xraysyn", 3000, 2500, 320 * 2500 / 3000),
    ],
)
def test_presets_have_the_published_constants(
    name: str, source_detector: float, source_isocentre: float, field_mm: float
) -> None:
    setup = PRESETS[name]
    assert (setup.source_detector_mm, setup.source_isocentre_mm) == (source_detector, source_isocentre)
    assert setup.shape[1] * setup.pixel_mm * setup.source_isocentre_mm / setup.source_detector_mm == pytest.approx(
        field_mm, abs=0.05
    )


def test_xraysyn_sees_the_published_part_of_the_cube() -> None:
    points = np.stack(np.meshgrid(*[(np.arange(64) + 0.5) * 5 - 160] * 3), -1).reshape(-1, 3)
    row, column = ViewGeometry.from_names(["pa"], setup="xraysyn").project_mm(points, 0).T
    seen = (np.abs(row - 63.5) <= 64) & (np.abs(column - 63.5) <= 64)
    assert seen.mean() == pytest.approx(0.695, abs=0.003)


def test_impossible_setups_are_refused() -> None:
    with pytest.raises(GeometryError, match="between source and detector"):
        Setup(1000, 1200, 1.0, (8, 8))
    with pytest.raises(GeometryError, match="pixel size"):
        Setup(1000, 900, 0.0, (8, 8))
    with pytest.raises(GeometryError, match="presets are chest, x2ct, perx2ct, xraysyn"):
        ViewGeometry.biplanar(setup="chests")


@given(view_geometries())
def test_cropped_images_show_the_same_places(views: ViewGeometry) -> None:
    boxes = [(slice(min(1, rows - 1), rows), slice(0, max(1, columns - 1))) for rows, columns in views.shapes]
    cropped = views.cropped(boxes)
    for view, (rows, columns) in enumerate(boxes):
        assert np.allclose(cropped.pixels_mm(view), views.pixels_mm(view)[rows, columns], atol=1e-6)
