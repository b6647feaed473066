"""Everything about the AXON-style method that can be chosen. Unless said otherwise all is ours, see `Axon`."""

from pydantic import Field, model_validator

from voxray.diffusion import BridgeSampler, Sampler
from voxray.diffusion.bridge import BridgePrediction
from voxray.methods.anatomy import AnatomyConfig, SampleAgreementConfig
from voxray.methods.autoencoding import AutoencoderStage
from voxray.methods.latent_unets import UNetConfig
from voxray.methods.lifted import LiftConfig
from voxray.methods.stages import MethodConfig, StageOptions


class BridgeStage(MethodConfig):
    """Stage 1: the bridge from the lifted X-rays' latents to the CT's, for the structure of the whole."""

    net: UNetConfig = UNetConfig(kind="isotropic", channels=(64, 128, 256), blocks=2)
    steps: int = Field(default=1000, gt=1, description="of the process, as in BBDM")
    variance: float = Field(
        default=1.0, gt=0, description="of the bridge, of latents with a standard deviation of 1; BBDM's is 1"
    )
    target: BridgePrediction = Field(default="grad", description="what the net predicts; grad is BBDM's")
    sampler: BridgeSampler = BridgeSampler()
    training: StageOptions = StageOptions(steps=200_000, batch_size=2, learning_rate=1e-4, ema=0.995)


class RefineStage(MethodConfig):
    """Stage 2: a latent diffusion that knows no X-rays, frozen, and a ControlNet that steers it, for intensities."""

    channels: tuple[int, ...] = Field(
        default=(64, 128, 256), strict=False, min_length=2, description="of the levels of the latent diffusion's U-Net"
    )
    blocks: int = Field(default=2, gt=0, description="residual blocks, a level")
    steps: int = Field(default=1000, gt=1, description="of the process, with a cosine schedule; v is predicted")
    strength: float = Field(
        default=0.4, gt=0, le=1,
        description="part of the process by which stage 1's result is drowned before it is refined (SDEdit); the "
        "ControlNet learns times up to it, so that a trained model can take less, not more",
    )  # fmt: skip
    sampler: Sampler = Sampler(steps=10)
    prior: StageOptions = StageOptions(steps=200_000, batch_size=2, learning_rate=1e-4, ema=0.995)
    training: StageOptions = StageOptions(steps=100_000, batch_size=2, learning_rate=1e-4, ema=0.995)


class AxonConfig(MethodConfig):
    """The AXON-style method; the defaults are what we take for the published one's sizes, which are not known."""

    anatomy: AnatomyConfig = AnatomyConfig()
    lift: LiftConfig = Field(
        default=LiftConfig(kind="consistent"),
        description="where the bridge begins: the mean anatomy in agreement with the X-rays (consistent), or the mean "
        "of the views' back-projections (path_length)",
    )
    ct: AutoencoderStage = AutoencoderStage()
    ct_weights: str | None = Field(
        default=None,
        description="weights.safetensors of a model with this very autoencoder (`ct`), of dvg or axon: it is taken "
        "over, and not trained; read when training begins and never again",
    )
    quantise: bool = Field(default=True, description="replace latents by their nearest codes before they are decoded")
    bridge: BridgeStage | None = Field(default=BridgeStage(), description="stage 1; null leaves it out")
    refine: RefineStage | None = Field(default=RefineStage(), description="stage 2; null leaves it out")
    ensemble: int = Field(default=4, gt=0, description="samples whose mean is the result")
    consistency: SampleAgreementConfig = SampleAgreementConfig()

    @model_validator(mode="after")
    def _one_lift_for_any_number_of_views(self) -> "AxonConfig":
        if self.lift.kind == "transpose":
            raise ValueError(
                "lift.kind is consistent or path_length; transpose is for the released weights of dvg alone"
            )
        return self
