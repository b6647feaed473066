"""Everything about X2CT that can be chosen; the defaults are those of X2CT-GAN for two views."""

from pydantic import Field, model_validator

from voxray.methods.one_pass import Angles, OnePassConfig
from voxray.methods.stages import MethodConfig, StageOptions


class GeneratorConfig(MethodConfig):
    """From X-rays to a volume."""

    stem: int = Field(default=64, gt=0, description="channels of the encoder's first convolution")
    blocks: tuple[int, ...] = Field(
        default=(6, 12, 24, 16, 6), strict=False, min_length=2, description="layers of its dense blocks, fine to coarse"
    )
    growth: int = Field(default=32, gt=0, description="channels that each layer of a dense block adds")
    widths: tuple[int, ...] = Field(
        default=(16, 16, 32, 64, 128, 256), strict=False, min_length=3,
        description="channels of the decoder, from fine to coarse; one level more than dense blocks",
    )  # fmt: skip
    dropout: float = Field(default=0.5, ge=0, lt=1, description="of the fully connected link")

    @model_validator(mode="after")
    def _fits(self) -> "GeneratorConfig":
        if len(self.widths) != len(self.blocks) + 1:
            raise ValueError(f"{len(self.blocks)} blocks need {len(self.blocks) + 1} widths, not {len(self.widths)}")
        return self


class X2ctConfig(OnePassConfig):
    """X2CT-CNN and X2CT-GAN."""

    angles_deg: Angles = Field(
        default=(0.0, 90.0), strict=False, min_length=1, description="primary angles of the views, a branch each"
    )
    generator: GeneratorConfig = GeneratorConfig()
    reconstruction: float = Field(default=10.0, gt=0, description="weight of the mean squared error")
    projections: float = Field(default=10.0, ge=0, description="weight of the loss of projections; 0 for none")
    adversarial: float = Field(default=0.1, ge=0, description="weight of what the critic says; 0 for X2CT-CNN")
    critic_width: int = Field(default=64, gt=0, description="channels of the critic's first layer")
    training: StageOptions = StageOptions(
        steps=22_900, batch_size=4, learning_rate=2e-4, betas=(0.5, 0.99), clip=None, decay="cosine"
    )
