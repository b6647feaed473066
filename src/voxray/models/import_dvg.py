"""From the released checkpoints of DVG-Diffusion to a model folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from voxray.errors import CheckpointError, InputError
from voxray.images.atomic import refuse_existing
from voxray.methods import Method
from voxray.methods.dvg import Dvg
from voxray.methods.dvg.config import DvgConfig
from voxray.models.checkpoint import read_checkpoint
from voxray.models.dvg_release import Weights, autoencoder_weights, unet_weights, without_time
from voxray.models.folder import fitted_weights, load_model, save_model
from voxray.recipes import Recipe
from voxray.recipes.sections import DataRecipe, ViewsRecipe

# The release's files, by their names without ending: the autoencoders hold one network each, the others hold all that
# was there when they were written. Later files count for more: the last is what the release is evaluated with.
_AUTOENCODERS = {"CT_VQGAN": "vqgan", "VPGE_0_90_VQGAN": "vqgan_bp", "VPGE_45_VQGAN": "vqgan_bp025"}
_COARSE, _ALL = "NewView_Coarse_Model", "DVG_Diffusion"
RELEASED = (*_AUTOENCODERS, _COARSE, _ALL)
_ENDINGS = (".ckpt", ".pt", ".pth")

# The networks: their names in the release, here, and what to call them.
_NETWORKS = {
    "vqgan": ("ct", "the autoencoder of CT"),
    "vqgan_bp": ("lifted", "that of the X-rays at 0 and 90 degrees"),
    "vqgan_bp025": ("new", "that of the new view at 45 degrees"),
    "fit_model": ("coarse", "the coarse model"),
    "fine_model": ("denoiser", "the denoiser"),
}

# Sizes and conditions as in the release; sampling as it does it. What is not named is the paper's, as is the release's.
RELEASE = Recipe(
    name="dvg-release",
    description="DVG-Diffusion for two views (0 and 90 degrees) with the weights that its authors released.",
    method="dvg",
    data=DataRecipe(views=(ViewsRecipe(names=("pa", "lateral"), setup="xraysyn"),), closed=1.0, augment=False),
    config={
        "lift": {"kind": "transpose"},
        "new_view": {"angles_deg": [45.0], "own_encoder": True},
        "scale_conditions": False,
        "sampler": {"solver": "ddpm", "steps": 100},
        "ensemble": 1,
        "consistency": {"final": False},
    },
    body_parts=("CHEST", "THORAX", "LUNG"),
)

_CARD = """# {name}

The weights that the authors of DVG-Diffusion (Xie et al., arXiv 2503.17804) released, imported with
`voxray import-weights`. Their licence is the authors' (Apache-2.0 when this was written), not voxray's.

Trained by the authors on LIDC-IDRI, for a frontal and a lateral view. The mean anatomy is that of voxray's embedded
model `atlas`. Research only, not a medical device.

