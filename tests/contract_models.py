"""The recipes that come with voxray, made small, and trained: what the contract tests ask their questions of."""

from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch
from learn_stages import trained_on
from small_models import GRID, SETUP, SHAPE, SPACING_MM, patient, rng, xrays_of

from voxray.geometry import ViewGeometry
from voxray.images import Radiograph
from voxray.methods import Method
from voxray.methods.anatomy import Anatomy, AnatomyConfig
from voxray.methods.diffux2ct.config import Diffux2ctConfig
from voxray.methods.dvg.config import DvgConfig
from voxray.methods.dx2ct.config import Dx2ctConfig
from voxray.methods.one_pass import OnePassConfig
from voxray.methods.perx2ct import Perx2ctConfig
from voxray.methods.stages import MethodConfig
from voxray.recipes import Recipe, load_recipe, recipe_names

VIEWS = ViewGeometry.biplanar(setup=SETUP)
# These make nothing consistent with the X-rays, for their papers do not.
NOT_CONSISTENT = {
    "diffux2ct-paper", "dvg-paper-single", "dvg-paper-biplanar", "dx2ct-paper-biplanar", "dx2ct-paper-mono",
    "2dcnn", "3dpriornet", "bx2s-net", "perx2ct-global", "perx2ct-local", "reconnet", "x2ct-cnn", "x2ct-gan",
}  # fmt: skip


# The mean anatomy in agreement with a few X-rays; of a patient that it knows it may still be nearer to the mean.
NEAR_THE_MEAN = {"2d-unet", "2d-unet-small", "style", "style-lateral"}
# What these learn in seconds at this size is too little to tell patients apart, and more would take minutes.
SLOW_TO_LEARN = {"perx2ct-global-small", "perx2ct-local-small", "x2ct-cnn-small", "x2ct-gan-small"}
# Stages that learn one phantom in more than 80 steps, or less of it: steps, and what may be left of the error. The
# ControlNet speaks through a net that has learned nothing itself there, and twice the steps do not bring it farther.
ONE_PHANTOM = {"bridge": (200, 0.6), "control": (80, 0.7)}

# Methods that others are compared with, and helpers of others: the suite that is not slow asks what takes moments.
COMPARED = {"bx2snet", "cnn2d", "perx2ct", "priornet", "reconnet", "style", "unet2d", "x2ct"}


def choices(*, brief: bool = False) -> list[object]:
    """Return all recipes for pytest; those whose method comes in another recipe before them are slow, or is itself.

    Args:
        brief: for a test that takes moments: none is slow but, of the methods of `COMPARED`, all but the last recipe of
            each; these are all slow for any other test.
    """
    methods = {name: load_recipe(name).method for name in recipe_names()}
    first = {method: name for name, method in reversed(methods.items())}
    last = {method: name for name, method in methods.items()}
    chosen = [
        name for name, method in methods.items()
        if ((brief and name == last[method]) if method in COMPARED else (brief or name == first[method]))
        and (brief or method not in _LONG)
    ]  # fmt: skip
    slow = {name: [] if name in chosen else [pytest.mark.slow] for name in methods}
    # With `--dist loadgroup`, one process does what is asked of a recipe, and trains its model once.
    return [pytest.param(name, marks=[pytest.mark.xdist_group(name), *slow[name]]) for name in methods]


# Methods of many stages, which learn too long for a quick look at all methods; they have quick tests of their own.
_LONG = {"axon"}


@cache
def small(name: str, *, brief: bool = False) -> Recipe:
    """Return a recipe for 32^3 voxels that is trained in seconds; `brief` in moments, and of no use."""
    recipe = load_recipe(name)
    grid = [f"grid.shape={list(SHAPE)}", f"grid.spacing_mm={SPACING_MM}"]
    more = _SMALL[recipe.method](recipe.method_config(), brief) if recipe.method in _SMALL else []
    return load_recipe(name, [*grid, *more])


