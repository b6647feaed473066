"""Left is left: markers in a phantom, and the X-rays of real chests that another program made."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its usual name)
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from voxray.data.phantom import MarkerPhantom, marker_phantom
from voxray.geometry import PRESETS, ViewGeometry, VolumeGrid
from voxray.physics import Projector
from voxray.physics.attenuation import hu_to_mu

ISOCENTRE = (12.0, -34.0, 560.0)
GRID = VolumeGrid.centred(ISOCENTRE)

# Where a point (x left, y back, z up; mm from the isocentre) is shown, in mm right and up of the middle of the
# detector, by the intercept theorem, written out for source to isocentre a and source to detector b.
Shown = Callable[[float, float, float, float, float], tuple[float, float]]
VIEWS: dict[str, Shown] = {
    "pa": lambda x, y, z, a, b: (b / (a - y) * x, b / (a - y) * z),
    "ap": lambda x, y, z, a, b: (b / (a + y) * x, b / (a + y) * z),
    "lateral": lambda x, y, z, a, b: (-b / (a + x) * y, b / (a + x) * z),
    "right_lateral": lambda x, y, z, a, b: (-b / (a - x) * y, b / (a - x) * z),
}


@pytest.fixture(scope="module")
def phantom() -> MarkerPhantom:
    return marker_phantom(GRID)


@pytest.fixture(scope="module")
def lone(phantom: MarkerPhantom) -> dict[str, Tensor]:
    """For each ball, the attenuation by which it differs from the water around it."""
    k, j, i = np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij")
    places = GRID.index_to_mm(np.stack([i, j, k], -1))
    excess = hu_to_mu(phantom.volume.hu) - hu_to_mu(torch.zeros(1))
    away = {name: np.linalg.norm(places - place, axis=-1) for name, place in phantom.markers.items()}
    return {name: excess * torch.from_numpy(away[name] < phantom.radius_mm + 6) for name in away}


def centroid(image: Tensor) -> np.ndarray:
    """Return the centre of mass as (right, up) of the middle of the image, in pixels."""
    row, column = (torch.arange(n) - (n - 1) / 2 for n in image.shape)
    total = image.sum()
    return np.array([float((image.sum(0) * column).sum() / total), float(-(image.sum(1) * row).sum() / total)])


@pytest.mark.parametrize(("setup", "backend"), [("chest", "numba"), ("chest", "torch"), ("perx2ct", "numba")])
@pytest.mark.parametrize("view", VIEWS)
def test_N4_each_marker_is_seen_where_it_should_be(
    phantom: MarkerPhantom, lone: dict[str, Tensor], view: str, setup: str, backend: str
) -> None:
    views = ViewGeometry.from_names([view], setup=setup, isocentre_mm=ISOCENTRE)
    half = [(views.shapes[0][0] // 2, views.shapes[0][1] // 2)]  # for speed: pixels twice as large
    projector = Projector(GRID, views.resized(half), backend)  # type: ignore[arg-type]
    a, b = PRESETS[setup].source_isocentre_mm, PRESETS[setup].source_detector_mm
    for name, place in phantom.markers.items():
        x, y, z = np.array(place) - ISOCENTRE
        expected = np.array(VIEWS[view](x, y, z, a, b)) / (2 * PRESETS[setup].pixel_mm)
        assert np.abs(expected).max() > 2  # a marker in the middle would prove nothing
        seen = centroid(projector.forward(lone[name])[0])
        np.testing.assert_allclose(seen, expected, atol=0.05, err_msg=name)


def test_N4_markers_are_seen_in_the_whole_phantom(phantom: MarkerPhantom, lone: dict[str, Tensor]) -> None:
    """In the X-ray of all, the line integral at each marker's place differs from water's by the ball's diameter."""
    water = hu_to_mu(torch.zeros(1))
    views = ViewGeometry.from_names(list(VIEWS), isocentre_mm=ISOCENTRE)
    projector = Projector(GRID, views)
    images = projector.forward(hu_to_mu(phantom.volume.hu))
    alone = projector.forward(sum(lone.values()))  # type: ignore[arg-type]
    for view in range(len(views)):
        for name, place in phantom.markers.items():
            row, column = np.rint(views.project_mm(place, view)).astype(int)
            expected = 2 * phantom.radius_mm * float(water) * phantom.marker_hu[name] / 1000
            assert float(alone[view][row, column]) == pytest.approx(expected, rel=0.05)
            assert float(images[view][row, column]) > float(alone[view][row, column])