Files: {files}.
"""


def import_dvg(checkpoints: Sequence[Path], folder: Path, *, recipe: Recipe = RELEASE, overwrite: bool = False) -> None:
    """Write a model folder from checkpoints of the release.

    `DVG_Diffusion.pt` holds all five networks (the moving averages of their weights are taken, with which the release
    is evaluated); those that are given besides must fit, too, but its tensors count.

    Args:
        checkpoints: files that are called as in the release (`RELEASED`), or a folder of them.
        folder: of the model.
        recipe: which sizes; another one for weights that were trained with the release's code.
        overwrite: replace a model that is there.

    Raises:
        InputError: if a file is missing, has another name, or holds no network of the release.
        CheckpointError: if a file is damaged or holds anything but weights, or they do not fit.
    """
    refuse_existing(folder, overwrite)
    files = _found(checkpoints)
    networks: dict[str, Weights] = {}
    for file in files:
        for name, weights in _networks_in(file).items():
            networks.setdefault(name, {}).update(weights)
    missing = [told for name, (_, told) in _NETWORKS.items() if name not in networks]
    if missing:
        raise InputError(
            f"{_listed(files)} lack {', '.join(missing)}. {_ALL}.pt holds everything: give it, or all of the release."
        )
    weights = fitted_weights(_renamed(networks), _wanted(recipe), Path(_listed(files)))
    coarse = {name: weights.pop(name) for name in list(weights) if name.startswith("coarse.")}
    coarse = without_time({name.removeprefix("coarse."): tensor for name, tensor in coarse.items()})
    method = recipe.build()
    method.load_state_dict(weights | {f"coarse.{name}": tensor for name, tensor in coarse.items()} | _anatomy(method))
    save_model(method, recipe, folder, _CARD.format(name=recipe.name, files=_listed(files)), overwrite=overwrite)


def _found(checkpoints: Sequence[Path]) -> list[Path]:
    """Return the files in the order in which they are read."""
    files = []
    for path in checkpoints:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        files += [file for file in inside if file.stem in RELEASED and file.suffix in _ENDINGS] or [path]
    for file in files:
        if file.is_dir() or file.stem not in RELEASED:
            raise InputError(
                f"{str(file)!r} is none of the checkpoints of DVG-Diffusion, nor a folder of them: they are called "
                f"{', '.join(RELEASED)} (.pt or .ckpt). What is in a file is told by its name."
            )
    return sorted(files, key=lambda file: RELEASED.index(file.stem))


def _networks_in(file: Path) -> dict[str, Weights]:
    """Return the weights of each network in a file, by the release's names."""
    content = read_checkpoint(file)
    if file.stem in _AUTOENCODERS:
        return {_AUTOENCODERS[file.stem]: _tensors(content, "state_dict", file)}
    # The release takes the averaged weights of the whole model, but the last ones of the coarse model.
    averaged = file.stem == _ALL and "ema" in content
    tensors = _tensors(content, "ema" if averaged else "model", file)
    found: dict[str, Weights] = {}
    for name, tensor in tensors.items():
        network, _, rest = name.partition(".")
        if network in _NETWORKS:
            found.setdefault(network, {})[rest] = tensor
    if not found:
        raise InputError(f"{str(file)!r} holds none of {', '.join(_NETWORKS)}, the networks of the release.")
    return found


def _tensors(content: dict[str, object], key: str, file: Path) -> Weights:
    tensors = content.get(key)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(
            f"{str(file)!r} is no checkpoint of DVG-Diffusion: it has no tensors by name under {key!r}."
        )
    return tensors


def _renamed(networks: dict[str, Weights]) -> Weights:
    """Return all weights by our names."""
    renamed: Weights = {}
    for name, release in networks.items():
        weights = autoencoder_weights(release) if name.startswith("vqgan") else unet_weights(release)
        renamed |= {f"{_NETWORKS[name][0]}.{key}": tensor for key, tensor in weights.items()}
    return renamed


def _wanted(recipe: Recipe) -> Weights:
    """Return the weights that a recipe's networks have in the release, without memory: its coarse model has time."""
    with torch.device("meta"):
        method = recipe.build()
        config = recipe.method_config()
        if not isinstance(method, Dvg) or not isinstance(config, DvgConfig) or config.coarse is None:
            raise InputError(f"The recipe {recipe.name!r} is none of DVG-Diffusion with all of its networks.")
        channels = config.ct.sizes.latent_channels
        method.coarse = config.coarse.net.build(channels, channels, time=True)
        networks = {ours for ours, _ in _NETWORKS.values()}
        return {name: tensor for name, tensor in method.state_dict().items() if name.partition(".")[0] in networks}


def _anatomy(method: Method) -> Weights:
    """Return the mean anatomy of the embedded atlas, for the release has none; on another support it stays empty."""
    atlas, own = load_model("atlas").method.state_dict(), method.state_dict()
    mean = {
        "anatomy.mean": atlas["around"],
        "anatomy.std": atlas["deviations"].std(0),
    }
    if any(own[name].shape != tensor.shape for name, tensor in mean.items()):
        return {name: own[name] for name in mean}
    return mean


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)
