"""LPIPS: its arithmetic by hand, with weights of our own in the layout of the published files."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from small_models import SETUP, patient
from torch import nn

from voxray.data.store import Store
from voxray.errors import CheckpointError, InputError, VoxrayWarning
from voxray.evaluation.feature_stacks import TAPS, feature_layers
from voxray.evaluation.lpips import (
    FOLDER_VARIABLE,
    METRICS,
    SMALLEST,
    Lpips,
    Net,
    layer_distance,
    load_lpips,
    lpips_dvg,
    lpips_mean,
    lpips_perx2ct,
    nets_there,
    scaled,
    slice_lpips,
)
from voxray.evaluation.run import Plan
from voxray.evaluation.trial import Trial
from voxray.geometry import ViewGeometry
from voxray.images import CTVolume, Radiograph
from voxray.methods.base import Estimate

SQUEEZE = "squeezenet1_1-b8a52dc0.pth"


def undrawn(net: str) -> nn.Sequential:
    """A network with whatever is in memory for weights."""
    with torch.device("meta"):
        layers = feature_layers(net)
    return layers.to_empty(device="cpu").requires_grad_(False)


def random_weights(net: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What torchvision publishes, classifier and all, and what LPIPS does; drawn so that signals keep their size."""
    rng = torch.Generator().manual_seed(1)
    shapes = {f"features.{name}": value.shape for name, value in undrawn(net).state_dict().items()}
    weights = {
        name: torch.randn(shape, generator=rng) * (2 / math.prod(shape[1:])) ** 0.5 if len(shape) > 1
        else 0.1 * torch.randn(shape, generator=rng)
        for name, shape in shapes.items()
    }  # fmt: skip
    linear = {
        f"lin{i}.model.1.weight": torch.rand(1, channels, 1, 1, generator=rng)
        for i, channels in enumerate(TAPS[net].values())
    }
    return weights | {"classifier.1.weight": torch.zeros(3, 3)}, linear


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet under torchvision's name, SqueezeNet as safetensors; no VGG16."""
    folder = tmp_path_factory.mktemp("lpips")
    weights, linear = random_weights("alex")
    torch.save(weights, folder / "alexnet-owt-7be5be79.pth")
    torch.save(linear, folder / "alex.pth")
    weights, linear = random_weights("squeeze")
    save_file(weights, folder / "squeezenet1_1.safetensors")
    save_file(linear, folder / "squeeze.safetensors")
    return folder


