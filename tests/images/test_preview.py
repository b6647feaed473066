"""The picture of a result: right way round, on one grey scale, and it says what it is."""

import subprocess
import sys
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from voxray.errors import InputError
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.images.disclaimer import SYNTHETIC
from voxray.images.preview import comparisons, letters, planes, write_preview

GRID = VolumeGrid.centred(shape=(5, 7, 9), spacing_mm=(2.0, 3.0, 4.0))
VOLUME = CTVolume(torch.arange(5.0 * 7 * 9).reshape(GRID.shape), GRID)
STYLE: dict[str, object] = {}


def radiograph(views: int, kind: str = "line_integral") -> Radiograph:
    geometry = ViewGeometry.circular(views).resized([(6, 8)] * views)
    rng = torch.Generator().manual_seed(0)
    return Radiograph(tuple(5 * torch.rand(6, 8, generator=rng) for _ in range(views)), geometry, kind)


def turned(volume: CTVolume, order: tuple[int, ...], flips: tuple[int, ...]) -> CTVolume:
    """Store the same volume with its axes in another order and direction."""
    hu = volume.hu.permute(order).flip([axis for axis in range(3) if flips[axis] < 0])
    affine = np.array(volume.grid.affine)
    affine[:3, :3] = affine[:3, [2 - axis for axis in order][::-1]]
    for axis in range(3):
        if flips[axis] < 0:
            affine[:3, 3] += affine[:3, 2 - axis] * (hu.shape[axis] - 1)
            affine[:3, 2 - axis] *= -1
    return CTVolume(hu, VolumeGrid(tuple(hu.shape), affine))


def test_N4_the_planes_are_turned_as_radiologists_look_at_them() -> None:
    axial, coronal, sagittal = planes(VOLUME, "x", STYLE)
    hu = VOLUME.hu.numpy()
    np.testing.assert_array_equal(axial.pixels, hu[2])  # the front on top, the patient's right at the left
    np.testing.assert_array_equal(coronal.pixels, hu[::-1, 3])  # the head on top
    np.testing.assert_array_equal(sagittal.pixels, hu[::-1, :, 4])  # the front at the left
    ends = [[letters(d) for d in (-p.right, p.right, -p.down, p.down)] for p in (axial, coronal, sagittal)]
    assert ends == [["R", "L", "A", "P"], ["R", "L", "H", "F"], ["A", "P", "H", "F"]]
    assert [picture.size_mm for picture in (axial, coronal, sagittal)] == [(18, 21), (18, 20), (21, 20)]


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product([1, -1], repeat=3)))
def test_N4_the_planes_do_not_depend_on_how_the_volume_is_stored(
    order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    stored = turned(VOLUME, order, flips)
    for expected, found in zip(planes(VOLUME, "x", STYLE), planes(stored, "x", STYLE), strict=True):
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        np.testing.assert_allclose(found.right, expected.right, atol=1e-12)
        np.testing.assert_allclose(found.down, expected.down, atol=1e-12)


@given(angles=st.tuples(*[st.floats(-180, 180)] * 3))
def test_N4_an_oblique_grid_is_shown_along_its_own_axes(angles: tuple[float, float, float]) -> None:
    affine = np.array(GRID.affine)
    affine[:3, :3] = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() @ affine[:3, :3]
    for picture in planes(CTVolume(VOLUME.hu, VolumeGrid(GRID.shape, affine)), "x", STYLE):
        assert abs(picture.right @ picture.down) < 1e-9
        lengths = sorted((np.linalg.norm(picture.right), np.linalg.norm(picture.down)))
        assert any(np.allclose(lengths, pair) for pair in ((2, 3), (2, 4), (3, 4)))


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ((1, 0, 0), "L"), ((-1, 0, 0), "R"), ((0, 1, 0), "P"), ((0, -2, 0), "A"), ((0, 0, 1), "H"),
        ((0, 0, -1), "F"), ((1, 0.5, 0), "LP"), ((-0.5, 0, 1), "HR"), ((1, -0.9, 0.8), "LAH"), ((1, 0.1, 0), "L"),
    ],
)  # fmt: skip
def test_N4_directions_are_named(direction: tuple[float, ...], expected: str) -> None:
    assert letters(np.array(direction, dtype=float)) == expected


def test_N4_the_letters_of_a_real_posteroanterior_image(shared_data: Path) -> None:
    text = (shared_data / "reference" / "lidc0028" / "geometry.json").read_text()
    views = ViewGeometry.from_json(text)
    ends = [(letters(-u), letters(u), letters(v)) for u, v in zip(views.u_mm, views.v_mm, strict=True)]
    assert dict(zip(views.names, ends, strict=True)) == {"pa": ("R", "L", "F"), "lateral": ("P", "A", "F")}


