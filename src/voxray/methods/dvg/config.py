"""Everything about DVG-Diffusion that can be chosen."""

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from voxray.diffusion import Sampler
from voxray.methods.anatomy import AgreementConfig, AnatomyConfig
from voxray.methods.stages import MethodConfig, StageOptions
from voxray.nets.autoencoder import AutoencoderConfig
from voxray.nets.ensemble import joined


class UNetConfig(MethodConfig):
    """A U-Net on the latents: the release's, which mixes depth by attention alone, or MONAI's isotropic one."""

    kind: Literal["factorised", "isotropic"] = Field(default="factorised", description="see voxray.nets")
    width: int = Field(default=128, gt=0, description="of the factorised net's first level; 1, 2, 4, 8 times that")
    channels: tuple[int, ...] = Field(default=(32, 64, 128), strict=False, description="of the isotropic net's levels")
    blocks: int = Field(default=1, gt=0, description="of the isotropic net, a level")
    checkpointing: bool = Field(default=False, description="of the factorised net: less memory in training, slower")

    def build(self, in_channels: int, out_channels: int, *, time: bool) -> nn.Module:
        """Return the net with fresh weights."""
        if self.kind == "factorised":
            from voxray.nets.factorised_unet import FactorisedUNet

            net = FactorisedUNet(in_channels, out_channels, self.width, time=time)
            net.checkpointing = self.checkpointing
            return net
        from voxray.nets.isotropic_unet import IsotropicUNet

        attention = [False] * (len(self.channels) - 1) + [True]
        return IsotropicUNet(in_channels, out_channels, self.channels, self.blocks, attention, time=time)


class AutoencoderStage(MethodConfig):
    """An autoencoder and its training; the weights of the losses are the release's."""

    sizes: AutoencoderConfig = AutoencoderConfig()
    training: StageOptions = StageOptions(steps=100_000, batch_size=2, learning_rate=3e-4, betas=(0.5, 0.9))
    crop: int | None = Field(default=None, gt=0, description="side of random cubes that are learned from; null for all")
    quantised: float = Field(
        default=1.0, ge=0, le=1,
        description="share of the batches that the decoder sees quantised; the others teach it latents as they are",
    )  # fmt: skip
    l1: float = Field(default=4.0, ge=0, description="weight of the mean absolute error")
    commitment: float = Field(default=0.25, ge=0, description="weight of the latents' squared distance to their codes")
    adversarial: float = Field(default=1.0, ge=0, description="weight of what the critics say; 0 for no critics")
    features: float = Field(default=1.0, ge=0, description="weight of the critics' features")
    adversarial_start: int = Field(default=5_000, ge=0, description="step from which there are critics")
    critic_width: int = Field(default=64, gt=0, description="channels of the critics' first layer")


class LiftConfig(MethodConfig):
    """How X-rays are brought into the volume.

    `path_length` is the paper's back-projection: each voxel receives the ray's value divided by the ray's length in the
    volume; views are summed. `consistent` is ours: the mean anatomy made consistent with the X-rays, which holds
    what they say at the scale of a CT, for any number of views. `transpose` is the release's, for its weights: ten
    times the projector's transpose, in voxels, of X-rays from 0 to 1, each by its own minimum and maximum.
    """

    kind: Literal["path_length", "consistent", "transpose"] = Field(default="path_length", description="see above")
    scale: float = Field(
        default=1.0, gt=0,
        description="path_length: what a view whose rays see water alone brings; fixed, never the batch's own",
    )  # fmt: skip
    iterations: int = Field(default=10, ge=0, description="consistent: of conjugate gradients")
    lengths_mm: tuple[float, ...] = Field(default=(5.0, 10.0), strict=False, description="consistent: blurs of changes")
    noise: float = Field(default=0.05, gt=0, description="consistent: standard deviation of a line integral")


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


class ConsistencyConfig(AgreementConfig):
    """How a result is made to agree with the X-rays (`voxray.physics.consistency`); all ours, no paper does it."""

    final: bool = Field(default=True, description="make each sample consistent")
    between: bool = Field(default=False, description="and each prediction of it between the steps: slower")
    display_noise: float = Field(default=0.15, gt=0, description="noise of display values, whose scale is a guess")


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
    consistency: ConsistencyConfig = ConsistencyConfig()

    @model_validator(mode="after")
    def _fits(self) -> "DvgConfig":
        if self.coarse is None and (self.new_view is not None or self.denoiser is None or self.denoiser.on_coarse):
            raise ValueError("without `coarse` there is no volume to synthesise a view from, and none to return")
        if self.lift_share and self.lift.kind != "consistent":
            raise ValueError(f"lift_share needs lift.kind consistent: {self.lift.kind} makes no volume like a CT")
        if self.new_view is not None and self.new_view.own_encoder and self.lifted is None:
            raise ValueError("new_view.own_encoder needs `lifted`")
        return self