def _small_atlas(config: MethodConfig, brief: bool) -> list[str]:
    return ["config.scans=3", "config.spacing_mm=20"]


def _small_dvg(config: MethodConfig, brief: bool) -> list[str]:
    assert isinstance(config, DvgConfig)
    found = [
        "config.anatomy.spacing_mm=20.0", "config.lift.lengths_mm=[20.0]", "config.consistency.lengths_mm=[20.0]",
        "config.sampler.steps=4", "config.ensemble=2",
    ]  # fmt: skip
    factorised = config.denoiser is not None and config.denoiser.net.kind == "factorised"
    for part, steps in (("ct", 120), ("lifted", 40)):
        if (autoencoder := getattr(config, part)) is not None:
            sizes = f"{_SHALLOW if brief or factorised else _FINE}, padding: {autoencoder.sizes.padding}"
            found += [
                f"config.{part}.sizes={{{sizes}}}", f"config.{part}.crop={16 if brief else 'null'}",
                f"config.{part}.training={{steps: {2 if brief else steps}, learning_rate: 1.0e-2, betas: [0.9, 0.99]}}",
                f"config.{part}.critic_width=4",
            ]  # fmt: skip
    alone = 150 if config.coarse is None else 50  # without G_z, the diffusion has all to learn
    for part, steps in (("coarse", 80), ("denoiser", alone)):
        if getattr(config, part) is not None:
            found += [
                f"config.{part}.net.channels={[8, 32] if brief else [8, 16, 32]}", f"config.{part}.net.width=8",
                f"config.{part}.training={{steps: {2 if brief else steps}, learning_rate: 5.0e-3}}",
            ]  # fmt: skip
    if config.coarse is not None and config.coarse.more:
        found.append(f"config.coarse.more=[{{steps: {2 if brief else 80}, learning_rate: 5.0e-3}}]")
    return found


def _small_accord(config: MethodConfig, brief: bool) -> list[str]:
    training = f"{{steps: {2 if brief else 60}, learning_rate: 3.0e-3}}"
    net = "patch: 2, features: [16, 16]"
    block = f"{{{net}, networks: [[{training}]]}}"
    return [
        "config.anatomy.spacing_mm=20.0", "config.start.lengths_mm=[20.0]", "config.consistency.lengths_mm=[20.0]",
        f"config.blocks=[{block}, {block}]", f"config.texture={{{net}, training: {training}}}",
    ]  # fmt: skip


def _small_dx2ct(config: MethodConfig, brief: bool) -> list[str]:
    assert isinstance(config, Dx2ctConfig)
    lift = "true" if config.condition.transformer else "false"
    return [
        "config.anatomy.spacing_mm=20.0", "config.channels=[8, 8, 8, 16, 16]", "config.blocks=1",
        "config.spade_channels=8",
        "config.condition={resnet_width: 0.125, channels: 16, bands: 4, hidden: 16, blocks: 1, heads: 2, "
        f"transformer: {lift}}}",
        "config.sampler={solver: dpm-solver++, steps: 3}", "config.slices=12", "config.target=sample",
        f"config.training={{steps: {2 if brief else 300}, learning_rate: 3.0e-3}}",
        *(["config.consistency.lengths_mm=[20.0]"] if config.consistency is not None else []),
    ]  # fmt: skip


def _small_diffux2ct(config: MethodConfig, brief: bool) -> list[str]:
    assert isinstance(config, Diffux2ctConfig)
    windows = "null" if config.denoiser.windows is None else "{levels: 1, size: 4, head_channels: 8}"
    return [
        "config.anatomy.spacing_mm=20.0", "config.coarser=2", "config.denoiser.patch=1",
        "config.denoiser.channels=[8, 16]", "config.denoiser.blocks=1", f"config.denoiser.windows={windows}",
        "config.denoiser.checkpointing=false", "config.planes.pixels=32",
        "config.planes.features=[8, 8]", "config.planes.channels=4", "config.planes.heights=4",
        "config.field.hidden=16", "config.field.layers=2", "config.field.bands=3", "config.sampler.steps=4",
        "config.ensemble=2", f"config.training={{steps: {2 if brief else 150}, learning_rate: 5.0e-3}}",
        # Where noise is predicted, its error is multiplied at the first steps: that takes more than seconds to learn.
        *([] if brief else ["config.target=sample"]),
        *(["config.consistency.lengths_mm=[20.0]"] if config.consistency is not None else []),
    ]  # fmt: skip


