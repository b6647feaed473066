"""The configuration of Accord."""

from typing import Annotated

from pydantic import Field, model_validator

from voxray.methods.anatomy import AgreementConfig, AnatomyConfig
from voxray.methods.stages import MethodConfig, StageOptions

_TRAINING = StageOptions(steps=7500, batch_size=1, learning_rate=1e-3, warmup=100, decay="cosine", ema=0.995)
_Trainings = Annotated[tuple[StageOptions, ...], Field(strict=False, min_length=1)]


class _UNetConfig(MethodConfig):
    """A U-Net on patches."""

    patch: int = Field(default=2, gt=0, description="voxels along each axis that share a place in the network")
    features: tuple[int, ...] = Field(
        default=(16, 32, 64, 128, 128), strict=False, min_length=2,
        description="channels, from fine to coarse; each half the last",
    )  # fmt: skip

    @property
    def lowest(self) -> int:
        """Return how many voxels, along each axis, are one at the lowest level."""
        return int(self.patch * 2 ** (len(self.features) - 1))


class BlockConfig(_UNetConfig):
    """Networks that improve a volume, and their trainings."""

    coarser: int = Field(default=1, gt=0, description="its voxels are cubes of so many voxels of the result")
    spread_weight: float = Field(default=0.1, gt=0, description="of the loss of the spread, beside that of the mean")
    networks: tuple[_Trainings, ...] = Field(
        default=((_TRAINING,),), strict=False, min_length=1,
        description="trainings of each network, one after another; the block says the mean of all networks",
    )  # fmt: skip


class TextureConfig(_UNetConfig):
    """A rectified flow from the posterior mean to volumes that look like CTs, and its training."""

    noise: float = Field(default=0.05, ge=0, description="added to the mean where the flow begins, of the range 0..1")
    sampling_noise: float = Field(
        default=0.05, ge=0, description="the same for a sample; less, where not all of it was learned to become tissue"
    )
    steps: int = Field(default=5, gt=0, description="of Euler, from the mean to a sample")
    consistency: AgreementConfig = Field(
        default=AgreementConfig(iterations=8, lengths_mm=(5.0,), scale=0.5, noise=0.02),
        description="of what each step expects as the sample",
    )
    training: StageOptions = _TRAINING


_Tail = Annotated[float, Field(gt=0, lt=0.5)]


class AccordConfig(MethodConfig):
    """Accord; all numbers are ours, see docs/methods/accord.md for what was tried."""

    anatomy: AnatomyConfig = AnatomyConfig()
    start: AgreementConfig = AgreementConfig(iterations=10, lengths_mm=(5.0, 10.0), scale=1.0, noise=0.05)
    blocks: tuple[BlockConfig, ...] = Field(
        default=(BlockConfig(),), strict=False, min_length=1, description="one after another"
    )
    texture: TextureConfig | None = Field(default=None, description="null for the mean alone")
    realism: float = Field(
        default=0.0, ge=0, le=1, description="of the result: 0 for the posterior mean, 1 for a sample with texture"
    )
    consistency: AgreementConfig = AgreementConfig(iterations=25, lengths_mm=(5.0,), scale=0.5, noise=0.02)
    tails: tuple[_Tail, _Tail] = Field(
        default=(0.05, 0.05), strict=False,
        description="how often the truth lies below and above the 90 % interval",
    )  # fmt: skip
    spread_scale: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0,), strict=False, min_length=1,
        description="brings the last block's spread to that of new patients: of one view, two, ...; the last for more",
    )  # fmt: skip
    display_noise: float = Field(default=0.15, gt=0, description="noise of display values, whose scale is a guess")

    @model_validator(mode="after")
    def _fits_together(self) -> "AccordConfig":
        if self.blocks[-1].coarser != 1:
            raise ValueError("the last block works on the voxels of the result: its `coarser` is 1")
        if self.realism and self.texture is None:
            raise ValueError("realism above 0 needs a texture stage, which this model has not")
        if abs(sum(self.tails) - 0.1) > 1e-6:
            raise ValueError("what a 90 % interval leaves out, below and above (`tails`), is 0.1 in all")
        return self
