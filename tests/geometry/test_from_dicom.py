import warnings
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset

from voxray.errors import GeometryError, InputError, VoxrayWarning
from voxray.geometry import PRESETS, ViewGeometry
from voxray.geometry.dicom import view_tags
from voxray.geometry.placing import ViewOptions, place_view

KNOWN: dict[str, Any] = {
    "Modality": "DX", "Rows": 400, "Columns": 300, "ViewPosition": "PA", "ImagerPixelSpacing": [0.5, 0.5],
    "DistanceSourceToDetector": 1800, "DistanceSourceToPatient": 1500,
}  # fmt: skip


def xray(**tags: Any) -> Dataset:
    dataset = Dataset()
    for key, value in (KNOWN | tags).items():
        if value is not None:
            setattr(dataset, key, value)
    return dataset


def view(options: ViewOptions | None = None, **tags: Any) -> ViewGeometry:
    return ViewGeometry.from_dicom([xray(**tags)], options=options)


def steps(views: ViewGeometry) -> tuple[np.ndarray, np.ndarray]:
    return views.u_mm[0], views.v_mm[0]


def test_I5_what_the_tags_say_is_taken_without_a_warning():
    views = view()
    assert views.names == ("pa",)
    assert views.shapes == ((400, 300),)
    assert np.allclose(views.source_mm[0], (0, 1500, 0))
    assert np.allclose(views.centre_mm[0], (0, -300, 0))
    assert np.allclose(steps(views), [(0.5, 0, 0), (0, 0, -0.5)])


# ---------------------------------------------------------------- I5: spacing


@pytest.mark.parametrize(
    ("tags", "row_mm", "column_mm"),
    [
        ({"PixelSpacing": [0.3, 0.4], "ImagerPixelSpacing": None}, 0.3, 0.4),
        ({"PixelSpacing": [0.5, 0.5]}, 0.5, 0.5),
        ({"ImagerPixelSpacing": [0.2, 0.3]}, 0.2, 0.3),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, 0.2, 0.2),
        ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.6, 0.6]}, 0.6, 0.6),
        ({"ImagerPixelSpacing": "", "NominalScannedPixelSpacing": [0.6, 0.6]}, 0.6, 0.6),
    ],
)
def test_I5_spacing_is_taken_in_order(tags, row_mm, column_mm):
    u, v = steps(view(**tags))
    assert np.allclose((np.linalg.norm(v), np.linalg.norm(u)), (row_mm, column_mm))


@pytest.mark.parametrize("calibration", ["GEOMETRY", "FIDUCIAL"])
def test_I5_magnification_is_applied_once(calibration):
    """0.5 mm in the patient at 1500 of 1800 mm are 0.6 mm on the detector, and 0.5 mm when seen from there again."""
    tags = {"PixelSpacing": [0.5, 0.5], "PixelSpacingCalibrationType": calibration}
    u, _ = steps(view(**tags, ImagerPixelSpacing=None))
    assert np.allclose(u, (0.6, 0, 0))
    u, _ = steps(view(**tags, ImagerPixelSpacing=[0.61, 0.61]))
    assert np.allclose(u, (0.61, 0, 0))
    u, _ = steps(view(PixelSpacing=[0.5, 0.5], ImagerPixelSpacing=[0.6, 0.6]))
    assert np.allclose(u, (0.6, 0, 0))
    views = view(**tags, ImagerPixelSpacing=None)
    row_column = views.project_mm([(0, 0, 0), (50, 0, 0)], 0)
    assert np.isclose(row_column[1, 1] - row_column[0, 1], 100)


@pytest.mark.parametrize("spacing", [None, [0, 0], "", [1e6, 1e6], 0.5])
def test_I5_unknown_spacing_spans_the_preset_with_a_warning(spacing):
    with pytest.warns(VoxrayWarning, match="size of its pixels is not known.*410 mm.*--pixel-mm"):
        u, v = steps(view(ImagerPixelSpacing=spacing))
    assert np.allclose((u[0], -v[2]), 256 * 1.6 / 400)
    with pytest.raises(InputError, match="strict"):
        view(ViewOptions(strict=True), ImagerPixelSpacing=spacing)
    u, v = steps(view(ViewOptions(strict=True, pixel_mm=0.25), ImagerPixelSpacing=spacing))
    assert np.allclose((u[0], -v[2]), 0.25)


