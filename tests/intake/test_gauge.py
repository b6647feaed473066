"""What the small network tells of a chest: size, height and density, whatever curve it is shown through."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import patient, write_store, xrays_of

from voxray.data.store import Store
from voxray.errors import VoxrayWarning
from voxray.geometry import FloatArray, Setup, ViewGeometry
from voxray.images import Radiograph
from voxray.images.types import Known
from voxray.intake import learn
from voxray.intake.align import Correction
from voxray.intake.canvas import Canvas, Family, lay_out
from voxray.intake.find import find
from voxray.intake.framing import framed
from voxray.intake.gauge import Gauge, Gauged, canvas_grid, gauge
from voxray.intake.learn import Example, Examples, batch_of, fit, what_is_wrong
from voxray.intake.locate import Place
from voxray.intake.statistics import LEVELS, chest_statistics

VIEWS = ViewGeometry.biplanar(setup=Setup(1800.0, 1550.0, 3.2, (140, 140)))


@pytest.fixture(scope="module")
def images() -> list[FloatArray]:
    return [image.double().numpy() for image in xrays_of(patient(20), VIEWS).images]


def told(images: list[FloatArray], views: ViewGeometry = VIEWS) -> dict[Family, Gauged]:
    canvases: dict[Family, Canvas] = {}
    families: tuple[Family, Family] = ("frontal", "lateral")
    for view, (family, image) in enumerate(zip(families, images, strict=False)):
        canvases[family] = lay_out(image, np.ones(image.shape, dtype=bool), views, view, *canvas_grid())
    return gauge(canvases)


def moved(views: ViewGeometry, scale: float, up_mm: float) -> ViewGeometry:
    for view in range(len(views)):
        views = framed(views, view, Place(1.0, scale, 1.0, up_mm, 0.0), mirrored=False)
    return views


@pytest.mark.parametrize("gamma", [0.4, 2.5])
def test_a_monotone_curve_changes_nothing(images: list[FloatArray], gamma: float) -> None:
    plain, curved = told(images), told([0.7 * np.clip(image, 0, None) ** gamma - 3 for image in images])
    for family, one in plain.items():
        assert curved[family].size == pytest.approx(one.size, abs=0.05)
        assert curved[family].up_mm == pytest.approx(one.up_mm, abs=1.5)
        assert curved[family].line_integrals == pytest.approx(one.line_integrals, rel=0.02)


@pytest.mark.parametrize("count", [1, 2])
def test_size_and_height_are_told(images: list[FloatArray], count: int) -> None:
    """A chest that is taken to be larger, or further up, than another time is told to be smaller, and further down."""
    small, large = (told(images[:count], moved(VIEWS, scale, 0.0)) for scale in (0.95, 1.05))
    low, high = (told(images[:count], moved(VIEWS, 1.0, up_mm)) for up_mm in (8.0, -8.0))
    for family in small:
        assert 0.05 < small[family].size - large[family].size < 0.15
        assert 6 < low[family].up_mm - high[family].up_mm < 26


def test_line_integrals_come_near(images: list[FloatArray]) -> None:
    for view, (family, one) in enumerate(told(images).items()):
        canvas = lay_out(images[view], np.ones(images[view].shape, dtype=bool), VIEWS, view, (10.0, 10.0), (30, 30))
        exact = np.quantile(canvas.picture[chest_statistics()[family].inside], LEVELS)
        assert one.line_integrals[1:] == pytest.approx(exact[1:], rel=0.3), "the phantom is no training scan"
        assert (np.diff(one.line_integrals) > 0).all()


def test_what_is_learned_is_what_moves_the_geometry_to_the_truth(images: list[FloatArray]) -> None:
    assumed = VIEWS.resized([(140, 140)] * 2)
    true = framed(assumed, 0, Place(1.0, 1.08, 1.0, 9.0, 4.0), mirrored=False)
    true = framed(true, 1, Place(1.0, 0.94, 1.0, -6.0, 0.0), mirrored=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VoxrayWarning)
        found = find(_grey(images, assumed))
    corrected = found.moved(
        [Correction(*what_is_wrong(true, found.xrays.views, view)) for view in range(2)]
    ).xrays.views
    for view in range(2):
        assert np.linalg.norm(corrected.u_mm[view]) == pytest.approx(np.linalg.norm(true.u_mm[view]), rel=1e-3)
        row, wanted = (v.project_mm((0, 0, 0), view)[0] for v in (corrected, true))
        assert row == pytest.approx(wanted, abs=0.05)


def _grey(images: list[FloatArray], views: ViewGeometry) -> Radiograph:
    known = (Known("nobody", facing=False, centre=False),) * 2
    return Radiograph(tuple(torch.from_numpy(image) for image in images), views, "display", known=known)


def test_a_few_steps_learn(images: list[FloatArray]) -> None:
    """Pictures of several sizes: the network tells them apart."""
    rng = torch.Generator().manual_seed(0)
    examples = []
    for _ in range(24):
        size = 0.2 * float(torch.rand((), generator=rng)) - 0.1
        views = moved(VIEWS, float(np.exp(-size)), 0.0)
        canvases = [
            lay_out(image, np.ones(image.shape, dtype=bool), views, n, (5.0, 5.0), (102, 102))
            for n, image in enumerate(images)
        ]
        picture = torch.from_numpy(np.stack([canvas.picture for canvas in canvases]).astype(np.float32))
        seen = torch.from_numpy(np.stack([canvas.seen for canvas in canvases]))
        examples.append(Example(picture, seen, picture, torch.tensor([[size, 0.0]] * 2)))
    network = fit(examples, steps=60)
    ranks, seen, wanted, _ = batch_of(examples, rng)
    with torch.no_grad():
        found = network(ranks, seen)[:, :, 0] * network.spread[:, 0] + network.mean[:, 0]
    both = seen.flatten(2).any(2).all(1)
    assert np.corrcoef(found[both].flatten(), wanted[both][:, :, 0].flatten())[0, 1] > 0.7


def test_canvases_that_are_moved_have_their_errors_moved_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bright spot 40 mm above the true isocentre, seen wherever the canvas was moved to."""
    for name in ("_NOISE", "_FLATTENED"):
        monkeypatch.setattr(learn, name, 0.0)
    rng, side = torch.Generator().manual_seed(1), 102
    rows, columns = torch.meshgrid(*[(torch.arange(side) - (side - 1) / 2) * 5.0] * 2, indexing="ij")
    picture = torch.exp(-((rows + 40) ** 2 + columns**2) / 800).expand(2, -1, -1)
    example = Example(picture, picture >= 0, picture, torch.zeros(2, 2))
    ranks, seen, wanted, there = batch_of([example] * 8, rng)
    heights = -(torch.arange(44) - 21.5) * 10
    for one, view in there.nonzero().tolist():
        spot = (ranks[one, view].clamp_min(0.9) - 0.9) * seen[one, view]
        shown_mm = float((spot.sum(1) * heights).sum() / spot.sum())
        size, up_mm = wanted[one, view, :2].tolist()
        assert shown_mm * np.exp(size) + up_mm == pytest.approx(40, abs=6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("gauge") / "store", {"train": [20, 21], "val": [22]})


