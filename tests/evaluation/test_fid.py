"""FID: the distance by hand, the network's layout, and an evaluation with features of our own."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from comparing import OPTIONS, QUICK
from torch import nn

from voxray.api import compare, evaluate
from voxray.errors import CheckpointError, InputError
from voxray.evaluation import fid
from voxray.evaluation.fid import Moments, checked_weights, frechet_distance, load_inception, read_fid, volume_features
from voxray.evaluation.folder import ResultsFolder
from voxray.evaluation.inception import Inception, Mixed, inception_features
from voxray.evaluation.lpips import FOLDER_VARIABLE

TENSORFLOW, TORCHVISION = "pt_inception-2015-12-05-6726825d.pth", "inception_v3_google-0cc3c7bd.pth"
CPU = torch.device("cpu")


def moments(mean: list[float], covariance: list[list[float]]) -> Moments:
    """What 101 images with this mean and covariance have."""
    m, c = torch.tensor(mean).double(), torch.tensor(covariance).double()
    return Moments(101, 101 * m, 100 * c + 101 * torch.outer(m, m))


def drawn(rng: np.random.Generator, n: int, d: int = 6) -> np.ndarray:
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root))


# ---------------------------------------------------------------- the distance


def test_two_gaussians_by_hand() -> None:
    a, b = moments([0, 0], [[1, 0], [0, 4]]), moments([3, 4], [[9, 0], [0, 16]])
    assert frechet_distance(a, b) == pytest.approx(25 + (3 - 1) ** 2 + (4 - 2) ** 2)
    # [[5, 4], [4, 5]] has the eigenvalues 1 and 9: the root of its product with 4 times the identity, the trace 2 + 6.
    turned, round_ = moments([0, 0], [[5, 4], [4, 5]]), moments([0, 0], [[4, 0], [0, 4]])
    assert frechet_distance(turned, round_) == pytest.approx(10 + 8 - 2 * 8)


def test_N10_the_distance_is_that_of_a_general_square_root() -> None:
    rng = np.random.default_rng(0)
    a, b = drawn(rng, 50), drawn(rng, 70)
    parts = [Moments.of(torch.from_numpy(part)) for part in (a[:7], a[7:], b)]
    assert frechet_distance(parts[0] + parts[1], parts[2]) == pytest.approx(by_scipy(a, b), rel=1e-6)


def test_features_that_are_always_0_and_sets_alike_make_no_trouble() -> None:
    x = torch.from_numpy(drawn(np.random.default_rng(1), 4, 6))  # a covariance of rank 3
    x[:, 0] = 0
    assert frechet_distance(Moments.of(x), Moments.of(x)) == pytest.approx(0, abs=1e-6)
    shifted = x + torch.tensor([2.0, 0, 0, 0, 0, 0])
    assert frechet_distance(Moments.of(x), Moments.of(shifted)) == pytest.approx(4, abs=1e-6)


# ---------------------------------------------------------------- the network


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Weights of our own under the published names, with what the files hold besides; signals keep their size."""
    with torch.device("meta"):
        layout = Inception(ported=False).state_dict()
    rng = torch.Generator().manual_seed(1)
    found = {}
    for name, value in layout.items():
        if name.endswith("conv.weight"):
            found[name] = torch.randn(value.shape, generator=rng) * (2 / math.prod(value.shape[1:])) ** 0.5
        elif name.endswith(("bn.weight", "bn.running_var")):
            found[name] = torch.ones(value.shape)
        elif name.endswith(("bn.bias", "bn.running_mean")):
            found[name] = 0.1 * torch.randn(value.shape, generator=rng)
    return found | {"fc.weight": torch.zeros(1008, 2048), "AuxLogits.fc.bias": torch.zeros(1000)}


def test_the_network_has_the_published_layout(weights: dict[str, torch.Tensor]) -> None:
    with torch.device("meta"):
        model = Inception(ported=True)
    # Of torchvision's 27,161,264 parameters, its classifier has 2,049,000, the auxiliary one 3,326,696.
    assert sum(p.numel() for p in model.parameters()) == 27_161_264 - 2_049_000 - 3_326_696
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_5b.branch_pool.bn.running_var"] == (32,)
    assert shapes["Mixed_6b.branch7x7dbl_2.conv.weight"] == (128, 128, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)


def test_the_two_files_are_read_and_pool_in_their_own_ways(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    images, found = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0)), []
    for name in (TENSORFLOW, TORCHVISION):
        torch.save(weights, tmp_path / name)
        found.append(inception_features(load_inception(tmp_path / name, CPU), images))
    assert found[0].shape == (1, 2048)
    assert found[0].isfinite().all()
    assert found[0].std() > 0.01
    assert (found[0] - found[1]).abs().max() > 0.01
    with torch.device("meta"):
        blocks = [Inception(ported=ported).get_submodule("Mixed_5b") for ported in (False, True)]
    corners = [block.pool(torch.ones(1, 1, 5, 5))[0, 0, 0, 0].item() for block in blocks if isinstance(block, Mixed)]
    assert corners == pytest.approx([4 / 9, 1])  # of nine places, five lie outside


