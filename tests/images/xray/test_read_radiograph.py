import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from voxray.errors import GeometryError, InputError, VoxrayWarning
from voxray.geometry import Setup, ViewGeometry
from voxray.images.read_xray import read_radiograph, view_files
from voxray.images.view_matching import view_in_name
from voxray.images.xray import ReadOptions

SETUP = {"ImagerPixelSpacing": [1, 1], "DistanceSourceToDetector": 1800, "DistanceSourceToPatient": 1550}
PA = {"ViewPosition": "PA", **SETUP}
LATERAL = {"ViewPosition": "LL", "PatientOrientation": ["A", "F"], **SETUP}


@pytest.fixture
def picture(tmp_path, small_xray):
    """Write a picture under a name, brighter by `plus`."""

    def make(name: str, plus: int = 0) -> Path:
        Image.fromarray(small_xray + np.uint16(plus)).save(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def geometry() -> ViewGeometry:
    return ViewGeometry.biplanar(setup=Setup(1800, 1550, 8.0, (48, 40)))


def names_of(radiograph) -> dict[str, str]:
    return {view: path.name for view, path in view_files(radiograph).items()}


def quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_radiograph(*args, **kwargs)


# ---------------------------------------------------------------- I6: which view


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("pa.nii.gz", "pa"), ("patient7_PA.png", "pa"), ("AP.dcm", "ap"), ("LATERAL.dcm", "lateral"),
        ("c0247_L.png", "lateral"), ("left-lateral.png", "left_lateral"), ("a right lat.tif", "right_lateral"),
        ("x_LL.png", "left_lateral"), ("patient.png", None), ("pa_lateral.png", None), ("apple.pa1.png", None),
        ("1.2.pa", "pa"),
    ],
)  # fmt: skip
def test_I6_a_view_is_a_whole_word_of_a_name(name, view):
    assert view_in_name(Path(name)) == view


def test_I6_views_come_from_the_tags(make_xray):
    radiograph = read_radiograph([make_xray("a.dcm", **LATERAL), make_xray("b.dcm", **PA)])
    assert names_of(radiograph) == {"left_lateral": "a.dcm", "pa": "b.dcm"}
    assert radiograph.kind == "display"
    assert radiograph.origins[0].patient_id == "P1"
    assert np.allclose(radiograph.views.centre_mm, [(250, 0, 0), (0, -250, 0)])


def test_I6_views_come_from_the_names_of_files(picture):
    with pytest.warns(VoxrayWarning) as caught:
        radiograph = read_radiograph([picture("p1_lateral.png"), picture("p1_PA.png")])
    assert names_of(radiograph) == {"lateral": "p1_lateral.png", "pa": "p1_PA.png"}
    said = [str(warning.message) for warning in caught]
    assert len(said) == 5  # distances and pixel size of each, the side of the lateral
    assert all("p1_" in message for message in said)


def test_I6_a_view_that_nothing_names_must_be_given(picture):
    with pytest.raises(InputError, match=r"scan\.png.*--views pa,lateral"):
        read_radiograph([picture("scan.png")])
    assert quietly([picture("scan.png")], views=["AP"]).views.names == ("ap",)
    with pytest.raises(InputError, match="1 X-ray image, but 2 views"):
        read_radiograph([picture("scan.png")], views=["pa", "lateral"])
    with pytest.raises(GeometryError, match="Unknown view"):
        quietly([picture("scan.png")], views=["oblique"])


def test_I6_two_images_of_the_same_view_are_refused(make_xray, picture):
    pair = [make_xray("a.dcm", **PA), make_xray("b.dcm", **PA)]
    with pytest.raises(InputError, match=r"a\.dcm.*b\.dcm.*both the view 'pa'"):
        read_radiograph(pair)
    with pytest.raises(InputError, match=r"cannot be the view 'lateral': its tags say that it is 'pa'"):
        read_radiograph(pair, views=["pa", "lateral"])
    with pytest.raises(InputError, match="both the view"):
        quietly([picture("a.png"), picture("b.png")], views=["lateral", "left_lateral"])
    for twins in (["30", "30.0"], ["-30", "330"], ["30", "+30."]):
        with pytest.raises(InputError, match="both the view"):
            quietly([picture("a.png"), picture("b.png")], views=twins)
    with pytest.raises(InputError, match="same file"):
        quietly([picture("a.png"), picture("a.png")], views=["pa", "lateral"])


@pytest.mark.parametrize("by", ["tags", "names"])
def test_I6_a_swapped_order_is_found(make_xray, picture, by):
    swapped = (
        [make_xray("a.dcm", **LATERAL), make_xray("b.dcm", **PA)]
        if by == "tags"
        else [picture("lateral.png"), picture("pa.png")]
    )
    with pytest.warns(VoxrayWarning, match="order of the files contradicts"):
        radiograph = quietly_but_swapped(swapped)
    assert [path.name for path in view_files(radiograph).values()] == [swapped[1].name, swapped[0].name]
    assert radiograph.views.names[0] == "pa"


