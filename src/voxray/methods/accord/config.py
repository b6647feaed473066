"""The configuration of Accord."""

from pydantic import Field

from voxray.methods.anatomy import AgreementConfig, AnatomyConfig
from voxray.methods.stages import MethodConfig, StageOptions


class BlockConfig(MethodConfig):
    """A network that improves a volume, and its training."""

    patch: int = Field(default=2, gt=0, description="voxels along each axis that share a place in the network")
    filters: int = Field(default=24, gt=0, description="channels of the first level; a multiple of 8")
    down: tuple[int, ...] = Field(
        default=(1, 2, 2, 2), strict=False, min_length=2, description="residual blocks, from fine to coarse"
    )
    up: tuple[int, ...] = Field(default=(1, 1, 1), strict=False, description="the same on the way back; one less")
    training: StageOptions = StageOptions(
        steps=6000, batch_size=1, learning_rate=5e-4, warmup=100, decay="cosine", ema=0.998
    )


class AccordConfig(MethodConfig):
    """Accord; all numbers are ours, see docs/methods/accord.md for what was tried."""

    anatomy: AnatomyConfig = AnatomyConfig()
    start: AgreementConfig = AgreementConfig(iterations=10, lengths_mm=(5.0, 10.0), scale=1.0, noise=0.05)
    blocks: tuple[BlockConfig, ...] = Field(
        default=(BlockConfig(),), strict=False, min_length=1, description="one after another"
    )
    consistency: AgreementConfig = AgreementConfig(iterations=25, lengths_mm=(5.0,), scale=0.5, noise=0.02)
    display_noise: float = Field(default=0.15, gt=0, description="noise of display values, whose scale is a guess")