def test_I5_pixel_aspect_is_kept():
    with pytest.warns(VoxrayWarning, match="size of its pixels"):
        u, v = steps(view(ImagerPixelSpacing=None, PixelAspectRatio=["2", "1"]))
    assert np.allclose((u[0], -v[2]), (409.6 / 800, 409.6 / 400))
    u, v = steps(view(ViewOptions(pixel_mm=1.0), ImagerPixelSpacing=[0.2, 0.1]))
    assert np.allclose((u[0], -v[2]), (1.0, 2.0))


# ---------------------------------------------------------------- I5: distances


@pytest.mark.parametrize("nothing", [None, 0, ""])
def test_I5_unknown_distances_come_from_the_preset_with_a_warning(nothing):
    unknown = {"DistanceSourceToDetector": nothing, "DistanceSourceToPatient": nothing}
    with pytest.warns(VoxrayWarning, match=r"--sdd-mm.*--sid-mm.*1800 mm.*1550 mm"):
        views = view(**unknown)
    assert np.allclose((views.source_mm[0, 1], views.centre_mm[0, 1]), (1550, -250))
    with pytest.warns(VoxrayWarning, match="'perx2ct'.*949 mm.*700 mm"):
        view(ViewOptions(setup="perx2ct"), **unknown)
    with pytest.raises(InputError, match="strict"):
        view(ViewOptions(strict=True), **unknown)
    views = view(ViewOptions(strict=True, sdd_mm=2000, sid_mm=1600), **unknown)
    assert np.allclose((views.source_mm[0, 1], views.centre_mm[0, 1]), (1600, -400))


def test_I5_the_body_stands_at_its_detector_where_only_one_distance_is_known():
    with pytest.warns(VoxrayWarning, match="--sid-mm"):
        views = view(DistanceSourceToDetector=1000, DistanceSourceToPatient=None)
    assert np.allclose((views.source_mm[0, 1], views.centre_mm[0, 1]), (750, -250))


def test_I5_the_detector_stands_at_its_body_where_only_that_distance_is_known():
    """1000 mm from the patient with the preset's 1800 mm to the detector would magnify 1.8 times."""
    with pytest.warns(VoxrayWarning, match=r"--sdd-mm.*1250 mm to the detector, 1000 mm to the patient"):
        views = view(DistanceSourceToDetector=None, DistanceSourceToPatient=1000)
    assert np.allclose((views.source_mm[0, 1], views.centre_mm[0, 1]), (1000, -250))


@pytest.mark.parametrize("unknown", ["DistanceSourceToDetector", "DistanceSourceToPatient"])
def test_I5_the_magnification_gives_the_missing_distance(unknown):
    views = view(ViewOptions(strict=True), EstimatedRadiographicMagnificationFactor="1.2", **{unknown: None})
    assert np.allclose((views.source_mm[0, 1], views.centre_mm[0, 1]), (1500, -300))


def test_I5_the_near_side_of_the_bucky_is_not_the_middle_of_the_body():
    with pytest.warns(VoxrayWarning, match="--sid-mm"):
        views = view(DistanceSourceToPatient=1760)
    assert np.isclose(views.source_mm[0, 1], 1550)
    views = view(Modality="XA", ViewPosition=None, PositionerPrimaryAngle=0, DistanceSourceToPatient=1760)
    assert np.isclose(views.source_mm[0, 1], 1760)


def test_I5_what_the_user_says_overrides_the_tags():
    views = view(ViewOptions(pixel_mm=0.7, sdd_mm=1500, sid_mm=1200))
    assert np.allclose(views.u_mm[0], (0.7, 0, 0))
    assert np.allclose((views.source_mm[0, 1], views.centre_mm[0, 1]), (1200, -300))