def test_grey_images_of_0_to_1_become_three_channels_of_minus_1_to_1() -> None:
    seen = []

    class Seeing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    inception_features(Seeing(), torch.stack([torch.zeros(8, 8), torch.ones(8, 8)]))  # type: ignore[arg-type]
    assert seen[0].shape == (2, 3, 299, 299)
    assert (seen[0][0] == -1).all()
    assert (seen[0][1] == 1).all()


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / TORCHVISION
    torch.save({"features.0.weight": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match=r"does not hold InceptionV3: missing .* Conv2d_1a_3x3"):
        load_inception(file, CPU)


# ---------------------------------------------------------------- when there is one


def test_fid_is_refused_where_it_would_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert checked_weights(["main"], 3, None) is None
    with pytest.raises(InputError, match=r"FID of fewer than 50 cases .* there are 49"):
        checked_weights(["fid"], 49, tmp_path)
    with pytest.raises(InputError, match=r"needs a folder .*--out"):
        checked_weights(["fid"], 50, None)
    with pytest.raises(InputError, match=rf"has none: put {TENSORFLOW} of pytorch-fid or {TORCHVISION}"):
        checked_weights(["fid"], 50, tmp_path)
    for name in (TORCHVISION, TENSORFLOW):
        (tmp_path / name).touch()
        assert checked_weights(["fid"], 50, tmp_path) == tmp_path / name  # TensorFlow's goes before
    monkeypatch.delenv(FOLDER_VARIABLE)
    with pytest.raises(InputError, match="VOXRAY_LPIPS names no folder"):
        checked_weights(["fid"], 50, tmp_path)


def test_fid_is_refused_before_a_model_is_loaded(
    phantom_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, metrics=("fid",))
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    for fewest, says in ((4, "FID of fewer than 4 cases"), (3, f"{FOLDER_VARIABLE} names no folder")):
        monkeypatch.setattr(fid, "FEWEST_CASES", fewest)
        with pytest.raises(InputError, match=says):
            compare(["nobody"], phantom_store, tmp_path / "out", options=options)
    with pytest.raises(InputError, match=r"needs a folder .*--out"):
        evaluate("nobody", phantom_store, options=options)


# ---------------------------------------------------------------- an evaluation


class Few(nn.Module):
    """Five features of an image, in place of a network's 2048."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.tensor([20, 80, 150, 220, 280]), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, self.places, self.places]


@pytest.fixture
def small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / TENSORFLOW).touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(fid, "FEWEST_CASES", 3)
    monkeypatch.setattr(fid, "load_inception", lambda file, device: Few())


@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")
@pytest.mark.usefixtures("small_network")
def test_fid_is_of_all_cases_together(phantom_model: Path, phantom_store: Path, tmp_path: Path) -> None:
    options, out = replace(OPTIONS, metrics=("psnr3d", "fid")), tmp_path / "out"
    found = compare([f"{phantom_model}{QUICK}"], phantom_store, out, options=options)
    assert found.metrics == ("psnr3d",)  # no case has an FID
    line, *others = read_fid(out)
    assert not others  # the plain mean is one volume, no set
    assert (line.group.model, line.cases, line.weights) == (found.rows[0].model, 3, "pt_inception-2015-12-05")

    results = ResultsFolder.open(out)
    pairs = [results.features(row) for row in found.rows if row.group == line.group]
    for axis, value in zip(("axial", "coronal", "sagittal"), line.axes, strict=True):
        made, true = ([fid._read(pair[i], axis).double().numpy() for pair in pairs] for i in (0, 1))
        assert value == pytest.approx(by_scipy(np.concatenate(made), np.concatenate(true)), rel=1e-4)
    assert line.mean == pytest.approx(sum(line.axes) / 3)

    before = [file.stat().st_mtime_ns for pair in pairs for file in pair]
    (out / "fid.csv").unlink()
    compare([f"{phantom_model}{QUICK}"], phantom_store, out, options=options)
    assert read_fid(out) == [line]
    assert [file.stat().st_mtime_ns for pair in pairs for file in pair] == before
    compare([f"{phantom_model}{QUICK}"], phantom_store, out, options=replace(OPTIONS, overwrite=True))
    assert not any(file.exists() for pair in pairs for file in pair)
    assert read_fid(out) == []


def test_features_are_of_the_slices_of_each_axis() -> None:
    hu = torch.full((4, 5, 6), -1024.0)
    hu[2] = 1476.0
    features = volume_features(Few(), hu)  # type: ignore[arg-type]
    assert {name: tuple(value.shape) for name, value in features.items()} == {
        "axial": (4, 5), "coronal": (5, 5), "sagittal": (6, 5)
    }  # fmt: skip
    assert features["axial"].dtype == torch.float16
    assert features["axial"][:, 0].tolist() == [-1, -1, 1, -1]


@pytest.mark.usefixtures("small_network")
def test_results_with_other_weights_are_another_evaluation(
    phantom_model: Path, phantom_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, metrics=("fid",))
    compare([f"{phantom_model}{QUICK}"], phantom_store, tmp_path / "out", options=options)
    (tmp_path / TENSORFLOW).rename(tmp_path / TORCHVISION)
    with pytest.raises(InputError, match="fid pt_inception-2015-12-05 there, inception_v3_google here"):
        compare([f"{phantom_model}{QUICK}"], phantom_store, tmp_path / "out", options=options)
    monkeypatch.setattr(fid, "FEWEST_CASES", 4)
    with pytest.raises(InputError, match="FID of fewer than 4 cases"):
        compare([f"{phantom_model}{QUICK}"], phantom_store, tmp_path / "other", options=options)
    assert not (tmp_path / "other").exists()
