"""LPIPS, the learned perceptual distance of Zhang et al. 2018 (arXiv 1801.03924), version 0.1.

The networks are written out here, because the `lpips` package and torchmetrics need torchvision for them. The weights
are files that the user has, in a folder that the environment variable `VOXRAY_LPIPS` names:

| network | of torchvision, as published or renamed | of LPIPS 0.1, if wanted |
|---|---|---|
| `vgg` | `vgg16-397923af.pth`, `vgg16.pth` or `vgg16.safetensors` | `vgg.pth` or `vgg.safetensors` |
| `alex` | `alexnet-owt-7be5be79.pth`, `alexnet.pth` or `alexnet.safetensors` | `alex.pth` or `alex.safetensors` |
| `squeeze` | `squeezenet1_1-b8a52dc0.pth`, `squeezenet1_1.pth` or ... | `squeeze.pth` or `squeeze.safetensors` |

LPIPS's own linear weights are a few kB; where the folder has none, those that torchmetrics carries are taken.
"""

import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxray.errors import CheckpointError, InputError, VoxrayWarning
from voxray.evaluation.conventions import dvg_cleaned
from voxray.evaluation.feature_stacks import TAPS, feature_layers
from voxray.evaluation.trial import Metric, Trial
from voxray.images.weights_file import read_weights
from voxray.physics.attenuation import to_unit_range

Net = Literal["vgg", "alex", "squeeze"]
FOLDER_VARIABLE = "VOXRAY_LPIPS"
SMALLEST: dict[Net, int] = {"vgg": 16, "alex": 31, "squeeze": 17}  # pixels that survive all poolings
BATCH = 16  # slices at once: VGG16 takes 0.6 GB for 16 of 128 x 128

# The names of torchvision's files, and those under which they are published.
_STEMS: dict[Net, str] = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}
_PUBLISHED: dict[Net, str] = {
    "vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth",
}  # fmt: skip


class Lpips(nn.Module):
    """The distance of two images.

    Args:
        net: of which network.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.taps = TAPS[net]
        self.features = feature_layers(net)
        self.linear = nn.ParameterList(torch.empty(channels) for channels in self.taps.values())

    def forward(self, a: Float[Tensor, "n #c h w"], b: Float[Tensor, "n #c h w"]) -> Float[Tensor, " n"]:
        """Return the distance of each pair; one channel counts as three alike. LPIPS expects -1..1."""
        layers = zip(self._features(a), self._features(b), self.linear, strict=True)
        return torch.stack([layer_distance(x, y, linear) for x, y, linear in layers]).sum(0)

    def _features(self, image: Tensor) -> list[Tensor]:
        x, found = scaled(image), []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                found.append(x)
        return found


def scaled(image: Float[Tensor, "n #c h w"]) -> Float[Tensor, "n 3 h w"]:
    """Return an image of -1..1 as the networks were trained on: ImageNet's means and deviations (version 0.1)."""
    shift, scale = image.new_tensor([-0.030, -0.088, -0.188]), image.new_tensor([0.458, 0.448, 0.450])
    return (image - shift[:, None, None]) / scale[:, None, None]


def layer_distance(
    a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"], linear: Float[Tensor, " c"]
) -> Float[Tensor, " n"]:
    """Return `mean_hw sum_c linear_c (a_c / |a| - b_c / |b|)^2` (Zhang et al. 2018, equation 1).

    `|a|` is the length of the vector of channels at a place; 1e-10 beside it keeps an empty vector empty, as there.
    """
    a, b = (x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in (a, b))
    return torch.einsum("nchw,c->nhw", (a - b).square(), linear).mean((1, 2))


# ---------------------------------------------------------------- weights


def find_weights(net: Net, folder: Path) -> Path | None:
    """Return the file of torchvision's weights for a network, None where the folder has none."""
    stem = _STEMS[net]
    files = [folder / f"{stem}.safetensors", folder / f"{stem}.pth", *sorted(folder.glob(f"{stem}-*.pth"))]
    return next((file for file in files if file.is_file()), None)


