"""What the tensors in the released checkpoints of DVG-Diffusion are called, and what they are called here.

The names are facts of the code at github.com/xiexing0916/DVG-Diffusion (and of medicaldiffusion, from which its
autoencoder comes). Nothing is computed but the coarse model's time: in the release it is told a time, which is always
0 when volumes are reconstructed. The paper (arXiv 2503.17804, eq. 8) has none; `without_time` makes the one the other.
"""

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
_Rules = Sequence[tuple[str, str]]

# Parts of the networks that only training needs, and the fixed angles of the rotary embedding.
_LEFT_OUT = re.compile(
    r"^(image_discriminator|video_discriminator|perceptual_model)\.|^codebook\.(N|z_avg)$|\.rotary_emb\."
)

_AUTOENCODER: _Rules = (
    (r"^pre_vq_conv\.conv\.", "to_latents."),
    (r"^post_vq_conv\.conv\.", "from_latents."),
    (r"^codebook\.embeddings$", "codebook.codes"),
    (r"\.conv_(first|last)\.conv\.", r".\1."),
    (r"\.final_block\.0\.", ".norm."),
    (r"\.conv_blocks\.", ".levels."),
    (r"\.down\.conv\.", ".0."),
    (r"\.up\.convt\.", ".0.conv."),
    (r"\.res1?\.", ".1."),
    (r"\.res2\.", ".2."),
    (r"\.(conv1|conv2)\.conv\.", r".\1."),
)

_UNET: _Rules = (
    (r"^time_mlp\.1\.", "time.layers.0."),
    (r"^time_mlp\.3\.", "time.layers.2."),
    (r"^time_rel_pos_bias\.relative_attention_bias\.", "depth_bias.values."),
    (r"^init_conv\.", "first."),
    (r"^init_temporal_attn\.", "first_depth."),
    (r"^downs\.(\d+)\.4\.", r"shrink.\1."),
    (r"^ups\.(\d+)\.4\.", r"grow.\1."),
    (r"^(down|up)s\.(\d+)\.0\.", r"\1.\2.first."),
    (r"^(down|up)s\.(\d+)\.1\.", r"\1.\2.last."),
    (r"^(down|up)s\.(\d+)\.2\.", r"\1.\2.slice."),
    (r"^(down|up)s\.(\d+)\.3\.", r"\1.\2.depth."),
    (r"^mid_block1\.", "middle_first."),
    (r"^mid_block2\.", "middle_last."),
    (r"^mid_spatial_attn\.", "middle_slice."),
    (r"^mid_temporal_attn\.", "middle_depth."),
    (r"^final_conv\.0\.", "last_block."),
    (r"^final_conv\.1\.", "last."),
    (r"\.block1\.proj\.", ".conv_first."),
    (r"\.block1\.norm\.", ".norm_first."),
    (r"\.block2\.proj\.", ".conv_last."),
    (r"\.block2\.norm\.", ".norm_last."),
    (r"\.res_conv\.", ".skip."),
    (r"\.mlp\.1\.", ".time."),
    (r"\.fn\.norm\.gamma$", ".scale"),
    (r"\.fn\.(?:fn\.)+to_(qkv|out)\.", r".\1."),
)


def autoencoder_weights(release: Mapping[str, Tensor]) -> Weights:
    """Return the weights of a `VQAutoencoder` from those of the release's VQGAN.

    The moving averages of its codebook, which count uses where ours have shares, are left out; training on begins them
    anew.
    """
    weights = _renamed(release, _AUTOENCODER)
    if "codebook.codes" in weights:
        codes = weights["codebook.codes"]
        share = 1 / len(codes)
        weights |= {"codebook.sums": codes * share, "codebook.shares": codes.new_full((len(codes),), share),
                    "codebook.started": torch.tensor(True)}  # fmt: skip
    return weights


def unet_weights(release: Mapping[str, Tensor]) -> Weights:
    """Return the weights of a `FactorisedUNet` with time from those of the release's."""
    weights = _renamed(release, _UNET)
    for name, tensor in weights.items():
        if name.endswith(".scale"):
            weights[name] = tensor.flatten()
        elif re.search(r"\.(qkv|out)\.weight$", name):  # the release has 1 x 1 convolutions in some places
            weights[name] = tensor.flatten(1)
    return weights


def without_time(weights: Mapping[str, Tensor]) -> Weights:
    """Return the weights of a `FactorisedUNet` without time that does what one with time does at t = 0.

    There the time scales and shifts the first norm of each block by constants: with norm(x) = w n + b, the result
    (w n + b) (1 + scale) + shift is a norm again, with weight w (1 + scale) and bias b (1 + scale) + shift.
    """
    width = weights["time.layers.0.weight"].shape[1]
    angles = weights["time.layers.0.weight"].new_zeros(width)
    angles[width // 2 :] = 1.0  # sines, then cosines, of 0
    hidden = F.gelu(F.linear(angles, weights["time.layers.0.weight"], weights["time.layers.0.bias"]))
    time = F.silu(F.linear(hidden, weights["time.layers.2.weight"], weights["time.layers.2.bias"]))
    kept = {name: tensor for name, tensor in weights.items() if not re.search(r"(^|\.)time\.", name)}
    for block in [name.removesuffix(".time.weight") for name in weights if name.endswith(".time.weight")]:
        scale, shift = F.linear(time, weights[f"{block}.time.weight"], weights[f"{block}.time.bias"]).chunk(2)
        kept[f"{block}.norm_first.weight"] = weights[f"{block}.norm_first.weight"] * (1 + scale)
        kept[f"{block}.norm_first.bias"] = weights[f"{block}.norm_first.bias"] * (1 + scale) + shift
    return kept


def _renamed(release: Mapping[str, Tensor], rules: _Rules) -> Weights:
    renamed = {}
    for name, tensor in release.items():
        if not _LEFT_OUT.search(name):
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
    return renamed