def quietly_but_swapped(paths):
    options = ReadOptions(pixel_mm=1, sdd_mm=1800, sid_mm=1550, lateral_anterior="right")
    return read_radiograph(paths, views=["pa", "lateral"], options=options)


def test_I6_the_side_of_a_lateral_comes_from_its_tags(make_xray):
    right = {**LATERAL, "ViewPosition": "RL"}
    radiograph = read_radiograph([make_xray("a.dcm", **PA), make_xray("b.dcm", **right)], views=["pa", "lateral"])
    assert radiograph.views.names == ("pa", "right_lateral")
    assert radiograph.views.centre_mm[1, 0] == -250


def test_I6_the_user_may_contradict_ap_and_pa(make_xray):
    with pytest.warns(VoxrayWarning, match="read as 'ap', though its tags say 'pa'"):
        radiograph = read_radiograph([make_xray(**PA)], views=["ap"])
    assert radiograph.views.names == ("ap",)


# ---------------------------------------------------------------- with a geometry


def test_I6_geometry_views_are_matched_by_name(picture, geometry):
    files = [picture("x_lateral.png", 7), picture("x_PA.png")]
    radiograph = read_radiograph(files, geometry=geometry)
    assert names_of(radiograph) == {"pa": "x_PA.png", "lateral": "x_lateral.png"}
    assert radiograph.views == geometry
    assert (radiograph.images[1] - radiograph.images[0] == 7).all()


def test_I6_geometry_views_are_matched_by_tags_then_by_order(make_xray, picture, geometry):
    tagged = read_radiograph([make_xray("a.dcm", **LATERAL), make_xray("b.dcm", **PA)], geometry=geometry)
    assert names_of(tagged) == {"pa": "b.dcm", "lateral": "a.dcm"}
    ordered = read_radiograph([picture("a.png"), picture("b.png")], geometry=geometry)
    assert names_of(ordered) == {"pa": "a.png", "lateral": "b.png"}
    half = read_radiograph([picture("a.png"), picture("pa.png")], geometry=geometry)
    assert names_of(half) == {"pa": "pa.png", "lateral": "a.png"}


def test_I6_one_named_view_of_a_geometry_keeps_the_isocentre(picture, geometry):
    moved = ViewGeometry(
        geometry.source_mm + 30, geometry.centre_mm + 30, geometry.u_mm, geometry.v_mm, geometry.shapes, geometry.names
    )
    radiograph = read_radiograph([picture("lateral.png")], geometry=moved)
    assert radiograph.views.names == ("lateral",)
    assert np.allclose(radiograph.views.isocentre(), 30, atol=1e-4)


def test_I6_files_and_geometry_that_do_not_fit_are_refused(make_xray, picture, geometry):
    with pytest.raises(InputError, match="1 X-ray image, but the geometry has 2 views: pa, lateral"):
        read_radiograph([picture("a.png")], geometry=geometry)
    with pytest.raises(InputError, match="3 X-ray images"):
        read_radiograph([picture(f"{i}.png") for i in range(3)], geometry=geometry)
    with pytest.raises(InputError, match="both the view 'pa'"):
        read_radiograph([picture("a_pa.png"), picture("b_pa.png")], geometry=geometry)
    with pytest.raises(GeometryError, match=r"pa\.png.*\(48, 40\).*\(48, 41\)"):
        read_radiograph([picture("pa.png")], geometry=geometry.resized([(48, 41), (48, 40)]))
    frontal = ViewGeometry.from_names(["ap"], setup=Setup(1800, 1550, 8.0, (48, 40)))
    with pytest.raises(InputError, match="would be view 'ap', but its tags say 'left_lateral'"):
        read_radiograph([make_xray("a.dcm", **LATERAL)], geometry=frontal)
    with pytest.raises(InputError, match="not both"):
        read_radiograph([picture("pa.png")], geometry=geometry, views=["pa"])
    with pytest.raises(InputError, match="No X-ray file"):
        read_radiograph([])


# ---------------------------------------------------------------- I5, I11, I12


def test_I5_pictures_take_the_preset_and_say_so(picture):
    with pytest.warns(VoxrayWarning, match="410 mm"), pytest.warns(VoxrayWarning, match="1800 mm"):
        radiograph = read_radiograph([picture("pa.png")])
    assert np.allclose(radiograph.views.u_mm[0], (409.6 / 48, 0, 0))
    with pytest.raises(InputError, match=r"pa\.png.*strict"):
        read_radiograph([picture("pa.png")], options=ReadOptions(strict=True))


