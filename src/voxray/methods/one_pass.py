"""What methods have in common whose network draws in one pass: all but the network."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from voxray.data.dataset import TrainingSample
from voxray.errors import GeometryError, RecipeError
from voxray.geometry import FloatArray, ViewGeometry, VolumeGrid
from voxray.images import Radiograph
from voxray.methods.anatomy import AgreementConfig, Anatomy, AnatomyConfig
from voxray.methods.base import (
    Estimate,
    Method,
    Outside,
    Progress,
    Steps,
    about_isocentre,
    estimate_of_samples,
    in_bf16,
    line_integrals_of,
    noise_of,
)
from voxray.methods.stages import (
    AnyStage,
    Batch,
    Critic,
    GradientStage,
    Item,
    Losses,
    MethodConfig,
    Preparation,
    Stage,
    StageOptions,
)
from voxray.nets.lifting import pinholes
from voxray.physics.attenuation import MU_WATER_PER_MM, mu_from_unit, to_unit_range
from voxray.physics.consistency import Scene
from voxray.physics.planes import onto_planes, planes_of

# Line integral that networks see as 1: 400 mm of water, more than a chest holds.
WHITE = 400 * MU_WATER_PER_MM
# A view's plane is so much longer than the volume: what is nearer to the source is seen larger. PerX2CT's detector
# covers 1.15 times the volume there.
_REACH = 1.2
# A network that is made for an angle serves views whose central ray is no farther from it than this (ours).
_SERVED_DEG = 15.0

Angles = tuple[float, ...]


class OnePassConfig(MethodConfig):
    """What can be chosen of each of them."""

    anatomy: AnatomyConfig = AnatomyConfig()
    coarser: int = Field(
        default=1, gt=0,
        description="voxels of the network are cubes of so many voxels of the result, which is interpolated (ours)",
    )  # fmt: skip
    consistency: AgreementConfig | None = Field(
        default=None, description="ours: makes the result agree with the X-rays; null for the paper's method"
    )
    display_noise: float = Field(
        default=0.15, gt=0, description="consistency: noise of display values, whose scale is a guess"
    )
    training: StageOptions


class OnPlanes(Method):
    """A network that sees X-rays on planes through the isocentre, the anatomy, and what both make of the patient.

    Each X-ray is brought onto the plane that its central ray meets at a right angle, so that networks see one patient
    alike whatever the detector was. Networks that give each view weights of its own, or a channel, are made for
    the angles of `angles_deg`, and refuse others.

    Args:
        config: of the method.
        grid: of the result.
        network: all that is learned.
        pixels: of an X-ray on its plane, along each side.
        angles_deg: primary angles of the views, in the order in which the network has them; None for any views.
    """

    def __init__(
        self, config: OnePassConfig, grid: VolumeGrid, network: nn.Module, pixels: int, angles_deg: Angles | None
    ) -> None:
        super().__init__(config, grid)
        self.common, self.pixels, self.angles_deg = config, pixels, angles_deg
        self.coarse = grid.coarser(config.coarser)
        self.side_mm = _REACH * float(grid.size_mm.max())
        self.anatomy = Anatomy(config.anatomy, grid)
        self.network = network

    @abstractmethod
    def losses(self, batch: Batch, rng: torch.Generator, critic: nn.Module | None) -> Losses:
        """Return what the network learns from, `loss`, and its parts for the log.

        Args:
            batch: items of `prepare`.
            rng: of the CPU.
            critic: the network of `critic`.
        """

    @abstractmethod
    def preview(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return pictures of the first patient of a batch, for the log."""

    @abstractmethod
    def scene(self, seen: Batch, measured: Sequence[Tensor], radiograph: Radiograph, outside: Outside) -> Scene:
        """Return the patient, as the network would have it.

        Args:
            seen: X-rays as the network sees them, a batch of one.
            measured: their line integrals.
            radiograph: the same, about the origin.
            outside: as for `reconstruct`.
        """

    def critic(self) -> Critic | None:
        """Return the opponent in training, where there is one."""
        return None

    def shown(self, seen: Batch) -> Float[Tensor, "b v 3 4"]:
        """Return which pixel shows which point of the volume (`voxray.nets.lifting`)."""
        planes = [self.planes(one) for one in seen["sources_um"].cpu().numpy() / 1000]
        return pinholes(planes, self.grid).to(seen["images"])

    def planes(self, source_mm: FloatArray) -> ViewGeometry:
        """Return the planes that X-rays are brought onto, from sources (views, 3) about the origin."""
        return planes_of(source_mm, self.side_mm, self.pixels)

    # ---------------------------------------------------------------- training

    def stages(self) -> Sequence[AnyStage]:
        """Return: the anatomy around the volume, and the network."""
        critic = self.critic()

        def loss(batch: Batch, step: int, rng: torch.Generator) -> Losses:
            return self.losses(batch, rng, None if critic is None else critic.network)

        preparation = Preparation("planes", self.prepare, coarser=self.common.coarser)
        options = self.common.training
        network = GradientStage("network", self.network, preparation, loss, options, critic, self.preview)
        return [Stage("anatomy", self.anatomy.fit), network]

    def prepare(self, sample: TrainingSample) -> Item:
        """Return an item of a batch."""
        seen = self.seen([image[0] for image in sample.images], sample.views[0])
        return {"ct": to_unit_range(sample.hu[0]), **seen}

    def seen(self, images: Sequence[Float[Tensor, "_ _"]], views: ViewGeometry) -> Item:
        """Return line integrals of one patient as the network sees them.

        Raises:
            GeometryError: if the network was made for other angles.
        """
        if self.angles_deg is not None:
            order = order_of(views, self.angles_deg)
            images, views = [images[i] for i in order], views.subset(order)
        value = onto_planes(images, views, self.planes(views.source_mm))[:, 0]
        # Whole numbers are kept as they are: half precision would move the sources by metres.
        return {"images": value / WHITE, "sources_um": torch.from_numpy(np.rint(1000 * views.source_mm).astype(int))}

    # ---------------------------------------------------------------- inference

    @torch.no_grad()
    def reconstruct(
        self,
        radiograph: Radiograph,
        *,
        rng: torch.Generator,
        samples: int = 1,
        outside: Outside = "body",
        progress: Progress | None = None,
    ) -> Estimate:
        """Return the patient as the network would have it: one for any `samples`, as there is no chance in it."""
        config = self.common
        radiograph, centre_mm = about_isocentre(radiograph)
        measured, seen = self.read(radiograph, outside)
        steps = Steps(progress, 2)
        scene = self.scene(seen, measured, radiograph, outside)
        steps.done(1)
        if config.consistency is not None:
            noise = noise_of(radiograph, config.display_noise, config.consistency.noise)
            scene = self.anatomy.agree(scene, measured, radiograph.views, outside, config.consistency, noise)
        steps.done(1)
        agreed = None if config.consistency is None else config.consistency.model_dump(mode="json")
        return estimate_of_samples([scene], radiograph.views, centre_mm, 1, {"consistency": agreed})

    def read(self, radiograph: Radiograph, outside: Outside) -> tuple[list[Tensor], Batch]:
        """Return the line integrals of X-rays about the origin, and how the network sees them: a batch of one.

        Raises:
            GeometryError: if the network was made for other angles.
        """
        measured = line_integrals_of(radiograph, self.anatomy.scene(outside))
        seen = self.seen(measured, radiograph.views)
        return measured, {name: tensor[None] for name, tensor in seen.items()}


