"""A convolution, a normalisation and a ReLU: what networks of many papers are made of."""

from typing import Literal

from torch import nn


def convolution(
    axes: Literal[2, 3], given: int, own: int, *, norm: Literal["batch", "instance"] | None,
    kernel: int = 3, stride: int = 1, transposed: bool = False,
) -> nn.Module:  # fmt: skip
    """Return MONAI's convolution, which keeps sizes or divides them by the stride (multiplies, where transposed).

    Args:
        axes: 2 for images, 3 for volumes.
        given: channels of the input.
        own: channels of the output.
        norm: between convolution and ReLU, instance norms without weights; None for none, and a bias instead.
        kernel: its size.
        stride: between places.
        transposed: whether it enlarges.
    """
    from monai.networks.blocks import Convolution  # slow to import

    return Convolution(
        axes, given, own, strides=stride, kernel_size=kernel, act="RELU", norm=norm, bias=norm is None,
        is_transposed=transposed, padding=(kernel - 1) // 2, output_padding=0 if kernel % 2 == 0 else None,
    )  # fmt: skip