def test_I5_line_integrals_keep_the_spacing_of_their_file(tmp_path, small_xray):
    image = sitk.GetImageFromArray(small_xray[None] / np.float32(500))
    image.SetSpacing((2.0, 3.0, 1.0))
    sitk.WriteImage(image, tmp_path / "pa.nii.gz")
    radiograph = read_radiograph([tmp_path / "pa.nii.gz"], options=ReadOptions(sdd_mm=1800, sid_mm=1550))
    assert radiograph.kind == "line_integral"
    assert np.allclose(radiograph.views.u_mm[0], (2, 0, 0))
    assert np.allclose(radiograph.views.v_mm[0], (0, 0, -3))


@pytest.mark.parametrize(
    ("tag", "value", "what"),
    [("PatientID", "P2", "patients"), ("StudyInstanceUID", "1.2.3", "studies"), ("StudyDate", "20200103", "dates")],
)
def test_I11_images_of_different_examinations_are_refused(make_xray, tag, value, what):
    pair = [make_xray("a.dcm", **PA), make_xray("b.dcm", **LATERAL, **{tag: value})]
    with pytest.raises(InputError, match=rf"a\.dcm.*b\.dcm.*different {what}.*--allow-mixed") as caught:
        read_radiograph(pair)
    assert value not in str(caught.value)
    with pytest.warns(VoxrayWarning, match=f"different {what}"):
        assert len(read_radiograph(pair, options=ReadOptions(allow_mixed=True)).images) == 2


def test_I11_grey_values_and_line_integrals_are_not_mixed(picture, tmp_path, small_xray):
    sitk.WriteImage(sitk.GetImageFromArray(small_xray / np.float32(500)), tmp_path / "lateral.mha")
    with pytest.raises(InputError, match="cannot be mixed"):
        read_radiograph([picture("pa.png"), tmp_path / "lateral.mha"])


def test_I12_spaces_unicode_and_links(make_xray, small_xray, tmp_path):
    odd = tmp_path / "ein Röntgen bild ☢ PA.dcm"
    shutil.move(make_xray(**SETUP), odd)
    odd.chmod(0o444)
    (tmp_path / "link").symlink_to(odd)
    radiograph = read_radiograph([tmp_path / "link"], views=["pa"])
    assert np.array_equal(radiograph.images[0].numpy(), small_xray)
    assert read_radiograph([odd]).views.names == ("pa",)


def test_frames_of_a_turning_arm_become_views(make_xray, small_xray):
    path = make_xray(
        pixels=np.stack([small_xray] * 3), Modality="XA", PositionerPrimaryAngle=0,
        PositionerPrimaryAngleIncrement=[0, 45, 90], **SETUP,
    )  # fmt: skip
    radiograph = read_radiograph([path])
    assert radiograph.views.names == ("0", "45", "90")
    assert np.allclose(radiograph.views.centre_mm[2], (250, 0, 0))


# ---------------------------------------------------------------- real files


def test_I4_the_same_picture_in_three_codecs_is_the_same(shared_data):
    """JPEG 2000 through pydicom, lossless JPEG through GDCM (which would invert it), RLE: MONOCHROME1 all."""
    files = [shared_data / "xray_dicom" / f"RG3_{codec}.dcm" for codec in ("J2KR", "JPLL", "RLE")]
    first, *others = [quietly([path], views=["ap"]).images[0] for path in files]
    assert first.shape == (1760, 1760)
    for other in others:
        assert (first == other).all()


def test_every_real_picture_becomes_a_radiograph(shared_data):
    files = sorted((shared_data / "xray").glob("*.png"))
    for path in files:
        radiograph = quietly([path])
        assert radiograph.kind == "display"
        assert radiograph.views.names[0] == {"PA": "pa", "AP": "ap", "L": "lateral"}[path.stem.rsplit("_", 1)[1]]


def test_real_dicom_chests(shared_data):
    chests = {"CR-MONO1-10-chest.dcm": (440, 440), "RG1_JLSN.dcm": (1955, 1841), "rsna_6904.dcm": (1024, 1024)}
    for name, shape in chests.items():
        radiograph = quietly([shared_data / "xray_dicom" / name])
        assert radiograph.views.names == ("pa",)
        assert tuple(radiograph.images[0].shape) == shape
    rg1 = quietly([shared_data / "xray_dicom" / "RG1_JLSN.dcm"]).views
    assert np.isclose(rg1.source_mm[0, 1] - rg1.centre_mm[0, 1], 1996)


def test_reference_line_integrals_show_the_heart_at_the_right(shared_data):
    """PA: the patient's left at the right of the image; the files are named in the wrong order on purpose."""
    folder = shared_data / "reference" / "lidc0004"
    geometry = ViewGeometry.from_json((folder / "geometry.json").read_bytes())
    radiograph = read_radiograph([folder / "lateral.nii.gz", folder / "pa.nii.gz"], geometry=geometry)
    assert names_of(radiograph) == {"pa": "pa.nii.gz", "lateral": "lateral.nii.gz"}
    assert (radiograph.views.u_mm[0] > 0).tolist() == [True, False, False]
    pa = radiograph.images[0]
    assert pa[115:135, 158:180].mean() > 1.2 * pa[115:135, 88:110].mean()