@pytest.mark.filterwarnings("ignore::voxray.errors.VoxrayWarning")
def test_examples_are_the_same_each_time_and_differ_from_each_other(store: Path) -> None:
    made = Examples(Store.open(store), "train", 2)
    one, same, other = made[2], made[2], made[0]
    assert len(made) == 4, "two of each scan of the split"
    assert torch.equal(one.pictures, same.pictures)
    assert torch.equal(one.told, same.told)
    assert not torch.allclose(one.told, other.told), "the same scan, seen from elsewhere"
    assert one.seen.flatten(1).any(1).all()
    for picture, seen, exact in zip(one.pictures, one.seen, one.line_integrals, strict=True):
        ranked = [values[seen].argsort().argsort().double() for values in (picture, exact)]
        assert np.corrcoef(*ranked)[0, 1] > 0.9, "what is shown is a monotone curve of the truth, but for scatter"


@pytest.mark.filterwarnings("ignore::voxray.errors.VoxrayWarning")
def test_the_command_writes_weights_that_the_gauge_takes(store: Path, tmp_path: Path) -> None:
    learn.main(store, tmp_path / "gauge.safetensors", epochs=2, steps=2)
    weights = load_file(tmp_path / "gauge.safetensors")
    network = Gauge()
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    assert all(tensor.dtype == torch.float16 for tensor in weights.values())
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert (network.spread > 0).all()
