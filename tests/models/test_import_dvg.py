"""The released checkpoints of DVG-Diffusion: their names, what their networks compute, and files that are refused."""

import math
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from voxray.errors import CheckpointError, InputError
from voxray.methods.dvg import Dvg
from voxray.models import load_model
from voxray.models.checkpoint import read_checkpoint
from voxray.models.dvg_release import autoencoder_weights, unet_weights, without_time
from voxray.models.import_dvg import _NETWORKS, RELEASE, _renamed, _wanted, import_dvg
from voxray.nets.autoencoder import AutoencoderConfig, VQAutoencoder
from voxray.nets.factorised_unet import FactorisedUNet
from voxray.recipes import Recipe

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, Tensor]

SMALL_AUTOENCODER = {
    "widths": (2, 4, 8), "decoder_widths": (8, 4), "latent_channels": 4, "codes": 32,
}  # fmt: skip
SMALL = RELEASE.model_copy(
    update={
        "grid": RELEASE.grid.model_copy(update={"shape": (32, 32, 32), "spacing_mm": 10.0}),
        "config": RELEASE.config | {
            "ct": {"sizes": SMALL_AUTOENCODER}, "lifted": {"sizes": SMALL_AUTOENCODER},
            "coarse": {"net": {"width": 8}}, "denoiser": {"net": {"width": 8}},
        },
    }
)  # fmt: skip


# ---------------------------------------------------------------- names and shapes of the release