def test_N4_the_liver_is_at_the_left_of_the_coronal_plane_and_the_spine_at_the_back(shared_data: Path) -> None:
    image = sitk.ReadImage(str(shared_data / "reference" / "lidc0004" / "ct.nii.gz"))
    hu = torch.from_numpy(sitk.GetArrayFromImage(image)).float()
    _, coronal, sagittal = planes(CTVolume(hu, VolumeGrid.centred(shape=tuple(hu.shape))), "x", STYLE)
    air = coronal.pixels[80:92] < -500  # the dome of the liver, beside the base of the left lung
    assert air[:, 20:50].mean() < 0.02
    assert air[:, 78:108].mean() > 0.1
    bone = sagittal.pixels > 250
    assert bone[:, 64:].sum() > 3 * bone[:, :64].sum()


def test_O4_x_ray_and_re_projection_share_a_grey_scale() -> None:
    xrays = radiograph(2)
    again = [image + 0.5 for image in xrays.images]
    for row, image in zip(comparisons(xrays, again), xrays.images, strict=True):
        assert row[0].style is row[1].style
        assert row[0].style["cmap"] == "gray"
        np.testing.assert_allclose(row[2].pixels, 0.5, atol=1e-6)
        assert row[2].style["vmin"] == -row[2].style["vmax"]
        assert "RMS 0.5 =" in row[2].caption
        assert torch.equal(torch.from_numpy(row[0].pixels), image)


def test_O4_photons_are_not_compared_with_line_integrals() -> None:
    xrays = Radiograph((torch.ones(6, 8),), radiograph(1).views, "counts")
    with pytest.raises(InputError, match="Photon counts are not compared"):
        list(comparisons(xrays, xrays.images))


def test_O4_a_display_image_is_compared_on_its_own_scale() -> None:
    xrays = radiograph(1, "display")
    ((_, again, difference),) = comparisons(xrays, [0.01 * xrays.images[0] - 3])
    np.testing.assert_allclose(again.pixels, xrays.images[0], atol=1e-4)
    assert np.abs(difference.pixels).max() < 1e-4
    assert "matched" in again.caption


@pytest.mark.parametrize(("views", "shown"), [(1, [1]), (4, [1, 2, 3, 4]), (8, [1, 3, 6, 8])])
def test_O4_at_most_four_views_are_shown(views: int, shown: list[int]) -> None:
    xrays = radiograph(views)
    captions = [row[0].caption for row in comparisons(xrays, xrays.images)]
    names = [f"view{number - 1}" for number in shown]
    assert [caption.split(": ")[1] for caption in captions] == names
    assert all((f"of {views}" in caption) == (views > 4) for caption in captions)


def test_O2_the_preview_is_a_picture_that_says_that_it_is_synthetic(tmp_path: Path) -> None:
    xrays = radiograph(2)
    write_preview(tmp_path / "a.png", VOLUME, xrays, xrays.images, truth=VOLUME, std=VOLUME, title="atlas")
    write_preview(tmp_path / "b.png", VOLUME, xrays, xrays.images)
    with Image.open(tmp_path / "a.png") as full, Image.open(tmp_path / "b.png") as small:
        assert full.size[0] == small.size[0] > 1000
        assert full.size[1] > small.size[1] + 600
        assert full.info["Description"] == SYNTHETIC
        red = np.asarray(small.convert("RGB"), dtype=int)[-40:]
    assert ((red[..., 0] > 140) & (red[..., 1] < 80)).sum() > 500, "the footer is not there"


def test_N4_the_patients_left_is_at_the_right_of_the_picture(tmp_path: Path) -> None:
    hu = torch.full((16, 16, 16), -1000.0)
    hu[:, :, 8:] = 1000
    volume = CTVolume(hu, VolumeGrid.centred(shape=(16, 16, 16)))
    xrays = radiograph(1)
    write_preview(tmp_path / "a.png", volume, xrays, xrays.images)
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("L"), dtype=float)
    row = pixels[pixels.shape[0] // 4]
    assert row[60:170].mean() < 20
    assert row[220:340].mean() > 235


def test_O1_the_same_result_gives_the_same_picture_and_it_is_overwritten_only_when_told(tmp_path: Path) -> None:
    xrays, path = radiograph(2), tmp_path / "a.png"
    write_preview(path, VOLUME, xrays, xrays.images)
    first = path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_preview(path, VOLUME, xrays, xrays.images)
    write_preview(path, VOLUME, xrays, xrays.images, overwrite=True)
    assert path.read_bytes() == first
    with pytest.raises(InputError, match="2 X-rays, but 1"):
        write_preview(path, VOLUME, xrays, xrays.images[:1], overwrite=True)


def test_D3_the_preview_needs_no_global_state_of_matplotlib(tmp_path: Path) -> None:
    code = """
import sys, torch
from pathlib import Path
from voxray.geometry import ViewGeometry, VolumeGrid
from voxray.images import CTVolume, Radiograph
from voxray.images.preview import write_preview
volume = CTVolume(torch.zeros(2, 2, 2), VolumeGrid.centred(shape=(2, 2, 2)))
xrays = Radiograph((torch.zeros(2, 2),), ViewGeometry.circular(1).resized([(2, 2)]))
write_preview(Path(sys.argv[1]), volume, xrays, xrays.images)
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=False).returncode == 0