def _small_one_pass(config: MethodConfig, brief: bool, steps: int = 60) -> list[str]:
    """Return what all methods have in common that give a volume in one pass of a network."""
    assert isinstance(config, OnePassConfig)
    return [
        "config.anatomy.spacing_mm=20.0", "config.coarser=1",
        f"config.training={{steps: {2 if brief else steps}, learning_rate: 3.0e-3}}",
        *(["config.consistency.lengths_mm=[20.0]", "config.consistency.scale=1.0"] if config.consistency else []),
    ]  # fmt: skip


def _small_x2ct(config: MethodConfig, brief: bool) -> list[str]:
    return [
        *_small_one_pass(config, brief), "config.critic_width=2", "config.angles_deg=[0.0, 90.0]",
        "config.generator={stem: 8, blocks: [1, 1, 1], growth: 8, widths: [4, 8, 8, 16], dropout: 0.0}",
    ]  # fmt: skip


def _small_reconnet(config: MethodConfig, brief: bool) -> list[str]:
    return [*_small_one_pass(config, brief, 200), "config.features=[16, 32, 64]"]


def _small_cnn2d(config: MethodConfig, brief: bool) -> list[str]:
    return [*_small_one_pass(config, brief, 200), "config.width=32", "config.levels=2"]


def _small_perx2ct(config: MethodConfig, brief: bool) -> list[str]:
    assert isinstance(config, Perx2ctConfig)
    return [
        *_small_one_pass(config, brief, 150), "config.resnet_width=0.125", "config.bands=4", "config.channels=[8, 16]",
        "config.blocks=1", f"config.slices={1 if brief else 4}", f"config.whole={8 if config.whole else 0}",
        "config.batch=32", "config.zoom=0.0",
    ]  # fmt: skip


def _small_priornet(config: MethodConfig, brief: bool) -> list[str]:
    return [*_small_one_pass(config, brief, 200), "config.features=[8, 16, 32]"]


def _small_bx2snet(config: MethodConfig, brief: bool) -> list[str]:
    return [*_small_one_pass(config, brief), "config.features=[4, 8, 8]"]


def _small_unet2d(config: MethodConfig, brief: bool) -> list[str]:
    return [
        *_small_one_pass(config, brief, 200), "config.features=[8, 16, 16]", "config.units=1",
        "config.angles_deg=[0.0, 90.0]", "config.new_deg=[45.0]",
        "config.volume={iterations: 30, lengths_mm: [20.0, 40.0], scale: 1.0, noise: 0.02}",
    ]  # fmt: skip


def _small_axon(config: MethodConfig, brief: bool) -> list[str]:
    return [
        "config.anatomy.spacing_mm=20.0", "config.lift.lengths_mm=[20.0]", "config.consistency.lengths_mm=[20.0]",
        f"config.ct.sizes={{{_SHALLOW}, padding: zeros}}", "config.quantise=false",
        f"config.ct.training={{steps: {2 if brief else 120}, learning_rate: 1.0e-2, betas: [0.9, 0.99]}}",
        f"config.ct.crop={16 if brief else 'null'}", "config.ct.critic_width=4", "config.ensemble=2",
        "config.bridge.net={kind: isotropic, channels: [32, 32]}", "config.bridge.sampler.steps=4",
        "config.bridge.variance=0.05", "config.bridge.target=difference",
        f"config.bridge.training={{steps: {2 if brief else 160}, learning_rate: 5.0e-3}}",
        "config.refine.channels=[32, 32]", "config.refine.blocks=1",
        "config.refine.sampler.steps=3", f"config.refine.prior={{steps: {2 if brief else 40}, learning_rate: 1.0e-2}}",
        f"config.refine.training={{steps: {2 if brief else 40}, learning_rate: 1.0e-2}}",
    ]  # fmt: skip


