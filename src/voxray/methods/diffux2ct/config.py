"""Everything about DiffuX2CT that can be chosen.

The paper's text is out of reach but for its abstract and summaries, so most sizes are ours: docs/methods/diffux2ct.md.
"""

from typing import Literal

from pydantic import Field, model_validator

from voxray.diffusion import Sampler
from voxray.methods.anatomy import AgreementConfig, AnatomyConfig
from voxray.methods.stages import MethodConfig, StageOptions


class PlanesConfig(MethodConfig):
    """From X-rays to planes of features."""

    lifting: Literal["triplane", "smearing"] = Field(
        default="triplane",
        description="smearing (an ablation): the mean of the views' features along their rays, nothing decoupled",
    )
    pixels: int = Field(default=128, gt=0, description="along each side of a view's plane; the axial one has half")
    features: tuple[int, ...] = Field(
        default=(64, 128, 256, 512), strict=False, min_length=2, description="of the 2D U-Nets, from fine to coarse"
    )
    channels: int = Field(default=32, gt=0, description="of a plane")
    heights: int = Field(default=16, gt=0, description="at which a ray is read for the axial plane")


class FieldConfig(MethodConfig):
    """From planes to features at any point."""

    kind: Literal["implicit", "trilinear"] = Field(
        default="implicit",
        description="trilinear (an ablation): a linear map of features at the voxels, interpolated in between",
    )
    hidden: int = Field(default=128, gt=0, description="width of the implicit decoder")
    layers: int = Field(default=4, gt=0, description="of it, but for the last one")
    bands: int = Field(
        default=6, gt=0, description="frequencies of the encoded place; six end at a sixteenth of a side"
    )
    chunk: int = Field(default=65536, gt=0, description="points that are decoded at a time")


class WindowsConfig(MethodConfig):
    """Attention within windows, then within shifted ones."""

    levels: int = Field(default=2, gt=0, description="how many of the coarsest levels have it")
    size: int = Field(default=4, gt=1, description="of a window, along each axis")
    head_channels: int = Field(default=32, gt=0, description="of each head")


class DenoiserConfig(MethodConfig):
    """The 3D U-Net."""

    patch: int = Field(
        default=1, gt=0, description="voxels along each axis that are channels of one place; above 1 quicker (ours)"
    )
    channels: tuple[int, ...] = Field(
        default=(32, 64, 128, 256), strict=False, min_length=2, description="of the levels, each half the last"
    )
    blocks: int = Field(default=2, gt=0, description="residual blocks a level, down and up")
    windows: WindowsConfig | None = Field(default=WindowsConfig(), description="null for none (an ablation)")
    checkpointing: bool = Field(default=False, description="less memory in training, slower")

    @model_validator(mode="after")
    def _fits(self) -> "DenoiserConfig":
        if self.windows is not None:
            wide = self.channels[-self.windows.levels :]
            if self.windows.levels > len(self.channels) or any(n % self.windows.head_channels for n in wide):
                raise ValueError(
                    f"windows: the last {self.windows.levels} of channels {list(self.channels)} are multiples of "
                    f"head_channels, {self.windows.head_channels}"
                )
        return self

    @property
    def lowest(self) -> int:
        """Return how many voxels, along each axis, are one at the lowest level."""
        return int(self.patch * 2 ** (len(self.channels) - 1))


class ProjectionConfig(MethodConfig):
    """L_proj, the loss of the projections of the x0 that a prediction stands for."""

    kind: Literal["axes", "views"] = Field(
        default="axes", description="along the three axes in parallel; or along the rays of the X-rays (ours)"
    )
    weight: float | None = Field(default=None, gt=0, description="beside the noise's loss; null for the paper's 1 / T")


class Diffux2ctConfig(MethodConfig):
    """DiffuX2CT."""

    anatomy: AnatomyConfig = AnatomyConfig()
    planes: PlanesConfig = PlanesConfig()
    field: FieldConfig = FieldConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    coarser: int = Field(
        default=1, gt=0,
        description="voxels of the diffusion are cubes of so many voxels of the result, which is interpolated (ours)",
    )  # fmt: skip
    steps: int = Field(default=1000, gt=1, description="T; betas are linear, from 1e-4 to 0.02 where T is 1000")
    target: Literal["epsilon", "sample", "v_prediction"] = Field(default="epsilon", description="what is predicted")
    projection: ProjectionConfig | None = Field(default=ProjectionConfig(), description="null for no L_proj")
    sampler: Sampler = Sampler(solver="ddim", steps=50)
    ensemble: int = Field(default=1, gt=0, description="samples whose mean is the result, at least")
    consistency: AgreementConfig | None = Field(
        default=None, description="ours: each sample is made to agree with the X-rays; null for the paper's method"
    )
    between: bool = Field(
        default=False, description="ours: so is each prediction of it between the steps; needs `consistency`"
    )
    display_noise: float = Field(
        default=0.15, gt=0, description="consistency: noise of display values, whose scale is a guess"
    )
    training: StageOptions = StageOptions(steps=500_000, batch_size=2, learning_rate=1e-4, ema=0.9999)

    @model_validator(mode="after")
    def _fits_together(self) -> "Diffux2ctConfig":
        if self.between and self.consistency is None:
            raise ValueError("between needs `consistency`, which is null")
        if self.sampler.steps > self.steps:
            raise ValueError(f"the sampler takes {self.sampler.steps} steps, but the diffusion has {self.steps}")
        lowest = 2 ** len(self.planes.features)  # the axial plane has half the pixels
        if self.planes.pixels % lowest or self.planes.pixels < 2 * lowest:
            raise ValueError(
                f"planes.pixels are a multiple of {lowest}, from {2 * lowest} on, for {len(self.planes.features)} "
                f"levels of planes.features; not {self.planes.pixels}"
            )
        return self
