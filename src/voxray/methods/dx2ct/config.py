"""Everything about DX2CT that can be chosen; the defaults are the paper's sizes."""

from typing import Literal

from pydantic import Field

from voxray.diffusion import Sampler
from voxray.methods.anatomy import AgreementConfig, AnatomyConfig
from voxray.methods.slices import Plane
from voxray.methods.stages import MethodConfig, StageOptions


class ConditionConfig(MethodConfig):
    """How X-rays become the conditions of a slice."""

    resnet_width: float = Field(default=1.0, gt=0, le=1, description="of the feature extractor, as a part of ResNet-50")
    resnet_weights: str | None = Field(
        default=None,
        description="file with torchvision's weights of ResNet-50 that training begins from; null for random ones",
    )
    channels: int = Field(default=256, gt=0, description="of tokens and queries; the paper does not say")
    bands: int = Field(default=10, gt=0, description="frequencies of the encoded places, as in PerX2CT")
    hidden: int = Field(default=256, gt=0, description="width of the networks that encode places")
    transformer: bool = Field(
        default=True, description="3DPQT; without, each scale is the mean of the views' features and the slice's places"
    )
    blocks: int = Field(default=12, gt=0, description="of each 3DPQT")
    heads: int = Field(default=8, gt=0, description="of each attention")


class Dx2ctConfig(MethodConfig):
    """DX2CT."""

    anatomy: AnatomyConfig = AnatomyConfig()
    condition: ConditionConfig = ConditionConfig()
    channels: tuple[int, ...] = Field(
        default=(64, 64, 128, 192, 256), strict=False, min_length=5, max_length=5,
        description="of the denoiser's levels, each half as fine as the one before; conditions guide the last three",
    )  # fmt: skip
    blocks: int = Field(default=2, gt=0, description="residual blocks of the denoiser, a level")
    attention: int = Field(default=2, ge=0, description="how many of the last levels have self-attention")
    guide: Literal["spade", "concat"] = Field(default="spade", description="how conditions enter the denoiser")
    spade_channels: int = Field(default=128, gt=0, description="hidden channels of each SPADE, as in MONAI")
    steps: int = Field(default=1000, gt=1, description="of the process, betas linear from 1e-4 to 0.02")
    target: Literal["sample", "epsilon", "v_prediction"] = Field(default="epsilon", description="what is predicted")
    slices: int = Field(default=1, gt=0, description="of each patient in a step of training")
    sampler: Sampler = Sampler(solver="ddim", steps=50)
    planes: tuple[Plane, ...] = Field(
        default=("axial", "coronal", "sagittal"), strict=False, min_length=1,
        description="in which slices are drawn; the result is the mean of the volumes (ours; the paper scores each)",
    )  # fmt: skip
    batch: int = Field(default=16, gt=0, description="slices that are drawn together")
    consistency: AgreementConfig | None = Field(
        default=None, description="ours: makes the result agree with the X-rays; null for the paper's method"
    )
    display_noise: float = Field(
        default=0.15, gt=0, description="consistency: noise of display values, whose scale is a guess"
    )
    training: StageOptions = StageOptions(steps=1_760_000, batch_size=16, learning_rate=5e-5, ema=0.9999)