def nets_there(*, asked: bool = False) -> tuple[str, ...]:
    """Return the networks whose weights are in the folder of `VOXRAY_LPIPS`; none where it is not set.

    Where the folder has none, as it may be there for FID alone, that is warned of.

    Args:
        asked: LPIPS was asked for by its name; it is warned of, too, that there is no folder.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    found = tuple(net for net in get_args(Net) if folder and find_weights(net, Path(folder)) is not None)
    if not found and (folder or asked):
        where = f"the folder {folder!r}, which {FOLDER_VARIABLE} names, has" if folder else "there are"
        warnings.warn(
            f"The columns of LPIPS stay empty: {where} no weights for it. Put {_wanted('vgg')} into a folder, and name "
            f"it in {FOLDER_VARIABLE}.", VoxrayWarning, 3,
        )  # fmt: skip
    return found


def load_lpips(net: Net = "vgg", folder: Path | None = None, device: str = "cpu") -> Lpips:
    """Return LPIPS with its published weights.

    Args:
        net: `vgg`, `alex` or `squeeze`.
        folder: with the files that are listed above; None for the one that `VOXRAY_LPIPS` names.
        device: to compute on.

    Raises:
        InputError: if the folder or a file is missing.
        CheckpointError: if a file is damaged, or is another network's.
    """
    if net not in get_args(Net):
        raise InputError(f"There is no LPIPS network {net!r}; the networks are {', '.join(get_args(Net))}.")
    if folder is None:
        named = os.environ.get(FOLDER_VARIABLE)
        if not named:
            raise InputError(
                f"LPIPS needs weights: put {_wanted(net)} into a folder, and name it in {FOLDER_VARIABLE}."
            )
        folder = Path(named)
    file = find_weights(net, folder)
    if file is None:
        raise InputError(f"The folder {str(folder)!r} has no weights for LPIPS with {net!r}: {_wanted(net)}.")
    with torch.device("meta"):  # no weights are drawn
        model = Lpips(net)
    weights = {name: value for name, value in read_weights(file).items() if name.startswith("features.")}
    for name, value in read_weights(_linear_weights(net, folder)).items():  # lin0.model.1.weight ...
        weights[f"linear.{name.removeprefix('lin').partition('.')[0]}"] = value.flatten()
    expected = model.state_dict()
    wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    if wrong:
        raise CheckpointError(
            f"{str(file)!r} and LPIPS's linear weights are not those of {net!r}: missing or of another shape are "
            f"{', '.join(wrong[:10])}."
        )
    model.load_state_dict({name: weights[name].float() for name in expected}, assign=True)
    return model.requires_grad_(False).eval().to(device)


def _wanted(net: Net) -> str:
    return f"{_PUBLISHED[net]} of torchvision (or {_STEMS[net]}.pth, {_STEMS[net]}.safetensors)"


def _linear_weights(net: Net, folder: Path) -> Path:
    files = [folder / f"{net}.safetensors", folder / f"{net}.pth"]
    torchmetrics = find_spec("torchmetrics")
    if torchmetrics is not None and torchmetrics.origin is not None:
        files.append(Path(torchmetrics.origin).parent / "functional" / "image" / "lpips_models" / f"{net}.pth")
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise InputError(
            f"The folder {str(folder)!r} has no linear weights of LPIPS: {net}.pth of LPIPS, version 0.1 (or "
            f"{net}.safetensors)."
        )
    return found


# ---------------------------------------------------------------- of volumes


def slice_lpips(model: Lpips, image: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"]) -> list[Tensor]:
    """Return the distance of each slice along each of the three axes; grey slices count as three channels alike."""
    device = next(model.parameters()).device
    axes = []
    for axis in range(3):
        stacks = (volume.movedim(axis, 0)[:, None].to(device).split(BATCH) for volume in (image, truth))
        axes.append(torch.cat([model(a, b) for a, b in zip(*stacks, strict=True)]).double().cpu())
    return axes


def _mean(axes: list[Tensor]) -> float:
    return float(torch.stack([distances.mean() for distances in axes]).mean())


def lpips_mean(model: Lpips, hu: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"]) -> float:
    """Return the mean over the slices, then over the axes; HU -1024..1476 as -1..1, as LPIPS is meant to be used."""
    return _mean(slice_lpips(model, 2 * to_unit_range(hu) - 1, 2 * to_unit_range(truth) - 1))


def lpips_perx2ct(model: Lpips, hu: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"]) -> float:
    """Return the figure of PerX2CT's code and DX2CT's table (with `vgg`): as `lpips_mean`, but of 0..1 as it is."""
    return _mean(slice_lpips(model, to_unit_range(hu), to_unit_range(truth)))


def lpips_dvg(model: Lpips, hu: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"]) -> float:
    """Return the figure of DVG-Diffusion's tables (with `vgg`): the sum over the slices of an axis, mean of the axes.

    Of 0..1 as it is, after `dvg_cleaned`. Divided by the 128 slices of its volumes, 27.35 is 0.214 a slice.
    """
    axes = slice_lpips(model, dvg_cleaned(hu), to_unit_range(truth))
    return float(torch.stack([distances.sum() for distances in axes]).mean())


@lru_cache(maxsize=3)
def _user_model(net: Net, folder: str, device: str) -> Lpips | None:
    return None if find_weights(net, Path(folder)) is None else load_lpips(net, Path(folder), device)


def user_model(net: Net, device: str) -> Lpips | None:
    """Return LPIPS with the user's weights; None without `VOXRAY_LPIPS`, or without this network."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return _user_model(net, folder, device) if folder else None


def _if_there(net: Net, score: Callable[[Lpips, Tensor, Tensor], float]) -> Callable[[Trial], float | None]:
    """Score a trial where the user has weights; elsewhere there is no figure."""

    def of(trial: Trial) -> float | None:
        if min(trial.truth.shape) < SMALLEST[net]:
            return None
        model = user_model(net, trial.device)
        return None if model is None else score(model, trial.hu, trial.truth)

    return of


_ABOUT = "LPIPS 0.1 (Zhang et al. 2018) with {}, mean over 2D slices of three axes, HU -1024..1476 as -1..1."
METRICS: tuple[Metric, ...] = (
    Metric("lpips_vgg", "LPIPS VGG", "", "lower", _ABOUT.format("VGG16"), _if_there("vgg", lpips_mean), 3),
    Metric("lpips_alex", "LPIPS Alex", "", "lower", _ABOUT.format("AlexNet"), _if_there("alex", lpips_mean), 3),
    Metric("lpips_squeeze", "LPIPS Squeeze", "", "lower", _ABOUT.format("SqueezeNet 1.1"),
           _if_there("squeeze", lpips_mean), 3),
    Metric("lpips_perx2ct", "LPIPS (PerX2CT)", "", "lower",
           "LPIPS with VGG16 as PerX2CT and DX2CT: mean over 2D slices of three axes, of 0..1 instead of -1..1.",
           _if_there("vgg", lpips_perx2ct), 3),
    Metric("lpips_dvg", "LPIPS (DVG)", "", "lower",
           "LPIPS with VGG16 as DVG-Diffusion: sum over the slices of an axis, mean of three axes, of 0..1 instead of "
           "-1..1, below 0.04 set to 0.", _if_there("vgg", lpips_dvg)),
)  # fmt: skip