@pytest.mark.parametrize("flip", [0, 1, 2])
def test_N4_what_is_mirrored_is_found_out(phantom: MarkerPhantom, lone: dict[str, Tensor], flip: int) -> None:
    """Of a mirrored body, some marker in some view is seen pixels away from where it should be."""
    worst = 0.0
    views = ViewGeometry.from_names(("pa", "lateral"), isocentre_mm=ISOCENTRE)
    for name, place in phantom.markers.items():
        for view, image in enumerate(Projector(GRID, views).forward(lone[name].flip(flip))):
            row, column = views.project_mm(place, view) - (np.array(image.shape) - 1) / 2
            worst = max(worst, float(np.abs(centroid(image) - (column, -row)).max()))
    assert worst > 10


@pytest.mark.parametrize("setup", PRESETS)
@pytest.mark.parametrize("view", VIEWS)
def test_N4_magnification_is_that_of_the_distances(setup: str, view: str) -> None:
    """Two voxels at the depth of the isocentre, 100 mm apart to the sides and up: SDD / SOD, to 0.1 pixel."""
    grid = VolumeGrid.centred(shape=(65, 65, 65), spacing_mm=2.5)
    views, chosen = ViewGeometry.from_names([view], setup=setup), PRESETS[setup]
    sides = 2 if view in ("pa", "ap") else 1  # the array axis that the columns of the image run along
    places = []
    for end in (-20, 20):
        mu, at = torch.zeros(grid.shape), [32 + end, 32, 32]
        at[sides] += end
        mu[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2, at[2] - 1 : at[2] + 2] = 1.0
        places.append(centroid(Projector(grid, views).forward(mu)[0]))
    expected = 100 * chosen.source_detector_mm / chosen.source_isocentre_mm / chosen.pixel_mm
    np.testing.assert_allclose(np.abs(places[1] - places[0]), expected, atol=0.1)


# ---------------------------------------------------------------- RTK


def read(path: Path) -> tuple[np.ndarray, sitk.Image]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image


def case_of_rtk(folder: Path) -> tuple[ViewGeometry, list[np.ndarray], list[np.ndarray]]:
    """Return the views, RTK's images, and ours of the 320-mm cube (RTK saw the whole body)."""
    views = ViewGeometry.from_json((folder / "geometry.json").read_bytes())
    hu, image = read(folder / "ct.nii.gz")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    mu = hu_to_mu(torch.from_numpy(hu.astype(np.float32)))
    ours = Projector(VolumeGrid(hu.shape, affine), views).forward(mu)
    theirs = [read(folder / f"{name}.nii.gz")[0][0] for name in views.names]
    return views, theirs, [image.numpy() for image in ours]


def detail(image: np.ndarray) -> np.ndarray:
    """Return the middle of an image without what is coarse (mass outside the cube) or fine (noise, voxels)."""
    middle = np.s_[56:200, 56:200]
    return (gaussian_filter(image, 1.5) - gaussian_filter(image, 8))[middle]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(detail(one).ravel(), detail(other).ravel())[0, 1])


def shift_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return by how many pixels (rows, columns) `other` is shifted: the peak of the correlation of their details."""
    a, b = detail(one), detail(other)
    window = np.outer(*[np.hanning(n) for n in a.shape])
    product = np.fft.fft2(a * window).conj() * np.fft.fft2(b * window)
    surface = np.fft.fftshift(np.fft.ifft2(product).real)
    peak = np.array(np.unravel_index(surface.argmax(), surface.shape))
    place = []
    for axis in (0, 1):
        low, top, high = (surface[tuple(peak + d * np.eye(2, dtype=int)[axis])] for d in (-1, 0, 1))
        place.append(peak[axis] + 0.5 * (low - high) / (low - 2 * top + high) - a.shape[axis] // 2)
    return np.array(place)


@pytest.mark.parametrize("case", ["lidc0004", "lidc0028", "lungdx_a0001"])
def test_N4_agrees_with_rtk_in_place(shared_data: Path, case: str) -> None:
    """Less than 0.2 pixel apart in both views; mirrored, turned or swapped images do not correlate."""
    _, theirs, ours = case_of_rtk(shared_data / "reference" / case)
    for i in range(2):
        np.testing.assert_allclose(shift_between(theirs[i], ours[i]), 0, atol=0.2)
        assert correlation(theirs[i], ours[i]) > 0.97
        wrong = (ours[i][::-1], ours[i][:, ::-1], ours[i][::-1, ::-1], ours[i].T, ours[1 - i])
        assert max(correlation(theirs[i], image) for image in wrong) < 0.6


@pytest.mark.parametrize("case", ["lidc0028", "lungdx_a0001"])
def test_N4_agrees_with_rtk_in_value(shared_data: Path, case: str) -> None:
    """PA, where the beam stays in the cube: differences are noise and resolution, and have no bias."""
    _, theirs, ours = case_of_rtk(shared_data / "reference" / case)
    middle = np.s_[96:160, 64:192]
    smooth = [gaussian_filter(image, 2)[middle] for image in (theirs[0], ours[0])]
    assert np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1] > 0.999
    assert abs(np.median(smooth[1] / smooth[0]) - 1) < 0.01