def images(size: int = 64, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    return (torch.rand(2, channels, size, size, generator=rng), torch.rand(2, channels, size, size, generator=rng))


# ---------------------------------------------------------------- the networks


@pytest.mark.parametrize(("net", "whole", "classifier"), [
    ("vgg", 138_357_544, (25088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000),
    ("alex", 61_100_840, (9216 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000),
    ("squeeze", 1_235_496, (512 + 1) * 1000),
])  # fmt: skip
def test_stacks_have_the_parameters_that_torchvision_documents(net: str, whole: int, classifier: int) -> None:
    assert sum(p.numel() for p in undrawn(net).parameters()) == whole - classifier


def test_tapped_layers_have_the_channels_of_the_linear_weights() -> None:
    for net, taps in TAPS.items():
        x, layers = torch.zeros(1, 3, 64, 64), undrawn(net)
        for i, layer in enumerate(layers):
            x = layer(x)
            assert x.shape[1] == taps.get(i, x.shape[1])
        assert max(taps) == len(layers) - 1


def test_alexnet_by_hand(folder: Path) -> None:
    """The network layer by layer, as its table in the paper says, and Zhang's equation 1 as it stands."""
    w, linear = random_weights("alex")
    a, b = images(channels=1)

    def features(image: torch.Tensor) -> list[torch.Tensor]:
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = (image.repeat(1, 3, 1, 1) - shift.reshape(1, 3, 1, 1)) / scale.reshape(1, 3, 1, 1)
        one = F.conv2d(x, w["features.0.weight"], w["features.0.bias"], 4, 2).clamp_min(0)
        two = F.conv2d(F.max_pool2d(one, 3, 2), w["features.3.weight"], w["features.3.bias"], 1, 2).clamp_min(0)
        three = F.conv2d(F.max_pool2d(two, 3, 2), w["features.6.weight"], w["features.6.bias"], 1, 1).clamp_min(0)
        four = F.conv2d(three, w["features.8.weight"], w["features.8.bias"], 1, 1).clamp_min(0)
        five = F.conv2d(four, w["features.10.weight"], w["features.10.bias"], 1, 1).clamp_min(0)
        return [one, two, three, four, five]

    expected = torch.zeros(2)
    for i, (x, y) in enumerate(zip(features(a), features(b), strict=True)):
        x, y = (v / v.square().sum(1, keepdim=True).sqrt() for v in (x, y))
        expected += F.conv2d((x - y) ** 2, linear[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
    found = load_lpips("alex", folder)(a, b)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert found.min() > 0.1


def test_vgg_is_pooled_between_its_blocks_alone() -> None:
    """Sizes at the five taps: none before the first block, then a half each; 13 convolutions and 4 poolings."""
    x, sizes, layers = torch.zeros(1, 3, 64, 64), [], undrawn("vgg")
    for i, layer in enumerate(layers):
        x = layer(x)
        sizes += [x.shape[-1]] if i in TAPS["vgg"] else []
    assert sizes == [64, 32, 16, 8, 4]
    kinds = [type(layer).__name__ for layer in layers]
    assert (kinds.count("Conv2d"), kinds.count("ReLU"), kinds.count("MaxPool2d")) == (13, 13, 4)


# ---------------------------------------------------------------- the arithmetic


def test_layer_distance_by_hand() -> None:
    """(3, 4) and (4, 3) become (0.6, 0.8) and (0.8, 0.6): 0.04 in each channel; the other of two places is the same."""
    a = torch.tensor([3.0, 4.0, 1.0, 0.0]).reshape(2, 2).T.reshape(1, 2, 1, 2)
    b = torch.tensor([4.0, 3.0, 9.0, 0.0]).reshape(2, 2).T.reshape(1, 2, 1, 2)
    assert layer_distance(a, b, torch.tensor([1.0, 2.0])).tolist() == pytest.approx([(0.04 + 0.08) / 2])


def test_empty_features_are_no_distance() -> None:
    nothing = torch.zeros(1, 2, 1, 1)
    assert layer_distance(nothing, nothing, torch.ones(2)).tolist() == [0]


def test_grey_images_are_scaled_to_imagenets_colours() -> None:
    found = scaled(torch.tensor([-1.0, 0.5]).reshape(2, 1, 1, 1))
    assert found[:, :, 0, 0].flatten().tolist() == pytest.approx(
        [(-1 + 0.030) / 0.458, (-1 + 0.088) / 0.448, (-1 + 0.188) / 0.450,
         (0.5 + 0.030) / 0.458, (0.5 + 0.088) / 0.448, (0.5 + 0.188) / 0.450]
    )  # fmt: skip


def test_distance_is_symmetric_and_zero_of_equals_and_does_not_depend_on_the_batch(folder: Path) -> None:
    model = load_lpips("squeeze", folder)
    a, b = images()
    assert model(a, a).tolist() == [0, 0]
    assert model(a, b).tolist() == pytest.approx(model(b, a).tolist(), rel=1e-5)
    assert float(model(a[:1], b[:1])) == pytest.approx(float(model(a, b)[0]), rel=1e-4)


# ---------------------------------------------------------------- volumes


def test_conventions_differ_in_scale_and_in_sum_or_mean(folder: Path) -> None:
    model = load_lpips("squeeze", folder)
    rng = torch.Generator().manual_seed(3)
    truth = 2000 * torch.rand(17, 18, 19, generator=rng) - 700
    hu = truth + 200 * torch.randn(truth.shape, generator=rng)
    unit, target = (((volume + 1024) / 2500).clamp(0, 1) for volume in (hu, truth))

    def by_hand(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        axes = []
        for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
            x, y = (v.permute(order) for v in (a, b))
            axes.append(torch.cat([model(x[i, None, None], y[i, None, None]) for i in range(len(x))]))
        return axes

    assert [len(axis) for axis in slice_lpips(model, unit, target)] == [17, 18, 19]
    means = [float(axis.mean()) for axis in by_hand(2 * unit - 1, 2 * target - 1)]
    assert lpips_mean(model, hu, truth) == pytest.approx(sum(means) / 3, rel=1e-4)
    plain = by_hand(unit, target)
    assert lpips_perx2ct(model, hu, truth) == pytest.approx(sum(float(axis.mean()) for axis in plain) / 3, rel=1e-4)
    cleaned = by_hand(torch.where(unit < 0.04, 0.0, unit), target)
    assert lpips_dvg(model, hu, truth) == pytest.approx(sum(float(axis.sum()) for axis in cleaned) / 3, rel=1e-4)
    assert lpips_mean(model, hu, truth) != pytest.approx(lpips_perx2ct(model, hu, truth), rel=0.01)


def trial() -> Trial:
    case, views = patient(20), ViewGeometry.biplanar(setup=SETUP)
    noise = 100 * torch.randn(case.volume.hu.shape, generator=torch.Generator().manual_seed(0))
    volume = CTVolume(case.volume.hu + noise, case.volume.grid.shifted(-case.isocentre_mm))
    images = tuple(torch.zeros(shape) for shape in views.shapes)
    return Trial(case, "closed", Radiograph(images, views), "air", Estimate(volume))


def test_metrics_are_there_for_the_networks_that_the_user_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = trial()
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert [metric.of(tried) for metric in METRICS] == [None] * 5
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    scores = {metric.name: metric.of(tried) for metric in METRICS if metric.name != "lpips_alex"}
    assert {name for name, score in scores.items() if score is None} == {"lpips_vgg", "lpips_perx2ct", "lpips_dvg"}
    expected = lpips_mean(load_lpips("squeeze", folder), tried.hu, tried.truth)
    assert scores["lpips_squeeze"] == pytest.approx(expected, rel=1e-5)


def test_networks_work_where_the_method_did(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(net: Net, folder: Path, device: str) -> Lpips:
        asked.append((net, device))
        return load_lpips(net, folder)

    monkeypatch.setattr("voxray.evaluation.lpips.load_lpips", load)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    squeeze = next(metric for metric in METRICS if metric.name == "lpips_squeeze")
    on_gpu = replace(trial(), device="cuda")
    assert squeeze.of(on_gpu) == squeeze.of(on_gpu) == pytest.approx(squeeze.of(trial()))
    assert [device for _, device in asked if device != "cpu"] == ["cuda"]


@pytest.mark.parametrize("net", ["vgg", "alex", "squeeze"])
def test_slices_of_the_smallest_size_reach_the_last_layer_and_smaller_ones_are_not_scored(net: Net) -> None:
    layers, size = undrawn(net), SMALLEST[net]
    assert layers(torch.zeros(1, 3, size, size)).shape[-2:] == (1, 1)
    with pytest.raises(RuntimeError, match="too small"):
        layers(torch.zeros(1, 3, size - 1, size - 1))
    small = SimpleNamespace(truth=torch.zeros(size - 1, 64, 64))
    assert next(metric for metric in METRICS if metric.name == f"lpips_{net}").of(small) is None  # type: ignore[arg-type]


def test_a_folder_without_weights_of_lpips_is_told_and_columns_stay_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").touch()  # FID's
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.warns(VoxrayWarning, match=r"stay empty: the folder .* has no weights .* vgg16-397923af\.pth of torch"):
        assert nets_there() == ()
    assert [metric.of(trial()) for metric in METRICS] == [None] * 5
    with pytest.raises(InputError, match=r"has no weights for LPIPS with 'vgg': vgg16-397923af\.pth of torchvision"):
        load_lpips()


def test_lpips_is_missed_aloud_where_it_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(Store(Path(), {}), (), (), ())
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert plan.manifest().lpips == ()
    with pytest.warns(VoxrayWarning, match=r"stay empty: there are no weights .* into a folder, and name it in VOXRAY"):
        assert replace(plan, metrics=("psnr3d", "lpips_alex")).manifest().lpips == ()


# ---------------------------------------------------------------- files


def test_without_a_folder_the_message_names_file_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(InputError, match=r"put squeezenet1_1-b8a52dc0\.pth .* name it in VOXRAY_LPIPS"):
        load_lpips("squeeze")
    with pytest.raises(InputError, match="the networks are vgg, alex, squeeze"):
        load_lpips("resnet")  # type: ignore[arg-type]


def test_the_linear_weights_of_torchmetrics_are_taken_where_the_user_has_none(tmp_path: Path) -> None:
    """They were learned to be non-negative (Zhang et al. 2018, section 3)."""
    weights, _ = random_weights("squeeze")
    torch.save(weights, tmp_path / SQUEEZE)
    model = load_lpips("squeeze", tmp_path)
    assert all(float(linear.min()) >= 0 and float(linear.max()) > 0 for linear in model.linear)
    assert float(model(*images())[0]) > 0


def test_weights_are_loaded_for_inference_and_no_random_number_is_drawn(folder: Path) -> None:
    state = torch.random.get_rng_state()
    model = load_lpips("squeeze", folder)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(model, Lpips)
    assert not any(p.requires_grad or p.is_meta for p in model.parameters())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights, _ = random_weights("squeeze")
    torch.save(weights, tmp_path / "alexnet.pth")
    with pytest.raises(CheckpointError, match=r"are not those of 'alex'.*features\.0\.weight"):
        load_lpips("alex", tmp_path)


@pytest.mark.parametrize("content", [b"no weights", b"\x80\x02cos\nsystem\n(S'true'\ntR."], ids=["text", "code"])
def test_damaged_files_and_code_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / SQUEEZE).write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights") as caught:
        load_lpips("squeeze", tmp_path)
    assert "weights_only" not in str(caught.value)
