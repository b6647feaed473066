"""Everything about DVG-Diffusion that can be chosen."""

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from voxray.diffusion import Sampler
from voxray.methods.anatomy import AnatomyConfig, SampleAgreementConfig
from voxray.methods.autoencoding import AutoencoderStage
from voxray.methods.latent_unets import UNetConfig
from voxray.methods.lifted import LiftConfig
from voxray.methods.stages import MethodConfig, StageOptions
from voxray.nets.ensemble import joined


class NewViewConfig(MethodConfig):
    """Which views are synthesised from the first volume.

    The paper: 90 degrees for one view, 45 for 0 and 90. `angles_deg` count from the first view towards the second
    (for a single view, towards a left lateral); None takes the middle of the widest gap between the
    views' axes, which is the same for these two cases and serves any other.
    """

    angles_deg: tuple[float, ...] | None = Field(default=None, strict=False, description="null for the widest gap")
    own_encoder: bool = Field(
        default=False, description="an autoencoder of its own, as in the release; the paper has one for all views"
    )


class CoarseStage(MethodConfig):
    """G_z, which predicts the latents of the CT from those of the lifted X-rays."""

    net: UNetConfig = UNetConfig(width=64)
    training: StageOptions = StageOptions(steps=100_000, batch_size=2, learning_rate=2e-4)
    more: tuple[StageOptions, ...] = Field(
        default=(), strict=False,
        description="ours: trainings of further nets; G_z predicts the mean of all: what few scans leave open, each "
        "fills in in its own way",
    )  # fmt: skip

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return G_z with fresh weights."""
        nets = [self.net.build(in_channels, out_channels, time=False) for _ in (self.training, *self.more)]
        return joined(nets)


class DenoiserStage(MethodConfig):
    """The diffusion in latent space."""

    net: UNetConfig = UNetConfig(width=128)
    training: StageOptions = StageOptions(steps=500_000, batch_size=2, learning_rate=2e-4, clip=None, ema=0.9995)
    steps: int = Field(default=100, gt=1, description="of the process, with a cosine schedule")
    target: Literal["sample", "epsilon", "v_prediction"] = Field(default="sample", description="what the net predicts")
    on_coarse: bool = Field(
        default=False, description="ours: the net is given G_z's latents as well, and predicts what to add to them"
    )


class DvgConfig(MethodConfig):
    """DVG-Diffusion; the defaults are the paper's sizes."""

    anatomy: AnatomyConfig = AnatomyConfig()
    lift: LiftConfig = LiftConfig()
    ct: AutoencoderStage = AutoencoderStage()
    lifted: AutoencoderStage | None = Field(
        default=AutoencoderStage(), description="of the lifted X-rays (VPGE); null to give them shrunk to the latents"
    )
    coarse: CoarseStage | None = Field(default=CoarseStage(), description="G_z; null for none, and no new view")
    new_view: NewViewConfig | None = Field(default=NewViewConfig(), description="null for no synthesised view")
    denoiser: DenoiserStage | None = Field(default=DenoiserStage(), description="null for DVG-Net, without diffusion")
    scale_conditions: bool = Field(
        default=True, description="bring latents that are given to the nets to -1..1 (ours; the release does not)"
    )
    lift_share: float = Field(
        default=0.0, ge=0, lt=1,
        description="ours: part of the lifted volume in each result, for nets that learned from few scans are too "
        "sure of themselves; needs lift.kind consistent",
    )  # fmt: skip
    quantise: bool = Field(default=True, description="replace latents by their nearest codes before they are decoded")
    sampler: Sampler = Sampler()
    ensemble: int = Field(default=5, gt=0, description="samples whose mean is the result")
    consistency: SampleAgreementConfig = SampleAgreementConfig()

    @model_validator(mode="after")
    def _fits(self) -> "DvgConfig":
        if self.coarse is None and (self.new_view is not None or self.denoiser is None or self.denoiser.on_coarse):
            raise ValueError("without `coarse` there is no volume to synthesise a view from, and none to return")
        if self.lift_share and self.lift.kind != "consistent":
            raise ValueError(f"lift_share needs lift.kind consistent: {self.lift.kind} makes no volume like a CT")
        if self.new_view is not None and self.new_view.own_encoder and self.lifted is None:
            raise ValueError("new_view.own_encoder needs `lifted`")
        return self