def affine(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def autoencoder_shapes(hidden: int = 16, dim: int = 8, codes: int = 16384) -> Shapes:
    def res(name: str, c: int) -> Shapes:
        return (
            affine(f"{name}.norm1", c) | affine(f"{name}.conv1.conv", c, c, 3, 3, 3)
            | affine(f"{name}.norm2", c) | affine(f"{name}.conv2.conv", c, c, 3, 3, 3)
        )  # fmt: skip

    wide = 4 * hidden
    shapes = affine("encoder.conv_first.conv", hidden, 1, 3, 3, 3) | affine("encoder.final_block.0", wide)
    for i in range(2):
        c = hidden * 2**i
        shapes |= affine(f"encoder.conv_blocks.{i}.down.conv", 2 * c, c, 4, 4, 4)
        shapes |= res(f"encoder.conv_blocks.{i}.res", 2 * c)
    shapes |= affine("decoder.final_block.0", wide)
    for i, c in enumerate((wide, wide // 2)):
        up = f"decoder.conv_blocks.{i}"
        shapes |= {f"{up}.up.convt.weight": (wide, c, 4, 4, 4), f"{up}.up.convt.bias": (c,)}
        shapes |= res(f"{up}.res1", c) | res(f"{up}.res2", c)
    shapes |= affine("decoder.conv_last.conv", 1, wide // 2, 3, 3, 3)
    shapes |= affine("pre_vq_conv.conv", dim, wide, 1, 1, 1) | affine("post_vq_conv.conv", wide, dim, 1, 1, 1)
    return shapes | {"codebook.embeddings": (codes, dim), "codebook.N": (codes,), "codebook.z_avg": (codes, dim)}


def unet_shapes(width: int, c_in: int, c_out: int) -> Shapes:
    def block(name: str, a: int, b: int, time: bool = True) -> Shapes:
        shapes = affine(f"{name}.mlp.1", 2 * b, 4 * width) if time else {}
        for i, c in (1, a), (2, b):
            shapes |= affine(f"{name}.block{i}.proj", b, c, 1, 3, 3) | affine(f"{name}.block{i}.norm", b)
        return shapes | (affine(f"{name}.res_conv", b, a, 1, 1, 1) if a != b else {})

    def attention(name: str, c: int, rotary: bool) -> Shapes:
        shapes: Shapes = {f"{name}.fn.norm.gamma": (1, c, 1, 1, 1)}
        shapes |= {f"{name}.fn.fn.fn.to_qkv.weight": (768, c), f"{name}.fn.fn.fn.to_out.weight": (c, 256)}
        return shapes | ({f"{name}.fn.fn.fn.rotary_emb.freqs": (16,)} if rotary else {})

    def level(name: str, a: int, b: int, resample: str | None) -> Shapes:
        shapes = block(f"{name}.0", a, b) | block(f"{name}.1", b, b) | attention(f"{name}.3", b, True)
        shapes |= {f"{name}.2.fn.norm.gamma": (1, b, 1, 1, 1), f"{name}.2.fn.fn.to_qkv.weight": (768, b, 1, 1)}
        shapes |= affine(f"{name}.2.fn.fn.to_out", b, 256, 1, 1)
        return shapes | (affine(f"{name}.4", b, b, 1, 4, 4) if resample else {})

    widths = [width, width, 2 * width, 4 * width, 8 * width]
    shapes: Shapes = {"time_rel_pos_bias.relative_attention_bias.weight": (32, 8)}
    shapes |= affine("init_conv", width, c_in, 1, 3, 3) | attention("init_temporal_attn", width, True)
    shapes |= affine("time_mlp.1", 4 * width, width) | affine("time_mlp.3", 4 * width, 4 * width)
    for i in range(4):
        shapes |= level(f"downs.{i}", widths[i], widths[i + 1], "down" if i < 3 else None)
        shapes |= level(f"ups.{i}", 2 * widths[4 - i], widths[3 - i], "up" if i < 3 else None)
    deep = widths[-1]
    shapes |= block("mid_block1", deep, deep) | block("mid_block2", deep, deep)
    shapes |= attention("mid_spatial_attn", deep, False) | attention("mid_temporal_attn", deep, True)
    return shapes | block("final_conv.0", 2 * width, width, time=False) | affine("final_conv.1", c_out, width, 1, 1, 1)


def release_shapes(hidden: int, dim: int, codes: int, coarse: int, fine: int) -> dict[str, Shapes]:
    shapes = {name: autoencoder_shapes(hidden, dim, codes) for name in ("vqgan", "vqgan_bp", "vqgan_bp025")}
    return shapes | {"fit_model": unet_shapes(coarse, dim, dim), "fine_model": unet_shapes(fine, 3 * dim, dim)}


def drawn(shapes: Shapes, seed: int = 0) -> Weights:
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        spread = math.prod(shape[1:]) ** -0.5 if len(shape) in (2, 4, 5) and "gamma" not in name else 0.3
        weights[name] = torch.randn(shape, generator=rng) * spread + (spread == 0.3)
    return weights


def count(shapes: Shapes, *parts: str) -> int:
    return sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(parts) and "rotary" not in name)


def test_the_shapes_here_are_those_of_the_release() -> None:
    """Numbers of parameters as they are told in its code (without those of norms), and as they were measured."""
    shapes = {name: shape for name, shape in autoencoder_shapes().items() if not re.search("norm|final_block", name)}
    parts = [count(shapes, part) for part in ("encoder.", "pre_vq", "post_vq", "decoder.")]
    assert parts == [441_056, 520, 576, 947_521]
    assert count(unet_shapes(64, 8, 8), "") == 35_709_832
    assert count(unet_shapes(128, 24, 8), "") == 134_508_040


def test_every_released_tensor_has_its_place_and_every_place_its_tensor() -> None:
    networks = {
        name: {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        for name, shapes in release_shapes(16, 8, 16384, 64, 128).items()
    }
    given, wanted = _renamed(networks), _wanted(RELEASE)
    assert {name: tensor.shape for name, tensor in given.items()} == {n: t.shape for n, t in wanted.items()}


# ---------------------------------------------------------------- what the networks of the release compute


def apply(w: Weights, name: str, x: Tensor, **options: Any) -> Tensor:
    return F.conv3d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)


def normed(w: Weights, name: str, x: Tensor, groups: int, eps: float) -> Tensor:
    return F.group_norm(x, groups, w[f"{name}.weight"], w[f"{name}.bias"], eps)


def same(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    pad = (w[f"{name}.conv.weight"].shape[-1] - stride) // 2
    return apply(w, f"{name}.conv", F.pad(x, (pad,) * 6, mode="replicate"), stride=stride)


def res(w: Weights, name: str, x: Tensor) -> Tensor:
    h = x
    for i in "12":
        h = same(w, f"{name}.conv{i}", F.silu(normed(w, f"{name}.norm{i}", h, min(32, x.shape[1]), 1e-6)))
    return x + h


def encode(w: Weights, x: Tensor) -> Tensor:
    x = same(w, "encoder.conv_first", x)
    for i in range(2):
        x = res(w, f"encoder.conv_blocks.{i}.res", same(w, f"encoder.conv_blocks.{i}.down", x, stride=2))
    return same(w, "pre_vq_conv", F.silu(normed(w, "encoder.final_block.0", x, min(32, x.shape[1]), 1e-6)))


def decode(w: Weights, z: Tensor) -> Tensor:
    codes = w["codebook.embeddings"]
    flat = z.movedim(1, -1)
    x = codes[torch.cdist(flat.reshape(-1, flat.shape[-1]), codes).argmin(1)].view(flat.shape).movedim(-1, 1)
    x = same(w, "post_vq_conv", x)
    x = F.silu(normed(w, "decoder.final_block.0", x, min(32, x.shape[1]), 1e-6))
    for i in range(2):
        name, padded = f"decoder.conv_blocks.{i}", F.pad(x, (1,) * 6, mode="replicate")
        x = F.conv_transpose3d(padded, w[f"{name}.up.convt.weight"], w[f"{name}.up.convt.bias"], stride=2, padding=3)
        x = res(w, f"{name}.res2", res(w, f"{name}.res1", x))
    return same(w, "decoder.conv_last", x)


def test_the_autoencoder_computes_what_the_release_does() -> None:
    weights = drawn(autoencoder_shapes(hidden=2, dim=4, codes=32))
    network = VQAutoencoder(AutoencoderConfig(**SMALL_AUTOENCODER))
    network.load_state_dict(autoencoder_weights(weights))
    x = torch.rand(2, 1, 16, 12, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latents = network.encode(x)
        torch.testing.assert_close(latents, encode(weights, x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network.decode(latents), decode(weights, latents), rtol=1e-4, atol=1e-4)


def block(w: Weights, name: str, x: Tensor, time: Tensor | None) -> Tensor:
    h = normed(w, f"{name}.block1.norm", apply(w, f"{name}.block1.proj", x, padding=(0, 1, 1)), 8, 1e-5)
    if time is not None:
        told = F.linear(F.silu(time), w[f"{name}.mlp.1.weight"], w[f"{name}.mlp.1.bias"])
        scale, shift = told[:, :, None, None, None].chunk(2, dim=1)
        h = h * (1 + scale) + shift
    h = normed(w, f"{name}.block2.norm", apply(w, f"{name}.block2.proj", F.silu(h), padding=(0, 1, 1)), 8, 1e-5)
    return F.silu(h) + (apply(w, f"{name}.res_conv", x) if f"{name}.res_conv.weight" in w else x)


def heads(w: Weights, name: str, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, (batch, depth, height, width, head, channel)."""
    gamma = w[f"{name.partition('.fn')[0]}.fn.norm.gamma"]
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt() * gamma
    qkv = torch.einsum("bcdhw,oc->bdhwo", x, w[f"{name}.to_qkv.weight"].flatten(1))
    return tuple(part.unflatten(-1, (8, 32)) for part in qkv.chunk(3, dim=-1))


def joined(w: Weights, name: str, x: Tensor, heads: Tensor) -> Tensor:
    out = torch.einsum("bdhwc,oc->bodhw", heads.flatten(-2), w[f"{name}.to_out.weight"].flatten(1))
    bias = w.get(f"{name}.to_out.bias")
    return x + out + (0 if bias is None else bias[:, None, None, None])


def linear_attention(w: Weights, name: str, x: Tensor) -> Tensor:
    q, k, v = heads(w, name, x)
    k = k.flatten(2, 3).softmax(2).view(k.shape)
    context = torch.einsum("bdhwne,bdhwnf->bdnef", k, v)
    return joined(w, name, x, torch.einsum("bdhwne,bdnef->bdhwnf", q.softmax(-1) / 32**0.5, context))


def slice_attention(w: Weights, name: str, x: Tensor) -> Tensor:
    q, k, v = (part.flatten(2, 3) for part in heads(w, name, x))
    attention = (torch.einsum("bdine,bdjne->bdnij", q, k) / 32**0.5).softmax(-1)
    out = torch.einsum("bdnij,bdjne->bdine", attention, v)
    return joined(w, name, x, out.unflatten(2, x.shape[3:]))


def turned(x: Tensor) -> Tensor:
    """Rotate pairs of channels by depth times 10000^(-pair / 16)."""
    depth = torch.arange(x.shape[1])[:, None] * 10000.0 ** (-torch.arange(16) / 16)
    c, s = (f(depth)[:, None, None, None].repeat_interleave(2, -1) for f in (torch.cos, torch.sin))
    return x * c + torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2) * s


def depth_attention(w: Weights, name: str, x: Tensor) -> Tensor:
    q, k, v = heads(w, name, x)
    n = torch.arange(x.shape[2])
    offset = n[None] - n[:, None]  # below 8, so that each distance has a bucket of its own
    bias = w["time_rel_pos_bias.relative_attention_bias.weight"][offset.abs() + 16 * (offset > 0)]
    scores = torch.einsum("bihwne,bjhwne->bhwnij", turned(q), turned(k)) / 32**0.5 + bias.movedim(-1, 0)
    return joined(w, name, x, torch.einsum("bhwnij,bjhwne->bihwne", scores.softmax(-1), v))


def unet(w: Weights, x: Tensor, t: Tensor) -> Tensor:
    half = w["time_mlp.1.weight"].shape[1] // 2
    angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
    time = torch.cat([angles.sin(), angles.cos()], dim=1)
    time = F.gelu(F.linear(time, w["time_mlp.1.weight"], w["time_mlp.1.bias"]))
    time = F.linear(time, w["time_mlp.3.weight"], w["time_mlp.3.bias"])

    def level(name: str, x: Tensor) -> Tensor:
        x = block(w, f"{name}.1", block(w, f"{name}.0", x, time), time)
        return depth_attention(w, f"{name}.3.fn.fn.fn", linear_attention(w, f"{name}.2.fn.fn", x))

    first = apply(w, "init_conv", x, padding=(0, 1, 1))
    x, skips = depth_attention(w, "init_temporal_attn.fn.fn.fn", first), []
    sizes: dict[str, Any] = {"stride": (1, 2, 2), "padding": (0, 1, 1)}
    for i in range(4):
        x = level(f"downs.{i}", x)
        skips.append(x)
        x = apply(w, f"downs.{i}.4", x, **sizes) if i < 3 else x
    x = slice_attention(w, "mid_spatial_attn.fn.fn.fn", block(w, "mid_block1", x, time))
    x = block(w, "mid_block2", depth_attention(w, "mid_temporal_attn.fn.fn.fn", x), time)
    for i in range(4):
        x = level(f"ups.{i}", torch.cat([x, skips.pop()], dim=1))
        if i < 3:
            x = F.conv_transpose3d(x, w[f"ups.{i}.4.weight"], w[f"ups.{i}.4.bias"], **sizes)
    return apply(w, "final_conv.1", block(w, "final_conv.0", torch.cat([x, first], dim=1), None))


@pytest.mark.parametrize("t", [0, 42])
def test_the_unet_computes_what_the_release_does(t: int) -> None:
    weights = drawn(unet_shapes(8, 6, 4))
    network = FactorisedUNet(6, 4, 8)
    network.load_state_dict(unet_weights(weights))
    x, steps = torch.randn(2, 6, 3, 8, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([t, t])
    with torch.no_grad():
        torch.testing.assert_close(network(x, steps), unet(weights, x, steps), rtol=1e-3, atol=1e-3)


def test_the_coarse_model_without_time_is_the_one_that_is_told_zero() -> None:
    weights = unet_weights(drawn(unet_shapes(8, 4, 4)))
    told, network = FactorisedUNet(4, 4, 8), FactorisedUNet(4, 4, 8, time=False)
    told.load_state_dict(weights)
    network.load_state_dict(without_time(weights))
    x = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(x), told(x, torch.tensor([0])), rtol=1e-3, atol=1e-3)
        assert not torch.allclose(network(x), told(x, torch.tensor([5])), rtol=1e-2, atol=1e-2)


# ---------------------------------------------------------------- files


def release(seed: int = 0) -> dict[str, Weights]:
    shapes = release_shapes(2, 4, 32, 8, 8)
    return {name: drawn(shapes[name], seed + i) for i, name in enumerate(shapes)}


def whole(networks: dict[str, Weights]) -> Weights:
    """Return the state of the release's whole model, with what only its training needs."""
    weights = {f"{name}.{key}": tensor for name, some in networks.items() for key, tensor in some.items()}
    critic = {"vqgan.image_discriminator.model0.0.weight": torch.ones(2), "perceptual_model.lin0": torch.ones(1)}
    return {"betas": torch.ones(100), **critic, **weights}


def write_everything(path: Path, networks: dict[str, Weights], **others: object) -> Path:
    torch.save({"step": 4000, "ema": whole(networks), "model": whole(release(50)), "scaler": {}} | others, path)
    return path


@pytest.fixture
def omegaconf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a setting as omegaconf does: in the release, its name is all that this machine has of it."""
    module = ModuleType("omegaconf.dictconfig")
    module.DictConfig = type("DictConfig", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.DictConfig


def loaded(folder: Path) -> Weights:
    """Return what a model folder holds: the weights that inference needs."""
    method = load_model(folder).method
    return {name: w for name, w in method.state_dict().items() if not name.startswith(method.training_only)}


def assert_holds(weights: Weights, part: str, expected: Weights) -> None:
    """Check the tensors of one network, in half precision as they are kept."""
    own = {name.removeprefix(f"{part}."): tensor for name, tensor in weights.items() if name.startswith(f"{part}.")}
    assert own.keys() == {name for name in expected if not f"{part}.{name}".startswith(Dvg.training_only)}
    for name, tensor in own.items():
        torch.testing.assert_close(tensor.float(), expected[name].half().float(), msg=name)


def test_one_file_makes_a_model_of_its_averaged_weights(tmp_path: Path) -> None:
    networks = release()
    import_dvg([write_everything(tmp_path / "DVG_Diffusion.pt", networks)], tmp_path / "model", recipe=SMALL)
    weights = loaded(tmp_path / "model")
    assert_holds(weights, "ct", autoencoder_weights(networks["vqgan"]))
    assert_holds(weights, "lifted", autoencoder_weights(networks["vqgan_bp"]))
    assert_holds(weights, "new", autoencoder_weights(networks["vqgan_bp025"]))
    assert_holds(weights, "coarse", without_time(unet_weights(networks["fit_model"])))
    assert_holds(weights, "denoiser", unet_weights(networks["fine_model"]))
    assert "DVG_Diffusion.pt" in (tmp_path / "model" / "MODEL_CARD.md").read_text()


def test_a_folder_with_all_five_files_makes_the_same_model(tmp_path: Path, omegaconf: Any) -> None:
    networks, folder = release(), tmp_path / "release"
    folder.mkdir()
    autoencoders = {"CT_VQGAN": "vqgan", "VPGE_0_90_VQGAN": "vqgan_bp", "VPGE_45_VQGAN": "vqgan_bp025"}
    for file, name in autoencoders.items():
        lightning = {"state_dict": networks[name], "hyper_parameters": {"cfg": omegaconf()}, "epoch": 3}
        torch.save(lightning, folder / f"{file}.ckpt")
    coarse = {
        "model": whole({"fit_model": networks["fit_model"]}),
        "ema": whole({"fit_model": release(9)["fit_model"]}),
    }
    torch.save(coarse, folder / "NewView_Coarse_Model.pt")
    write_everything(folder / "DVG_Diffusion.pt", {"fine_model": networks["fine_model"]})
    (folder / "README.md").write_text("from elsewhere")
    import_dvg([folder], tmp_path / "model", recipe=SMALL)
    other = write_everything(tmp_path / "DVG_Diffusion.pt", networks)
    import_dvg([other], tmp_path / "other", recipe=SMALL)
    one, two = loaded(tmp_path / "model"), loaded(tmp_path / "other")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_anatomy_is_that_of_the_atlas_on_its_support_and_empty_on_another(tmp_path: Path) -> None:
    with torch.device("meta"):
        wanted = RELEASE.build().state_dict()
    atlas = load_model("atlas").method.state_dict()
    assert wanted["anatomy.mean"].shape == wanted["anatomy.std"].shape == atlas["deviations"][0].shape
    file = write_everything(tmp_path / "DVG_Diffusion.pt", release())
    import_dvg([file], tmp_path / "same", recipe=SMALL)
    torch.testing.assert_close(loaded(tmp_path / "same")["anatomy.mean"], atlas["around"])
    other = SMALL.model_copy(update={"config": SMALL.config | {"anatomy": {"spacing_mm": 20.0}}})
    import_dvg([file], tmp_path / "other", recipe=other)
    assert not loaded(tmp_path / "other")["anatomy.mean"].any()


def test_what_a_network_lacks_or_has_too_much_is_listed(tmp_path: Path) -> None:
    networks = release()
    del networks["vqgan"]["decoder.conv_last.conv.bias"], networks["fit_model"]["time_mlp.1.weight"]
    networks["fine_model"]["mid_block9.block1.proj.weight"] = torch.ones(1)
    networks["vqgan_bp"]["codebook.embeddings"] = torch.ones(16, 4)
    file = write_everything(tmp_path / "DVG_Diffusion.pt", networks)
    with pytest.raises(CheckpointError) as caught:
        import_dvg([file], tmp_path / "model", recipe=SMALL)
    for fault in ("DVG_Diffusion.pt", "missing ct.decoder.last.bias", "missing coarse.time.layers.0.weight",
                  "unexpected denoiser.mid_block9", "lifted.codebook.codes is (16, 4), not (32, 4)"):  # fmt: skip
        assert fault in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_at_most_ten_faults_are_listed(tmp_path: Path) -> None:
    file = write_everything(tmp_path / "DVG_Diffusion.pt", release())
    with pytest.raises(CheckpointError, match=r"and \d{3} more") as caught:
        import_dvg([file], tmp_path / "model", recipe=RELEASE)
    assert str(caught.value).count(", not (") <= 10


def test_M2_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    networks = release()
    networks["fine_model"]["init_conv.weight"][0] = math.nan
    file = write_everything(tmp_path / "DVG_Diffusion.pt", networks)
    with pytest.raises(CheckpointError, match=r"denoiser\.first\.weight is not finite"):
        import_dvg([file], tmp_path / "model", recipe=SMALL)


def test_missing_networks_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": release()["vqgan"]}, tmp_path / "CT_VQGAN.ckpt")
    with pytest.raises(InputError, match=r"CT_VQGAN\.ckpt lack that of the X-rays.*the denoiser.*DVG_Diffusion\.pt"):
        import_dvg([tmp_path / "CT_VQGAN.ckpt"], tmp_path / "model", recipe=SMALL)


@pytest.mark.parametrize("name", ["weights.pt", "DVG.pt", "empty"])
def test_files_of_other_names_are_refused(tmp_path: Path, name: str) -> None:
    if name == "empty":
        (tmp_path / name).mkdir()
    else:
        write_everything(tmp_path / name, release())
    with pytest.raises(InputError, match=rf"{name}.*CT_VQGAN, .*DVG_Diffusion"):
        import_dvg([tmp_path / name], tmp_path / "model", recipe=SMALL)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file.*DVG_Diffusion\.pt"):
        import_dvg([tmp_path / "DVG_Diffusion.pt"], tmp_path / "model")


def test_I12_a_model_is_not_overwritten(tmp_path: Path) -> None:
    file = write_everything(tmp_path / "DVG_Diffusion.pt", release())
    import_dvg([file], tmp_path / "model", recipe=SMALL)
    with pytest.raises(InputError, match="exists"):
        import_dvg([file], tmp_path / "model", recipe=SMALL)
    import_dvg([file], tmp_path / "model", recipe=SMALL, overwrite=True)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch evil",)


class Odd:
    """Of a library that is not known."""


@pytest.mark.parametrize(("thing", "name"), [(Evil(), r"(posix|nt)\.system"), (Odd(), r"test_import_dvg\.Odd")])
def test_M1_nothing_in_a_checkpoint_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thing: object, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Odd, "__module__", __name__)
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or ModuleType(__name__))
    monkeypatch.setattr(sys.modules[__name__], "Odd", Odd, raising=False)
    file = write_everything(tmp_path / "DVG_Diffusion.pt", release(), extra=thing)
    with pytest.raises(CheckpointError, match=rf"more than weights: .*{name}"):
        import_dvg([file], tmp_path / "model", recipe=SMALL)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "model").exists()


def test_M1_settings_are_replaced_by_nothing(tmp_path: Path, omegaconf: Any) -> None:
    setting = omegaconf()
    setting.path, setting.sizes = tmp_path, {"codes": 3}
    torch.save({"state_dict": {"a": torch.ones(2)}, "cfg": setting}, tmp_path / "a.ckpt")
    before = set(torch.serialization.get_safe_globals())
    content = read_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(content["state_dict"]["a"], torch.ones(2))
    assert vars(content["cfg"]) == {}
    assert not isinstance(content["cfg"], omegaconf)
    assert set(torch.serialization.get_safe_globals()) == before


def test_I13_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    whole_file = write_everything(tmp_path / "DVG_Diffusion.pt", {"vqgan": release()["vqgan"]}).read_bytes()
    damaged = tmp_path / "cut" / "DVG_Diffusion.pt"
    damaged.parent.mkdir()
    for content in (b"no pickle", whole_file[:100], whole_file[: len(whole_file) // 2], whole_file[:-10]):
        damaged.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read as a checkpoint") as caught:
            import_dvg([damaged], tmp_path / "model", recipe=SMALL)
        assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"model": {"a": 3}}, {}, {"model": {"a": torch.ones(1)}}])
def test_I13_other_checkpoints_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "DVG_Diffusion.pt")
    with pytest.raises((CheckpointError, InputError), match=r"DVG_Diffusion\.pt.* holds|no tensors by name"):
        import_dvg([tmp_path / "DVG_Diffusion.pt"], tmp_path / "model", recipe=SMALL)


def test_a_recipe_of_another_method_is_refused(tmp_path: Path) -> None:
    file = write_everything(tmp_path / "DVG_Diffusion.pt", release())
    with pytest.raises(InputError, match="none of DVG-Diffusion"):
        import_dvg([file], tmp_path / "model", recipe=Recipe(name="other", method="atlas"))


def test_every_network_of_the_release_is_known() -> None:
    assert set(release_shapes(2, 4, 32, 8, 8)) == set(_NETWORKS)