@pytest.mark.parametrize(
    "wrong", [{"pixel_mm": 0}, {"sdd_mm": -1}, {"sid_mm": float("nan")}, {"lateral_anterior": "up"}]
)
def test_I5_impossible_options_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ViewOptions(**wrong)


def test_I5_impossible_distances_are_refused():
    with pytest.raises(GeometryError, match="between source and detector"):
        view(ViewOptions(sid_mm=1900))


# ---------------------------------------------------------------- I6: which view


def view_code(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue = value
    return [item]


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"ViewPosition": "PA"}, "pa"),
        ({"ViewPosition": "AP"}, "ap"),
        ({"ViewPosition": "LL"}, "left_lateral"),
        ({"ViewPosition": "RL"}, "right_lateral"),
        ({"ViewPosition": "LATERAL"}, "lateral"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("R-10236")}, "left_lateral"),
        ({"ViewPosition": "", "ViewCodeSequence": view_code("272479007")}, "pa"),
        ({"ViewPosition": "PA", "PositionerPrimaryAngle": 90}, "pa"),
        ({"ViewPosition": None, "PositionerPrimaryAngle": 90}, "90"),
        ({"ViewPosition": "PA", "PositionerPrimaryAngle": 30, "PositionerType": "CARM"}, "30"),
        ({"Modality": "XA", "PositionerPrimaryAngle": -30, "PositionerSecondaryAngle": 20}, "-30_20"),
        ({"ViewPosition": "LLO"}, None),
        ({"ViewPosition": None}, None),
    ],
)
def test_I6_the_view_is_read_from_the_tags(tags, name):
    assert view_tags(xray(**tags)).name == name


def test_I6_a_view_that_no_tag_names_must_be_given():
    with pytest.raises(GeometryError, match="name the views"):
        view(ViewPosition=None)
    datasets = [xray(ViewPosition=None)]
    assert ViewGeometry.from_dicom(datasets, views=["ap"]).source_mm[0, 1] == -1500
    with pytest.raises(GeometryError, match="1 X-rays, but 2 views"):
        ViewGeometry.from_dicom(datasets, views=["pa", "ap"])
    with pytest.raises(GeometryError, match="different names"):
        ViewGeometry.from_dicom([xray(), xray()])


def test_I6_named_views_do_not_contradict_the_tags():
    right = [xray(ViewPosition="RL", PatientOrientation=["P", "F"])]
    views = ViewGeometry.from_dicom(right, views=["lateral"])
    assert views.names == ("right_lateral",)
    assert np.array_equal(views.centre_mm, ViewGeometry.from_dicom(right).centre_mm)
    with pytest.raises(GeometryError, match="X-ray 1 cannot be the view 'pa': its tags say that it is 'right_lateral'"):
        ViewGeometry.from_dicom(right, views=["pa"])
    with pytest.warns(VoxrayWarning, match="X-ray 1 is read as 'ap', though its tags say 'pa'"):
        assert ViewGeometry.from_dicom([xray()], views=["ap"]).source_mm[0, 1] == -1500


def test_positioner_angles_are_those_of_from_angles():
    tags = {"Modality": "XA", "PositionerPrimaryAngle": -30, "PositionerSecondaryAngle": 20}
    expected = ViewGeometry.from_angles([-30], [20], setup=PRESETS["chest"])
    views = view(**tags, DistanceSourceToPatient=1550)
    assert np.allclose(views.source_mm, expected.source_mm)
    assert np.allclose(views.centre_mm, expected.centre_mm)
    assert np.allclose(views.u_mm / 0.5, expected.u_mm / 1.6)
    assert np.allclose(views.v_mm / 0.5, expected.v_mm / 1.6)


@pytest.mark.parametrize(("increment", "angles"), [(2, [10, 12, 14]), ([0, 5, 20], [10, 15, 30])])
def test_positioner_increments_are_per_frame_or_offsets(increment, angles):
    dataset = xray(PositionerPrimaryAngle=10, PositionerPrimaryAngleIncrement=increment)
    assert [view_tags(dataset, frame=i).angles_deg for i in range(3)] == [(angle, 0) for angle in angles]