class OnePass(OnPlanes):
    """A network that draws the volume; a subclass says how, and by what it learns, if not by least squares."""

    @abstractmethod
    def draw(self, seen: Batch) -> Float[Tensor, "b z y x"]:
        """Return volumes of 0..1, on the network's grid; what is beyond is cut off later.

        Args:
            seen: X-rays of some patients on their planes: `images` (b, v, p, p), 0 to about 1, and `sources_um`.
        """

    def losses(self, batch: Batch, rng: torch.Generator, critic: nn.Module | None) -> Losses:
        """Return the mean squared error."""
        return {"loss": F.mse_loss(self.draw(batch).float(), batch["ct"])}

    def preview(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the middle of the truth, and of what is drawn."""
        one = {name: tensor[:1] for name, tensor in batch.items()}
        return {"truth": picture(one["ct"]), "drawn": picture(self.draw(one))}

    def scene(self, seen: Batch, measured: Sequence[Tensor], radiograph: Radiograph, outside: Outside) -> Scene:
        """Return the volume that is drawn, the mean anatomy around it."""
        with in_bf16(self.anatomy.mean):
            unit = self.draw(seen).float()
        if self.common.coarser > 1:
            unit = F.interpolate(unit[:, None], self.grid.shape, mode="trilinear")[:, 0]
        return replace(self.anatomy.scene(outside), mu=mu_from_unit(unit[0]))


def picture(volumes: Float[Tensor, "b z y x"]) -> Float[Tensor, "z x"]:
    """Return the middle coronal slice of the first volume, the head above."""
    return volumes[0, :, volumes.shape[2] // 2].flip(0).float().clamp(0, 1)


def side_of(name: str, grid: VolumeGrid, coarser: int, lowest: int) -> int:
    """Return how many voxels a network has along each axis of a cube.

    Args:
        name: of the method.
        grid: of the result.
        coarser: see `OnePassConfig`.
        lowest: voxels of the network, along an axis, that are one at its lowest level.

    Raises:
        RecipeError: if the grid is no cube, or does not halve as often.
    """
    shape = grid.shape
    if len(set(shape)) > 1 or shape[0] % (coarser * lowest):
        raise RecipeError(
            f"{name}'s grid is a cube with sides of a multiple of {coarser * lowest} voxels, not {shape}."
        )
    return shape[0] // coarser


def order_of(views: ViewGeometry, angles_deg: Angles) -> list[int]:
    """Return which view is that of each angle.

    Args:
        views: as many as angles.
        angles_deg: primary angles (`ViewGeometry.from_angles`), of views across the patient's long axis.

    Raises:
        GeometryError: if there is another number of views, or one is too far from its angle.
    """
    rays = views.isocentre() - views.source_mm
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    wanted = np.deg2rad(angles_deg)
    cosines = rays @ np.stack([np.sin(wanted), -np.cos(wanted), np.zeros_like(wanted)])
    order = cosines.argmax(0).tolist() if len(views) == len(angles_deg) else []
    if len(set(order)) < len(views) or cosines.max(0).min() < np.cos(np.deg2rad(_SERVED_DEG)):
        raise GeometryError(
            f"This model is made for one view within {_SERVED_DEG:g} degrees of each of the primary angles "
            f"{', '.join(f'{angle:g}' for angle in angles_deg)} (0: PA, 90: left lateral), not for these {len(views)}."
        )
    return [int(view) for view in order]