def _small_upsample(config: MethodConfig, brief: bool) -> list[str]:
    return [
        "config.anatomy.spacing_mm=20.0", "config.agreement.lengths_mm=[20.0]", "config.features=16",
        "config.blocks=2", "config.crop=32",
        f"config.training={{steps: {2 if brief else 60}, batch_size: 2, learning_rate: 5.0e-3}}",
    ]  # fmt: skip


def _small_style(config: MethodConfig, brief: bool) -> list[str]:
    return [
        "config.anatomy.spacing_mm=20.0", "config.agreement.lengths_mm=[20.0]", "config.pixels=32", "config.width=4",
        "config.blocks=1", "config.critic_width=4", "config.pool=4", "config.jitter=0.0",
        "config.cycle=0.1", "config.identity=0.05",  # else there is little to gain from a critic that stands still
        f"config.training={{steps: {2 if brief else 60}, learning_rate: 5.0e-3}}",
    ]  # fmt: skip


# Autoencoders with latents of 16^3, and of 8^3 for nets that are slow.
_FINE = "widths: [8, 16], encoder_blocks: 0, decoder_widths: [8], decoder_blocks: [0], codes: 256, dead_below: 0.05"
_SHALLOW = (
    "widths: [4, 8, 16], encoder_blocks: 0, decoder_widths: [16, 8], decoder_blocks: [0, 0], codes: 64, "
    "dead_below: 0.05"
)
# What makes a method small, besides the grid; a method that is quick by itself needs nothing here.
_SMALL: dict[str, Callable[[MethodConfig, bool], list[str]]] = {
    "accord": _small_accord, "atlas": _small_atlas, "axon": _small_axon, "diffux2ct": _small_diffux2ct,
    "dvg": _small_dvg, "dx2ct": _small_dx2ct, "upsample": _small_upsample, "x2ct": _small_x2ct,
    "reconnet": _small_reconnet, "cnn2d": _small_cnn2d, "perx2ct": _small_perx2ct, "priornet": _small_priornet,
    "bx2snet": _small_bx2snet, "style": _small_style, "unet2d": _small_unet2d,
}  # fmt: skip


@cache
def trained(name: str) -> Method:
    """Return the method of `small(name)`, trained on three patients."""
    return trained_on(small(name), [patient(seed) for seed in range(3)], VIEWS)[0]


@cache
def briefly_trained(name: str) -> Method:
    """Return the method of the brief recipe, trained on three patients."""
    return trained_on(small(name, brief=True), [patient(seed) for seed in range(3)], VIEWS)[0]


def reconstruct(name: str, radiograph: Radiograph) -> torch.Tensor:
    """Return what the trained method makes of X-rays, in HU."""
    return trained(name).reconstruct(radiograph, rng=rng()).volume.hu


@cache
def reconstructed(name: str, seed: int) -> torch.Tensor:
    """Return what the trained method makes of the usual X-rays of a patient, in HU."""
    return reconstruct(name, xrays_of(patient(seed), VIEWS))


def unexplained(reprojections: Sequence[torch.Tensor], radiograph: Radiograph) -> float:
    """Return which part of the X-rays is not in the re-projections, of the view where that is most."""
    pairs = zip(reprojections, radiograph.images, strict=True)
    return max(float((again - image).norm() / image.norm()) for again, image in pairs)


def left_by_the_mean(radiograph: Radiograph) -> float:
    """Return the same for the mean of the patients that methods are trained on."""
    return unexplained(_mean().scene("body").project(radiograph.views), radiograph)


@cache
def _mean() -> Anatomy:
    anatomy = Anatomy(AnatomyConfig(spacing_mm=20.0), GRID)
    anatomy.fit([patient(seed) for seed in range(3)], None)
    return anatomy