# ---------------------------------------------------------------- I6: how the image is shown


@pytest.mark.parametrize(
    ("position", "orientation", "u", "v"),
    [
        ("PA", ["L", "F"], (1, 0, 0), (0, 0, -1)),
        ("AP", ["L", "F"], (1, 0, 0), (0, 0, -1)),
        ("LL", ["A", "F"], (0, -1, 0), (0, 0, -1)),
        ("LL", ["P", "F"], (0, 1, 0), (0, 0, -1)),
        ("RL", ["PR", "FA"], (0, 1, 0), (0, 0, -1)),
        ("LL", ["P", "H"], (0, 1, 0), (0, 0, 1)),
    ],
)
def test_I6_patient_orientation_says_how_the_image_is_shown(position, orientation, u, v):
    views = view(ViewPosition=position, PatientOrientation=orientation)
    assert np.allclose(np.array(steps(views)) / 0.5, [u, v])


@pytest.mark.parametrize(
    ("orientation", "u", "v"),
    [(["R", "F"], (-1, 0, 0), (0, 0, -1)), (["F", "L"], (0, 0, -1), (1, 0, 0)), (["R", "H"], (-1, 0, 0), (0, 0, 1))],
)
def test_I6_a_mirrored_or_turned_frontal_is_said(orientation, u, v):
    with pytest.warns(VoxrayWarning, match="mirrored or turned"):
        views = view(PatientOrientation=orientation)
    assert np.allclose(np.array(steps(views)) / 0.5, [u, v])


def test_I6_an_orientation_that_does_not_fit_is_ignored_aloud():
    with pytest.warns(VoxrayWarning, match="does not fit"):
        views = view(PatientOrientation=["A", "F"])
    assert np.allclose(views.u_mm[0], (0.5, 0, 0))


def test_I6_the_side_of_a_lateral_is_assumed_aloud_or_given():
    lateral = {"ViewPosition": "LL"}
    with pytest.warns(VoxrayWarning, match="front of the patient.*--lateral-anterior left"):
        assert np.allclose(view(**lateral).u_mm[0], (0, -0.5, 0))
    with pytest.raises(InputError, match="strict"):
        view(ViewOptions(strict=True), **lateral)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.allclose(view(ViewOptions(lateral_anterior="left"), **lateral).u_mm[0], (0, 0.5, 0))
        over = view(ViewOptions(lateral_anterior="left"), **lateral, PatientOrientation=["A", "F"])
    assert np.allclose(over.u_mm[0], (0, 0.5, 0))


def test_two_views_stand_about_one_isocentre():
    pair = [xray(), xray(ViewPosition="LL", PatientOrientation=["A", "F"], ImagerPixelSpacing=[0.3, 0.3], Rows=100)]
    views = ViewGeometry.from_dicom(pair)
    expected = ViewGeometry.biplanar(setup=PRESETS["chest"])
    assert views.names == ("pa", "left_lateral")
    assert views.shapes == ((400, 300), (100, 300))
    assert np.array_equal(views.isocentre(), (0, 0, 0))
    for i in range(2):
        axis, other = views.centre_mm[i] - views.source_mm[i], expected.centre_mm[i] - expected.source_mm[i]
        assert np.allclose(axis / np.linalg.norm(axis), other / np.linalg.norm(other))


def test_garbage_in_the_tags_counts_as_nothing():
    dataset = xray(ViewPosition="PA", PatientOrientation="Q", ImagerPixelSpacing=None)
    dataset.add_new("PositionerPrimaryAngle", "LO", "abc")
    dataset.add_new("DistanceSourceToDetector", "LO", "far")
    tags = view_tags(dataset)
    assert (tags.angles_deg, tags.source_detector_mm, tags.orientation, tags.pixel_mm) == (None, None, None, None)
    with pytest.raises(GeometryError, match="Rows and Columns"):
        view_tags(Dataset())
    with pytest.raises(GeometryError, match="no preset"):
        place_view(tags, "pa", ViewOptions(setup="nowhere"))
